"""The seven scenes of the toy world, as 128×128 RGB pictures drawn from a seeded random generator."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

SIZE = 128
OVERSAMPLE = 2

Colour = tuple[int, int, int]


class Canvas:
    """An oversampled RGB picture addressed in fractions of its side, with colours that vary a little per picture."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        self.side = SIZE * OVERSAMPLE
        self.image = Image.new("RGB", (self.side, self.side))
        self.draw = ImageDraw.Draw(self.image)
        self._tint = rng.normal(0, 4, 3)

    def tone(self, *colour: int) -> Colour:
        """Return `colour` with this picture's tint and a small random change."""
        changed = np.asarray(colour) + self._tint + self.rng.normal(0, 4, 3)
        return tuple(int(c) for c in changed.clip(0, 255))

    def gradient(self, top: float, bottom: float, above: Colour, below: Colour) -> None:
        """Fill the rows from `top` to `bottom` with a vertical colour gradient."""
        y0, y1 = round(top * self.side), round(bottom * self.side)
        t = np.linspace(0, 1, max(y1 - y0, 1))[:, None, None]
        rows = (1 - t) * np.asarray(above, float) + t * np.asarray(below, float)
        strip = np.broadcast_to(rows, (rows.shape[0], self.side, 3)).astype(np.uint8)
        self.image.paste(Image.fromarray(np.ascontiguousarray(strip)), (0, y0))

    def polygon(self, colour: Colour, *points: tuple[float, float]) -> None:
        """Fill a polygon given in fractions of the side."""
        self.draw.polygon([(x * self.side, y * self.side) for x, y in points], fill=colour)

    def ellipse(self, colour: Colour, cx: float, cy: float, rx: float, ry: float) -> None:
        """Fill an axis-parallel ellipse."""
        box = [(cx - rx) * self.side, (cy - ry) * self.side, (cx + rx) * self.side, (cy + ry) * self.side]
        self.draw.ellipse(box, fill=colour)

    def box(self, colour: Colour, x0: float, y0: float, x1: float, y1: float) -> None:
        """Fill a rectangle."""
        self.draw.rectangle([x0 * self.side, y0 * self.side, x1 * self.side, y1 * self.side], fill=colour)

    def wave(self, colour: Colour, base: float, height: float, periods: float) -> None:
        """Fill everything below a sine line around `base`."""
        phase = self.rng.uniform(0, 2 * np.pi)
        xs = np.linspace(0, 1, 40)
        ys = base + height * np.sin(2 * np.pi * periods * xs + phase)
        self.polygon(colour, *zip(xs, ys, strict=True), (1.0, 1.01), (0.0, 1.01))

    def finish(self) -> Image.Image:
        """Return the picture at its final size."""
        return self.image.resize((SIZE, SIZE), Image.Resampling.BOX)


def beach(c: Canvas) -> None:
    """Sky, sea, a foam line and sand."""
    horizon, shore = c.rng.uniform(0.30, 0.38), c.rng.uniform(0.50, 0.60)
    c.gradient(0, horizon, c.tone(120, 180, 240), c.tone(200, 230, 250))
    c.gradient(horizon, 1, c.tone(20, 100, 150), c.tone(50, 180, 190))
    c.wave(c.tone(248, 250, 248), shore - 0.02, 0.02, 1.0)
    c.wave(c.tone(236, 212, 150), shore + 0.02, 0.02, 1.0)


def forest(c: Canvas) -> None:
    """Trunks under a dark green canopy, on grass."""
    ground = c.rng.uniform(0.58, 0.66)
    c.gradient(0, ground, c.tone(24, 70, 40), c.tone(46, 104, 56))
    for x in np.linspace(0.04, 0.96, 6) + c.rng.uniform(-0.05, 0.05, 6):
        width = c.rng.uniform(0.025, 0.04)
        c.box(c.tone(92, 62, 40), x - width, 0.1, x + width, ground)
    for x in np.linspace(0, 1, 6) + c.rng.uniform(-0.06, 0.06, 6):
        c.ellipse(c.tone(40, 128, 52), x, c.rng.uniform(0.04, 0.16), 0.13, 0.13)
    c.gradient(ground, 1, c.tone(60, 122, 54), c.tone(84, 150, 66))


def desert(c: Canvas) -> None:
    """A warm sky with a low sun over sand dunes."""
    c.gradient(0, 0.55, c.tone(250, 176, 92), c.tone(254, 220, 160))
    c.ellipse((255, 246, 206), c.rng.uniform(0.15, 0.85), c.rng.uniform(0.12, 0.2), 0.075, 0.075)
    c.wave(c.tone(222, 150, 84), c.rng.uniform(0.46, 0.52), 0.04, 1.0)
    c.wave(c.tone(206, 128, 66), c.rng.uniform(0.62, 0.70), 0.04, 0.8)
    c.wave(c.tone(184, 106, 54), c.rng.uniform(0.84, 0.92), 0.03, 0.7)


def city(c: Canvas) -> None:
    """Towers with large lit windows behind a street."""
    ground = c.rng.uniform(0.66, 0.72)
    c.gradient(0, ground, c.tone(92, 84, 150), c.tone(190, 160, 200))
    x = -0.03
    while x < 1:
        width, top = c.rng.uniform(0.17, 0.24), c.rng.uniform(0.08, 0.36)
        c.box(c.tone(62, 58, 92), x, top, x + width - 0.015, ground)
        for wx in (x + 0.03, x + width - 0.09):
            for wy in np.arange(top + 0.05, ground - 0.08, 0.15):
                c.box(c.tone(248, 218, 120), wx, wy, wx + 0.05, wy + 0.075)
        x += width
    c.box(c.tone(160, 156, 160), 0, ground, 1, ground + 0.035)
    c.gradient(ground + 0.035, 1, c.tone(96, 94, 104), c.tone(80, 78, 88))


def highway(c: Canvas) -> None:
    """A grey road that runs to the horizon between green fields."""
    horizon = c.rng.uniform(0.34, 0.42)
    c.gradient(0, horizon, c.tone(126, 200, 246), c.tone(216, 240, 250))
    c.gradient(horizon, 1, c.tone(110, 190, 80), c.tone(84, 170, 62))
    x = c.rng.uniform(0.44, 0.56)
    c.polygon(c.tone(246, 214, 80), (x - 0.03, horizon), (x + 0.03, horizon), (1.03, 1), (-0.03, 1))
    c.polygon(c.tone(92, 92, 100), (x - 0.02, horizon), (x + 0.02, horizon), (0.97, 1), (0.03, 1))
    for near, far in ((0.50, 0.58), (0.68, 0.78), (0.88, 1.0)):
        y0, y1 = horizon + (1 - horizon) * (near - 0.4) / 0.6, horizon + (1 - horizon) * (far - 0.4) / 0.6
        w0, w1 = 0.035 * (near - 0.35), 0.035 * (far - 0.35)
        m0, m1 = x + (0.5 - x) * (near - 0.4) / 0.6, x + (0.5 - x) * (far - 0.4) / 0.6
        c.polygon((250, 250, 250), (m0 - w0, y0), (m0 + w0, y0), (m1 + w1, y1), (m1 - w1, y1))


def cloud(c: Canvas) -> None:
    """White clouds on a blue sky."""
    c.gradient(0, 1, c.tone(62, 130, 226), c.tone(150, 200, 250))
    for cx, cy in ((0.18, 0.16), (0.80, 0.24), (0.14, 0.66), (0.84, 0.74), (0.48, 0.94)):
        cx, cy = cx + c.rng.uniform(-0.08, 0.08), cy + c.rng.uniform(-0.05, 0.05)
        white = c.tone(246, 248, 252)
        c.ellipse(white, cx - 0.09, cy + 0.02, 0.09, 0.06)
        c.ellipse(white, cx, cy - 0.02, 0.11, 0.09)
        c.ellipse(white, cx + 0.10, cy + 0.02, 0.10, 0.065)


def runway(c: Canvas) -> None:
    """Dark tarmac with a dashed centre line and a striped threshold, seen from the side."""
    horizon = c.rng.uniform(0.24, 0.32)
    c.gradient(0, horizon, c.tone(196, 204, 214), c.tone(228, 230, 234))
    c.box(c.tone(96, 130, 84), 0, horizon, 1, horizon + 0.07)
    c.gradient(horizon + 0.07, 1, c.tone(70, 74, 80), c.tone(56, 58, 64))
    shift = c.rng.uniform(0, 0.2)
    for x in np.arange(-0.2, 1.0, 0.25):
        c.box((244, 244, 244), x + shift, horizon + 0.17, x + shift + 0.14, horizon + 0.20)
    for x in np.arange(-0.1, 1.0, 0.14):
        c.polygon(
            (244, 244, 244), (x + shift, 0.9), (x + shift + 0.06, 0.9), (x + shift + 0.05, 1), (x + shift - 0.02, 1)
        )


SCENES: dict[str, Callable[[Canvas], None]] = {
    f.__name__: f for f in (beach, forest, desert, city, highway, cloud, runway)
}


def draw_scene(name: str, rng: np.random.Generator) -> Image.Image:
    """Return a picture of the scene `name`, RGB, 128×128."""
    canvas = Canvas(rng)
    SCENES[name](canvas)
    return canvas.finish()

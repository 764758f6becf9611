"""The seven subjects of the toy world, drawn as polygons and ellipses in a unit square (x right, y down).

They face right.
"""

from collections.abc import Callable

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

Colour = tuple[int, int, int]
Point = tuple[float, float]

# One palette for every subject: colour says nothing about what is drawn, so a model has to learn the shapes.
PALETTE: dict[str, Colour] = {
    "brown": (150, 94, 52),
    "red": (208, 50, 46),
    "yellow": (242, 200, 56),
    "white": (240, 240, 242),
    "gray": (132, 138, 150),
    "blue": (58, 96, 200),
}
GLASS: Colour = (176, 222, 240)
DARK: Colour = (38, 36, 44)
OUTLINE: Colour = (24, 22, 28)


def shade(colour: Colour, factor: float) -> Colour:
    """Return `colour` darkened (factor < 1) or lightened towards white (factor > 1)."""
    if factor <= 1:
        return tuple(round(c * factor) for c in colour)
    return tuple(round(c + (255 - c) * (factor - 1)) for c in colour)


class Brush:
    """Draws in unit coordinates on a square RGBA canvas."""

    def __init__(self, size: int):
        self.size = size
        self.image = Image.new("RGBA", (size, size), (0, 0, 0, 0))
        self._draw = ImageDraw.Draw(self.image)

    def _points(self, points: list[Point]) -> list[Point]:
        return [(x * self.size, y * self.size) for x, y in points]

    def polygon(self, colour: Colour, *points: Point) -> None:
        """Fill a polygon."""
        self._draw.polygon(self._points(list(points)), fill=(*colour, 255))

    def ellipse(self, colour: Colour, cx: float, cy: float, rx: float, ry: float) -> None:
        """Fill an axis-parallel ellipse with centre (cx, cy) and half axes (rx, ry)."""
        box = self._points([(cx - rx, cy - ry), (cx + rx, cy + ry)])
        self._draw.ellipse([*box[0], *box[1]], fill=(*colour, 255))

    def box(self, colour: Colour, x0: float, y0: float, x1: float, y1: float, radius: float = 0.0) -> None:
        """Fill a rectangle with rounded corners."""
        box = self._points([(x0, y0), (x1, y1)])
        self._draw.rounded_rectangle([*box[0], *box[1]], radius * self.size, fill=(*colour, 255))

    def line(self, colour: Colour, width: float, *points: Point) -> None:
        """Draw a thick line with round joints and ends."""
        pixels = self._points(list(points))
        self._draw.line(pixels, fill=(*colour, 255), width=round(width * self.size), joint="curve")
        for x, y in points:
            self.ellipse(colour, x, y, width / 2, width / 2)


def dog(brush: Brush, colour: Colour) -> None:
    """A standing dog: level back, raised tail, square muzzle, hanging ear."""
    far, ear = shade(colour, 0.72), shade(colour, 0.55)
    brush.line(far, 0.10, (0.34, 0.62), (0.34, 0.93))
    brush.line(far, 0.10, (0.66, 0.62), (0.66, 0.93))
    brush.line(colour, 0.075, (0.20, 0.52), (0.09, 0.40), (0.08, 0.22))
    brush.box(colour, 0.15, 0.44, 0.75, 0.72, 0.12)
    brush.line(colour, 0.11, (0.22, 0.62), (0.22, 0.94))
    brush.line(colour, 0.11, (0.56, 0.62), (0.56, 0.94))
    brush.line(colour, 0.20, (0.66, 0.54), (0.72, 0.36))
    brush.ellipse(colour, 0.73, 0.30, 0.14, 0.13)
    brush.box(colour, 0.74, 0.28, 0.96, 0.42, 0.05)
    brush.ellipse(ear, 0.64, 0.33, 0.065, 0.14)
    brush.ellipse(DARK, 0.95, 0.30, 0.035, 0.03)
    brush.ellipse(DARK, 0.78, 0.26, 0.024, 0.028)


def cat(brush: Brush, colour: Colour) -> None:
    """A sitting cat seen from the front: two pointed ears, two eyes, tail to the left."""
    dark, light = shade(colour, 0.66), shade(colour, 1.5)
    brush.line(dark, 0.085, (0.36, 0.88), (0.15, 0.84), (0.10, 0.62), (0.17, 0.50))
    brush.ellipse(colour, 0.54, 0.74, 0.24, 0.25)
    brush.ellipse(light, 0.54, 0.76, 0.11, 0.16)
    brush.ellipse(colour, 0.42, 0.93, 0.10, 0.06)
    brush.ellipse(colour, 0.66, 0.93, 0.10, 0.06)
    brush.polygon(colour, (0.31, 0.36), (0.31, 0.03), (0.53, 0.22))
    brush.polygon(colour, (0.77, 0.36), (0.77, 0.03), (0.55, 0.22))
    brush.polygon(dark, (0.35, 0.26), (0.35, 0.12), (0.45, 0.21))
    brush.polygon(dark, (0.73, 0.26), (0.73, 0.12), (0.63, 0.21))
    brush.ellipse(colour, 0.54, 0.36, 0.25, 0.20)
    for x in (0.43, 0.65):
        brush.ellipse((120, 220, 110), x, 0.34, 0.055, 0.055)
        brush.ellipse(DARK, x, 0.34, 0.024, 0.05)
    brush.polygon(DARK, (0.50, 0.43), (0.58, 0.43), (0.54, 0.48))


def horse(brush: Brush, colour: Colour) -> None:
    """A standing horse: long legs, long raised neck with a mane, hanging tail."""
    far, hair = shade(colour, 0.72), shade(colour, 0.42)
    brush.line(far, 0.075, (0.32, 0.55), (0.33, 0.94))
    brush.line(far, 0.075, (0.60, 0.55), (0.61, 0.94))
    brush.line(hair, 0.085, (0.19, 0.42), (0.09, 0.52), (0.07, 0.76))
    brush.box(colour, 0.15, 0.36, 0.70, 0.60, 0.11)
    brush.line(colour, 0.085, (0.22, 0.52), (0.22, 0.95))
    brush.line(colour, 0.085, (0.51, 0.52), (0.51, 0.95))
    brush.polygon(colour, (0.52, 0.40), (0.70, 0.52), (0.86, 0.20), (0.74, 0.07))
    brush.line(hair, 0.075, (0.54, 0.36), (0.64, 0.20), (0.72, 0.07))
    brush.line(colour, 0.125, (0.79, 0.14), (0.93, 0.31))
    brush.polygon(colour, (0.74, 0.10), (0.78, 0.00), (0.83, 0.10))
    brush.ellipse(DARK, 0.82, 0.15, 0.022, 0.024)


def elephant(brush: Brush, colour: Colour) -> None:
    """A standing elephant: round back, thick legs, big ear, trunk and a white tusk."""
    far, ear = shade(colour, 0.70), shade(colour, 0.78)
    brush.line(far, 0.14, (0.33, 0.68), (0.33, 0.91))
    brush.line(far, 0.14, (0.60, 0.68), (0.60, 0.91))
    brush.ellipse(colour, 0.38, 0.47, 0.33, 0.29)
    brush.box(colour, 0.11, 0.52, 0.27, 0.97, 0.05)
    brush.box(colour, 0.42, 0.52, 0.58, 0.97, 0.05)
    brush.ellipse(colour, 0.73, 0.38, 0.17, 0.19)
    brush.line(colour, 0.115, (0.83, 0.42), (0.89, 0.58), (0.89, 0.76))
    brush.line(colour, 0.085, (0.89, 0.76), (0.94, 0.84))
    brush.line((250, 248, 236), 0.055, (0.78, 0.55), (0.77, 0.66))
    brush.ellipse(OUTLINE, 0.60, 0.40, 0.155, 0.205)
    brush.ellipse(ear, 0.60, 0.40, 0.135, 0.185)
    brush.ellipse(DARK, 0.80, 0.33, 0.024, 0.028)


def _wheel(brush: Brush, x: float, y: float, radius: float) -> None:
    brush.ellipse(DARK, x, y, radius, radius)
    brush.ellipse((210, 210, 214), x, y, radius * 0.5, radius * 0.5)


def car(brush: Brush, colour: Colour) -> None:
    """A low car: cabin with two windows, two large wheels."""
    brush.polygon(colour, (0.20, 0.56), (0.33, 0.34), (0.64, 0.34), (0.80, 0.56))
    brush.box(colour, 0.03, 0.53, 0.97, 0.78, 0.08)
    brush.polygon(GLASS, (0.28, 0.54), (0.37, 0.39), (0.47, 0.39), (0.47, 0.54))
    brush.polygon(GLASS, (0.52, 0.54), (0.52, 0.39), (0.61, 0.39), (0.71, 0.54))
    brush.box(shade(colour, 0.7), 0.05, 0.69, 0.95, 0.78, 0.04)
    brush.ellipse((255, 244, 170), 0.93, 0.60, 0.035, 0.04)
    _wheel(brush, 0.25, 0.79, 0.125)
    _wheel(brush, 0.75, 0.79, 0.125)


def bus(brush: Brush, colour: Colour) -> None:
    """A tall long bus: a row of square windows, a stripe, two small wheels."""
    brush.box(colour, 0.02, 0.22, 0.98, 0.84, 0.06)
    brush.box(shade(colour, 0.66), 0.02, 0.62, 0.98, 0.70)
    for x in (0.07, 0.26, 0.45, 0.64):
        brush.box(GLASS, x, 0.30, x + 0.14, 0.54)
    brush.box(GLASS, 0.84, 0.30, 0.96, 0.60)
    _wheel(brush, 0.23, 0.85, 0.10)
    _wheel(brush, 0.75, 0.85, 0.10)


def airplane(brush: Brush, colour: Colour) -> None:
    """An airplane from the side: slim body with a nose, upright tail fin, swept wing in front and behind."""
    wing = shade(colour, 0.66)
    brush.polygon(wing, (0.44, 0.46), (0.34, 0.16), (0.46, 0.16), (0.66, 0.46))
    brush.polygon(wing, (0.04, 0.44), (0.02, 0.18), (0.13, 0.18), (0.28, 0.44))
    brush.polygon(colour, (0.03, 0.42), (0.16, 0.40), (0.80, 0.40), (0.80, 0.60), (0.24, 0.60))
    brush.ellipse(colour, 0.80, 0.50, 0.18, 0.10)
    brush.polygon(GLASS, (0.84, 0.42), (0.94, 0.47), (0.84, 0.49))
    for x in (0.30, 0.43, 0.56, 0.69):
        brush.ellipse(DARK, x, 0.475, 0.030, 0.030)
    brush.polygon(wing, (0.40, 0.54), (0.64, 0.54), (0.40, 0.88), (0.27, 0.88))


SUBJECTS: dict[str, Callable[[Brush, Colour], None]] = {
    f.__name__: f for f in (dog, cat, horse, elephant, car, bus, airplane)
}


# Points that can be found again in another picture of the same subject, in the unit square of its drawing.
LANDMARKS: dict[str, dict[str, Point]] = {
    "dog": {"eye": (0.78, 0.26), "nose": (0.95, 0.30), "ear": (0.64, 0.33), "tail": (0.08, 0.22), "paw": (0.56, 0.94)},
    "cat": {"eye": (0.65, 0.34), "nose": (0.54, 0.45), "ear": (0.77, 0.08), "tail": (0.17, 0.50), "paw": (0.66, 0.93)},
    "horse": {"eye": (0.82, 0.15), "nose": (0.93, 0.31), "tail": (0.07, 0.76), "paw": (0.51, 0.95)},
    "elephant": {"eye": (0.80, 0.33), "nose": (0.94, 0.84), "ear": (0.60, 0.40), "paw": (0.50, 0.94)},
    "car": {"front wheel": (0.75, 0.79), "rear wheel": (0.25, 0.79), "lamp": (0.93, 0.60), "window": (0.42, 0.48)},
    "bus": {
        "front wheel": (0.75, 0.85),
        "rear wheel": (0.23, 0.85),
        "window": (0.33, 0.42),
        "door": (0.90, 0.45),
    },
    "airplane": {"nose": (0.96, 0.50), "tail": (0.07, 0.20), "window": (0.69, 0.475), "wing tip": (0.34, 0.86)},
}
RIM = 2  # final pixels around the unit square, which the outline needs


def landmark(name: str, point: str, pixels: int, mirrored: bool = False) -> Point:
    """Where a landmark lies in the picture that `draw_subject` makes, in pixels (x, y) from its top left corner."""
    x, y = LANDMARKS[name][point]
    side = pixels - 2 * RIM
    return RIM + (1 - x if mirrored else x) * side, RIM + y * side


def draw_subject(name: str, colour: Colour, pixels: int, oversample: int = 3, mirrored: bool = False) -> Image.Image:
    """Return `name` in `colour` as an RGBA picture of `pixels` × `pixels`, with a dark outline that belongs to it.

    mirrored: facing left.
    """
    brush = Brush(pixels * oversample)
    SUBJECTS[name](brush, colour)
    margin = RIM * oversample
    inner = Image.new("RGBA", brush.image.size, (0, 0, 0, 0))
    size = brush.size - 2 * margin
    inner.paste(brush.image.resize((size, size), Image.Resampling.NEAREST), (margin, margin))
    alpha = inner.getchannel("A")
    rim = alpha.filter(ImageFilter.MaxFilter(2 * oversample - 1))
    outlined = Image.new("RGBA", inner.size, (*OUTLINE, 0))
    outlined.putalpha(rim)
    outlined.paste(inner, (0, 0), alpha)
    outlined.putalpha(ImageChops.lighter(rim, alpha))
    drawn = outlined.resize((pixels, pixels), Image.Resampling.BOX)
    return ImageOps.mirror(drawn) if mirrored else drawn

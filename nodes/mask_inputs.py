"""The inputs that nodes which make masks share."""

from __future__ import annotations

from comfy_api.latest import io

from .core.maps.masks import COMBINATIONS, FILTERED, FLAT_MAPS, RULES, Shaping


def shaping_inputs(defaults: Shaping) -> list[io.Input]:
    """The inputs that say which words count and how their maps become a mask."""
    role = io.Combo.Input(
        "role",
        options=["subject", "scene", "all"],
        default="subject",
        tooltip="Which of the words count: the subjects, the scene, or all of them.",
    )
    combine = io.Combo.Input(
        "combine",
        options=list(COMBINATIONS),
        default=defaults.combine,
        tooltip="Several words: sum adds their maps before the threshold (published), union and intersection join "
        "their masks.",
        advanced=True,
    )
    invert = io.Boolean.Input("invert", default=False, tooltip="Exchange inside and outside.", advanced=True)
    return [role, *threshold_inputs(defaults), combine, invert, *filter_inputs(defaults)]


def threshold_inputs(defaults: Shaping) -> list[io.Input]:
    """Where a map is cut into inside and outside."""
    return [
        io.Combo.Input(
            "rule",
            options=list(RULES),
            default=defaults.rule,
            tooltip="What counts as looked at. mean: more than the map's mean (aggregated attention). log-mean: more "
            "than the geometric mean times e^value (scene-based). mean + k·std: k is value (Abs-Grad-SAM). quantile: "
            "the share of the latent, from 0 to 1, that stays out. otsu: the level that parts the map best.",
        ),
        io.Float.Input(
            "value",
            default=defaults.value,
            min=-10.0,
            max=10.0,
            step=0.01,
            tooltip="λ of log-mean (published: 0.2), k of mean + k·std (published: 0.5) or the quantile. A larger "
            "value makes a smaller mask. mean and otsu do not use it.",
        ),
    ]


def flat_map_input() -> io.Input:
    """What becomes of a map that cannot be cut; it stands behind all other inputs of a node."""
    return io.Combo.Input(
        "flat_map",
        options=list(FLAT_MAPS),
        default=FLAT_MAPS[0],
        optional=True,
        tooltip="A map that is the same everywhere (a word or latent channel without effect) has no part above a "
        "threshold. error: stop. all in, all out: it lies above or below as a whole, before invert.",
        advanced=True,
    )


def filter_inputs(defaults: Shaping) -> list[io.Input]:
    """What is done to a map before it is cut."""
    return [
        io.Float.Input(
            "smooth_sigma",
            default=defaults.sigma,
            min=0.0,
            max=64.0,
            step=0.1,
            tooltip="Gaussian smoothing of the map before the threshold: standard deviation in latent pixels (8 "
            "picture pixels each). 0 is off; the paper uses 6.",
            advanced=True,
        ),
        io.Int.Input(
            "smooth_size",
            default=defaults.size,
            min=1,
            max=63,
            step=2,
            tooltip="Width of the smoothing window in latent pixels, odd. The paper uses 3.",
            advanced=True,
        ),
        io.Int.Input(
            "dilate_size",
            default=defaults.dilation,
            min=1,
            max=63,
            step=2,
            tooltip="Width of the square that dilation grows bright parts by, in latent pixels, odd. The paper uses 3.",
            advanced=True,
        ),
        io.Int.Input(
            "dilate_iterations",
            default=defaults.iterations,
            min=0,
            max=64,
            tooltip="How often to dilate. 0 is off; the paper uses 3. More makes a larger mask.",
            advanced=True,
        ),
    ]


def order_input() -> io.Input:
    """Whether maps are smoothed and dilated, or masks. It came later, so it stands behind all other inputs."""
    return io.Combo.Input(
        "smooth_and_dilate",
        options=list(FILTERED),
        default=FILTERED[0],
        tooltip="Smooth and dilate the maps before the threshold divides them, or the mask that comes out of it, as "
        "the paper describes it; the mask then has a soft edge.",
        optional=True,
        advanced=True,
    )

"""The inputs that nodes which make masks share: which words, the threshold, and what is done before and after it."""

from __future__ import annotations

from comfy_api.latest import io

from .core.maps.masks import COMBINATIONS, FILTER_ORDERS, Shaping
from .core.maps.parts import EVERY, KEPT_PARTS
from .core.maps.thresholds import FLAT_MAPS, RULES


def shaping_inputs(defaults: Shaping) -> list[io.Input]:
    """Which words a mask is made from, and how their maps become a mask."""
    role = io.Combo.Input(
        "role",
        options=["subject", "scene", "all"],
        default="subject",
        tooltip="The words that the mask is made from: the subjects, the scene, or all of them.",
    )
    combine = io.Combo.Input(
        "combine",
        options=list(COMBINATIONS),
        default=defaults.combine,
        tooltip="Several words: sum adds their maps before the threshold (aggregated attention); union (Abs-Grad-SAM) "
        "and intersection join the masks of the words.",
        advanced=True,
    )
    invert = io.Boolean.Input("invert", default=False, tooltip="Exchange inside and outside.", advanced=True)
    return [role, *threshold_inputs(defaults), combine, invert, *filter_inputs(defaults)]


def threshold_inputs(defaults: Shaping) -> list[io.Input]:
    """The threshold that separates a map into inside and outside."""
    return [
        io.Combo.Input(
            "rule",
            options=list(RULES),
            default=defaults.rule,
            tooltip="The threshold above which a place is inside the mask. mean: the map's mean (aggregated "
            "attention). log-mean: its geometric mean times e^value (scene-based). mean + k·std: k is value "
            "(Abs-Grad-SAM). quantile: value, from 0 to 1, is the share of the latent that stays outside. otsu: the "
            "threshold that best separates bright from dark. of maximum: that share of the map's maximum. min-max: "
            "that share of the way from its least value to its largest. mean × factor: value times the mean.",
        ),
        io.Float.Input(
            "value",
            default=defaults.value,
            min=-10.0,
            max=10.0,
            step=0.01,
            tooltip="λ of log-mean (scene-based: 0.2), k of mean + k·std (Abs-Grad-SAM: 0.5), the quantile or share (0 "
            "to 1), or the factor. A larger value makes a smaller mask. mean and otsu do not use it.",
        ),
    ]


def flat_map_input() -> io.Input:
    """What to do with a map that is the same everywhere. Added later, so it comes after a node's earlier inputs."""
    return io.Combo.Input(
        "flat_map",
        options=list(FLAT_MAPS),
        default=FLAT_MAPS[0],
        optional=True,
        tooltip="What to do with a map that is the same everywhere (a word or latent channel without effect), in which "
        "no threshold separates anything. error: stop. all in, all out: everything is inside, or outside, before "
        "invert.",
        advanced=True,
    )


def filter_inputs(defaults: Shaping) -> list[io.Input]:
    """Smoothing and dilation."""
    return [
        io.Float.Input(
            "smooth_sigma",
            default=defaults.smooth_sigma,
            min=0.0,
            max=64.0,
            step=0.1,
            tooltip="Gaussian smoothing of the map before the threshold: standard deviation in latent pixels (8 "
            "picture pixels each). 0 is off; the Abs-Grad-SAM code uses 6.",
            advanced=True,
        ),
        io.Int.Input(
            "smooth_size",
            default=defaults.smooth_size,
            min=1,
            max=63,
            step=2,
            tooltip="Width of the smoothing window in latent pixels, odd. The Abs-Grad-SAM code uses 3.",
            advanced=True,
        ),
        io.Int.Input(
            "dilate_size",
            default=defaults.dilate_size,
            min=1,
            max=63,
            step=2,
            tooltip="Dilation: width in latent pixels, odd, of the square by which bright parts grow. The Abs-Grad-SAM "
            "code uses 3.",
            advanced=True,
        ),
        io.Int.Input(
            "dilate_iterations",
            default=defaults.dilate_iterations,
            min=0,
            max=64,
            tooltip="How many times to dilate. More makes a larger mask; 0 is off. The Abs-Grad-SAM code uses 3.",
            advanced=True,
        ),
    ]


def order_input() -> io.Input:
    """Whether maps or masks are smoothed and dilated. Added later, so it comes after a node's earlier inputs."""
    return io.Combo.Input(
        "smooth_and_dilate",
        options=list(FILTER_ORDERS),
        default=FILTER_ORDERS[0],
        tooltip="What is smoothed and dilated. before the threshold: the maps. after the threshold: the mask, as the "
        "Abs-Grad-SAM paper describes it; its edge is then soft.",
        optional=True,
        advanced=True,
    )


def parts_inputs() -> list[io.Input]:
    """Which connected parts of the mask are kept. Added later, so they come after a node's earlier inputs."""
    return [
        io.Combo.Input(
            "parts",
            options=list(KEPT_PARTS),
            default=EVERY,
            tooltip="Which connected parts of what the threshold leaves inside are kept. largest: the part_count "
            "largest ones. touching points: those at any of the points.",
            optional=True,
            advanced=True,
        ),
        io.Int.Input(
            "part_count",
            default=1,
            min=1,
            max=64,
            tooltip="How many parts largest keeps.",
            optional=True,
            advanced=True,
        ),
        io.String.Input(
            "points",
            default="",
            tooltip="The points of touching points, in picture pixels from the top left corner: [[x, y], ...], or the "
            'form of other nodes, [{"x": 10, "y": 20}, ...].',
            optional=True,
            advanced=True,
        ),
        io.Boolean.Input(
            "fill_holes",
            default=False,
            tooltip="Make what the mask surrounds inside too.",
            optional=True,
            advanced=True,
        ),
    ]

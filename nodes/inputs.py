"""The inputs that several nodes share: the same name, range, default and help everywhere."""

from __future__ import annotations

from comfy_api.latest import io

from .core.attention.aggregate import RESIZE_MODES
from .core.attention.refine import MOST_POWERS
from .core.maps.masks import COMBINATIONS, FILTER_ORDERS, Shaping
from .core.maps.thresholds import FLAT_MAPS, RULES
from .core.methods.masked_latent import CACHED, CURRENT, KEEP, POLICIES, PUBLISHED_SHARES
from .host.attention.observer import SHARES
from .sockets import Masking


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
            "threshold that best separates bright from dark.",
        ),
        io.Float.Input(
            "value",
            default=defaults.value,
            min=-10.0,
            max=10.0,
            step=0.01,
            tooltip="λ of log-mean (scene-based: 0.2), k of mean + k·std (Abs-Grad-SAM: 0.5), or the quantile (0 to "
            "1). A larger value makes a smaller mask. mean and otsu do not use it.",
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


def seed_input(tooltip: str) -> io.Input:
    """The seed of some noise, with ComfyUI's control for a new one after each run."""
    return io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True, tooltip=tooltip)


def prompt_input() -> io.Input:
    """The subjects' prompt, for nodes whose masks or maps come from a sampler's own model calls."""
    return io.Conditioning.Input(
        "positive",
        optional=True,
        advanced=True,
        tooltip="Needed only if several different prompts are combined, or another node gives parts of the picture "
        "prompts of their own (Attention Couple): the conditioning of the prompt that the subjects come from. Without "
        "it, the first positive prompt is used.",
    )


def region_input() -> io.Input:
    """The subjects' prompt, for nodes that call the model themselves and have `positive` for the whole picture."""
    return io.Conditioning.Input(
        "region",
        optional=True,
        advanced=True,
        tooltip="Needed only if another node gives parts of the picture prompts of their own (Attention Couple): the "
        "conditioning of the region that the subjects come from.",
    )


def reading_inputs() -> list[io.Input]:
    """How attention is read from the model's layers."""
    return [
        io.String.Input(
            "layers",
            default="all",
            advanced=True,
            tooltip="The cross-attention layers to read: all (as in the paper), last, grids (16x16, height x width) or "
            "names (output, output.5), separated by commas.",
        ),
        io.Combo.Input(
            "resize",
            options=list(RESIZE_MODES),
            default=RESIZE_MODES[0],
            advanced=True,
            tooltip="How coarser layers are enlarged to the latent's grid: nearest (as in the paper's code) or "
            "bilinear (smoother).",
        ),
        io.Combo.Input(
            "share",
            options=list(SHARES),
            default=SHARES[0],
            advanced=True,
            tooltip="What a word's attention is a share of. all tokens (as in the paper): all attention, most of which "
            "goes to the begin-of-text token. prompt words: the attention to the prompt's own tokens.",
        ),
    ]


def refine_input() -> io.Input:
    """How often maps are sharpened. Added later, so it comes after a node's earlier inputs."""
    return io.Int.Input(
        "refine",
        default=0,
        min=0,
        max=MOST_POWERS,
        optional=True,
        advanced=True,
        tooltip="How many times to sharpen the maps with the model's own self-attention, so that each fills its thing "
        "up to the outline. 0 is off (as in the paper). 1 works best with the rule otsu, 2 with mean; more spreads the "
        "maps further.",
    )


def plan_inputs() -> list[io.Input]:
    """Where, at which steps and with what the latent is replaced."""
    return [
        Masking.Input(
            "masking",
            tooltip="How to find the mask: from Mask from Attention, Mask from Abs-Grad-SAM or Mask from Image.",
        ),
        io.String.Input(
            "manipulate_at",
            default=PUBLISHED_SHARES,
            tooltip="At which steps the latent is replaced, before the model sees it: shares of the run (15%), step "
            "numbers (5, 18, 28) or ranges (2-4), counted from 0 among the steps that are run. 100%, or the number of "
            "steps itself, is the finished latent. The papers' code: 5, 18, 28 of 35 steps; scene-based: 2, 4.",
        ),
        io.Combo.Input(
            "inside",
            options=list(POLICIES),
            default=KEEP,
            tooltip="What fills the inside of the mask. keep: the latent stays. reference: the reference at the step's "
            "noise level. cached reference: the reference at a fixed noise level.",
        ),
        io.Combo.Input(
            "outside",
            options=list(POLICIES),
            default=CURRENT,
            tooltip="What fills the outside of the mask; the choices are those of inside.",
        ),
        io.Int.Input(
            "inside_timestep",
            default=680,
            min=0,
            max=998,
            tooltip=f"Noise level of '{CACHED}' inside the mask: training timestep, 0 clean to 998 noise. "
            "The scene-based code uses 680.",
            advanced=True,
        ),
        io.Int.Input(
            "outside_timestep",
            default=80,
            min=0,
            max=998,
            tooltip=f"Noise level of '{CACHED}' outside the mask: training timestep, 0 clean to 998 noise. "
            "Scene-based: 80.",
            advanced=True,
        ),
    ]

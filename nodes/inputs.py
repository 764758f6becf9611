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
    """Which words count and how their maps become a mask."""
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
            default=defaults.smooth_sigma,
            min=0.0,
            max=64.0,
            step=0.1,
            tooltip="Gaussian smoothing of the map before the threshold: standard deviation in latent pixels (8 "
            "picture pixels each). 0 is off; the paper uses 6.",
            advanced=True,
        ),
        io.Int.Input(
            "smooth_size",
            default=defaults.smooth_size,
            min=1,
            max=63,
            step=2,
            tooltip="Width of the smoothing window in latent pixels, odd. The paper uses 3.",
            advanced=True,
        ),
        io.Int.Input(
            "dilate_size",
            default=defaults.dilate_size,
            min=1,
            max=63,
            step=2,
            tooltip="Width of the square that dilation grows bright parts by, in latent pixels, odd. The paper uses 3.",
            advanced=True,
        ),
        io.Int.Input(
            "dilate_iterations",
            default=defaults.dilate_iterations,
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
        options=list(FILTER_ORDERS),
        default=FILTER_ORDERS[0],
        tooltip="Smooth and dilate the maps before the threshold divides them, or the mask that comes out of it, as "
        "the paper describes it; the mask then has a soft edge.",
        optional=True,
        advanced=True,
    )


def seed_input(tooltip: str) -> io.Input:
    """The seed of some noise, with the host's button for a new one after each run."""
    return io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True, tooltip=tooltip)


def prompt_input() -> io.Input:
    """For nodes that watch a sampler, which has the prompts."""
    return io.Conditioning.Input(
        "positive",
        optional=True,
        advanced=True,
        tooltip="Only where several different prompts are combined, or another node gives parts of the picture prompts "
        "of their own (Attention Couple): the conditioning of the prompt that the subjects come from. Without it the "
        "first positive prompt counts.",
    )


def region_input() -> io.Input:
    """For nodes that call the model themselves, with a prompt."""
    return io.Conditioning.Input(
        "region",
        optional=True,
        advanced=True,
        tooltip="Only where another node gives parts of the picture prompts of their own (Attention Couple): the "
        "conditioning of the region that the subjects come from.",
    )


def reading_inputs() -> list[io.Input]:
    """How attention is read from the model's layers."""
    return [
        io.String.Input(
            "layers",
            default="all",
            advanced=True,
            tooltip="Cross-attention layers that count: all (as published), last, grids (16x16, height x width) or "
            "names (output, output.5), separated by commas.",
        ),
        io.Combo.Input(
            "resize",
            options=list(RESIZE_MODES),
            default=RESIZE_MODES[0],
            advanced=True,
            tooltip="How the coarser layers are brought to the latent's grid: nearest (as published) or bilinear "
            "(smoother).",
        ),
        io.Combo.Input(
            "share",
            options=list(SHARES),
            default=SHARES[0],
            advanced=True,
            tooltip="Share of what. all tokens: the plain probability (as published), where the begin-of-text token "
            "takes most. prompt words: renormalised over the prompt's own tokens.",
        ),
    ]


def refine_input() -> io.Input:
    """Whether maps are sharpened. It came later, so it stands behind all other inputs."""
    return io.Int.Input(
        "refine",
        default=0,
        min=0,
        max=MOST_POWERS,
        optional=True,
        advanced=True,
        tooltip="Sharpen the maps by the model's own self-attention, so that they fill the things they lie on. 0 is "
        "off (as in the paper). 1 works best with the rule otsu, 2 with mean; more spreads the maps further.",
    )


def plan_inputs() -> list[io.Input]:
    """Where, when and by what the latent is replaced."""
    return [
        Masking.Input("masking", tooltip="How the mask is found, from a Mask from ... node."),
        io.String.Input(
            "manipulate_at",
            default=PUBLISHED_SHARES,
            tooltip="Steps whose state is replaced before the model sees it: shares of the run (15%), numbers "
            "(5, 18, 28) or ranges (2-4), counted from 0 among the steps that are run. 100%, or the number of steps "
            "itself, stands for the finished latent. Published: 5, 18, 28 of 35 steps.",
        ),
        io.Combo.Input(
            "inside",
            options=list(POLICIES),
            default=KEEP,
            tooltip="What fills the mask. keep: the latent stays. reference: the reference at the step's "
            "noise level. cached reference: the reference at a fixed noise level.",
        ),
        io.Combo.Input(
            "outside",
            options=list(POLICIES),
            default=CURRENT,
            tooltip="What fills the rest; choices as for inside.",
        ),
        io.Int.Input(
            "inside_timestep",
            default=680,
            min=0,
            max=998,
            tooltip=f"Noise level of '{CACHED}' inside the mask: training timestep, 0 clean to 998 noise. "
            f"Published: 680.",
            advanced=True,
        ),
        io.Int.Input(
            "outside_timestep",
            default=80,
            min=0,
            max=998,
            tooltip=f"Noise level of '{CACHED}' outside the mask: training timestep, 0 clean to 998 noise. "
            f"Published: 80.",
            advanced=True,
        ),
    ]

"""The inputs that several nodes share: the same name, range, default and help everywhere."""

from __future__ import annotations

from comfy_api.latest import io

from .core.attention.aggregate import RESIZE_MODES
from .core.attention.looked_for import READINGS
from .core.attention.output_space import SPACES
from .core.attention.probabilities import SHARES
from .core.attention.refine import AUTO, MOST_POWERS
from .core.methods.masked_latent import CACHED, CURRENT, KEEP, POLICIES, PUBLISHED_SHARES
from .sockets import Masking, Trajectory


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
            default=AUTO,
            advanced=True,
            tooltip="The layers to read words from: auto (all cross-attention as in the paper; of joint attention the "
            "later half of the first kind of blocks), all, last, grids (16x16, height x width), names (output.5, "
            "double.3, single) or ranges (double.8-18; 8-18 counts all layers), separated by commas.",
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
            options=[AUTO, *SHARES],
            default=AUTO,
            advanced=True,
            tooltip="What a word's attention is a share of. all tokens (as in the paper): all attention, most of which "
            "goes to the begin-of-text token, or, in joint attention, to the picture itself. all text: the attention "
            "to all tokens of the text. prompt words: the attention to the prompt's own tokens. auto: all tokens for "
            "SD 1.x, SD 2.x, SDXL and other cross-attention, all text for joint attention.",
        ),
    ]


def refine_inputs() -> list[io.Input]:
    """How often maps are sharpened, and by what. Added later, so they come after a node's earlier inputs."""
    return [
        io.Int.Input(
            "refine",
            default=0,
            min=0,
            max=MOST_POWERS,
            optional=True,
            advanced=True,
            tooltip="How many times to sharpen the maps with the model's own self-attention, so that each fills its "
            "thing up to the outline. 0 is off (as in the paper). 1 works best with the rule otsu, 2 with mean; more "
            "spreads the maps further. All powers from 0 are kept for the inspector's slider, in refine + 1 times the "
            "memory.",
        ),
        io.String.Input(
            "refine_layers",
            default=AUTO,
            optional=True,
            advanced=True,
            tooltip="The self-attention layers that refine uses: auto (the last three of the decoder on its finest "
            "grid), all, last, grids (32x32, height x width) or names (output.9), separated by commas. Fine grids "
            "follow outlines, and cost more.",
        ),
    ]


def look_for_inputs() -> list[io.Input]:
    """Words that need not be in the prompt. Added later, so they come after a node's earlier inputs."""
    return [
        io.Clip.Input(
            "clip",
            optional=True,
            tooltip="Needed only with look_for, to encode its words: the CLIP that also encodes the prompt.",
        ),
        io.String.Input(
            "look_for",
            default="",
            optional=True,
            tooltip="Words or phrases, separated by commas, to make maps of although they need not be in the prompt: "
            "cat, blue sky. Each is encoded by itself; one that stands in the prompt is read there.",
        ),
        io.Combo.Input(
            "reading",
            options=list(READINGS),
            default=READINGS[0],
            optional=True,
            advanced=True,
            tooltip="How the words of look_for are read. softmax: the attention a word would get if it were added to "
            "the prompt, comparable with the other maps. scores: how well the picture agrees with the word, before "
            "the softmax (OVAM); the prompt's words do not matter.",
        ),
    ]


def later_inputs() -> list[io.Input]:
    """A second way to read joint attention, and maps of words without a role. Added later, so they come last."""
    return [
        io.Combo.Input(
            "space",
            options=list(SPACES),
            default=SPACES[0],
            optional=True,
            advanced=True,
            tooltip="What is read from each layer. attention: how much every place attends to the word. output: how "
            "alike place and word are in what the attention puts out (ConceptAttention); only for models whose text "
            "and picture share one attention, such as Flux.1 and Qwen-Image.",
        ),
        io.Boolean.Input(
            "all_words",
            default=False,
            optional=True,
            advanced=True,
            tooltip="Make maps of all words of the prompt, not only of the subjects and the scene: to see where each "
            "of them is looked for. Every word costs as much memory as a subject: one map per step and one per layer.",
        ),
    ]


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
            "noise level. cached reference: the reference at a fixed noise level. recorded path: the picture on the "
            "way that Invert Picture recorded (DiffEdit); the run then also starts from it.",
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


def trajectory_input() -> io.Input:
    """The path of an inversion. Added later, so it comes after a node's earlier inputs."""
    return Trajectory.Input(
        "trajectory",
        optional=True,
        tooltip="Only for 'recorded path': from Invert Picture, with the steps, scheduler and denoise of the sampler.",
    )

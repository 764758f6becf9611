"""Prompt-to-Prompt, Twin Sampling: a picture that takes over attention of another one, which is sampled beside it."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from .core.methods.prompt_to_prompt import Window
from .editing_inputs import editors_before, editors_output, path_input, share_input
from .host.editing.local_blend import LocalBlend
from .host.editing.paths import PATHS
from .host.editing.prompt_to_prompt import prompt_to_prompt
from .host.editing.twin_sampling import Twin
from .host.editing.word_tables import AUTO, WAYS
from .host.ui.running_node import show_on_running_node
from .sockets import CATEGORY, Editor, Masking, Trajectory


class ELPromptToPrompt(io.ComfyNode):
    """Describes how a target prompt's picture takes over a source prompt's attention."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELPromptToPrompt",
            display_name="Prompt-to-Prompt",
            category=CATEGORY,
            description="Change words of a prompt and keep the composition of its picture: in the first part of the "
            "run the new picture looks at its words where the old one did. Exchange words, add words, or weigh them. "
            "For Twin Sampling (model patch); SD 1.x, SD 2.x and SDXL.",
            search_aliases=["p2p", "edit by prompt", "attention replace", "word swap", "re-weight", "prompt editing"],
            inputs=[
                io.Clip.Input("clip", tooltip="The CLIP that encodes both prompts."),
                io.String.Input(
                    "source_text",
                    multiline=True,
                    tooltip="The prompt of the picture that is edited; the same text as in its CLIP Text Encode.",
                ),
                io.String.Input(
                    "target_text",
                    multiline=True,
                    tooltip="The prompt with the words changed; the same text as in the CLIP Text Encode of the "
                    "sampler's positive prompt.",
                ),
                io.Combo.Input(
                    "words",
                    options=list(WAYS),
                    default=AUTO,
                    tooltip="Which words stand for which. swap: one for one, in their order. refine: those that both "
                    "prompts have; new words are their own. auto: swap where there are as many words, else refine.",
                ),
                share_input(
                    "cross_end",
                    0.8,
                    "Until which share of the steps the words' attention is taken over (paper: 0.8). Less lets the "
                    "new words change more; 0 is off.",
                ),
                share_input(
                    "self_end",
                    0.4,
                    "Until which share of the steps self-attention is taken over, which holds shapes and layout "
                    "(paper: 0.4). For a thing of another shape 0.2 or less; 0 is off.",
                ),
                io.String.Input(
                    "weights",
                    default="",
                    tooltip="How much words of the target prompt count while their attention is taken over: dog: 2, "
                    "red: 0.5. 1 is as it is, 0 makes a word vanish, less reverses it (paper: -2 to 2).",
                ),
                share_input("cross_start", 0.0, "From which share of the steps on (paper: 0).", advanced=True),
                share_input("self_start", 0.0, "From which share of the steps on (paper: 0).", advanced=True),
                io.Int.Input(
                    "self_coarser",
                    default=4,
                    min=1,
                    max=8,
                    advanced=True,
                    tooltip="Self-attention is taken over in layers that are at least so many times coarser than the "
                    "latent. 4: up to 16x16 of 64x64 (paper); 2: up to 32x32; 1: all.",
                ),
                io.String.Input(
                    "word_windows",
                    default="",
                    advanced=True,
                    tooltip="Parts of the run for single words of the target prompt, in place of cross_start and "
                    "cross_end: dog: 0.4, red: 0.2-0.8. A new thing gets its own shape with 0.2 to 0.4.",
                ),
                editors_before(),
            ],
            outputs=[
                editors_output(),
                io.String.Output(
                    display_name="pairs",
                    tooltip="A line for each word of the target prompt: the source's words whose attention it gets.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        clip: Any,
        source_text: str,
        target_text: str,
        words: str,
        cross_end: float,
        self_end: float,
        weights: str,
        cross_start: float,
        self_start: float,
        self_coarser: int,
        word_windows: str,
        editors: tuple | None = None,
    ) -> io.NodeOutput:
        """Pair the prompts' words and show the pairs on the node."""
        windows = Window(cross_start, cross_end), Window(self_start, self_end)
        editor = prompt_to_prompt(clip, source_text, target_text, words, *windows, self_coarser, weights, word_windows)
        show_on_running_node(editor.table)
        return io.NodeOutput((*(editors or ()), editor), editor.table, ui=ui.PreviewText(editor.table))


class ELTwinSamplingModel(io.ComfyNode):
    """Makes every sampler that runs the model sample a source picture beside each target, for editors."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELTwinSamplingModel",
            display_name="Twin Sampling (model patch)",
            category=CATEGORY,
            description="For any sampler node: a source picture is made beside each picture, from the same noise, and "
            "editors such as Prompt-to-Prompt let the picture take over what the source looks at. Takes twice the "
            "time. Works together with other patches; SD 1.x, SD 2.x and SDXL.",
            search_aliases=["prompt-to-prompt", "edit", "local blend", "attention control", "twin", "patch"],
            inputs=[
                io.Model.Input("model", tooltip="The model to sample with. It is copied, not changed."),
                io.Conditioning.Input(
                    "source",
                    tooltip="The prompt of the picture that is edited. The sampler's positive prompt is that of the "
                    "new one. Areas, masks and ControlNets of the positive prompt act on both.",
                ),
                path_input(
                    "source_path",
                    PATHS[0],
                    "What the source picture is. generated: it is sampled from its prompt, as it would be "
                    "alone. noised reference: a given picture, with as much noise as the step has. recorded: a given "
                    "picture on the way that Invert Picture recorded; it comes back exactly (Direct Inversion).",
                ),
                share_input(
                    "blend_after",
                    0.2,
                    "With a mask: after which share of the steps the new picture becomes the source outside of it, "
                    "after every step (published: 0.2).",
                ),
                Editor.Input(
                    "editors",
                    optional=True,
                    tooltip="What the picture takes over: from Prompt-to-Prompt. Without it, nothing.",
                ),
                io.Latent.Input(
                    "reference",
                    optional=True,
                    tooltip="Only for 'noised reference': the encoded picture, as large as the sampled latent; one "
                    "for all, or one for each picture of the batch.",
                ),
                Masking.Input(
                    "masking",
                    optional=True,
                    tooltip="LocalBlend: where the new picture may differ from the source. From Mask from Attention, "
                    "of words of the target prompt, or Mask from Image.",
                ),
                Masking.Input(
                    "source_masking",
                    optional=True,
                    tooltip="LocalBlend: where else it may differ. From Mask from Attention, of words of the source "
                    "prompt.",
                ),
                io.Conditioning.Input(
                    "source_negative",
                    optional=True,
                    advanced=True,
                    tooltip="A negative prompt of the source's own. Without it, it has that of the sampler.",
                ),
                Trajectory.Input(
                    "trajectory",
                    optional=True,
                    tooltip="Only for 'recorded': from Invert Picture or Edit-Friendly Inversion, with the steps, "
                    "scheduler and denoise of the sampler.",
                ),
                io.Boolean.Input(
                    "own_start",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="With 'recorded': the new picture starts from the sampler's own noise. Otherwise it starts "
                    "from the recorded state, whatever noise and latent the sampler has.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model",
                    tooltip="For KSampler, KSampler (Advanced), SamplerCustom or a guider, with any sampler except "
                    "dpm_fast and dpm_adaptive.",
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        source: Any,
        source_path: str,
        blend_after: float,
        editors: tuple | None = None,
        reference: dict | None = None,
        masking: Any = None,
        source_masking: Any = None,
        source_negative: Any = None,
        trajectory: Any = None,
        own_start: bool = False,
    ) -> io.NodeOutput:
        """Install the twin on a clone of the model."""
        patched = model.clone()
        blend = LocalBlend(masking, source_masking, blend_after) if masking or source_masking else None
        reference = None if reference is None else reference["samples"]
        path = source_path, reference, source_negative, blend, trajectory, own_start
        Twin(source, editors or (), *path).install(patched)
        return io.NodeOutput(patched)


NODES = [ELPromptToPrompt, ELTwinSamplingModel]

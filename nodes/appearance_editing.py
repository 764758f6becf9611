"""Cross-Image Attention and Eye-for-an-Eye: editors that give a picture the structure of one picture and the appearance
of another."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .appearance_inputs import path_inputs, path_of, picture_inputs, structure_inputs
from .core.methods.appearance import AppearanceTransfer, Schedule
from .core.methods.cross_image_attention import CrossImageAttention
from .core.methods.prompt_to_prompt import Window
from .editing_inputs import editors_before, editors_output, layers_input, share_input
from .host.editing.appearance import AppearancePicture
from .host.editing.cross_image_attention import CrossImageAttentionEditor
from .host.editing.eye_for_an_eye import EyeForAnEyeEditor
from .sockets import CATEGORY, Masking


class ELCrossImageAttention(io.ComfyNode):
    """Describes how a target picture gets the appearance of a further picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELCrossImageAttention",
            display_name="Cross-Image Attention (appearance)",
            category=CATEGORY,
            description="Draw a picture in the colours and texture of another one: each place of the new picture, "
            "whose shapes are the source's, takes over what it finds alike in the picture that gives its appearance. "
            "For Twin Sampling (model patch), with three or four pictures in place of two; SD 1.x, SD 2.x and SDXL.",
            search_aliases=["appearance transfer", "style transfer", "texture", "structure", "adain", "reference"],
            inputs=[
                *picture_inputs(),
                share_input(
                    "start",
                    0.15,
                    "From which share of the steps on the appearance is taken over (published: step 10 of 68). Later "
                    "keeps more of the new picture's own; 1 is off.",
                ),
                io.Float.Input(
                    "contrast",
                    default=1.67,
                    min=1.0,
                    max=5.0,
                    step=0.01,
                    tooltip="Contrast of the attention: more takes from fewer places of the picture and is sharper "
                    "(published: 1.67); 1 is none, and faster.",
                ),
                io.Float.Input(
                    "guidance",
                    default=3.5,
                    min=0.0,
                    max=10.0,
                    step=0.1,
                    tooltip="How far the result is led on from what it would be without the appearance; falls to half "
                    "along the run (published: 3.5). 1 is as it comes, with three pictures in place of four; 0 is off.",
                ),
                share_input(
                    "statistics_start",
                    0.3,
                    "From which share of the steps on the state gets mean and deviation of the appearance's, channel "
                    "by channel (AdaIN; published: step 20 of 68); 1 is never.",
                ),
                share_input("end", 1.0, "Until which share of the steps (published: the end).", advanced=True),
                share_input(
                    "coarse_end",
                    1.0,
                    "The same for layers coarser than the latent: 32x32 of 64x64 (published: the end; earlier gives "
                    "the new picture more of its own shapes).",
                    advanced=True,
                ),
                *structure_inputs(
                    "Each so many steps the source's own self-attention is taken over in place of the appearance's, "
                    "which keeps its structure (published: 5); 0 is never."
                ),
                layers_input(
                    "Self-attention layers where it is taken over. auto: those of the decoder at most 2 times coarser "
                    "than the latent (published: output.6 to output.11 of SD 1.5). Or all, output, output.5, 8-15.",
                ),
                *path_inputs(),
                Masking.Input(
                    "masking",
                    optional=True,
                    tooltip="For the statistics: where the thing is in the new picture. Mask from Attention with words "
                    "of the target prompt, or Mask from Image. Outside they stay.",
                ),
                Masking.Input(
                    "appearance_masking",
                    optional=True,
                    tooltip="For the statistics: where the thing is in the picture that gives its appearance. Mask "
                    "from Attention with words of its prompt, or Mask from Image.",
                ),
                editors_before(),
            ],
            outputs=[editors_output()],
        )

    @classmethod
    def execute(
        cls,
        prompt: Any,
        appearance_path: str,
        start: float,
        contrast: float,
        guidance: float,
        statistics_start: float,
        end: float,
        coarse_end: float,
        structure_every: int,
        structure_end: float,
        layers: str,
        reference: dict | None = None,
        trajectory: Any = None,
        masking: Any = None,
        appearance_masking: Any = None,
        editors: tuple | None = None,
    ) -> io.NodeOutput:
        """Add the editor to those before it."""
        windows = Window(start, end), Window(start, coarse_end)
        schedule = Schedule(*windows, structure_every, Window(0.0, structure_end), statistics_start)
        editor = CrossImageAttentionEditor(
            CrossImageAttention(schedule, guidance, contrast),
            AppearancePicture(prompt, path_of(appearance_path, reference, trajectory), masking, appearance_masking),
            layers,
        )
        return io.NodeOutput((*(editors or ()), editor))


class ELEyeForAnEye(io.ComfyNode):
    """Describes how each place of a target picture gets the appearance of the place of a further one most like it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELEyeForAnEye",
            display_name="Eye-for-an-Eye (appearance by likeness)",
            category=CATEGORY,
            description="Draw a picture in the colours and texture of another one: each place of the new picture takes "
            "the features of the one place that is most like it there, an eye for an eye. For Twin Sampling (model "
            "patch), with three or four pictures in place of two; SD 1.x, SD 2.x and SDXL.",
            search_aliases=["appearance transfer", "correspondence", "texture", "structure", "semantic", "adain"],
            inputs=[
                *picture_inputs(),
                share_input(
                    "start",
                    0.15,
                    "From which share of the steps on features are taken over (published: step 10 of 68). Later keeps "
                    "more of the new picture's own; 1 is off.",
                ),
                io.Float.Input(
                    "guidance",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.1,
                    tooltip="How far the result is led on from what it would be without the appearance; falls to half "
                    "along the run. 1 is as it comes (published), with three pictures in place of four; 0 is off.",
                ),
                share_input(
                    "statistics_start",
                    0.74,
                    "From which share of the steps on the state gets mean and deviation of the appearance's, channel "
                    "by channel (AdaIN; published: step 50 of 68); 1 is never.",
                ),
                share_input("end", 1.0, "Until which share of the steps (published: the end).", advanced=True),
                *structure_inputs(
                    "Each so many steps the source's own features are taken over, place by place, which keeps its "
                    "structure (published: 5); 0 is never."
                ),
                layers_input(
                    "Self-attention layers where they are taken over. auto: those of the decoder at most 2 times "
                    "coarser than the latent (published: output.6 to output.11 of SD 1.5). Or all, output, 8-15."
                ),
                *path_inputs(),
                Masking.Input(
                    "masking",
                    optional=True,
                    tooltip="Where the thing is in the new picture: only these places take features, and statistics. "
                    "Mask from Attention with words of the target prompt, or Mask from Image.",
                ),
                Masking.Input(
                    "appearance_masking",
                    optional=True,
                    tooltip="Where the thing is in the picture that gives its appearance: only of these places are "
                    "features taken, and statistics. Mask from Attention with words of its prompt, or Mask from Image.",
                ),
                editors_before(),
            ],
            outputs=[editors_output()],
        )

    @classmethod
    def execute(
        cls,
        prompt: Any,
        appearance_path: str,
        start: float,
        guidance: float,
        statistics_start: float,
        end: float,
        structure_every: int,
        structure_end: float,
        layers: str,
        reference: dict | None = None,
        trajectory: Any = None,
        masking: Any = None,
        appearance_masking: Any = None,
        editors: tuple | None = None,
    ) -> io.NodeOutput:
        """Add the editor to those before it."""
        window = Window(start, end)
        schedule = Schedule(window, window, structure_every, Window(0.0, structure_end), statistics_start)
        path = path_of(appearance_path, reference, trajectory)
        picture = AppearancePicture(prompt, path, masking, appearance_masking)
        editor = EyeForAnEyeEditor(AppearanceTransfer(schedule, guidance), picture, layers)
        return io.NodeOutput((*(editors or ()), editor))


NODES = [ELCrossImageAttention, ELEyeForAnEye]

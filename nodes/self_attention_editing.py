"""MasaCtrl, Plug-and-Play: editors with which a picture takes over self-attention of one that is sampled beside it."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .core.attention.refine import AUTO
from .core.methods.mutual_self_attention import MutualSelfAttention
from .core.methods.plug_and_play import PlugAndPlay
from .core.methods.prompt_to_prompt import Window
from .editing_inputs import editors_before, editors_output, layers_input, share_input
from .host.editing.mutual_self_attention import MutualSelfAttentionEditor
from .host.editing.plug_and_play import PlugAndPlayEditor
from .sockets import CATEGORY, Masking


class ELMutualSelfAttention(io.ComfyNode):
    """Describes how a target picture is made of a source picture's texture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELMutualSelfAttention",
            display_name="Mutual Self-Attention (MasaCtrl)",
            category=CATEGORY,
            description="Keep who or what is in a picture, and change its pose, action or surroundings: after the "
            "first steps the new picture's self-attention finds the source picture's texture in place of its own. For "
            "Twin Sampling (model patch); SD 1.x, SD 2.x and SDXL.",
            search_aliases=["masactrl", "consistent character", "same subject", "pose", "self-attention", "reference"],
            inputs=[
                share_input(
                    "start",
                    0.08,
                    "From which share of the steps on the source's texture is taken (published: step 4 of 50). Later "
                    "gives the new picture more of a layout of its own; too early copies the pose; 1 is off.",
                ),
                share_input("end", 1.0, "Until which share of the steps (published: 1).", advanced=True),
                layers_input(
                    "Self-attention layers where it is taken. auto: those of the decoder at most 2 times coarser than "
                    "the latent (published: output.6 to output.11 of SD 1.5). Or all, output, output.5, 8-15.",
                ),
                Masking.Input(
                    "masking",
                    optional=True,
                    tooltip="Where the subject is in the new picture: Mask from Attention with words of the target "
                    "prompt, or Mask from Image. What is inside looks only at the source's subject.",
                ),
                Masking.Input(
                    "source_masking",
                    optional=True,
                    tooltip="Where the subject is in the source: Mask from Attention with words of the source prompt, "
                    "or Mask from Image. Needed where masking is connected.",
                ),
                editors_before(),
            ],
            outputs=[editors_output()],
        )

    @classmethod
    def execute(
        cls,
        start: float,
        end: float,
        layers: str,
        masking: Any = None,
        source_masking: Any = None,
        editors: tuple | None = None,
    ) -> io.NodeOutput:
        """Add the editor to those before it."""
        method = MutualSelfAttention(Window(start, end))
        return io.NodeOutput((*(editors or ()), MutualSelfAttentionEditor(method, layers, masking, source_masking)))


class ELPlugAndPlay(io.ComfyNode):
    """Describes how a target picture takes over a source picture's layout."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELPlugAndPlay",
            display_name="Plug-and-Play (keep the layout)",
            category=CATEGORY,
            description="Draw another prompt in the layout of a picture: in the first part of the run the new picture "
            "has the source's self-attention and its features of one block, which hold shapes and places. For Twin "
            "Sampling (model patch); SD 1.x, SD 2.x and SDXL.",
            search_aliases=["pnp", "structure", "layout", "feature injection", "translate a picture", "guidance image"],
            inputs=[
                share_input(
                    "attention_end",
                    0.5,
                    "Until which share of the steps the source's self-attention is taken over (published: 0.5). More "
                    "keeps shapes closer, and lets some of the source's texture through; 0 is off.",
                ),
                share_input(
                    "feature_end",
                    0.8,
                    "Until which share of the steps the source's features of one block are taken over (published: "
                    "0.8); 0 is off.",
                ),
                layers_input(
                    "Self-attention layers that are taken over. auto: those of the decoder from its second block with "
                    "attention on (published: output.4 to output.11 of SD 1.5). Or all, output, output.5, 8-15.",
                ),
                io.String.Input(
                    "feature_block",
                    default=AUTO,
                    advanced=True,
                    tooltip="The block of the decoder whose features are taken over. auto: the second one with "
                    "attention (published: output.4 of SD 1.5).",
                ),
                editors_before(),
            ],
            outputs=[editors_output()],
        )

    @classmethod
    def execute(
        cls, attention_end: float, feature_end: float, layers: str, feature_block: str, editors: tuple | None = None
    ) -> io.NodeOutput:
        """Add the editor to those before it."""
        method = PlugAndPlay(Window(0.0, attention_end), Window(0.0, feature_end))
        return io.NodeOutput((*(editors or ()), PlugAndPlayEditor(method, layers, feature_block)))


NODES = [ELMutualSelfAttention, ELPlugAndPlay]

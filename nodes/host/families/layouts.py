"""The transformers whose attention can be read: one record per network class of ComfyUI.

How each lays out text and picture was read from the host's code and seen in tests/host/families.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal

from torch import nn

from .sites import CROSS, JOINT, SELF

# Where text and picture stand in a joint attention; reference pictures come at the "...". "text" alone: keys of a
# cross-attention.
Order = Literal["text picture", "text picture ...", "text ... picture", "picture ... text", "text"]


@dataclass(frozen=True)
class Layout:
    """How one network class lays out text and picture in its attention.

    family: what messages call its models. module, network: of ComfyUI's class. blocks: (name of the part, attribute of
    the list of blocks) in running order; the name is the `block_type` that the network announces, where it announces
    one. patch: attribute of the pixels (t, h, w) or (h, w) that a token stands for; a number stands for (n, n); several
    attributes, one each. order: see `Order`. front: keys before the text. padded: attribute of the number of which the
    lengths of text and picture are made multiples, None in it for 1. calls: the kinds of a block's attentions in
    running order. labelled: whether the network announces its blocks; else they are counted. pads_in_front: see
    `Family`. later: whether the later half of the first part is read unless the user chooses, else all layers. keys:
    attributes of the layers that make a text's keys: those of the network, then those of a block.
    """

    family: str
    module: str
    network: str
    blocks: tuple[tuple[str, str], ...]
    patch: tuple[str, ...]
    order: Order
    front: int = 0
    padded: str = ""
    calls: tuple[str, ...] = (JOINT,)
    labelled: bool = True
    pads_in_front: bool = False
    later: bool = True
    keys: tuple[tuple[str, ...], tuple[str, ...]] | None = None

    def is_of(self, network: nn.Module) -> bool:
        """Whether the network is of exactly this class: subclasses have layouts of their own."""
        return (type(network).__module__, type(network).__name__) == (self.module, self.network)

    def names(self, network: nn.Module) -> tuple[tuple[str, int], ...]:
        """(part, number) of every block, in running order."""
        return tuple((part, i) for part, each in self.blocks for i in range(len(getattr(network, each))))

    def grid(self, network: nn.Module, latent: tuple[int, ...]) -> tuple[int, int, int]:
        """(t, h, w) of the picture's tokens for a latent [R,C,h,w] or [R,C,t,h,w]; a last one may reach beyond it."""
        size = (1,) * (5 - len(latent)) + latent[2:]
        return tuple(-(-n // p) for n, p in zip(size, self.patch_of(network), strict=True))

    def patch_of(self, network: nn.Module) -> tuple[int, int, int]:
        """The pixels (t, h, w) of the latent that a token stands for."""
        found = [getattr(network, each) for each in self.patch]
        if len(found) == 1:
            found = [found[0]] * 2 if isinstance(found[0], int) else list(found[0])
        return (1,) * (3 - len(found)) + tuple(found)

    def multiple(self, network: nn.Module) -> int:
        """See `padded`."""
        return (getattr(network, self.padded) if self.padded else None) or 1

    def places(self, network: nn.Module, latent: tuple[int, ...], text: int, length: int) -> Places:
        """Where text and picture are in a joint attention of `length` positions, and how long it should at least be.

        text: tokens of the context.
        """
        count, unit = prod(self.grid(network, latent)), self.multiple(network)
        words, picture = (-(-n // unit) * unit for n in (text, count))
        least = self.front + words + picture
        exact = "..." not in self.order
        of_words, of_picture = self.front, self.front + words
        if self.order == "text ... picture":
            of_picture = length - picture
        elif self.order == "picture ... text":
            of_words, of_picture = length - words, 0
        expected = least if exact or length < least else length
        return Places(slice(of_words, of_words + text), slice(of_picture, of_picture + count), expected)


@dataclass(frozen=True)
class Places:
    """Where the text's and the picture's positions are among `length`."""

    text: slice
    picture: slice
    length: int


_DOUBLE, _SINGLE = ("double", "double_blocks"), ("single", "single_blocks")
_ACROSS = {"order": "text", "calls": (SELF, CROSS), "later": False}

LAYOUTS: tuple[Layout, ...] = (
    Layout(
        "Qwen-Image, Qwen-Image-Edit",
        "comfy.ldm.qwen_image.model",
        "QwenImageTransformer2DModel",
        (("double", "transformer_blocks"),),
        ("patch_size",),
        "text picture ...",
    ),
    Layout(
        "Flux.1, Flux.2, LongCat, Ovis",
        "comfy.ldm.flux.model",
        "Flux",
        (_DOUBLE, _SINGLE),
        ("patch_size",),
        "text picture ...",
        pads_in_front=True,
    ),
    Layout("Chroma", "comfy.ldm.chroma.model", "Chroma", (_DOUBLE, _SINGLE), ("patch_size",), "text picture"),
    Layout(
        "SD 3, SD 3.5",
        "comfy.ldm.modules.diffusionmodules.mmdit",
        "OpenAISignatureMMDITWrapper",
        (("joint", "joint_blocks"),),
        ("patch_size",),
        "text picture",
        labelled=False,
    ),
    Layout(
        "Z-Image, Lumina 2, NewBie",
        "comfy.ldm.lumina.model",
        "NextDiT",
        (("double", "layers"),),
        ("patch_size",),
        "text picture",
        padded="pad_tokens_multiple",
    ),
    Layout(
        "Krea 2", "comfy.ldm.krea2.model", "SingleStreamDiT", (("single", "blocks"),), ("patch",), "text picture ..."
    ),
    Layout(
        "Cosmos Predict2",
        "comfy.ldm.cosmos.predict2",
        "MiniTrainDIT",
        (("block", "blocks"),),
        ("patch_temporal", "patch_spatial", "patch_spatial"),
        keys=((), ("cross_attn.k_proj", "cross_attn.k_norm")),
        **_ACROSS,
    ),
    Layout(
        "Anima",
        "comfy.ldm.anima.model",
        "Anima",
        (("block", "blocks"),),
        ("patch_temporal", "patch_spatial", "patch_spatial"),
        **_ACROSS,
    ),
    Layout(
        "Wan (text to picture or video)",
        "comfy.ldm.wan.model",
        "WanModel",
        (("double", "blocks"),),
        ("patch_size",),
        keys=(("text_embedding",), ("cross_attn.k", "cross_attn.norm_k")),
        **_ACROSS,
    ),
    Layout(
        "AuraFlow",
        "comfy.ldm.aura.mmdit",
        "MMDiT",
        (("double", "double_layers"), ("single", "single_layers")),
        ("patch_size",),
        "text picture",
        front=8,
        labelled=False,
    ),
)

# What is known and cannot be read, by the name of the network's class, and why.
_WAN = "this kind of Wan gives its attention further tokens (poses, sound, reference frames). Load Wan T2V"
REFUSED: dict[str, str] = {
    "LTXAVModel": "it makes picture and sound together, and which tokens are the picture's is not known",
    "MiniMaxH3Model": "it packs picture, video and sound into one sequence, and where each is, is not known",
    "PidNet": "it enlarges a picture and looks at text only where it is noise",
    **dict.fromkeys(
        (
            "VaceWanModel",
            "CameraWanModel",
            "WanModel_S2V",
            "HumoWanModel",
            "AnimateWanModel",
            "SCAILWanModel",
            "SCAIL2WanModel",
            "CausalWanModel",
            "WanDancerModel",
        ),
        _WAN,
    ),
}

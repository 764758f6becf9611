"""What a transformer computes after its last attention to the text."""

from __future__ import annotations

import math
from dataclasses import dataclass

from comfy.text_encoders.llama import RMSNorm
from torch import nn

from .gradient_memory import GradientMemory
from .layout import Layout

# Tokens of text beside the picture's; the prompt is not known when memory is asked for.
_TEXT = 512

# Measured as those of `gradient_memory`, in multiples of what the widest layer of the last block puts out: what
# autograd keeps, and with it the layers' own numbers in float32.
_KEPT = 2.0

# What blocks call the number of their attention's heads.
_HEADS = ("num_heads", "heads", "n_heads", "n_local_heads", "num_attention_heads")


@dataclass(frozen=True)
class End:
    """What a network class computes behind its last block.

    layers: attributes of what makes the picture of the block's output. parallel: where the last block's attention and
    MLP are parallel, the linear layer of the block that takes both, the network's last norm and its last linear layer.
    overwrites: whether the host's code writes into tensors that the derivative needs.
    """

    layers: tuple[str, ...] = ("final_layer",)
    parallel: tuple[str, str, str] | None = None
    overwrites: bool = False


_PARALLEL = End(parallel=("linear2", "final_layer.norm_final", "final_layer.linear"))
_NORM_AND_LINEAR = End(("norm_out", "proj_out"))

# By the name of the network's class; those that are not here have a `final_layer`.
ENDS: dict[str, End] = {
    **dict.fromkeys(("Flux", "Chroma", "HunyuanVideo"), _PARALLEL),
    "ChromaRadiance": End(("nerf_image_embedder", "nerf_blocks", "_nerf_final_layer")),
    **dict.fromkeys(
        (
            "QwenImageTransformer2DModel",
            "MageFlowTransformer2DModel",
            "JoyImageTransformer3DModel",
            "LensTransformer2DModel",
        ),
        _NORM_AND_LINEAR,
    ),
    **dict.fromkeys(("OmniGen2Transformer2DModel", "BooguTransformer2DModel"), End(("norm_out",))),
    "SingleStreamDiT": End(("last",)),
    "WanModel": End(("head",)),
    "MMDiT": End(("final_linear",)),
    "Kandinsky5": End(("out_layer",)),
    "ErnieImageModel": End(("final_norm", "final_linear")),
    "HiDreamO1Transformer": End(("language_model.norm", "final_layer2")),
    "LTXVModel": End(("norm_out", "proj_out"), overwrites=True),
}

# Networks whose gradients are not offered, by the name of their class: why.
WITHOUT: dict[str, str] = {
    "PixDiT_T2I": "blocks of single pixels follow its last attention to the text, whose own attention mixes positions",
}


class TransformerEnd:
    """The rest of a transformer's last block, and the layers behind it; each token of the picture is by itself there.

    site: the last one. patch: (h, w) in pixels of the latent that one token makes. parallel: the layers from which the
    closed form of a block with parallel attention and MLP is made, see `End.parallel`; None where there are none.
    overwrites: see `End`.
    """

    def __init__(self, layout: Layout, network: nn.Module, site: str) -> None:
        part, number = site.split(".")
        self.network, self.site = network, site
        self.block: nn.Module = network.get_submodule(dict(layout.blocks)[part])[int(number)]
        self.patch = layout.patch_of(network)[1:]
        end = ENDS.get(layout.network, End())
        self._ends = [network.get_submodule(name) for name in end.layers]
        self.overwrites = end.overwrites
        self.parallel: tuple[nn.Module, nn.Module, nn.Module] | None = None
        if end.parallel is not None:
            out, norm, last = end.parallel
            self.parallel = self.block.get_submodule(out), network.get_submodule(norm), network.get_submodule(last)

    def weighted(self) -> list[nn.Module]:
        """The layers of the last block and behind it that have a weight: some of them run before the attention.

        Without the norms of language models, which are no layers of the host's own kinds: they compute in the precision
        of what they are given.
        """
        found = (layer for module in (self.block, *self._ends) for layer in module.modules())
        kept = (layer for layer in dict.fromkeys(found) if not isinstance(layer, RMSNorm))
        return [layer for layer in kept if getattr(layer, "weight", None) is not None]

    def memory(self, grid: tuple[int, int]) -> GradientMemory:
        """How much is held for a latent of this height and width, see `GradientMemory`."""
        picture = math.prod(-(-side // p) for side, p in zip(grid, self.patch, strict=True))
        layers = [layer for layer in self.weighted() if hasattr(layer, "out_features")]
        widest = max(layer.out_features for layer in layers) * (picture + _TEXT)
        weights = [layer.in_features * layer.out_features for layer in layers]
        heads = next(getattr(m, n) for m in self.block.modules() for n in _HEADS if hasattr(m, n))
        return GradientMemory(
            outputs=int(_KEPT * widest),
            widest=widest,
            weights=sum(weights),
            largest=max(weights),
            repeated=0,
            repeated_weights=0,
            attention=heads * picture,
            sums=0,
        )

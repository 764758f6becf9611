"""What a UNet computes behind one of its cross-attention layers."""

from __future__ import annotations

from torch import nn

# Parts of a transformer behind its last cross-attention: to_out, norm3, ff, proj_out.
INSIDE = 4


def parts_behind(network: nn.Module, layer: str) -> list[nn.Module]:
    """The modules that run after the attention of `layer` (`output.11.0`), in that order."""
    kind, number, depth = layer.split(".")
    blocks = [(("input", i), block) for i, block in enumerate(network.input_blocks)]
    blocks += [] if network.middle_block is None else [(("middle", 0), network.middle_block)]
    blocks += [(("output", i), block) for i, block in enumerate(network.output_blocks)]
    at = [name for name, _ in blocks].index((kind, int(number)))
    own = list(blocks[at][1])
    place = next(i for i, module in enumerate(own) if hasattr(module, "transformer_blocks"))
    transformer = own[place]
    block, *deeper = list(transformer.transformer_blocks)[int(depth) :]
    inside = [block.attn2.to_out, block.norm3, block.ff, *deeper, transformer.proj_out]
    return [*inside, *own[place + 1 :], *(module for _, module in blocks[at + 1 :]), network.out]


def cross_attention(network: nn.Module, layer: str) -> nn.Module:
    """The host's module that computes the cross-attention `layer`."""
    kind, number, depth = layer.split(".")
    block = network.middle_block if kind == "middle" else getattr(network, f"{kind}_blocks")[int(number)]
    transformer = next(module for module in block if hasattr(module, "transformer_blocks"))
    return transformer.transformer_blocks[int(depth)].attn2


def is_last(network: nn.Module, layer: str) -> bool:
    """Whether only the rest of its own transformer block and the network's end come behind the layer."""
    return len(parts_behind(network, layer)) == INSIDE + 1

"""What a UNet computes after one of its cross-attention layers."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from itertools import chain

from comfy.ldm.modules.attention import GEGLU, BasicTransformerBlock
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, ResBlock, Upsample
from torch import Tensor, nn

from ...core.gradients.derivative import Feedforward
from ...core.gradients.structured import Head
from ..patch_names import of_other_nodes
from .gradient_memory import GradientMemory
from .sites import site_name

# A layer's weight and bias.
Weights = tuple[Tensor, Tensor | None]

# Modules of a transformer after its last cross-attention: to_out, norm3, ff, proj_out.
_IN_TRANSFORMER = 4

# Patches that the host runs within a transformer block.
_WITHIN = ("attn1_patch", "attn1_output_patch", "middle_patch", "attn2_patch", "attn2_output_patch")

_HEAD = (nn.GroupNorm, nn.SiLU, nn.Conv2d)


class RecordedLayers:
    """Modules of a UNet that gradients pass, in the order in which they run."""

    def __init__(self, network: nn.Module, modules: list[nn.Module]) -> None:
        self.network = network
        self.modules = modules

    def weighted(self) -> list[nn.Module]:
        """The layers that have weights, each once."""
        found = (layer for module in self.modules for layer in module.modules())
        return list(dict.fromkeys(layer for layer in found if _is_weighted(layer)))

    def repeatable(self, options: dict | None = None) -> list[nn.Module]:
        """Blocks that may be run again, to the same numbers; the first argument of `forward` is what varies.

        options: the host's transformer options of the call. If another node's patch runs within the transformer
        blocks, these are left out: a change in place would not be noticed.
        """
        patches = [] if options is None else [*chain(*(options.get("patches", {}).get(kind, []) for kind in _WITHIN))]
        kinds = (ResBlock,) if of_other_nodes(patches) else (ResBlock, BasicTransformerBlock)
        return [block for module in self.modules for block in module.modules() if isinstance(block, kinds)]

    def grids(self, grid: tuple[int, int]) -> dict[nn.Module, tuple[int, int]]:
        """The (height, width) on which each module of the network computes, for a latent of this size."""
        found: dict[nn.Module, tuple[int, int]] = {}
        for module in (module for _, block in _blocks(self.network) for module in block):
            if isinstance(module, Downsample):
                grid = tuple(-(-side // 2) for side in grid)
            elif isinstance(module, Upsample):
                grid = tuple(2 * side for side in grid)
            found |= dict.fromkeys(module.modules(), grid)
        return found | dict.fromkeys(self.network.out.modules(), grid)

    def held(self, grid: tuple[int, int], attention: int, sums: int, number: int) -> GradientMemory:
        """How much the layers hold for a latent of this height and width; the rest: see `GradientMemory`."""
        grids = self.grids(grid)
        outputs = {layer: _width(layer) * math.prod(grids[layer]) for layer in self.weighted() if layer in grids}
        weights = {layer: sum(p.numel() for p in layer.parameters(recurse=False)) for layer in outputs}
        blocks = {block: [layer for layer in block.modules() if layer in outputs] for block in self.repeatable()}
        inside = set().union(*blocks.values())
        repeated = sum(_entering(block) * math.prod(grids[block]) for block in blocks)
        repeated += sum(size for layer, size in outputs.items() if layer not in inside)
        repeated += max((sum(outputs[layer] for layer in layers) for layers in blocks.values()), default=0)
        return GradientMemory(
            outputs=sum(outputs.values()),
            widest=max(outputs.values()),
            weights=sum(weights.values()),
            largest=max(weights.values()),
            repeated=repeated,
            repeated_weights=max((sum(weights[layer] for layer in layers) for layers in blocks.values()), default=0),
            attention=attention,
            sums=sums,
            number=number,
        )


class LayersUntil(RecordedLayers):
    """The layers that a UNet runs up to its cross-attention `sites`: gradients pass them to what it was given.

    sites: their names in running order. block: also up to the output of that one. end: where the way ends, the last
    site or the block.
    """

    def __init__(self, network: nn.Module, sites: Collection[str], block: str | None = None) -> None:
        embeddings = [network.time_embed, *([] if network.num_classes is None else [network.label_emb])]
        modules: list[nn.Module] = []
        self._attended: list[nn.Module] = []
        for (kind, number), layers in _blocks(network):
            for module in layers:
                if not hasattr(module, "transformer_blocks"):
                    modules.append(module)
                    continue
                modules += [module.norm, module.proj_in]
                for depth, each in enumerate(module.transformer_blocks):
                    if (site := site_name((kind, number), depth)) in sites:
                        self._attended.append(each.attn2)
                        self.end = site
                        until = [*embeddings, *modules, each.norm1, each.attn1, each.norm2, each.attn2]
                    modules.append(each)
                modules.append(module.proj_out)
            if f"{kind}.{number}" == block:
                self.end, until = block, [*embeddings, *modules]
        super().__init__(network, until)
        self.sites = tuple(sites)

    def memory(self, grid: tuple[int, int], number: int) -> GradientMemory:
        """How much the layers hold for a latent of this height and width. number: bytes of one of their numbers."""
        grids = self.grids(grid)
        return self.held(grid, max(each.heads * math.prod(grids[each]) for each in self._attended), 0, number)


class WholeNetwork(RecordedLayers):
    """All layers of a UNet: gradients pass from its output to what it was given."""

    def __init__(self, network: nn.Module) -> None:
        embeddings = [network.time_embed, *([] if network.num_classes is None else [network.label_emb])]
        blocks = (module for _, block in _blocks(network) for module in block)
        super().__init__(network, [*embeddings, *blocks, network.out])

    def memory(self, grid: tuple[int, int], number: int) -> GradientMemory:
        """How much the layers hold for a latent of this height and width. number: bytes of one of their numbers."""
        return self.held(grid, 0, 0, number)


class LayersAfter(RecordedLayers):
    """The layers that a UNet runs after the cross-attention `site` (`output.11.0`), or after its first one.

    modules: the first is the attention's own output projection. norm: the layer norm after the attention. last: the
    module whose output enters `end`, the network's last layers.
    """

    def __init__(self, network: nn.Module, site: str | None) -> None:
        blocks = _blocks(network)
        if site is None:
            at, depth = next(i for i, (_, block) in enumerate(blocks) if _transformer(block) is not None), 0
        else:
            kind, number, depth = site.split(".")
            at = [name for name, _ in blocks].index((kind, int(number)))
        own = list(blocks[at][1])
        transformer = _transformer(own)
        place = own.index(transformer)
        block, *deeper = list(transformer.transformer_blocks)[int(depth) :]
        in_transformer = [block.attn2.to_out, block.norm3, block.ff, *deeper, transformer.proj_out]
        following = [*own[place + 1 :], *(module for _, module in blocks[at + 1 :])]
        super().__init__(network, [*in_transformer, *following, network.out])
        self.site = site
        self._attention = block.attn2
        self.norm: nn.Module = block.norm3
        self.last: nn.Module = network.output_blocks[-1][-1]
        self.end: nn.Module = network.out

    @property
    def only_end(self) -> bool:
        """Whether only the rest of its own transformer block and the network's end come after the attention."""
        return len(self.modules) == _IN_TRANSFORMER + 1

    def memory(self, grid: tuple[int, int]) -> GradientMemory:
        """How much the layers hold for a latent of this height and width."""
        norm, *_, conv = self.end
        attention = self._attention.heads * math.prod(self.grids(grid)[self.modules[0]])
        return self.held(grid, attention, conv.weight[:, 0].numel() + 2 * norm.num_groups, number=4)

    def head(self, weights: Mapping[nn.Module, Weights], scale: float) -> Head | None:
        """GroupNorm, SiLU and convolution at the network's end, times `scale`; None where it ends differently."""
        layers = list(self.end)
        if len(layers) != len(_HEAD) or not all(isinstance(m, kind) for m, kind in zip(layers, _HEAD, strict=True)):
            return None
        norm, _, conv = layers
        same_size = all(
            (s, d, 2 * p + 1) == (1, 1, k)
            for s, d, p, k in zip(conv.stride, conv.dilation, conv.padding, conv.kernel_size, strict=True)
        )
        if not same_size or conv.groups != 1:
            return None
        return Head(norm.num_groups, norm.eps, *weights[norm], *weights[conv], scale=scale)

    def feedforward(self, weights: Mapping[nn.Module, Weights], entered: Tensor) -> Feedforward | None:
        """The rest of the site's own transformer block; None where it is built differently.

        entered: what entered `norm`, float32 [rows,Q,K]. The caller has to check that nothing else happens there,
        and that it happens in this order.
        """
        if not self.only_end or not isinstance(self.modules[2].net[0], GEGLU):
            return None
        to_out, norm, ff, proj_out, _ = self.modules
        first, _, second = ff.net
        (out, _), (gamma, beta), (up, up_bias) = (weights[m] for m in (to_out[0], norm, first.proj))
        last = weights[proj_out][0].flatten(1)
        down = last @ weights[second][0]
        return Feedforward(entered, out, gamma, beta, norm.eps, up, up_bias, down, last)


def _transformer(block: Iterable[nn.Module]) -> nn.Module | None:
    """The transformer among a block's modules, None where it has none."""
    return next((module for module in block if hasattr(module, "transformer_blocks")), None)


def _blocks(network: nn.Module) -> list[tuple[tuple[str, int], nn.Module]]:
    """The network's blocks by (kind, number), in the order in which they run."""
    blocks = [(("input", i), block) for i, block in enumerate(network.input_blocks)]
    blocks += [] if network.middle_block is None else [(("middle", 0), network.middle_block)]
    return blocks + [(("output", i), block) for i, block in enumerate(network.output_blocks)]


def _is_weighted(module: nn.Module) -> bool:
    return any(True for _ in module.parameters(recurse=False))


def _width(layer: nn.Module) -> int:
    """Output channels of a layer with weights."""
    if isinstance(layer, nn.LayerNorm):
        return layer.normalized_shape[0]
    return next(getattr(layer, n) for n in ("out_features", "out_channels", "num_channels") if hasattr(layer, n))


def _entering(block: nn.Module) -> int:
    """Input channels of a block that can be repeated."""
    return block.channels if isinstance(block, ResBlock) else block.norm1.normalized_shape[0]

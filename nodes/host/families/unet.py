"""SD 1.x, SD 2.x and SDXL: ComfyUI's UNet, whose transformer blocks have a self- and a cross-attention each."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Container, Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from comfy.ldm.modules.attention import BasicTransformerBlock, SpatialTransformer, SpatialVideoTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.patcher_extension import WrappersMP, get_all_wrappers
from torch import Tensor, nn

from ...core.attention.probabilities import ALL_TOKENS
from ..patch_names import other_names
from .offers import FEATURES
from .sites import CROSS, SELF, Inputs, NetworkCall, Shape, Site, site_name
from .unet_blocks import block_scales, with_blocks
from .unet_gradients import LayersAfter, LayersUntil, RecordedLayers, WholeNetwork

if TYPE_CHECKING:
    from .family import Listener


class UNet:
    """See `family.Family`."""

    name = "SD 1.x, SD 2.x and SDXL (a UNet with cross-attention layers)"
    offers = frozenset(FEATURES)
    text_kind, picture_kind = CROSS, SELF
    words_have_output = pads_in_front = False
    share = ALL_TOKENS

    def site_names(self, network: nn.Module, kind: str) -> tuple[str, ...]:
        """See `Family`."""
        if not isinstance(network, UNetModel):
            return ()
        return tuple(
            name
            for name, each in _transformer_blocks(network)
            if (each.attn2 is not None if kind == CROSS else not each.disable_self_attn)
        )

    def usual_layers(self, network: nn.Module) -> tuple[str, ...]:
        """See `Family`."""
        return self.site_names(network, CROSS)

    def finder(self, call: NetworkCall) -> UNetSites:
        """See `Family`."""
        return UNetSites()

    def key_layers(self, network: nn.Module) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """See `Family`."""
        return {name: each.attn2.to_k for name, each in _transformer_blocks(network) if each.attn2 is not None}

    def value_layers(self, network: nn.Module) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """See `Family`."""
        return {name: each.attn2.to_v for name, each in _transformer_blocks(network) if each.attn2 is not None}

    def layers_after(self, network: nn.Module, site: str | None) -> LayersAfter:
        """See `Family`."""
        return LayersAfter(network, site)

    def layers_until(self, network: nn.Module, sites: Collection[str], block: str | None = None) -> LayersUntil:
        """See `Family`."""
        return LayersUntil(network, sites, block)

    def whole_network(self, network: nn.Module) -> WholeNetwork:
        """See `Family`."""
        return WholeNetwork(network)

    def site_grids(self, network: nn.Module, grid: tuple[int, int]) -> dict[str, tuple[int, int]]:
        """See `Family`."""
        grids = RecordedLayers(network, []).grids(grid)
        return {name: grids[each] for name, each in _transformer_blocks(network) if each.attn2 is not None}

    def blocks(self, network: nn.Module) -> dict[str, int]:
        """See `Family`."""
        return block_scales(network)

    def with_blocks(self, options: dict, names: Collection[str], see: Callable[[str, Tensor], None]) -> dict:
        """See `Family`."""
        return with_blocks(options, names, see)

    def mark(self, network: nn.Module) -> Tensor:
        """See `Family`."""
        norm = network.out[0]
        return torch.cat([norm.weight, norm.bias]).detach().float().cpu()


class UNetSites:
    """See `family.SiteFinder`.

    The host runs a patch of this pack before each attention. Shapes could not distinguish cross- from self-attention:
    there may be 77 query positions as well as 77 tokens, and other nodes change the number of either.
    """

    def __init__(self) -> None:
        # The attention that comes next: its kind, and the transformer options that the host gave to the patches.
        self._next: tuple[str, dict] | None = None
        self._before: tuple[Tensor, Tensor] | None = None
        self._after: tuple[Tensor, Tensor] | None = None
        self._changed_by: dict[str, str] = {}
        self._called_by = ""
        self._wrapped: list[Callable] = []

    def install(self, options: dict, kinds: Container[str], listener: Listener) -> dict:
        """See `SiteFinder`."""
        patches, replaced = dict(options.get("patches", {})), options.get("patches_replace", {})
        others = [each for each in patches.get("attn2_patch", []) if each not in (self._enter, self._announce_cross)]
        outputs = patches.get("attn2_output_patch", [])
        self._changed_by[CROSS] = other_names([*others, *outputs])
        self._called_by = other_names(get_all_wrappers(WrappersMP.DIFFUSION_MODEL, options))
        patches["attn2_patch"] = [*([self._enter] if others else []), *others, self._announce_cross]
        if outputs:
            patches["attn2_output_patch"] = [self._once(each, self._mixing(each, listener)) for each in outputs]
        if SELF in kinds:
            others = [each for each in patches.get("attn1_patch", []) if each != self._announce_self]
            patches["attn1_patch"] = [*others, self._announce_self]
            replacements = replaced.get("attn1", {}).values()
            self._changed_by[SELF] = other_names([*others, *patches.get("attn1_output_patch", []), *replacements])
        options = {**options, "patches": patches}
        around = {
            key: {block: self._once(each, listener.around(each)) for block, each in replaced[key].items()}
            for key in ("attn1", "attn2")
            if replaced.get(key)
        }
        return {**options, "patches_replace": {**replaced, **around}} if around else options

    def take(self, options: dict, shape: Shape) -> tuple[Site, Inputs] | None:
        """See `SiteFinder`."""
        announced, self._next = self._next, None
        # If another node replaced a block's attention module, the announced attention is never computed and the next
        # one is another block's.
        if announced is None or _place(announced[1]) != _place(options):
            return None
        kind, options = announced
        block, depth = _place(options)
        h, w = options["activations_shape"][-2:]
        queries = slice(0, h * w)
        keys = slice(0, self._after[1].shape[1]) if kind == CROSS else queries
        rows, _, *size = options["original_shape"]
        before, length = (self._before, keys.stop) if kind == CROSS else (None, h * w)
        expected = self._after[0].shape[0] if kind == CROSS else rows, h * w, length
        inputs = Inputs(expected, before, self._after, (rows, *size), self._changed_by[kind], self._called_by)
        picture = keys if kind == SELF else None
        return Site(block, depth, kind, (h, w), options["n_heads"], queries, keys, picture), inputs

    def forget(self) -> None:
        """See `SiteFinder`."""
        self._next = self._before = self._after = None

    def _enter(self, n: Tensor, context: Tensor, value: Tensor, options: dict) -> tuple[Tensor, Tensor, Tensor]:
        """The first attn2 patch, before those of other nodes."""
        self._before = n, context
        return n, context, value

    def _announce_cross(
        self, n: Tensor, context: Tensor, value: Tensor, options: dict
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The last attn2 patch: this block's cross-attention comes next."""
        self._after = n, context
        self._next = CROSS, options
        return n, context, value

    def _announce_self(self, n: Tensor, context: Tensor, value: Tensor, options: dict) -> tuple[Tensor, Tensor, Tensor]:
        """The last attn1 patch: this block's self-attention comes next."""
        self._after = n, context
        self._next = SELF, options
        return n, context, value

    @staticmethod
    def _mixing(patch: Callable, listener: Listener) -> Callable:
        """Another node's attn2 output patch, which notifies the listener when it returns fewer rows than it got."""

        def mixing(out: Tensor, options: dict) -> Tensor:
            mixed = patch(out, options)
            if mixed.shape[0] != out.shape[0]:
                listener.mixed(site_name(*_place(options)), out, mixed)
            return mixed

        return functools.update_wrapper(mixing, patch, assigned=(), updated=())

    def _once(self, patch: Callable, wrapped: Callable) -> Callable:
        """`wrapped`, unless `patch` is one of ours already: then the patch itself."""
        if any(patch is each for each in self._wrapped):
            return patch
        self._wrapped.append(wrapped)
        return wrapped


def _transformer_blocks(network: UNetModel) -> Iterator[tuple[str, BasicTransformerBlock]]:
    """Every transformer block in running order, with the name of its sites."""
    middle = [] if network.middle_block is None else [network.middle_block]
    for part, blocks in (("input", network.input_blocks), ("middle", middle), ("output", network.output_blocks)):
        for number, block in enumerate(blocks):
            for module in block.modules():
                if isinstance(module, SpatialTransformer) and not isinstance(module, SpatialVideoTransformer):
                    for depth, each in enumerate(module.transformer_blocks):
                        yield site_name((part, number), depth), each


def _place(options: dict) -> tuple[tuple[str, int], int]:
    """The transformer block that runs: its part of the network and its depth there."""
    return options["block"], options.get("block_index", 0)

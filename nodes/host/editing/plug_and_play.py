"""Plug-and-Play in a twin run, see `core.methods.plug_and_play`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ...core.attention.refine import AUTO
from ...core.methods.plug_and_play import PlugAndPlay, with_source_features
from ..attention.attention_call import AttentionCall
from ..families.family import network_of
from ..families.sites import SELF, Site
from ..families.unet_blocks import residual_convolutions
from ..patch_names import replaced_parts
from .editors import EditingProcessor, TwinCall
from .layers import Layer, self_attention_layers

NAME = "Plug-and-Play"


@dataclass(frozen=True)
class PlugAndPlayEditor:
    """See `editors.Editor`.

    layers: AUTO, or a choice of self-attention layers by name. block: AUTO, or the block whose features are taken,
    `output.4`.
    """

    method: PlugAndPlay
    layers: str = AUTO
    block: str = AUTO

    def installed(self, patcher: ModelPatcher, source: list) -> InstalledPlugAndPlay:
        """See `Editor`. Raises ValueError for a block that has no residual block."""
        layers = self_attention_layers(patcher, self.layers, _from_the_second, NAME)
        blocks = residual_convolutions(network_of(patcher))
        block = self.block.strip().lower()
        if block == AUTO:
            block = _from_the_second(self_attention_layers(patcher, "all", list, NAME))[0].block
        if block not in blocks:
            raise ValueError(f"feature_block {self.block!r} is not one of {', '.join((AUTO, *blocks))}")
        return InstalledPlugAndPlay(self.method, frozenset(layer.name for layer in layers), block)


def _from_the_second(layers: list[Layer]) -> list[Layer]:
    """Those of the decoder from its second block with attention on."""
    decoder = [layer for layer in layers if layer.decodes]
    return [layer for layer in decoder if layer.block != decoder[0].block] or decoder


@dataclass(frozen=True)
class InstalledPlugAndPlay:
    """See `editors.InstalledEditor`. names: of the layers. block: whose features are taken."""

    method: PlugAndPlay
    names: frozenset[str]
    block: str
    name: str = NAME

    def chosen(self, texts: Mapping[Any, tuple[Tensor, Tensor]]) -> frozenset:
        """See `InstalledEditor`: all, whatever the prompts say."""
        return frozenset(texts)

    def claims(self, step: int, steps: int) -> frozenset[tuple[str, str]]:
        """See `InstalledEditor`."""
        acts = self.method.attention.includes(step, steps)
        return frozenset((SELF, name) for name in self.names) if acts else frozenset()

    def processors(self, call: TwinCall, chosen: frozenset) -> list[EditingProcessor]:
        """See `InstalledEditor`. Negative conditionings are edited like the positive ones."""
        names = self.names if self.method.attention.includes(call.step, call.steps) else frozenset()
        block = self.block if self.method.features.includes(call.step, call.steps) else ""
        return [SourceLayout(call, names, block)] if names or block else []


class SourceLayout(EditingProcessor):
    """Gives the target the source's queries and keys, and its features, in one model call.

    block: whose features are taken; empty for none.
    """

    def __init__(self, call: TwinCall, names: frozenset[str], block: str) -> None:
        super().__init__(NAME, (SELF,) if names else (), call)
        self._names = names
        self._block = block
        self._ran = False

    def chooses(self, site: Site) -> bool:
        """See `EditingProcessor`."""
        return site.name in self._names

    def edited(self, call: AttentionCall) -> AttentionCall:
        """See `EditingProcessor`."""
        made = call
        for pair in self._call.pairs:
            made = made.with_rows(pair.target, q=call.q[pair.source], k=call.k[pair.source])
        return made

    @contextmanager
    def during(self, network: nn.Module) -> Iterator[None]:
        """See `EditingProcessor`: the convolution gives the source's features to the target."""
        if not self._block:
            yield
            return
        hook = residual_convolutions(network)[self._block].register_forward_hook(self._exchange)
        try:
            yield
        finally:
            hook.remove()

    def finish(self, network: nn.Module) -> None:
        """See `EditingProcessor`."""
        super().finish(network)
        if self._block and not self._ran:
            self._call.warn(
                f"{NAME} could not take features of {self._block}: the block is computed by {replaced_parts(network)}"
            )

    def _exchange(self, module: nn.Module, inputs: Any, features: Tensor) -> Tensor:
        """A PyTorch forward hook."""
        self._ran = True
        if len(features) != self._call.count:
            self._call.warn(
                f"{NAME} leaves the features of {self._block} as they are: there are {len(features)} rows where "
                f"{self._call.count} were expected"
            )
            return features
        return with_source_features(features, [(pair.source, pair.target) for pair in self._call.pairs])

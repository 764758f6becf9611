"""A network up to the last of some attentions, or all of it, such that autograd can differentiate it."""

from __future__ import annotations

from contextlib import ExitStack

import torch

from ..families.unet_gradients import LayersUntil, WholeNetwork
from .host_layers import own_layer, repeated_block, replace_forward, with_host_weights


class RecordedStart:
    """The layers from a network's input up to some of its attentions or to its end, as long as `exits` is open.

    They compute in the precision in which the network runs them, since a measurement is made at every guided step and
    float32 would take several times as long; small gradients are kept by `LossScale`. Nothing is copied: a layer gets
    its weights from the host when it computes, and again when the backward pass reaches it.
    """

    def __init__(self, layers: LayersUntil | WholeNetwork, exits: ExitStack) -> None:
        self._layers = layers
        self._exits = exits

    def replace(self, device: torch.device, repeat_with: dict | None) -> None:
        """Give every layer its `forward`. repeat_with: the call's options where blocks are to be repeated."""
        blocks = [] if repeat_with is None else self._layers.repeatable(repeat_with)
        repeated = {layer for block in blocks for layer in block.modules()}
        for layer in self._layers.weighted():
            compute = with_host_weights(own_layer(layer), layer, device, layer in repeated, dtype=None)
            replace_forward(layer, compute, self._exits)
        for block in blocks:
            replace_forward(block, repeated_block(block.forward), self._exits)

"""The end of a transformer during one call of it: recorded by autograd, and its Abs-Grad-SAM by structure."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import allow_mutation_on_saved_tensors

from ...core.gradients.definition import Progress, WordAttention
from ...core.gradients.parallel_block import ParallelBlock
from ...core.gradients.patches import as_patches, from_patches, is_local, patchwise
from ..families.transformer_gradients import TransformerEnd
from .exact_solver import UnfitError
from .float32_stream import Float32Stream
from .host_layers import Weights, float32_layer, host_weights, replaced_layer


class RecordedEnd:
    """The layers after a transformer's last attention, which compute in float32 as long as `exits` is open.

    Only what depends on a recorded tensor does; the layers of the last block that run before it compute as ever. Their
    weights are copied when they are needed, and never changed.

    network: which has the layers. After it ran, output: its own.
    """

    def __init__(self, layers: TransformerEnd, exits: ExitStack) -> None:
        self._layers = layers
        self._exits = exits
        self._copies: dict[nn.Module, Weights] = {}
        # Of the layers of the closed form: what entered each, and what it put out.
        self._passed: dict[nn.Module, tuple[Tensor, Tensor]] = {}
        self.network = layers.network
        self._forget()
        exits.callback(self._forget)

    def replace(self, device: torch.device, repeat_with: dict | None) -> None:
        """Give every layer its `forward`. repeat_with: None, as there is but one block."""
        for layer in self._layers.weighted():
            if "forward" in vars(layer):
                self._hook(layer.register_forward_pre_hook(_refuse))
            else:
                layer.forward = partial(self._forward, layer, layer.forward, device)
                self._exits.callback(delattr, layer, "forward")
        for layer in self._layers.parallel or ():
            self._hook(layer.register_forward_hook(self._keep))
        self._hook(self.network.register_forward_pre_hook(_own_inputs, with_kwargs=True))
        self._hook(self.network.register_forward_hook(self._end))
        if self._layers.overwrites:
            self._exits.enter_context(allow_mutation_on_saved_tensors())
        self._exits.enter_context(Float32Stream())

    def structured(
        self,
        layer: str,
        rows: slice,
        words: WordAttention,
        prediction: Tensor,
        scale: float,
        polarity: str,
        progress: Progress,
    ) -> Tensor:
        """Abs-Grad-SAM [S,B,C,h,w] of these rows by structure, frames as further pictures.

        words: of the layer. prediction: z of the rows, `scale` times the network's output and a constant. Raises
        UnfitError where that is not exact.
        """
        patches = as_patches(prediction, self._layers.patch)
        block = self._parallel_block(rows, words, prediction, patches, scale)
        if block is not None:
            scores = block.scores(words, polarity, progress)
        elif is_local(words, patches):
            scores = patchwise(words, patches, polarity, progress)
        else:
            raise UnfitError(
                "what follows the last attention to the text mixes positions (the model's own last layers, as the "
                "convolution of Chroma Radiance, or another node)"
            )
        return from_patches(scores, self._layers.patch, tuple(prediction.shape))

    def _parallel_block(
        self, rows: slice, words: WordAttention, prediction: Tensor, patches: Tensor, scale: float
    ) -> ParallelBlock | None:
        """The last block and what follows in the form that needs no backward pass; None where it does not hold.

        All that is needed was seen while it ran, and is checked against what autograd recorded of single layers: the
        gate and the scales are the derivatives of what follows a layer by its output.
        """
        if self._layers.parallel is None or not all(layer in self._passed for layer in self._layers.parallel):
            return None
        out, norm, last = self._layers.parallel
        (entered, made), (stream, normed), (scaled, ended) = (self._passed[each] for each in (out, norm, last))
        count, text = words.change.shape[2], made.shape[1] - stream.shape[1]
        there = torch.ones_like(prediction[:1])
        whole = as_patches(there, self._layers.patch).bool()
        same = ended.shape[-1] == patches.shape[-1] and bool(
            (scale * ended[rows, :count] == patches).logical_or(~whole).all()
        )
        if text < 0 or not same or not _is_attention(entered[rows, text : text + count], words):
            return None
        gate = _factor(made, stream, slice(text, text + count))
        scales = _factor(normed, scaled, slice(0, count))
        if gate is None or scales is None:
            return None
        weight = self._copies[out][0][:, : words.values.shape[-1]]
        layers = stream[rows, :count].detach(), norm.eps, weight, gate[rows], self._copies[last][0], scales[rows]
        return ParallelBlock(*layers, scale)

    def _forward(
        self, layer: nn.Module, own: Callable[..., Tensor], device: torch.device, x: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        """What `layer` computes: in float32 of what is recorded, else its `own`."""
        if not x.requires_grad:
            return own(x, *args, **kwargs)
        if layer not in self._copies:
            self._copies[layer] = host_weights(layer, device)
        return float32_layer(layer)(x, *self._copies[layer])

    def _keep(self, layer: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
        self._passed[layer] = args[0], output
        return output.clone()  # what follows may write into it

    def _end(self, network: nn.Module, args: tuple, output: Tensor) -> Tensor:
        """Keep the network's output with its gradient, and return it without."""
        self.output = output
        torch.set_grad_enabled(False)
        return output.detach()

    def _hook(self, handle: Any) -> None:
        self._exits.callback(handle.remove)

    def _forget(self) -> None:
        self._copies.clear()
        self._passed.clear()
        self.output = None


def _own_inputs(network: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """Before the network runs: copies of its inputs, into which it may write (HunyuanDiT: padding, into its text).

    Tensors of inference mode must not be changed outside of it.
    """

    def own(value: Any) -> Any:
        return value.clone() if isinstance(value, Tensor) and value.is_inference() else value

    return tuple(map(own, args)), {name: own(value) for name, value in kwargs.items()}


def _refuse(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
    """Before a layer runs whose `forward` another node has replaced."""
    if args[0].requires_grad:
        raise replaced_layer(layer)


def _is_attention(entered: Tensor, words: WordAttention) -> bool:
    """Whether what entered a layer [B,Q,H*d+M] is the attention's output, and beside it nothing that depends on it."""
    seed = torch.randn(entered.shape[1:], generator=torch.Generator().manual_seed(0)).to(entered).expand_as(entered)
    (found,) = words.loss_scale.gradients(entered, [words.change], seed, terms=entered[0].numel())
    heads, width = words.change.shape[1], words.values.shape[-1]
    by_head = (each.unflatten(-1, (heads, -1)) for each in (seed[..., :width], words.values))
    expected = torch.einsum("bqhi,bnhi->bhqn", *by_head)
    return torch.allclose(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().mean()))


def _factor(before: Tensor, after: Tensor, at: slice) -> Tensor | None:
    """By what the positions `at` of a tensor [R,L,D] are multiplied in the first ones of another [R,N,D].

    [R,1,D] where that is the same at all of them, else [R,Q,D]; None if it is not a product with the element itself.
    """
    count = at.stop - at.start
    seed = torch.zeros_like(after)
    seed[:, :count] = torch.rand((count, after.shape[-1]), generator=torch.Generator().manual_seed(0)).to(after) + 0.5
    one = (seed != 0).to(seed)
    factors, moved = (torch.autograd.grad(after, before, each, retain_graph=True)[0] for each in (one, seed))
    found = factors[:, at]
    moved[:, at] -= found * seed[:, :count]
    if moved.any():
        return None
    return found[:, :1] if (found == found[:, :1]).all() else found

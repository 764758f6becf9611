"""One call of the host's network that autograd can differentiate: the only place that leaves inference mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...core.gradients.definition import Progress, WordAttention
from ...core.gradients.derivative import Derivative, agrees_with_autograd
from ...core.gradients.structured import obstacle, structured
from ..families.transformer_gradients import TransformerEnd
from ..families.unet_gradients import LayersAfter, LayersUntil, WholeNetwork
from ..patch_names import patch_names
from .exact_solver import UnfitError
from .host_layers import (
    IN_PLACE,
    INFERENCE,
    Weights,
    float32_layer,
    host_weights,
    repeated_block,
    replace_forward,
    with_host_weights,
)
from .recorded_end import RecordedEnd
from .recorded_start import RecordedStart


@contextmanager
def differentiable(
    layers: LayersAfter | LayersUntil | WholeNetwork | TransformerEnd,
    device: torch.device,
    options: dict,
    *,
    repeat: bool = False,
) -> Iterator[RecordedLayers | RecordedStart | RecordedEnd]:
    """Around one call of a network and the backward passes through it: autograd can record these layers.

    The layers follow one site, or the first one (`layers.site` None), and so all sites. They compute in float32,
    outside of inference mode and with TF32 off. Recording begins after the attention of that site, where a processor
    turns it on (`torch.set_grad_enabled`), and ends with the network's output: what the host makes of it is not
    recorded. Or they come before the last of several sites, or are all of the network: see `RecordedStart`.

    After one site each layer has a float32 copy of its weights during the call, since many backward passes use it.
    After all sites, for a single pass, nothing is copied: a layer gets its weights from the host when it computes, and
    again when the backward pass reaches it. repeat (only after all sites): of a block only its input is kept and the
    backward pass runs the block again, which takes less memory and more time for the same gradient. options: the host's
    transformer options of the call. Raises ValueError where gradients cannot pass: a layer or a `forward` that is not
    the host's own, a recorded tensor that another node changes in place.
    """
    with torch.inference_mode(False), torch.no_grad(), full_float32(), ExitStack() as exits:
        kinds = {TransformerEnd: RecordedEnd, LayersAfter: RecordedLayers}
        recorded = kinds.get(type(layers), RecordedStart)(layers, exits)
        recorded.replace(device, options if repeat else None)
        try:
            yield recorded
        except RuntimeError as error:
            if not any(refusal in str(error) for refusal in (IN_PLACE, INFERENCE)):
                raise
            patches = patch_names(patch for kind in options.get("patches", {}).values() for patch in kind)
            suspects = f" (there are {patches})" if patches else ""
            does = "changes in place" if IN_PLACE in str(error) else "computes with weights of its own"
            raise ValueError(
                f"gradients cannot pass what another node {does}{suspects}. Connect the model without that node "
                "(FreeU_V2, for instance), or use Abs-Grad-SAM by the layer 'last' of SD 1.x or SD 2.x"
            ) from error


class RecordedLayers:
    """The layers after a site, which compute in float32 as long as `exits` is open.

    The host's weights are inference tensors, which autograd refuses to save, and may be half precision, quantised or
    offloaded. So each layer gets another `forward` for that time; its weights are never changed.

    network: which has the layers. After the network ran, features: what entered its last norm, float32 [rows,M,h,w];
    output: its own.
    """

    def __init__(self, layers: LayersAfter, exits: ExitStack) -> None:
        self._layers = layers
        self._exits = exits
        self._copies: dict[nn.Module, Weights] = {}
        self.network = layers.network
        self._forget()
        exits.callback(self._forget)

    def replace(self, device: torch.device, repeat_with: dict | None) -> None:
        """Give every layer its `forward`. repeat_with: the call's options where blocks are to be repeated."""
        blocks = [] if repeat_with is None else self._layers.repeatable(repeat_with)
        repeated = {layer for block in blocks for layer in block.modules()}
        for layer in self._layers.weighted():
            compute = float32_layer(layer)
            if self._layers.site is not None or isinstance(layer, (nn.GroupNorm, nn.LayerNorm)):  # of small weights
                weight, bias = self._copies[layer] = host_weights(layer, device)
                replace_forward(layer, partial(compute, weight=weight, bias=bias), self._exits)
            else:
                replace_forward(layer, with_host_weights(compute, layer, device, layer in repeated), self._exits)
        for block in blocks:
            replace_forward(block, repeated_block(block.forward), self._exits)
        for hook in (
            self._layers.norm.register_forward_pre_hook(self._keep_entering),
            self._layers.last.register_forward_hook(self._keep_last_output),
            self._layers.end.register_forward_pre_hook(self._unrounded),
            self.network.register_forward_hook(self._end),
        ):
            self._exits.callback(hook.remove)

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
        """Abs-Grad-SAM [S,B,C,h,w] of these rows by structure. Raises UnfitError where that is not exact.

        words: of the layer. prediction: z of the rows, `scale` times the network's output and a constant.
        """
        if not self._layers.only_end or layer != self._layers.site:
            raise UnfitError(
                f"further blocks follow the layer {layer} (in SD 1.x and 2.x none follow the layer 'last')"
            )
        features, head = self.features[rows], self._layers.head(self._copies, scale)
        derivative = self._derivative(rows, words)
        if reason := obstacle(words, features, head, prediction, derivative):
            raise UnfitError(reason)
        return structured(words, features, head, polarity, progress, derivative)

    def _derivative(self, rows: slice, words: WordAttention) -> Derivative | None:
        """The derivative of these rows' `features` in closed form; None if the layers are not the usual ones."""
        layers = self._layers.feedforward(self._copies, self._entered_norm[rows].detach().float())
        derivative = None if layers is None else layers.derivative(words)
        fits = derivative is not None and agrees_with_autograd(derivative, words, self.features[rows])
        return derivative if fits else None

    def _keep_entering(self, norm: nn.Module, args: tuple[Tensor]) -> None:
        self._entered_norm = args[0]

    def _keep_last_output(self, last: nn.Module, args: tuple, output: Tensor) -> None:
        self._last_output = output

    def _unrounded(self, end: nn.Module, args: tuple[Tensor]) -> Tensor:
        """What enters the network's end before the host rounds it to the model's precision."""
        (h,), output = args, self._last_output
        untouched = output is not None and output.shape == h.shape and torch.equal(output.to(h.dtype), h)
        self.features = output.float() if untouched else h.float()
        return self.features

    def _end(self, network: nn.Module, args: tuple, output: Tensor) -> Tensor:
        """Keep the network's output with its gradient, and return it without."""
        self.output = output
        torch.set_grad_enabled(False)
        return output.detach()

    def _forget(self) -> None:
        self._copies.clear()
        self._last_output = self._entered_norm = self.features = self.output = None


@contextmanager
def full_float32() -> Iterator[None]:
    """Inside the block float32 is computed as float32, not rounded to TF32 (or bfloat16) where the device could.

    By default cuDNN rounds what enters a convolution to TF32's 10 bits, so gradients would be right to 1e-3 only. The
    flags are those of the process; they are put back however the block ends.
    """
    cuda, cudnn, mkldnn = torch.backends.cuda, torch.backends.cudnn, torch.backends.mkldnn
    # Since PyTorch 2.9 each kind of operation has a precision of its own, beside the older flags, and both must agree.
    kinds = [cuda.matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul, mkldnn.conv] if hasattr(cudnn, "conv") else []
    before = [kind.fp32_precision for kind in kinds]
    products = _older_flag(torch.get_float32_matmul_precision)
    convolutions = _older_flag(lambda: cudnn.allow_tf32)
    try:
        torch.set_float32_matmul_precision("highest")
        cudnn.allow_tf32 = False
        for kind in kinds:
            kind.fp32_precision = "ieee"
        yield
    finally:
        if products is not None:
            torch.set_float32_matmul_precision(products)
        if convolutions is not None:
            cudnn.allow_tf32 = convolutions
        for kind, precision in zip(kinds, before, strict=True):
            kind.fp32_precision = precision


def _older_flag(value: Callable[[], Any]) -> Any:
    """The value of an older flag; None if only the newer ones were set: PyTorch then refuses to read the older one."""
    with suppress(RuntimeError):
        return value()
    return None

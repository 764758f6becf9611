"""The part of a UNet behind one cross-attention layer, made ready to be recorded by autograd."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import comfy.ops
import torch
import torch.nn.functional as F
from comfy.ldm.modules.attention import GEGLU
from comfy.quant_ops import QuantizedTensor
from torch import Tensor, nn

from ...core.gradients.feedforward import Feedforward
from ...core.gradients.structured import Head
from ..families.unet_gradients import INSIDE, parts_behind

_END = (nn.GroupNorm, nn.SiLU, nn.Conv2d)


class Tail:
    """While entered, everything behind a layer's attention computes in float32, from copies of its weights.

    The host's weights are inference tensors, which autograd refuses to save, and may be half precision, quantised or
    offloaded. So each layer of the tail gets a `forward` of its own for the time, with a float32 copy of the weights as
    the host would use them (its patches included); the weights themselves are never touched.

    After the network ran: features: what entered its last norm, float32 [rows,M,h,w]. entered: what entered the norm
    behind the layer's attention, float32 [rows,Q,K].
    """

    def __init__(self, network: nn.Module, layer: str, device: torch.device) -> None:
        self._network = network
        self._device = device
        self._parts = parts_behind(network, layer)
        self._last = network.output_blocks[-1][-1]
        self._exits = ExitStack()
        self._weights: dict[nn.Module, tuple[Tensor, Tensor | None]] = {}
        self._seen: Tensor | None = None
        self.features: Tensor | None = None
        self.entered: Tensor | None = None

    def __enter__(self) -> Tail:
        with ExitStack() as exits:
            exits.callback(self._forget)
            for module in (module for part in self._parts for module in part.modules()):
                if any(True for _ in module.parameters(recurse=False)) and module not in self._weights:
                    self._weights[module] = float32_weights(module, self._device)
                    self._replace(exits, module, self._stand_in(module))
            self._watch(exits)
            self._exits = exits.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._exits.close()

    def _forget(self) -> None:
        self._weights.clear()
        self._seen = self.features = self.entered = None

    def head(self, scale: float) -> Head | None:
        """GroupNorm, SiLU and convolution at the network's end, times `scale`; None where it ends differently."""
        end = list(self._network.out)
        if len(end) != len(_END) or not all(isinstance(m, kind) for m, kind in zip(end, _END, strict=True)):
            return None
        norm, _, conv = end
        same_size = all(
            (s, d, 2 * p + 1) == (1, 1, k)
            for s, d, p, k in zip(conv.stride, conv.dilation, conv.padding, conv.kernel_size, strict=True)
        )
        if not same_size or conv.groups != 1:
            return None
        return Head(norm.num_groups, norm.eps, *self._weights[norm], *self._weights[conv], scale=scale)

    def feedforward(self, rows: slice) -> Feedforward | None:
        """The rest of the layer's own transformer block, of these rows; None where it is built differently.

        Whether it is also all that happens there, and in this order, the caller has to find out.
        """
        if len(self._parts) != INSIDE + 1 or not isinstance(self._parts[2].net[0], GEGLU):
            return None
        to_out, norm, ff, proj_out, _ = self._parts
        first, _, second = ff.net
        (out, _), (gamma, beta), (up, up_bias) = (self._weights[m] for m in (to_out[0], norm, first.proj))
        last = self._weights[proj_out][0].flatten(1)
        down = last @ self._weights[second][0]
        return Feedforward(self.entered[rows].detach(), out, gamma, beta, norm.eps, up, up_bias, down, last)

    def _stand_in(self, module: nn.Module) -> Callable[[Tensor], Tensor]:
        run = stand_in(module, *self._weights[module])
        if module is not self._parts[1]:
            return run

        def norm(x: Tensor) -> Tensor:
            self.entered = x.float()
            return run(self.entered)

        return norm

    def _watch(self, exits: ExitStack) -> None:
        """Keep what enters the network's end, before the host rounds it to the model's precision."""
        last, end = self._last, self._network.out
        run, finish = last.forward, end.forward

        def keep(*args: Any, **kwargs: Any) -> Tensor:
            self._seen = run(*args, **kwargs)
            return self._seen

        def close(h: Tensor) -> Tensor:
            seen = self._seen
            untouched = seen is not None and seen.shape == h.shape and torch.equal(seen.to(h.dtype), h)
            self.features = seen.float() if untouched else h.float()
            return finish(self.features)

        self._replace(exits, last, keep)
        self._replace(exits, end, close)

    @staticmethod
    def _replace(exits: ExitStack, module: nn.Module, forward: Callable) -> None:
        if "forward" in vars(module):
            raise ValueError(
                f"another node replaced how the model's {type(module).__name__} computes, so gradients cannot pass it: "
                "connect the model without that node (a bypassed LoRA, for instance; load it the ordinary way)"
            )
        module.forward = forward
        exits.callback(delattr, module, "forward")


def float32_weights(module: nn.Module, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Copies of the weight and bias the host would compute with, in float32. Raises ValueError for a foreign layer."""
    if not isinstance(module, comfy.ops.CastWeightBiasOp):
        raise ValueError(f"gradients cannot pass the layer {type(module).__name__}, which is none of ComfyUI's own")
    weight, bias, stream = comfy.ops.cast_bias_weight(
        module, dtype=torch.float32, device=device, bias_dtype=torch.float32, offloadable=True
    )
    plain = weight.dequantize().float() if isinstance(weight, QuantizedTensor) else weight.clone()
    if (smoothing := getattr(module, "pre_quant_scale", None)) is not None:  # the host multiplies the input by it
        plain = plain * smoothing.to(plain)
    copies = plain, None if bias is None else bias.clone()
    comfy.ops.uncast_bias_weight(module, weight, bias, stream)
    return copies


def stand_in(module: nn.Module, weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    """What `module` computes, in float32 with these weights. Raises ValueError for an unknown kind of layer."""
    if (
        isinstance(module, nn.Linear) or type(module).__name__ == "Linear"
    ):  # the host's for quantised weights is its own
        return lambda x: F.linear(x.float(), weight, bias)
    if isinstance(module, nn.Conv2d):
        return lambda x: module._conv_forward(x.float(), weight, bias)
    if isinstance(module, nn.GroupNorm):
        return lambda x: F.group_norm(x.float(), module.num_groups, weight, bias, module.eps)
    if isinstance(module, nn.LayerNorm):
        return lambda x: F.layer_norm(x.float(), module.normalized_shape, weight, bias, module.eps)
    raise ValueError(f"gradients cannot pass the layer {type(module).__name__}: it is neither linear, conv nor norm")

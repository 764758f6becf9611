"""A network's layers, in float32 or in their own precision, such that autograd can differentiate them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import comfy.ops
import torch
import torch.nn.functional as F
from comfy.quant_ops import QuantizedTensor
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

# A layer's weight and bias.
Weights = tuple[Tensor, Tensor | None]

# What autograd says if a tensor that it needs has been changed.
IN_PLACE = "modified by an inplace operation"

# And if it would have to keep a tensor that was made without it.
INFERENCE = "Inference tensors cannot be saved for backward"


def host_weights(layer: nn.Module, device: torch.device, dtype: torch.dtype = torch.float32) -> Weights:
    """Copies of the weight and bias the host would compute with, constant. ValueError for a foreign layer."""
    if not isinstance(layer, comfy.ops.CastWeightBiasOp):
        raise ValueError(f"gradients cannot pass the layer {type(layer).__name__}, which is not one of ComfyUI's own")
    weight, bias, stream = comfy.ops.cast_bias_weight(
        layer, dtype=dtype, device=device, bias_dtype=dtype, offloadable=True
    )
    plain = weight.dequantize().to(dtype) if isinstance(weight, QuantizedTensor) else weight.detach().clone()
    if (smoothing := getattr(layer, "pre_quant_scale", None)) is not None:  # the host multiplies the input by it
        plain = plain * smoothing.to(plain)
    copies = plain, None if bias is None else bias.detach().clone()
    comfy.ops.uncast_bias_weight(layer, weight, bias, stream)
    return copies


def own_layer(layer: nn.Module) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """What `layer` computes of x, weight and bias. Raises ValueError for an unknown kind of layer."""
    if isinstance(layer, nn.Linear) or type(layer).__name__ == "Linear":  # the host's for quantised weights is its own
        return F.linear
    if isinstance(layer, nn.Conv2d):
        return layer._conv_forward
    if isinstance(layer, nn.GroupNorm):
        return lambda x, weight, bias: F.group_norm(x, layer.num_groups, weight, bias, layer.eps)
    if isinstance(layer, nn.LayerNorm):
        return lambda x, weight, bias: F.layer_norm(x, layer.normalized_shape, weight, bias, layer.eps)
    if isinstance(layer, nn.RMSNorm):
        return lambda x, weight, bias: F.rms_norm(x, layer.normalized_shape, weight, layer.eps)
    raise ValueError(f"gradients cannot pass the layer {type(layer).__name__}: it is neither linear, conv nor norm")


def float32_layer(layer: nn.Module) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """As `own_layer`, in float32."""
    compute = own_layer(layer)
    return lambda x, weight, bias: compute(x.float(), weight, bias)


def with_host_weights(
    compute: Callable[..., Tensor],
    layer: nn.Module,
    device: torch.device,
    repeated: bool,
    dtype: torch.dtype | None = torch.float32,
) -> Callable[[Tensor], Tensor]:
    """A `forward` that gets the weights from the host whenever it needs them.

    repeated: whether its block is. dtype: of the weights, None for that of what it is given.
    """

    def forward(x: Tensor) -> Tensor:
        precision = dtype or x.dtype
        weight, bias = host_weights(layer, device, precision)
        # Autograd keeps nothing of a repeated block anyway. A norm has few weights, and saves two of its own outputs:
        # kept by these hooks, they would keep themselves alive.
        if repeated or isinstance(layer, (nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)):
            return compute(x, weight, bias)
        storage = weight.untyped_storage().data_ptr()

        def pack(saved: Tensor) -> tuple:
            if saved.untyped_storage().data_ptr() != storage:
                return saved, saved._version
            return saved.device, saved.size(), saved.stride(), saved.storage_offset()

        def unpack(kept: tuple) -> Tensor:
            if len(kept) > 2:
                return host_weights(layer, kept[0], precision)[0].as_strided(*kept[1:])
            if kept[0]._version != kept[1]:  # with saved-tensor hooks, autograd does not check this itself
                raise RuntimeError(f"what {type(layer).__name__} was given has been {IN_PLACE}")
            return kept[0]

        with saved_tensors_hooks(pack, unpack):
            return compute(x, weight, bias)

    return forward


def replace_forward(module: nn.Module, forward: Callable[..., Tensor], exits: ExitStack) -> None:
    """Give a module another `forward` as long as `exits` is open. Raises ValueError if another node did already."""
    if "forward" in vars(module):
        raise replaced_layer(module)
    module.forward = forward
    exits.callback(delattr, module, "forward")


def repeated_block(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A `forward` of which autograd keeps only x; it runs the block again when it needs the rest."""

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        options = [(value, dict(value)) for value in (*args, *kwargs.values()) if isinstance(value, dict)]

        def block(x: Tensor) -> Tensor:
            for each, before in options:
                each.update(before)  # the host writes there which block it runs
            return run(x, *args, **kwargs)

        return checkpoint(block, x, use_reentrant=False)

    return forward


def replaced_layer(module: nn.Module) -> ValueError:
    """The error that another node replaced how this layer computes."""
    return ValueError(
        f"another node replaced how the model's {type(module).__name__} computes, so gradients cannot pass it: "
        "connect the model without that node (a bypassed LoRA, for instance; load it the ordinary way)"
    )

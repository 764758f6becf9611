"""A network's layers in float32, such that autograd can differentiate them."""

from __future__ import annotations

from collections.abc import Callable
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


def float32_weights(layer: nn.Module, device: torch.device) -> Weights:
    """Copies of the weight and bias the host would compute with: float32, constant. ValueError for a foreign layer."""
    if not isinstance(layer, comfy.ops.CastWeightBiasOp):
        raise ValueError(f"gradients cannot pass the layer {type(layer).__name__}, which is not one of ComfyUI's own")
    weight, bias, stream = comfy.ops.cast_bias_weight(
        layer, dtype=torch.float32, device=device, bias_dtype=torch.float32, offloadable=True
    )
    plain = weight.dequantize().float() if isinstance(weight, QuantizedTensor) else weight.detach().clone()
    if (smoothing := getattr(layer, "pre_quant_scale", None)) is not None:  # the host multiplies the input by it
        plain = plain * smoothing.to(plain)
    copies = plain, None if bias is None else bias.detach().clone()
    comfy.ops.uncast_bias_weight(layer, weight, bias, stream)
    return copies


def float32_layer(layer: nn.Module) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """What `layer` computes of x, weight and bias, in float32. Raises ValueError for an unknown kind of layer."""
    if isinstance(layer, nn.Linear) or type(layer).__name__ == "Linear":  # the host's for quantised weights is its own
        return lambda x, weight, bias: F.linear(x.float(), weight, bias)
    if isinstance(layer, nn.Conv2d):
        return lambda x, weight, bias: layer._conv_forward(x.float(), weight, bias)
    if isinstance(layer, nn.GroupNorm):
        return lambda x, weight, bias: F.group_norm(x.float(), layer.num_groups, weight, bias, layer.eps)
    if isinstance(layer, nn.LayerNorm):
        return lambda x, weight, bias: F.layer_norm(x.float(), layer.normalized_shape, weight, bias, layer.eps)
    if isinstance(layer, nn.RMSNorm):
        return lambda x, weight, bias: F.rms_norm(x.float(), layer.normalized_shape, weight, layer.eps)
    raise ValueError(f"gradients cannot pass the layer {type(layer).__name__}: it is neither linear, conv nor norm")


def with_host_weights(
    compute: Callable[..., Tensor], layer: nn.Module, device: torch.device, repeated: bool
) -> Callable[[Tensor], Tensor]:
    """A `forward` that gets the weights from the host whenever it needs them. repeated: whether its block is."""

    def forward(x: Tensor) -> Tensor:
        weight, bias = float32_weights(layer, device)
        if repeated:  # autograd keeps nothing of a repeated block anyway
            return compute(x, weight, bias)
        storage = weight.untyped_storage().data_ptr()

        def pack(saved: Tensor) -> tuple:
            if saved.untyped_storage().data_ptr() != storage:
                return saved, saved._version
            return saved.device, saved.size(), saved.stride(), saved.storage_offset()

        def unpack(kept: tuple) -> Tensor:
            if len(kept) > 2:
                return float32_weights(layer, kept[0])[0].as_strided(*kept[1:])
            if kept[0]._version != kept[1]:  # with saved-tensor hooks, autograd does not check this itself
                raise RuntimeError(f"what {type(layer).__name__} was given has been {IN_PLACE}")
            return kept[0]

        with saved_tensors_hooks(pack, unpack):
            return compute(x, weight, bias)

    return forward


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

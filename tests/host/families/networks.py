"""One small random network of every model family and kind, and what the contract suite has to know about it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from tests.host.unets import random_unet


@dataclass(frozen=True)
class Network:
    """family: of the pack, by its class's name. build: a ModelPatcher. modules: the host's modules that compute the
    attentions of a kind, by site. replace: put a node's function (q, k, v, extra_options) in place of the attention of
    a kind at `middle.0.0`, on a model that may be changed."""

    family: str
    build: Callable[[], Any]
    modules: Callable[[Any, str], dict[str, torch.nn.Module]]
    replace: Callable[[Any, str, Callable], None]


def _unet_modules(network: torch.nn.Module, kind: str) -> dict[str, torch.nn.Module]:
    """By the names that checkpoints have: output_blocks.3.1.transformer_blocks.0.attn2."""
    suffix, found = {"cross": ".attn2", "self": ".attn1"}[kind], {}
    for name, module in network.named_modules():
        if name.endswith(suffix):
            block, number, *_ = name.split(".")
            number = 0 if block == "middle_block" else number
            found[f"{block.split('_')[0]}.{number}.{name.split('.')[-2]}"] = module
    return found


def _replace_in_unet(model: Any, kind: str, replacement: Callable) -> None:
    getattr(model, {"cross": "set_model_attn2_replace", "self": "set_model_attn1_replace"}[kind])(
        replacement, "middle", 0
    )


def _unet(kind: str) -> Network:
    return Network("UNet", lambda: random_unet(kind), _unet_modules, _replace_in_unet)


NETWORKS = {"SD 1.x": _unet("SD15"), "SD 2.x": _unet("SD20"), "SDXL": _unet("SDXL")}


@contextmanager
def reading(network: Network, model: Any) -> Iterator[dict[str, list[torch.Tensor]]]:
    """Cross-attention of the calls in this block, per site: P [rows,H,Q,K] in float64, of the modules' own q and k."""
    found, handles = {}, []
    for name, module in network.modules(model.model.diffusion_model, "cross").items():
        projected = {}

        def keep(projection, args, out, projected=projected):
            projected[projection] = out.double()

        def attention(module, args, out, projected=projected, name=name):
            q, k = (
                projected[each].unflatten(-1, (module.heads, -1)).transpose(1, 2) for each in (module.to_q, module.to_k)
            )
            p = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), dim=-1)
            found.setdefault(name, []).append(p)

        handles += [each.register_forward_hook(keep) for each in (module.to_q, module.to_k)]
        handles.append(module.register_forward_hook(attention))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()

"""Abs-Grad-SAM by autograd over the host's own network, whose last attention is spelled out here."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

POLARITIES = ("absolute", "positive")

# Where the first token of the text is among the keys, if not at 0: behind registers or padding, or behind the picture.
_FIRST = {"AuraFlow": 8, "Flux.2": 492}
_PICTURE_FIRST = {"JoyImage", "Lens", "Ernie-Image"}

# Where attention is computed, if not in the network's own file.
_FILES = {"PixArt": "comfy.ldm.pixart.blocks", "HunyuanDiT": "comfy.ldm.hydit.attn_layers"}

# Networks that give their attention no options: the file's own function is watched there.
_HIDDEN = {"Ernie-Image", "PixArt", "HunyuanDiT"}


class LastAttention:
    """Attention as the host's override computes it; the last one of a call by a leaf, and autograd records from it on.

    p: the leaf [R,H,Q,K]. output: of the network.
    """

    def __init__(self) -> None:
        self.p: Tensor | None = None
        self.output: Tensor | None = None
        self.text = self._calls = 0
        self._last: int | None = None

    def begin(self) -> None:
        """Before each of two calls: the first one counts the attentions."""
        self._last, self._calls = self._calls or None, 0

    def around(self, executor: Any, x: Tensor, t: Tensor, c_concat: Any, c_crossattn: Tensor, *args: Any, **conds: Any):
        """APPLY_MODEL wrapper."""
        self.text = c_crossattn.shape[1]
        with torch.inference_mode(False), torch.no_grad():
            own = c_crossattn.clone()  # HunyuanDiT writes into it, and it may be the server's
            return executor(x, t, c_concat, own, *args, **conds).detach()

    def keep(self, network: Any, args: Any, output: Tensor) -> None:
        """Forward hook of the network."""
        self.output = output
        torch.set_grad_enabled(False)

    def __call__(self, own: Any, q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Any = None, *args: Any, **kwargs):
        self._calls += 1
        if self._calls != self._last:
            return own(q, k, v, heads, mask, *args, **kwargs)
        d = q.shape[-1] if q.ndim == 4 else q.shape[-1] // heads
        v = v.flatten(2) if v.ndim > q.ndim else v
        q, k, v = (x if x.ndim == 4 else x.unflatten(-1, (-1, d)).transpose(1, 2) for x in (q, k, v))
        k, v = (x.repeat_interleave(heads // x.shape[1], dim=1) for x in (k, v))
        scores = q @ k.transpose(-1, -2) * d**-0.5
        if mask is not None:
            mask = mask.unsqueeze(1) if mask.ndim == 3 else mask
            scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        torch.set_grad_enabled(True)
        self.p = torch.softmax(scores, -1).detach().requires_grad_()
        out = self.p @ v
        return out if kwargs.get("skip_output_reshape") else out.transpose(1, 2).flatten(2)


def _ltx_block(
    block: Any,
    x: Tensor,
    context: Tensor,
    attention_mask: Tensor | None,
    timestep: Tensor,
    pe: Any,
    transformer_options: dict,
    **_: Any,
) -> Tensor:
    """A block of LTX-Video by the same layers; the host's writes into what autograd has saved."""
    table = block.scale_shift_table + timestep.unflatten(-1, block.scale_shift_table.shape)
    shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = table.unbind(2)

    def normed(x: Tensor) -> Tensor:
        return x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt()

    x = x + gate * block.attn1(normed(x) * (1 + scale) + shift, pe=pe, transformer_options=transformer_options)
    x = x + block.attn2(x, context=context, mask=attention_mask, transformer_options=transformer_options)
    return x + gate_mlp * block.ff(normed(x) * (1 + scale_mlp) + shift_mlp)


@contextmanager
def _spelled_out(name: str, model: Any, last: LastAttention) -> Iterator[None]:
    network = model.model.diffusion_model
    file, handle = sys.modules[_FILES.get(name, type(network).__module__)], network.register_forward_hook(last.keep)
    before = getattr(file, "optimized_attention", None)
    block = network.transformer_blocks[-1] if name == "LTX-Video" else None
    try:
        if block is not None:
            block.forward = functools.partial(_ltx_block, block)
        if name in _HIDDEN:
            file.optimized_attention = functools.partial(last, before)
        else:
            options = model.model_options["transformer_options"]
            model.model_options["transformer_options"] = {**options, "optimized_attention_override": last}
        yield
    finally:
        handle.remove()
        if block is not None:
            del block.forward
        if name in _HIDDEN:
            file.optimized_attention = before


def definition(
    name: str,
    model: Any,
    start: Tensor,
    positive: list,
    token_sets: Sequence[Sequence[int]],
    level: float,
    seed: int,
    elements: Sequence[int] | None = None,
) -> dict[str, Tensor]:
    """Polarity -> float32 [S,E] of one picture, by one gradient for each element; all of C*h*w, or these flat indices.

    model: whose weights autograd can save. The gradients are with respect to all queries.
    """
    from comfy.patcher_extension import WrappersMP

    from explainable_latents.nodes.host.one_call import call_once, noise_sigma

    spied, last = model.clone(), LastAttention()
    spied.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "test", last.around)
    with torch.inference_mode(), _spelled_out(name, spied, last):
        for _ in range(2):
            last.begin()
            call_once(spied, positive, {"samples": start}, level, seed)
    sampling, p = model.get_model_object("model_sampling"), last.p
    with torch.enable_grad():  # what else the prediction is made of does not depend on the network
        z = sampling.calculate_denoised(torch.tensor([noise_sigma(model, level)]), last.output, 0.0 * start)[0]
    first = p.shape[-1] - last.text if name in _PICTURE_FIRST else _FIRST.get(name, 0)
    elements = range(z.numel()) if elements is None else elements
    scores = {polarity: torch.zeros(len(token_sets), len(elements)) for polarity in POLARITIES}
    for i, element in enumerate(elements):
        (gradient,) = torch.autograd.grad(z.flatten()[element], p, retain_graph=True)
        for polarity, counts in (("absolute", gradient.abs()), ("positive", gradient.relu())):
            per_key = (p.detach() * counts)[0].sum((0, 1))
            for s, tokens in enumerate(token_sets):
                scores[polarity][s, i] = per_key[[first + token for token in tokens]].sum()
    return scores

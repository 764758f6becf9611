"""Make the words' probabilities in cross-attention layers the variables that autograd derives by."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

import torch
from torch import Tensor

from ...core.attention.probabilities import token_probabilities
from ...core.gradients.definition import WordAttention, attention_change, distinct_tokens
from ..attention.arrangement import UnreadableError
from ..attention.hook import CrossAttentionHook
from ..attention.rows import Rows
from ..families.unet import layer_name
from .foreign_attention import differentiable_attention, followed


class Leaf(CrossAttentionHook):
    """Adds a change of 0 to the words' probabilities in `layers`; from the first one on autograd records.

    The user's own attention backend computes the attention that nothing is derived through; what is added to it is
    exactly 0 and has the gradient of the probabilities.
    words: per layer that ran one entry per entry of `rows`. grids: per layer its (h, w).
    """

    def __init__(self, rows: list[Rows], layers: Container[str]) -> None:
        super().__init__(rows)
        self.words: dict[str, list[WordAttention]] = {}
        self.grids: dict[str, tuple[int, int]] = {}
        self._layers = layers

    def install(self, options: dict) -> dict:
        """See `CrossAttentionHook`; what replaces self-attention has to let gradients pass, too."""
        options = super().install(options)
        replacers = options.get("patches_replace", {})
        if replacers.get("attn1"):
            around = {block: self._passable(replacer) for block, replacer in replacers["attn1"].items()}
            options["patches_replace"] = {**replacers, "attn1": around}
        return options

    @staticmethod
    def _passable(replacer: Callable) -> Callable:
        def replaced(q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            return followed(replacer, lambda q, k, v: replacer(q, k, v, *args, **kwargs), q, k, v)

        return replaced

    def _beside(self, previous: Callable | None) -> Callable:
        def override(attention: Callable, *args: Any, **kwargs: Any) -> Tensor:
            announced, self._next = self._next, None
            if torch.is_grad_enabled():
                attention = differentiable_attention  # the host's backends compute in place
            if previous is None:
                out = attention(*args, **kwargs)
            else:
                q, k, v, *more = args
                out = followed(previous, lambda q, k, v: previous(attention, q, k, v, *more, **kwargs), q, k, v)
            if announced is None or layer_name(announced) != layer_name(kwargs["transformer_options"]):
                return out
            q, k, v, heads, *rest = args
            mask = rest[0] if rest else kwargs.get("mask")
            return self._recorded(out, (q, k, v), heads, announced, mask, kwargs.get("scale"))

        return override

    def _around(self, replacer: Callable) -> Callable:
        passable = self._passable(replacer)

        def replaced(q: Tensor, k: Tensor, v: Tensor, extra_options: dict, **kwargs: Any) -> Tensor:
            self._next = None
            out = passable(q, k, v, extra_options, **kwargs)
            return self._recorded(out, (q, k, v), extra_options["n_heads"], extra_options)

        return replaced

    def _recorded(
        self,
        out: Tensor,
        qkv: tuple[Tensor, Tensor, Tensor],
        heads: int,
        options: dict,
        mask: Tensor | None = None,
        scale: float | None = None,
    ) -> Tensor:
        """The attention's output `out` [rows,Q,H*d] with the change added; turns recording on."""
        name = layer_name(options)
        if name not in self._layers:
            return out
        q, k, v = qkv
        h, w = options["activations_shape"][-2:]
        try:
            arrangement = self._arranger.arrangement()
        except UnreadableError as error:
            raise ValueError(f"cross-attention {name}: {error}; connect the model without it") from error
        rows, keys = arrangement.shape
        if not out.shape[:2] == q.shape[:2] == (rows, h * w) or not k.shape[:2] == v.shape[:2] == (rows, keys):
            raise ValueError(
                f"cross-attention {name} has {tuple(out.shape[:2])} rows and positions and {tuple(k.shape[:2])} rows "
                f"and keys where {rows} rows of {h}x{w} and {keys} keys were expected, changed by "
                f"{self._arranger.names}; connect the model without it"
            )
        self.grids[name], out = (h, w), out.float()
        for places in arrangement.places:
            rows = [torch.arange(len(out), device=out.device)[place.rows] for place in places]
            tokens = [distinct_tokens(place.columns) for place in places]
            with torch.no_grad():
                p = [
                    token_probabilities(q[at], k[at], heads, used, mask=_of_rows(mask, at), scale=scale)
                    for at, (used, _) in zip(rows, tokens, strict=True)
                ]
            values = [v[at][:, used].float() for at, (used, _) in zip(rows, tokens, strict=True)]
            p, columns = torch.cat(p, dim=-1), torch.cat([each for _, each in tokens])
            torch.set_grad_enabled(True)
            change = torch.zeros_like(p, requires_grad=True)
            parts = change.split([len(used) for used, _ in tokens], dim=-1)
            for at, part, each in zip(rows, parts, values, strict=True):
                out = out.index_add(0, at, attention_change(part, each))
            words = WordAttention(p, change, columns, torch.cat(values, dim=1).detach())
            self.words.setdefault(name, []).append(words)
        return out


def _of_rows(mask: Tensor | None, rows: Tensor) -> Tensor | None:
    """An attention mask of these rows, [Q,T] or [rows,1 or H,Q,T]."""
    if mask is None or mask.ndim < 3:
        return mask
    mask = mask if mask.shape[0] == 1 else mask[rows]
    return mask.unsqueeze(1) if mask.ndim == 3 else mask

"""Read cross-attention probabilities beside the user's attention backend during one call of the network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..core.attention import token_attention
from .conditionings import Rows
from .hook import CrossAttentionHook
from .layers import LayerSelection, layer_name


class Recorder(CrossAttentionHook):
    """Collects, for each chosen layer, the subjects' attention on that layer's own grid.

    maps: layer name -> one float32 tensor [S,B,h_n,w_n] per entry of `rows`, summed over tokens and heads.
    grids: the (h_n, w_n) of every cross-attention layer that ran.
    """

    def __init__(self, rows: list[Rows], selection: LayerSelection, batch: int, warn: Callable[[str], None]) -> None:
        super().__init__()
        self.maps: dict[str, list[Tensor]] = {}
        self.grids: dict[str, tuple[int, int]] = {}
        self._rows = rows
        self._selection = selection
        self._batch = batch
        self._warn = warn

    def _beside(self, previous: Callable | None) -> Callable:
        def override(attention: Callable, *args: Any, **kwargs: Any) -> Tensor:
            extra_options, self._next = self._next, None
            # A block whose attn2 module another node replaced never calls this for it: the next block's
            # self-attention comes instead.
            if extra_options is not None and layer_name(extra_options) == layer_name(kwargs["transformer_options"]):
                q, k, _, heads, *rest = args
                mask = rest[0] if rest else kwargs.get("mask")
                self._record(q, k, heads, extra_options, mask, kwargs.get("scale"))
            if previous is not None:
                return previous(attention, *args, **kwargs)
            return attention(*args, **kwargs)

        return override

    def _around(self, replacer: Callable) -> Callable:
        def replaced(q: Tensor, k: Tensor, v: Tensor, extra_options: dict, **kwargs: Any) -> Tensor:
            # What the replacer itself computes through the host's attention is not observed a second time.
            self._next = None
            self._record(q, k, extra_options["n_heads"], extra_options)
            return replacer(q, k, v, extra_options, **kwargs)

        return replaced

    def check_selection(self) -> None:
        """Raise ValueError when none of the layers that ran is chosen: a grid that this latent does not have."""
        if self.grids and not any(layer in self._selection for layer in self.grids.items()):
            there = ", ".join(sorted({f"{h}x{w}" for h, w in self.grids.values()}))
            raise ValueError(
                f"no cross-attention layer has one of the chosen grids; this latent gives {there} (height x width)"
            )

    @torch.no_grad()
    def _record(
        self, q: Tensor, k: Tensor, heads: int, options: dict, mask: Tensor | None = None, scale: float | None = None
    ) -> None:
        name = layer_name(options)
        h, w = options["activations_shape"][-2:]
        self.grids[name] = (h, w)
        if (name, (h, w)) not in self._selection:
            return
        tokens = self._rows[0].columns.shape[0]
        if q.shape[:2] != (self._batch, h * w) or k.shape[0] != self._batch or k.shape[1] < tokens:
            self._warn(
                f"cross-attention of layer {name} is not captured: {tuple(q.shape)} queries and {tuple(k.shape)} keys "
                f"where "
                f"{self._batch} rows of {h}x{w} queries and at least {tokens} keys were expected; another node "
                f"rearranges them"
            )
            return
        self.maps[name] = [
            token_attention(
                q[row.rows],
                k[row.rows],
                heads,
                _to_keys(row.columns, row, k),
                words=None if row.words is None else _to_keys(row.words.unsqueeze(-1), row, k).squeeze(-1),
                mask=mask if mask is None or mask.ndim < 3 or mask.shape[0] == 1 else mask[row.rows],
                scale=scale,
            ).unflatten(-1, (h, w))
            for row in self._rows
        ]


def _to_keys(columns: Tensor, row: Rows, k: Tensor) -> Tensor:
    """Membership [T,S] for every key of every row: [B,T',S]. Keys another node put behind the text belong to
    nothing."""
    columns = torch.nn.functional.pad(columns, (0, 0, 0, k.shape[1] - columns.shape[0]))
    return columns.expand(row.rows.stop - row.rows.start, -1, -1)

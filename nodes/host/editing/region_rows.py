"""The regions' attention at the cross-attention sites of one model call.

The rows of the call stay as they are. The regions' tokens stand one behind the other in a context of their own, with
zeros for all other rows; each layer makes keys and values of it once, from which every region takes its part. So
prompts may have any length, and the base prompt's keys keep their bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from comfy.utils import repeat_to_batch_size
from torch import Tensor

from ...core.methods.regional_attention import on_grid
from ..attention.attention_call import AttentionCall
from ..families.sites import CROSS
from .editors import EditedCall, EditingProcessor

NAME = "Regional Attention"

# What makes keys or values of a text's encoding, by the name of the site.
Layers = Mapping[str, Callable[[Tensor], Tensor]]


@dataclass(frozen=True)
class RegionRows:
    """A positive conditioning in a model call: its rows, and the shares [1+R,B,h,w] of what it sees of the latent."""

    rows: slice
    shares: Tensor


class RegionsAttention(EditingProcessor):
    """Mixes the regions' cross-attention into that of the base prompt, in one model call.

    texts: contexts [1 or B,T,d] of the regions. layers: what makes keys and values, see `Family`. exchanges: whether a
    region that covers everything may simply take the place of the base prompt, which gives the bits of a run with that
    prompt; not where another editor reads the base prompt.
    """

    edits_replaced = True

    def __init__(
        self,
        call: EditedCall,
        texts: Sequence[Tensor],
        parts: Sequence[RegionRows],
        layers: tuple[Layers, Layers],
        exchanges: bool,
    ) -> None:
        super().__init__(NAME, (CROSS,), call)
        self._texts = texts
        self._parts = parts
        self._keys, self._values = layers
        self._exchanges = exchanges
        self._context: Tensor | None = None
        self._on_grids: dict[tuple[int, int], list[Tensor]] = {}

    def edited(self, call: AttentionCall) -> AttentionCall:
        """See `EditingProcessor`."""
        if call.mask is not None:
            self.leave(call, "it has a mask of its own")
            return call
        if call.site.grid not in self._on_grids:
            self._on_grids[call.site.grid] = [on_grid(part.shares, call.site.grid) for part in self._parts]
        context, lengths = self._joined(call.k), [text.shape[1] for text in self._texts]
        keys, values = (layers[call.site.name](context).split(lengths, 1) for layers in (self._keys, self._values))
        for part, (own, *others) in zip(self._parts, self._on_grids[call.site.grid], strict=True):
            used = [i for i, share in enumerate(others) if bool(share.any())]
            if not used:
                continue
            k, v = keys[used[0]], values[used[0]]
            alone = len(used) == 1 and bool((others[used[0]] == 1).all()) and not bool(own.any())
            if alone and self._exchanges and not call.mixtures and k.shape == call.k.shape:
                call = call.with_rows(part.rows, k=k[part.rows], v=v[part.rows])
                continue
            mixed = [(others[i].to(call.q.device), keys[i][part.rows], values[i][part.rows]) for i in used]
            call = call.with_mixture(part.rows, own.to(call.q.device), mixed)
        return call

    def _joined(self, like: Tensor) -> Tensor:
        """The regions' tokens one behind the other [rows,ΣT,d], zeros in rows that have no regions."""
        if self._context is None or self._context.device != like.device:
            batch = self._parts[0].rows.stop - self._parts[0].rows.start
            text = torch.cat([repeat_to_batch_size(each, batch).to(like) for each in self._texts], 1)
            self._context = text.new_zeros(len(like), *text.shape[1:])
            for part in self._parts:
                self._context[part.rows] = text
        return self._context

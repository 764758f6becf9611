"""A prompt's attention maps of some cross-attention layers, with their gradient by what the network was given."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...core.attention.recorded_maps import recorded_attention
from ..attention.arrangement import Arranger
from ..attention.attention_call import AttentionCall
from ..attention.named_tokens import NamedTokens
from ..attention.positives import PromptRows
from ..families.sites import Site
from .foreign_attention import RecordedAttention, attention_in_own_precision
from .word_variable import arranged, require_seen


class LeftNetwork(Exception):
    """All that is needed has been seen: the rest of the network is left out."""


def end_record(leave: bool) -> None:
    """What follows in this model call is not recorded; leave: it is ended, by `LeftNetwork`."""
    torch.set_grad_enabled(False)
    if leave:
        raise LeftNetwork


class WordMaps(RecordedAttention):
    """Collects the attention to tokens in `layers`, in running order; recording ends after `end`, if that is one.

    maps: for each layer that ran one [B,heads or 1,h,w,N] per entry of `rows`. named: the N tokens, each by itself.
    each_head: whether heads are kept apart. passed: see `RecordedAttention`. leave: see `end_record`.
    """

    def __init__(
        self,
        rows: list[PromptRows],
        named: NamedTokens,
        layers: Sequence[str],
        end: str,
        each_head: bool,
        passed: list[str],
        leave: bool,
    ) -> None:
        self.maps: dict[str, list[Tensor]] = {}
        self._arranger = Arranger(rows, named)
        self._layers = layers
        self._end = end
        self._each_head = each_head
        self._leave = leave
        super().__init__(attention_in_own_precision, passed)

    def wants(self, site: Site) -> bool:
        """See `Processor`."""
        return site.name in self._layers

    def require_all(self, network: nn.Module, options: dict) -> None:
        """See `require_seen`."""
        require_seen(self._layers, self.maps, network, options)

    def see(self, call: AttentionCall, out: Tensor) -> None:
        """See `Processor`."""
        name, grid = call.site.name, call.site.grid
        arrangement = arranged(self._arranger, call)
        if arrangement.carriers is not None:
            raise ValueError(
                f"guidance cannot follow the cross-attention {name}: its rows were repeated for parts of the picture, "
                f"by {call.inputs.changed_by}. Connect the model without it"
            )
        found = [self._shares(call, places[0].rows, places[0].columns, grid) for places in arrangement.places]
        self.maps.setdefault(name, found)  # a block that is run again has been seen already
        if name == self._end:
            end_record(self._leave)

    def _shares(self, call: AttentionCall, rows: slice | Tensor, columns: Tensor, grid: tuple[int, int]) -> Tensor:
        q, k, mask = call.of_picture(rows)
        how = {"each_head": self._each_head, "mask": mask, "scale": call.scale}
        return recorded_attention(q, k, call.site.heads, columns, **how).unflatten(2, grid)

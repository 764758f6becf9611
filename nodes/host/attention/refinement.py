"""Keep the self-attention of a model call until its word maps are complete, and refine them with it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from ...core.attention.aggregate import added
from ...core.attention.refine import SelfAttention, refine
from ..families.sites import SELF, Site
from ..patch_names import replaced_parts
from .attention_call import AttentionCall, Processor
from .positives import PromptRows

# At most so many layers: in SD 1.x output.9, output.10 and output.11, which is all that its decoder has at 64x64.
LAYERS = 3


@dataclass(frozen=True)
class _Kept:
    """One layer's self-attention for each conditioning, or why it cannot be read."""

    name: str
    grid: tuple[int, int]
    attention: list[SelfAttention]
    unreadable: str


class Refinement(Processor):
    """Keeps the decoder's layers on the finest grid: the last `LAYERS` of those that follow all coarser layers.

    count: rows of the network's batch. rows: those of the conditionings whose maps are refined. power: see
    `core.attention.refine`. names: of the network's self-attention, in running order. labels: of the maps.
    """

    kinds = (SELF,)

    def __init__(
        self,
        count: int,
        rows: Sequence[PromptRows],
        power: int,
        names: Sequence[str],
        labels: Sequence[str],
        warn: Callable[[str], None],
    ) -> None:
        self._count = count
        self._rows = rows
        self._power = power
        self._names = names
        self._labels = labels
        self._warn = warn
        self._kept: list[_Kept] = []
        self._seen: set[str] = set()
        # Whether a coarser layer has come after those that are kept.
        self._coarser = False

    def wants(self, site: Site) -> bool:
        """See `Processor`. Leaves out the first attention of a block where that looks at the text as well."""
        return site.name in self._names

    def see(self, call: AttentionCall, out: Tensor) -> None:
        """See `Processor`."""
        h, w = call.site.grid
        self._seen.add(call.site.name)
        finest = math.prod(self._kept[-1].grid) if self._kept else 0
        if h * w < finest:
            self._coarser = True
            return
        if self._coarser or h * w > finest:
            self._kept.clear()
        self._coarser = False
        self._kept.append(self._keep(call))
        del self._kept[:-LAYERS]

    def refined(
        self, layers: Mapping[str, Sequence[Tensor]], resize: str, network: nn.Module
    ) -> list[tuple[Tensor, PromptRows]]:
        """After the network's call, once: the sum of the layers' maps [S,B,h,w] of each of the rows, refined.

        layers: the maps [S,B,h_n,w_n] of each of the rows, per layer. resize: how they are brought to one grid. Raises
        ValueError where self-attention could not be read.
        """
        kept, self._kept = self._kept, []
        sums = [added(maps, row.size, resize) for row, *maps in zip(self._rows, *layers.values(), strict=True)]
        reason = self._unreadable(kept, network)
        if reason:
            raise ValueError(
                f"maps cannot be refined: {reason}. Set refine to 0, or connect the model without that node"
            )
        found = []
        for i, (maps, row) in enumerate(zip(sums, self._rows, strict=True)):
            maps, powers = refine(maps, [layer.attention[i] for layer in kept], kept[0].grid, self._power)
            found.append((maps, row))
            for label, had in zip(self._labels, powers.amin(1).tolist(), strict=True):
                if had < self._power:
                    self._warn(f"refine {self._power} stopped early for {label}: its map is the same everywhere")
        return found

    def _keep(self, call: AttentionCall) -> _Kept:
        """Copies of the rows' queries and keys: slices would keep those of all rows, a backend may overwrite them."""
        name, (h, w), changed_by = call.site.name, call.site.grid, call.inputs.changed_by
        found, expected = (tuple(call.q.shape[:2]), tuple(call.k.shape[:2])), (self._count, h * w)
        unreadable = ""
        if call.attend is None:
            unreadable = f"self-attention of layer {name} is computed by {changed_by}"
        elif found != (expected, expected):
            unreadable = (
                f"self-attention of layer {name} has {found[0]} rows and queries and {found[1]} rows and keys where "
                f"{expected} were expected, changed by {changed_by}"
            )
        attention = []
        for row in self._rows if not unreadable else ():
            q, k, _, mask = call.of_rows(row.rows)
            attend = functools.partial(call.attend, mask=mask)
            attention.append(SelfAttention(q.clone(), k.clone(), call.site.heads, attend))
        return _Kept(name, (h, w), attention, unreadable)

    def _unreadable(self, kept: Sequence[_Kept], network: nn.Module) -> str:
        """Why the layers that should have been kept cannot be used; empty if they can."""
        first = self._names.index(kept[0].name) if kept else 0
        unseen = [name for name in self._names[first:] if name not in self._seen]
        if unseen or not kept:
            where = f" of layer {', '.join(unseen)}" if unseen else ""
            return f"self-attention{where} was not computed where it could be seen, but by {replaced_parts(network)}"
        return "; ".join(layer.unreadable for layer in kept if layer.unreadable)

"""Keep the self-attention of a model call until its maps are complete, and refine them with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from comfy.ldm.modules.attention import attention_pytorch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ...core.attention.refine import AUTO, MOST_POWERS, SelfAttention, refine
from ..families.family import family_of, network_of
from ..families.sites import JOINT, SELF, Site
from ..patch_names import replaced_parts
from .attention_call import Attend, AttentionCall, Processor
from .layer_choice import LayerSelection, select_layers
from .positives import PromptRows

# AUTO is the decoder's layers on the finest grid: of those that follow all coarser layers, at most the last so many. In
# SD 1.x they are output.9, output.10 and output.11, which is all that its decoder has at 64x64. Where all layers have
# one grid, in transformers, it is the last so many.
LAYERS = 3


@dataclass(frozen=True)
class RefinePlan:
    """How maps are refined: `power` times, 0 for not at all.

    names: of the network's self-attention, in running order. chosen: of these, None for AUTO.
    """

    power: int
    names: tuple[str, ...]
    chosen: LayerSelection | None


def refine_plan(patcher: ModelPatcher, power: int, layers: str = AUTO) -> RefinePlan:
    """The plan for a model. power: 0 to 8. layers: AUTO, or as of `select_layers`, among its self-attention.

    Raises ValueError for another power and for an unknown layer.
    """
    if not 0 <= power <= MOST_POWERS:
        raise ValueError(f"refine {power} is not a whole number from 0 to {MOST_POWERS}")
    family = family_of(patcher)
    names = family.site_names(network_of(patcher), family.picture_kind)
    if power and not names:
        raise ValueError(
            f"refine is {power}, but what the picture attends to in itself cannot be seen in {family.name}: set refine "
            "to 0"
        )
    if layers.strip().lower() != AUTO:
        return RefinePlan(power, names, select_layers(names, layers, f"{family.picture_kind}-attention", (AUTO,)))
    last = LayerSelection(frozenset(names[-LAYERS:]), frozenset())
    return RefinePlan(power, names, last if family.picture_kind == JOINT else None)


@dataclass(frozen=True)
class _Kept:
    """One layer's self-attention for each conditioning, or why it cannot be read."""

    name: str
    grid: tuple[int, int]
    attention: list[SelfAttention]
    unreadable: str


class Refinement(Processor):
    """Keeps the plan's layers until `finish`, and refines maps with them; does nothing where the plan says so.

    count: rows of the network's batch. rows: those of the conditionings whose maps are refined.
    """

    def __init__(self, count: int, rows: Sequence[PromptRows], plan: RefinePlan) -> None:
        self.kinds = (SELF, JOINT) if plan.power else ()
        self._count = count
        self._rows = rows
        self._plan = plan
        self._kept: list[_Kept] = []
        self._seen: dict[str, tuple[int, int]] = {}
        # Whether a coarser layer has come after those that are kept.
        self._coarser = False
        self._finished = False

    def wants(self, site: Site) -> bool:
        """See `Processor`. Leaves out the first attention of a block where that looks at the text as well."""
        if self._finished or site.name not in self._plan.names:
            return False
        self._seen[site.name] = site.grid
        return self._plan.chosen is None or (site.name, site.grid) in self._plan.chosen

    @torch.no_grad()
    def see(self, call: AttentionCall, out: Tensor) -> None:
        """See `Processor`."""
        if self._plan.chosen is not None:
            self._kept.append(self._keep(call))
            return
        size, finest = math.prod(call.site.grid), math.prod(self._kept[-1].grid) if self._kept else 0
        if size < finest:
            self._coarser = True
            return
        if self._coarser or size > finest:
            self._kept.clear()
        self._coarser = False
        self._kept.append(self._keep(call))
        del self._kept[:-LAYERS]

    def finish(self, network: nn.Module) -> None:
        """After the network's call: keep nothing more. Raises ValueError where self-attention could not be read."""
        self._finished = True
        if self._plan.power and (reason := self._unreadable(network)):
            raise ValueError(
                f"maps cannot be refined: {reason}. Set refine to 0, or connect the model without that node"
            )

    @torch.no_grad()
    def refined(
        self, maps: Sequence[Tensor], labels: Sequence[str], warn: Callable[[str], None]
    ) -> list[list[tuple[Tensor, PromptRows]]]:
        """After `finish`: the maps [S,B,h,w] of each of the rows, refined once, twice, up to the plan's power.

        labels: of the maps; where there are more maps than labels, as many for each, one label's after another's.
        """
        if not self._plan.power:
            return []
        found, flat = [], []
        for i, row in enumerate(self._rows):
            each, powers = refine(maps[i], [layer.attention[i] for layer in self._kept], self._plan.power)
            found.append([(refined, row) for refined in each])
            early = (powers < self._plan.power).reshape(len(labels), -1).any(1).tolist()
            flat += [label for label, stopped in zip(labels, early, strict=True) if stopped]
        for label in dict.fromkeys(flat):
            warn(f"refine {self._plan.power} stopped early for {label}: its map is the same everywhere")
        return [list(of_rows) for of_rows in zip(*found, strict=True)]

    def _keep(self, call: AttentionCall) -> _Kept:
        """Copies of the rows' queries and keys: slices would keep those of all rows, a backend may overwrite them."""
        name, (h, w), changed_by = call.site.name, call.site.grid, call.inputs.changed_by
        unreadable = ""
        if call.attend is None:
            unreadable = f"self-attention of layer {name} is computed by {changed_by}"
        elif reason := call.unexpected(self._count):
            unreadable = f"self-attention of layer {name} has {reason}"
        elif call.site.frames > 1:
            unreadable = f"the latent has {call.site.frames} frames, and only the maps of one can be refined"
        attention = []
        for row in self._rows if not unreadable else ():
            q, k, mask = call.within_picture(row.rows)
            attend = _fused(call.site.heads, call.scale) if q.device.type == "cpu" else call.backend_of_joined()
            attention.append(SelfAttention(q.clone(), k.clone(), call.site.heads, (h, w), attend, mask))
        return _Kept(name, (h, w), attention, unreadable)

    def _unreadable(self, network: nn.Module) -> str:
        """Why the layers that should have been kept cannot be used; empty if they can."""
        names, chosen = self._plan.names, self._plan.chosen
        if chosen is None:
            expected = names[names.index(self._kept[0].name) :] if self._kept else names
        else:
            expected = [name for name in names if name in chosen.names]
        unseen = [name for name in expected if name not in self._seen]
        if unseen or not self._seen:
            where = f" of layer {', '.join(unseen)}" if unseen else ""
            return f"self-attention{where} was not computed where it could be seen, but by {replaced_parts(network)}"
        if not self._kept:
            there = ", ".join(sorted({f"{h}x{w}" for h, w in self._seen.values()}))
            return f"no self-attention layer has one of the chosen grids; this latent gives {there} (height x width)"
        return "; ".join(layer.unreadable for layer in self._kept if layer.unreadable)


def _fused(heads: int, scale: float | None) -> Attend:
    """PyTorch's fused attention for the CPU.

    The host's own there writes all scores down, 0.5 GB for 64x64 positions, which takes 2.7 times as long.
    """
    scales = {} if scale is None else {"scale": scale}

    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        return attention_pytorch(q, k, v, heads, mask, **scales)

    return attend

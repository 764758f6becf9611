"""What an editor is: a method by which the target of a twin run takes over attention of its source."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ...core.methods.mutual_self_attention import on_grid
from ..attention.attention_call import AttentionCall, Processor
from ..families.sites import CROSS, Site
from ..patch_names import replaced_parts


@dataclass(frozen=True)
class PairedRows:
    """One conditioning's rows in a model call: those of the source pictures and those of the target pictures.

    uuid: the id of the conditioning if it is a positive one, else None. corner: (y, x) of its area in the latent.
    appearance, without: those of the pictures that give their appearance, and of the target as it would be without;
    None where a run has none.
    """

    source: slice
    target: slice
    uuid: Any
    corner: tuple[int, int] = (0, 0)
    appearance: slice | None = None
    without: slice | None = None


@dataclass(frozen=True)
class EditedCall:
    """A model call in which attention is edited.

    count: its rows. length: tokens of the context. warn: tells the user, once for each text.
    """

    count: int
    length: int
    warn: Callable[[str], None]


@dataclass(frozen=True)
class TwinCall(EditedCall):
    """A model call of a twin run.

    step: of `steps`. pairs: the rows. latent: (h, w). state: the target's whole latent [B,C,H,W] as the sampler has it,
    of which the call may see an area alone.
    """

    step: int
    steps: int
    pairs: Sequence[PairedRows]
    latent: tuple[int, int]
    state: Tensor

    def inside(self, mask: Tensor, pair: PairedRows, grid: tuple[int, int]) -> Tensor:
        """Which places of a grid a mask [1 or B,H,W] holds, for each picture of a conditioning: bool [B,h·w].

        The mask is on the whole latent, of which the conditioning may see an area alone.
        """
        (y, x), (h, w) = pair.corner, self.latent
        return on_grid(mask[:, y : y + h, x : x + w], grid).expand(pair.target.stop - pair.target.start, -1)


class EditingProcessor(Processor):
    """A processor of an editor, for one model call; it edits the attention that `chooses` and can be read.

    name: of the editor. kinds: of the attention sites that it edits. call: the model call; all rows but those that it
    edits keep their bits. edits_replaced: whether it can edit an attention that another node computes.
    """

    edits_replaced = False

    def __init__(self, name: str, kinds: Collection[str], call: EditedCall) -> None:
        self.kinds = tuple(kinds)
        self._name = name
        self._call = call
        self._seen: set[str] = set()

    def chooses(self, site: Site) -> bool:
        """Whether this site is edited."""
        return True

    def edited(self, call: AttentionCall) -> AttentionCall:
        """The attention as it shall be computed."""
        raise NotImplementedError

    def during(self, network: nn.Module) -> AbstractContextManager:
        """What holds while the network runs."""
        return nullcontext()

    def finish(self, network: nn.Module) -> None:
        """After the network's call: tell the user what could not be edited."""
        for kind in sorted(set(self.kinds) - self._seen):
            self._call.warn(
                f"{self._name} could not edit {kind}-attention: it is computed by {replaced_parts(network)}"
            )

    def wants(self, site: Site) -> bool:
        """See `Processor`."""
        self._seen.add(site.kind)
        return self.chooses(site)

    @torch.no_grad()
    def edit(self, call: AttentionCall) -> AttentionCall:
        """See `Processor`. A call that another node changed is computed as it is, with a warning."""
        if obstacle := self._obstacle(call):
            self.leave(call, obstacle)
            return call
        return self.edited(call)

    def leave(self, call: AttentionCall, reason: str) -> None:
        """Tell the user why an attention stays as it is."""
        self._call.warn(f"{self._name} leaves {call.site.kind}-attention of some layers as it is: {reason}")

    def _obstacle(self, call: AttentionCall) -> str:
        """Why source and target cannot be found in a call; empty if they can."""
        h, w = call.site.grid
        inputs, expected = call.inputs, (self._call.count, h * w)
        if call.attend is None and not self.edits_replaced:
            return f"it is computed by {inputs.changed_by}"
        if tuple(call.q.shape[:2]) != expected or call.k.shape[0] != expected[0]:
            found = tuple(call.q.shape[:2])
            return f"it has {found} rows and queries where {expected} were expected, {inputs.cause}"
        keys = self._call.length if call.site.kind == CROSS else h * w
        own = inputs.before is None or inputs.before[1] is inputs.after[1]
        if call.k.shape[1] != keys or not own:
            return f"its keys were changed by {inputs.changed_by}"
        if call.mask is not None and call.mask.ndim > 2 and call.mask.shape[0] > 1:
            return "its rows have masks of their own"
        return ""


class InstalledEditor(Protocol):
    """An editor on a model; one run after the other may use it. name: what messages call it."""

    name: str

    def chosen(self, texts: Mapping[Any, tuple[Tensor, Tensor]]) -> frozenset:
        """The ids of the conditionings that are edited. texts: contexts [1 or B,T,d] of source and target of each.

        Raises ValueError, with what to do, when there is none.
        """

    def claims(self, step: int, steps: int) -> frozenset[tuple[str, str]]:
        """The attention that it edits at a step: kind and name of each site."""

    def processors(self, call: TwinCall, chosen: frozenset) -> list[EditingProcessor]:
        """What runs at the attention sites of a model call; none where nothing is edited."""


class Editor(Protocol):
    """A method, with its settings."""

    def installed(self, patcher: ModelPatcher, source: list) -> InstalledEditor:
        """The editor for runs of `patcher`, on which it puts what it reads (changed in place: pass a clone).

        source: the CONDITIONING of the source prompt. Raises ValueError where the model lacks what it edits.
        """


def check_together(editors: Sequence[InstalledEditor], chosen: Sequence[frozenset], steps: int) -> None:
    """Raise ValueError where two editors would edit the same attention at the same step."""
    for i, editor in enumerate(editors):
        for other, theirs in zip(editors[:i], chosen[:i], strict=True):
            both = theirs & chosen[i]
            for step in range(steps) if both else ():
                sites = editor.claims(step, steps) & other.claims(step, steps)
                if sites:
                    kinds, names = sorted({kind for kind, _ in sites}), sorted({name for _, name in sites})
                    raise ValueError(
                        f"{other.name} and {editor.name} both edit {' and '.join(kinds)}-attention of the same "
                        f"prompt at step {step} of {steps}, in {', '.join(names)}: let the window of one end before "
                        "that of the other begins, or choose other layers"
                    )

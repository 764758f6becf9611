"""What an editor is: a method by which the target of a twin run takes over attention of its source."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from ..attention.attention_call import Processor


@dataclass(frozen=True)
class PairedRows:
    """One conditioning's rows in a model call: those of the source pictures and those of the target pictures.

    uuid: the id of the conditioning if it is a positive one, else None.
    """

    source: slice
    target: slice
    uuid: Any


@dataclass(frozen=True)
class TwinCall:
    """A model call of a twin run.

    step: of `steps`. pairs: its rows. count: how many there are in all. length: tokens of the context. latent: (h, w).
    warn: tells the user, once for each text.
    """

    step: int
    steps: int
    pairs: Sequence[PairedRows]
    count: int
    length: int
    latent: tuple[int, int]
    warn: Callable[[str], None]


class EditingProcessor(Processor):
    """A processor of an editor, for one model call."""

    def finish(self, network: nn.Module) -> None:
        """After the network's call: tell the user what could not be edited."""


class Editor(Protocol):
    """A method, with its settings; one run after the other may use it. name: what messages call it."""

    name: str

    def chosen(self, texts: Mapping[Any, tuple[Tensor, Tensor]]) -> frozenset:
        """The ids of the conditionings that are edited. texts: contexts [1 or B,T,d] of source and target of each.

        Raises ValueError, with what to do, when there is none.
        """

    def claims(self, step: int, steps: int) -> frozenset[str]:
        """The kinds of attention sites that it edits at a step."""

    def processors(self, call: TwinCall, chosen: frozenset) -> list[EditingProcessor]:
        """What runs at the attention sites of a model call; none where nothing is edited."""


def check_together(editors: Sequence[Editor], chosen: Sequence[frozenset], steps: int) -> None:
    """Raise ValueError where two editors would edit the same attention at the same step."""
    for i, editor in enumerate(editors):
        for other, theirs in zip(editors[:i], chosen[:i], strict=True):
            both = theirs & chosen[i]
            for step in range(steps) if both else ():
                kinds = editor.claims(step, steps) & other.claims(step, steps)
                if kinds:
                    raise ValueError(
                        f"{other.name} and {editor.name} both edit {' and '.join(sorted(kinds))}-attention of the same "
                        f"prompt at step {step} of {steps}: let the window of one end before that of the other begins"
                    )

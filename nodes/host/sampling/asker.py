"""What a node asks in one variant of a sampler run: its recorded answers, or its user's, and where they are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ..pauses.asking import Changes, Outcome
from ..pauses.image_metadata import AnswersInImages, ImageMetadata
from ..pauses.pause import Limit
from ..pauses.records import Record

if TYPE_CHECKING:
    from .variants import VariantsOfRun


class Asks(Protocol):
    """What a node says of its pauses.

    seconds: to wait, 0 for as long as it takes. then: what follows. answers: recorded ones, empty to ask. metadata: of
    the images of the run.
    """

    seconds: int
    then: str
    answers: str
    metadata: ImageMetadata | None


class AskedRun(Protocol):
    """Where a node reports one variant. notes: how its pauses ended. records: what was answered."""

    notes: list[str]
    records: list[Record]


@dataclass
class KeptAnswers:
    """What one node was answered. images: their metadata. finished: of each variant that is; current: of this one."""

    images: AnswersInImages
    finished: list[list[Record]] = field(default_factory=list)
    current: list[Record] = field(default_factory=list)

    def begin(self) -> None:
        """A variant begins: what was answered in one that was left counts no more."""
        self.current = []
        self._write()

    def add(self, record: Record) -> None:
        """One more answer."""
        self.current.append(record)
        self._write()

    def finish(self) -> None:
        """The variant is finished."""
        self.finished.append(self.current)
        self.current = []

    def _write(self) -> None:
        self.images.write([*self.finished, self.current])


class Asker:
    """See above. recorded: the answers by step of a variant that nobody is asked in, else None."""

    def __init__(
        self,
        variants: VariantsOfRun,
        plan: Asks,
        recorded: Mapping[int, Mapping[str, Any]] | None,
        kept: KeptAnswers,
        run: AskedRun,
    ) -> None:
        self.recorded = recorded
        self._variants = variants
        self._limit = Limit(float(plan.seconds) or None, plan.then)
        self._kept = kept
        self._run = run
        kept.begin()

    def ask(
        self, kind: str, step: int, content: Callable[[], Mapping[str, Any]], changes: Changes | None = None
    ) -> Outcome:
        """Stop before `step`, see `pauses.asking.ask`; answered as before where the run is sampled anew up to there.

        kind: see `pauses.messages`. Raises `WentBack` when the user goes back to an earlier stop.
        """
        return self._variants.ask(kind, step, content, self._limit, changes)

    def note(self, step: int, text: str) -> None:
        """Say in the report how a pause ended."""
        self._run.notes.append(f"step {step}: {text}")

    def add(self, record: Record) -> None:
        """Keep an answer, for the report and for the run's images."""
        self._run.records.append(record)
        self._kept.add(record)


def steps_of(variants: Sequence[Mapping[int, Any]]) -> set[int]:
    """The steps that recorded answers are for."""
    return {step for records in variants for step in records}

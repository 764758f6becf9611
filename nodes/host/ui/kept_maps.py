"""The maps of the last runs in float32, by the names of the files that the browser's inspector shows."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

from torch import Tensor

from ...core.maps.saliency import Saliency

# The maps of 250 steps of 8 words on 128x128 places are half of that.
MOST_BYTES = 1 << 28
MOST_NAMES = 1000  # those of too large maps take no bytes that would make others go


@dataclass(frozen=True)
class Kept:
    """The maps that an inspector shows, and those that its node puts out, which may be others."""

    shown: Saliency
    output: Saliency

    @property
    def nbytes(self) -> int:
        """What both take."""
        same = self.output is self.shown
        return self.shown.nbytes + (0 if same else self.output.nbytes)


class KeptMaps:
    """Keeps as many of the newest maps as take `most_bytes` together, and of larger ones only that they were too large.

    Of no more than the newest `most_names` maps anything is kept. The server's threads ask for them while nodes run.
    """

    def __init__(self, most_bytes: int = MOST_BYTES, most_names: int = MOST_NAMES) -> None:
        self._most_bytes = most_bytes
        self._most_names = most_names
        self._kept: OrderedDict[str, Kept | None] = OrderedDict()  # None: too large
        self._lock = Lock()

    def keep(self, name: str, shown: Saliency, output: Saliency | None = None) -> None:
        """Keep a copy of maps on the CPU under a new name; the oldest ones go where they take too much.

        output: see `Kept`, if others.
        """
        given = Kept(shown, shown if output is None else output)
        kept = _copied(given) if given.nbytes <= self._most_bytes else None
        with self._lock:
            self._kept[name] = kept
            while self._bytes() > self._most_bytes or len(self._kept) > self._most_names:
                self._kept.popitem(last=False)

    def get(self, name: str) -> Kept | None:
        """The maps of that name; None where they are gone, never were or are too large."""
        with self._lock:
            return self._kept.get(name)

    def is_too_large(self, name: str) -> bool:
        """Whether the maps of that name were not kept because they alone take more than `most_bytes`."""
        with self._lock:
            return name in self._kept and self._kept[name] is None

    def _bytes(self) -> int:
        return sum(kept.nbytes for kept in self._kept.values() if kept is not None)


def _copied(given: Kept) -> Kept:
    # A view as it is would keep all that it is a part of.
    shown = given.shown.mapped(_copy)
    same = given.output is given.shown
    return Kept(shown, shown if same else given.output.mapped(_copy))


def _copy(maps: Tensor) -> Tensor:
    return maps.to("cpu", copy=True)


# Those of the nodes with an inspector, in this process.
KEPT = KeptMaps()

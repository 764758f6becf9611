"""The maps of the last runs in float32, by the names of the files that the browser's inspector shows."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

from ...core.maps.saliency import Saliency

# The maps of 250 steps of 8 words on 128x128 places are half of that.
MOST_BYTES = 1 << 28


@dataclass(frozen=True)
class Kept:
    """The maps that an inspector shows, and those that its node puts out, which may be others. Both on the CPU."""

    shown: Saliency
    output: Saliency

    @property
    def nbytes(self) -> int:
        """What both take."""
        same = self.output is self.shown
        return self.shown.maps.nbytes + (0 if same else self.output.maps.nbytes)


class KeptMaps:
    """Keeps as many of the newest maps as take `most_bytes` together, and always the last ones.

    The server's threads ask for them while nodes run.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._lock = Lock()

    def keep(self, name: str, shown: Saliency, output: Saliency | None = None) -> None:
        """Keep maps under a new name; the oldest ones go where they take too much. output: see `Kept`, if others."""
        on_cpu = shown.with_maps(shown.maps.cpu())
        kept = Kept(on_cpu, on_cpu if output is None else output.with_maps(output.maps.cpu()))
        with self._lock:
            self._kept[name] = kept
            while len(self._kept) > 1 and self._bytes() > self._most_bytes:
                self._kept.popitem(last=False)

    def get(self, name: str) -> Kept | None:
        """The maps of that name; None where they are gone or never were."""
        with self._lock:
            return self._kept.get(name)

    def _bytes(self) -> int:
        return sum(kept.nbytes for kept in self._kept.values())


# Those of the nodes with an inspector, in this process.
KEPT = KeptMaps()

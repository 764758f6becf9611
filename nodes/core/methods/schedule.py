"""Which sampling steps to manipulate: the text a user types, checked against the schedule that runs."""

from __future__ import annotations

import re
from collections.abc import Iterator

# Near the published 5, 18 and 28 of 35 steps, for a run of any length.
PUBLISHED_SHARES = "15%, 50%, 80%"

_ITEM = re.compile(r"(\d+)(?:\s*-\s*(\d+))?|(\d+(?:\.\d+)?)\s*%")
# Lengths of runs that step numbers are usually written for; the first is the published one.
_USUAL_RUNS = (35, 50, 100, 1000)


def parse_steps(text: str, total: int) -> tuple[int, ...]:
    """Read step numbers such as ``5, 18, 28``, ranges such as ``2-4`` and shares of the run such as ``10%``.

    text: items separated by commas; empty for none. total: number of steps that the run makes. Step j means the state
    that enters step j, counted from 0 in the schedule that actually runs (after denoise has cut its beginning); j =
    total is the finished latent. Returns ascending, distinct numbers in [0, total]. Raises ValueError with the item and
    what is allowed, and for a run that is too short the same steps scaled to it.
    """
    steps: set[int] = set()
    items = list(_items(text))
    for item in items:
        if isinstance(item, float):
            steps.add(int(item * total / 100))
        elif item[-1] > total:
            raise ValueError(
                f"manipulate_at: step {item[-1]} does not exist. This run makes {total} steps: 0 to {total - 1}, and "
                f"{total} for the finished latent. With denoise below 1 only the steps that remain are counted. "
                f"{_scaled([item for item in items if isinstance(item, range)], total)}"
            )
        else:
            steps.update(item)
    return tuple(sorted(steps))


def check_steps(text: str) -> None:
    """Raise the ValueError of `parse_steps` where `text` cannot be read, whatever the run."""
    list(_items(text))


def _items(text: str) -> Iterator[range | float]:
    """Each item of the text: the steps that it names, or a share of the run in percent."""
    for item in (part.strip() for part in text.split(",")):
        if not item:
            continue
        found = _ITEM.fullmatch(item)
        if found is None:
            raise ValueError(
                f"manipulate_at: {item!r} is no step. Write step numbers (5, 18, 28), ranges (2-4) or shares of the "
                f"run (10%), separated by commas."
            )
        first, last, percent = found.groups()
        if percent is not None:
            if float(percent) > 100:
                raise ValueError(f"manipulate_at: {item} is more than 100% of the run.")
            yield float(percent)
            continue
        low, high = int(first), int(last or first)
        if low > high:
            raise ValueError(f"manipulate_at: the range {item} runs backwards; write {high}-{low}.")
        yield range(low, high + 1)


def _scaled(named: list[range], total: int) -> str:
    """An offer of the same places in this run, as if the steps had been written for a run of a usual length."""
    longest = max(item[-1] for item in named)
    meant = next((length for length in _USUAL_RUNS if length >= longest), longest)
    ends = sorted({(item[0] * total // meant, item[-1] * total // meant) for item in named})
    here = ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in ends)
    offer = f"In place of these steps of a run of {meant}, write {here} here"
    if any(item[0] != item[-1] for item in named):
        return f"{offer}."
    shares = ", ".join(f"{share}%" for share in sorted({round(100 * item[0] / meant) for item in named}))
    return f"{offer}, or {shares} for a run of any length."

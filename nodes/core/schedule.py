"""Which sampling steps to manipulate: the text a user types, checked against the schedule that runs."""

from __future__ import annotations

import re

_ITEM = re.compile(r"(\d+)(?:\s*-\s*(\d+))?|(\d+(?:\.\d+)?)\s*%")


def parse_steps(text: str, total: int) -> tuple[int, ...]:
    """Read step numbers such as ``5, 18, 28``, ranges such as ``2-4`` and shares of the run such as ``10%``.

    text: items separated by commas; empty for none. total: number of steps that the run makes. Step j means the state
    that enters step j, counted from 0 in the schedule that actually runs (after denoise has cut its beginning); j =
    total is the finished latent. Returns ascending, distinct numbers in [0, total]. Raises ValueError with the item and
    what is allowed.
    """
    steps: set[int] = set()
    for item in (part.strip() for part in text.split(",")):
        if not item:
            continue
        found = _ITEM.fullmatch(item)
        if found is None:
            raise ValueError(
                f"manipulate_at: {item!r} is no step. Write step numbers (5, 18, 28), ranges (2-4) or shares of the "
                f"run (10%), "
                "separated by commas."
            )
        first, last, percent = found.groups()
        if percent is not None:
            if float(percent) > 100:
                raise ValueError(f"manipulate_at: {item} is more than 100% of the run.")
            steps.add(int(float(percent) / 100 * total))
            continue
        low, high = int(first), int(last or first)
        if low > high:
            raise ValueError(f"manipulate_at: the range {item} runs backwards; write {high}-{low}.")
        if high > total:
            raise ValueError(
                f"manipulate_at: step {high} does not exist. This run makes {total} steps: 0 to {total - 1}, and "
                f"{total} for the finished "
                "latent. With denoise below 1 only the steps that remain are counted."
            )
        steps.update(range(low, high + 1))
    return tuple(sorted(steps))

"""Tables of measured numbers, as the model cards show them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def percent(values: Sequence[float]) -> str:
    """Mean of independent `values` (of one prompt each, say) in percent, and its standard error."""
    return f"{estimate([100 * value for value in values], 0)} %" if values else "none"


def estimate(values: Sequence[float], digits: int = 2) -> str:
    """Mean of independent `values` and, of two or more, its standard error."""
    if not values:
        return "none"
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values) / len(values) ** 0.5:.{digits}f}" if len(values) > 1 else mean

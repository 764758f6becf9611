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
    mean = f"{100 * statistics.mean(values):.0f}"
    return f"{mean} ± {100 * statistics.stdev(values) / len(values) ** 0.5:.0f} %" if len(values) > 1 else f"{mean} %"

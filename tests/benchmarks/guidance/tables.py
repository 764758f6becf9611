"""Means over prompts, and what a variant differs by from the plain run, with intervals by the bootstrap."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from ...tools.toy_world.table import table
from .asked import PROMPTS, Outcome
from .variants import PLAIN, VARIANTS

DRAWS = 10_000
# Column -> what a picture says about it: a value for the picture or for each subject, or none.
COLUMNS: dict[str, Callable[[Outcome], Sequence[float]]] = {
    "both subjects there": lambda outcome: [all(outcome.there)],
    "colour right": lambda outcome: outcome.coloured,
    "in its half": lambda outcome: outcome.in_half,
    "IoU with its box": lambda outcome: outcome.iou,
    "SSIM outside": lambda outcome: [outcome.ssim],
}
PERCENT = ("both subjects there", "colour right", "in its half")
# Of these the plain run has no value of its own to differ from.
ALONE = ("SSIM outside",)


def _sums(values: Sequence[Sequence[float]]) -> NDArray:
    """Sum and number of the values of each of P prompts, [2,P]."""
    return np.array([[sum(each) for each in values], [len(each) for each in values]], float)


def mean(values: Sequence[Sequence[float]]) -> float:
    """The mean over all values of all prompts; NaN when there is none."""
    total, count = _sums(values).sum(1)
    return float(total / count) if count else float("nan")


def interval(guided: Sequence[Sequence[float]], plain: Sequence[Sequence[float]] | None) -> tuple[float, float]:
    """95 % of the differences of `mean` (of the means of `guided` alone when `plain` is None) of drawn prompts.

    The prompts are drawn as often as there are; with the values of all their pictures, guided and plain from the same
    noise, which are not independent.
    """
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(guided), size=(DRAWS, len(guided)))

    def means(values: Sequence[Sequence[float]]) -> NDArray:
        total, count = _sums(values)[:, drawn].sum(-1)
        return total / np.where(count > 0, count, np.nan)

    found = means(guided) - (0 if plain is None else means(plain))
    low, high = np.nanpercentile(found, (2.5, 97.5))
    return float(low), float(high)


def report(found: Mapping[int, Mapping[str, Outcome]]) -> str:
    """A Markdown table of the outcomes of `all_asked` by their numbers, variant -> outcome.

    Each variant beside the plain run of the same prompts and seeds: those that have both.
    """
    rows = []
    for name in (PLAIN, *VARIANTS):
        pairs = {i: (each[name], each[PLAIN]) for i, each in found.items() if {name, PLAIN} <= each.keys()}
        if pairs:
            cells = [_cell(name, column, pairs) for column in COLUMNS]
            time = np.median([guided.time for guided, _ in pairs.values()])
            rows.append((name, len({i % PROMPTS for i in pairs}), len(pairs), *cells, f"{time:.1f} ×"))
    return table(("", "prompts", "pictures", *COLUMNS, "time"), rows)


def _cell(name: str, column: str, pairs: Mapping[int, tuple[Outcome, Outcome]]) -> str:
    """The mean, and in brackets the 95 % of the difference from the plain run, or of the mean where there is none."""
    of_prompt: dict[int, tuple[list[float], list[float]]] = {}
    for i, pair in pairs.items():
        for values, outcome in zip(of_prompt.setdefault(i % PROMPTS, ([], [])), pair, strict=True):
            values += COLUMNS[column](outcome)
    guided, plain = zip(*of_prompt.values(), strict=True)
    if not any(guided):
        return "–"
    scale, digits, unit = (100, 0, " %") if column in PERCENT else (1, 2, "")
    shown = f"{scale * mean(guided):.{digits}f}{unit}"
    if name == PLAIN:
        return shown
    alone = column in ALONE
    sign = "" if alone else "+"
    ends = (f"{scale * end:{sign}.{digits}f}" for end in interval(guided, None if alone else plain))
    return f"{shown} [{', '.join(ends)}]"


def kept(found: Mapping[int, Mapping[str, Outcome]]) -> str:
    """The outcomes of `all_asked` by their numbers, variant -> outcome, as JSON."""
    return json.dumps({i: {name: asdict(each) for name, each in own.items()} for i, own in found.items()}, indent=1)


def read(text: str) -> dict[int, dict[str, Outcome]]:
    """What `kept` wrote."""

    def of(values: dict) -> Outcome:
        return Outcome(**{name: tuple(each) if isinstance(each, list) else each for name, each in values.items()})

    return {int(i): {name: of(values) for name, values in own.items()} for i, own in json.loads(text).items()}

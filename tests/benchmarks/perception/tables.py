"""Numbers with their standard errors, and Markdown tables of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A number and its standard error over the pictures, both in the number's own unit."""

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.error:.3f}"


@dataclass(frozen=True)
class Row:
    """One line of a table: which table, its name there, and column -> number."""

    table: str
    name: str
    cells: Mapping[str, Estimate]


def mean(values: Sequence[float]) -> Estimate:
    """The mean of one number per picture, and its standard error (with the n - 1 deviation; 0 for one picture)."""
    error = np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return Estimate(float(np.mean(values)), float(error))


def bootstrap(statistic: Callable[..., float], *groups: Sequence[float], times: int = 1000) -> Estimate:
    """A statistic of whole groups of numbers, such as `auc`: its error is its deviation when each is drawn again."""
    rng, arrays = np.random.default_rng(0), [np.asarray(group) for group in groups]
    drawn = [statistic(*(rng.choice(group, len(group)) for group in arrays)) for _ in range(times)]
    return Estimate(float(statistic(*arrays)), float(np.std(drawn)))


def auc(present: Sequence[float], absent: Sequence[float]) -> float:
    """The area under the ROC curve: how often a score of `present` is above one of `absent`; a tie counts half."""
    a, b = np.asarray(present)[:, None], np.asarray(absent)[None]
    return float((a > b).mean() + 0.5 * (a == b).mean())


def mean_rows(table: str, values: Mapping[str, Mapping[str, Sequence[float]]]) -> list[Row]:
    """A row for each name: name -> column -> one number per picture."""
    return [Row(table, name, {key: mean(each) for key, each in columns.items()}) for name, columns in values.items()]


def markdown(rows: Iterable[Row]) -> str:
    """The rows as Markdown, table by table in the order in which these come first."""
    tables: dict[str, list[Row]] = {}
    for row in rows:
        tables.setdefault(row.table, []).append(row)
    return "\n\n".join(_table(name, each) for name, each in tables.items())


def _table(name: str, rows: Sequence[Row]) -> str:
    columns = list(dict.fromkeys(column for row in rows for column in row.cells))
    lines = [f"| {name} | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    lines += [f"| {row.name} | {' | '.join(str(row.cells.get(key, '')) for key in columns)} |" for row in rows]
    return "\n".join(lines)

"""What was answered at the pauses of a run, as text: in its report, and for the same run without a user."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .answers import read_png, write_png
from .messages import CONTINUE, END, TEXTS, Value
from .pause import Refused

_TITLE = "answers: "
MOST_VARIANTS = 16  # of one sampler run


@dataclass(frozen=True)
class Record:
    """An answer at one step. action: CONTINUE or END. masks: for each picture what was painted, 8-bit grey [h,w], or
    None where nothing was; empty where nothing was painted at all. values: that were changed, by name.
    """

    step: int
    action: str = CONTINUE
    masks: tuple[np.ndarray | None, ...] = ()
    values: Mapping[str, Value] = field(default_factory=dict)

    def as_object(self) -> dict[str, Any]:
        """For JSON; what is as usual is left out."""
        out: dict[str, Any] = {"step": self.step}
        if self.action != CONTINUE:
            out["action"] = self.action
        if any(mask is not None for mask in self.masks):
            out["masks"] = [None if m is None else base64.b64encode(write_png(m)).decode() for m in self.masks]
        if self.values:
            out["values"] = dict(self.values)
        return out


def as_objects(variants: Sequence[Sequence[Record]]) -> list[Any]:
    """For JSON: the answers of a run's one variant, or a list of them for each; empty where nothing was answered."""
    objects = [[each.as_object() for each in records] for records in variants]
    return objects[0] if len(objects) == 1 else objects if any(objects) else []


def recorded(variants: Sequence[Sequence[Record]]) -> list[str]:
    """One line of a report that `read_records` reads; none where nothing was answered in any variant of the run."""
    objects = as_objects(variants)
    return [_TITLE + json.dumps(objects)] if objects else []


def of_variants(lines: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a report for each variant of a run, under a heading where there are several."""
    if len(lines) == 1:
        return list(lines[0])
    return [line for number, own in enumerate(lines, 1) for line in (f"variant {number} of {len(lines)}", *own)]


def read_records(text: str) -> list[dict[int, dict[str, Any]]]:
    """Recorded answers by their step, for each variant of a run; nothing in an empty text.

    A whole report may be given: its line with answers counts. Raises ValueError for anything else, and for more than
    MOST_VARIANTS.
    """
    lines = [line.strip().removeprefix(_TITLE) for line in text.splitlines() if line.strip().startswith(_TITLE)]
    chosen = lines[-1] if lines else text.strip()
    if not chosen:
        return []
    try:
        given = json.loads(chosen)
    except (ValueError, RecursionError):
        given = None
    several = isinstance(given, list) and bool(given) and all(isinstance(each, list) for each in given)
    variants = given if several else [given]
    if not all(isinstance(records, list) and all(map(_is_record, records)) for records in variants):
        raise ValueError(
            f"answers {text[:60]!r} is not what a report has behind 'answers:', such as "
            '[{"step": 5, "values": {"cfg": 7.0}}], or a list of such lists, one for each variant. Copy that line, or '
            "leave answers empty"
        )
    if len(variants) > MOST_VARIANTS:
        raise ValueError(
            f"answers: {len(variants)} variants, but a run has at most {MOST_VARIANTS}. Share them between several runs"
        )
    return [{each["step"]: each for each in records} for records in variants]


def recorded_masks(record: Mapping[str, Any], count: int, size: tuple[int, int]) -> tuple[np.ndarray | None, ...]:
    """The masks of a record for `count` pictures of this size, (width, height); empty where none were painted.

    Raises ValueError for another number or size of masks.
    """
    texts = record.get("masks", [])
    if texts and len(texts) != count:
        raise ValueError(f"answers: {len(texts)} masks at step {record['step']}, for {count} pictures")
    try:
        return tuple(None if text is None else read_png(base64.b64decode(text), size) for text in texts)
    except (ValueError, Refused) as problem:
        raise ValueError(
            f"answers: step {record['step']}: {problem}. They belong to a run of another size"
        ) from problem


def check_steps_of(records: Mapping[int, Any], steps: Sequence[int]) -> None:
    """Raise ValueError for an answer at a step at which this run does not stop."""
    if wrong := sorted(set(records) - set(steps)):
        raise ValueError(
            f"answers: step {wrong[0]} is no step at which this run stops ({', '.join(map(str, steps)) or 'none'}). "
            "They belong to a run with other settings"
        )


def _is_record(each: Any) -> bool:
    if not isinstance(each, dict):
        return False
    step, values, masks = each.get("step"), each.get("values", {}), each.get("masks", [])
    return (
        isinstance(step, int)
        and each.get("action", CONTINUE) in (CONTINUE, END)
        and isinstance(values, dict)
        and all(isinstance(value, str if name in TEXTS else int | float) for name, value in values.items())
        and isinstance(masks, list)
        and all(mask is None or isinstance(mask, str) for mask in masks)
    )

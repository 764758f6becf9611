"""The labelled prompts of `data` and the one way in which a reading is compared with its label."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from explainable_latents.nodes.core.words.parsing import parse

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Label:
    """What should be found in a prompt. group: its style or kind. An entry "a/b" is met by one of both."""

    prompt: str
    group: str
    split: str
    main: tuple[str, ...]
    optional_main: tuple[str, ...]
    things: tuple[str, ...]
    optional_things: tuple[str, ...]
    scenes: tuple[str, ...]
    optional_scenes: tuple[str, ...]

    def main_right(self, subjects: Iterable[str]) -> bool:
        """Whether these are the main subjects."""
        return _meets(subjects, self.main, self.optional_main)

    def scene_right(self, scenes: Iterable[str]) -> bool:
        """Whether these are the scenes."""
        return _meets(scenes, self.scenes, self.optional_scenes)

    def things_right(self, subjects: Iterable[str]) -> bool:
        """Whether these are all the things."""
        return _meets(subjects, (*self.main, *self.things), (*self.optional_main, *self.optional_things))


def pasted(name: str = "pasted_prompts.jsonl") -> list[Label]:
    """The prompts as people paste them."""
    rows = _rows(name)
    keys = ("main", "optional_main", "things", "optional_things", "scenes", "optional_scenes")
    return [Label(row["prompt"], row["kind"], row["split"], *(tuple(row[key]) for key in keys)) for row in rows]


def blind() -> list[Label]:
    """Such prompts by somebody who did not write the rules; only main subject and scene are labelled."""
    return pasted("blind_prompts.jsonl")


def plain() -> list[Label]:
    """The plain prompts, of which every thing is labelled, but not which of them is the main subject."""
    rows = _rows("labelled_prompts.jsonl")
    keys = ("subjects", "optional_subjects", "scenes", "optional_scenes")
    return [Label(r["prompt"], r["style"], r["split"], (), (), *(tuple(r[key]) for key in keys)) for r in rows]


def found(prompt: str, **options: str) -> tuple[list[str], list[str]]:
    """The subjects and scenes that the parser reports."""
    items = parse(prompt, {}, **options).items
    return [i.text for i in items if i.role == "subject"], [i.text for i in items if i.role == "scene"]


def _rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def _meets(got: Iterable[str], required: tuple[str, ...], optional: tuple[str, ...]) -> bool:
    names = {name.lower() for name in got}
    choices = [set(entry.split("/")) for entry in required]
    return all(names & choice for choice in choices) and names <= set().union(*choices, optional)

"""The index of the templates, which the browser reads too: `js/templates.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .graphs import API, ROOT

INDEX = ROOT / "js" / "templates.json"
NOTES = ROOT / "tests" / "tools" / "workflows" / "notes"
LANGUAGES = "en", "zh"


@dataclass(frozen=True)
class Template:
    """A template: the name of its graph in `workflows/api`, and that of its file in `workflows`."""

    graph: str
    file: str
    title: dict[str, str]
    description: dict[str, str]
    tags: list[str]

    def __str__(self) -> str:
        return self.graph

    @property
    def checkpoint(self) -> bool:
        """Whether it loads a checkpoint, as the toy model is one, and not the parts of a model from files."""
        return any(node["class_type"] == "CheckpointLoaderSimple" for node in self.prompt.values())

    @property
    def number(self) -> str:
        """What its file's name begins with; notes and pages name it so."""
        return self.file.split(" ")[0]

    @property
    def prompt(self) -> dict[str, Any]:
        """Its graph, as it is queued."""
        return json.loads((API / f"{self.graph}.json").read_text(encoding="utf-8"))

    @cached_property
    def page(self) -> dict[str, Any]:
        """Its file, as the browser opens it."""
        return json.loads((ROOT / "workflows" / f"{self.file}.json").read_text(encoding="utf-8"))

    @property
    def notes(self) -> list[str]:
        """What its notes say, in each of `LANGUAGES`."""
        names = (f"{self.graph}.md" if language == "en" else f"{self.graph}.{language}.md" for language in LANGUAGES)
        return [(NOTES / name).read_text(encoding="utf-8").rstrip() for name in names]


TEMPLATES = [Template(**entry) for entry in json.loads(INDEX.read_text(encoding="utf-8"))]
BY_GRAPH = {template.graph: template for template in TEMPLATES}

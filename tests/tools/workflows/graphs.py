"""The shipped workflows as graphs whose nodes are addressed by title."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
API = ROOT / "workflows" / "api"


class Workflow:
    """A graph in API format. `fill` sets inputs by node title; the file it came from never changes."""

    def __init__(self, graph: dict[str, Any]) -> None:
        self.graph = copy.deepcopy(graph)

    @classmethod
    def shipped(cls, name: str) -> Workflow:
        """Load `workflows/api/<name>.json`."""
        return cls(json.loads((API / f"{name}.json").read_text(encoding="utf-8")))

    def node(self, title: str) -> str:
        """The id of the node with this title; KeyError that lists the titles there are."""
        ids = [i for i, node in self.graph.items() if node["_meta"]["title"] == title]
        if len(ids) != 1:
            titles = sorted(node["_meta"]["title"] for node in self.graph.values())
            raise KeyError(f"{len(ids)} nodes are called {title!r}; there are: {', '.join(titles)}")
        return ids[0]

    def fill(self, title: str, **inputs: Any) -> Workflow:
        """Return a copy in which the inputs of the node with this title have these values.

        KeyError for an input it lacks.
        """
        filled = Workflow(self.graph)
        node = filled.graph[self.node(title)]
        for name, value in inputs.items():
            if name not in node["inputs"]:
                raise KeyError(f"{title!r} ({node['class_type']}) has no input {name!r}: {', '.join(node['inputs'])}")
            node["inputs"][name] = value
        return filled

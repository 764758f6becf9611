"""Methods: workflow files in API format whose inputs are found by the titles of their nodes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..workflows.graphs import API, Workflow
from .problems import Fields, Problems

# What an evaluation fills in: slot -> node title and input. The last two are nodes that show pictures.
SLOTS = {
    "checkpoint": "Checkpoint.ckpt_name",
    "picture": "Reference picture.image",
    "prompt": "Prompt.text",
    "seed": "Sampler.seed",
}
PICTURES = {"result": "Result", "masks": "Masks"}
FIELDS = {"workflow", "set", "slots", "mask_shows"}


@dataclass(frozen=True)
class Method:
    """A workflow with its settings in place; `masks` is None when it shows none, `mask_shows` subject or scene."""

    name: str
    workflow: Workflow = field(repr=False)
    slots: Mapping[str, str]
    result: str
    masks: str | None
    mask_shows: str

    def fill(self, **values: Any) -> dict[str, Any]:
        """The graph with a value in each slot."""
        filled = self.workflow
        for slot, value in values.items():
            title, name = _split(self.slots[slot])
            filled = filled.fill(title, **{name: value})
        return filled.graph

    def server_problems(self, info: Mapping[str, Any], checkpoint: str) -> list[str]:
        """What a server with these node classes (`/object_info`) lacks for this method."""
        lacking = sorted({node["class_type"] for node in self.workflow.graph.values()} - set(info))
        if lacking:
            return [f"has no node {', '.join(lacking)}, which {self.name!r} needs: install the pack that has it there"]
        graph = self.fill(checkpoint=checkpoint)
        picture = _split(self.slots["picture"])
        found = []
        for node in graph.values():
            title = node["_meta"]["title"]
            for name, value in node["inputs"].items():
                options = _options(info[node["class_type"]], name)
                if (title, name) != picture and options is not None and isinstance(value, str) and value not in options:
                    found.append(f"{self.name!r}: {title}.{name} {value!r} is not there; there is {_listed(options)}")
        return found


def read_method(name: str, value: Any, folder: Path, problems: Problems) -> Method | None:
    """A method of a description; None when something is wrong with it, which is then among the problems.

    `value`: its fields, or only the workflow: the name of a shipped one, or a path relative to `folder`.
    """
    fields = Fields({"workflow": value} if isinstance(value, str) else value, f"methods.{name}", problems, FIELDS)
    known = len(problems.found)
    given = fields.text("workflow")
    if given is None:
        problems.add(fields.path("workflow"), "missing: give a workflow file in API format")
        return None
    file = shipped if (shipped := API / f"{given}.json").is_file() else (folder / given).expanduser()
    workflow = _read_workflow(file, fields.path("workflow"), problems)
    if workflow is None:
        return None
    slots = Fields(fields.mapping("slots"), fields.path("slots"), problems, {*SLOTS, *PICTURES})
    places = {slot: slots.text(slot, default) for slot, default in SLOTS.items()}
    for slot, place in places.items():
        _check_place(workflow, place, f"slot {slot!r}", file, slots.path(slot), problems)
    for place in fields.mapping("set"):
        _check_place(workflow, str(place), "this setting", file, fields.path(f"set.{place}"), problems)
    result, masks = (slots.text(slot, default) for slot, default in PICTURES.items())
    titles = _titles(workflow)
    for slot, title in (("result", result), *([("masks", masks)] if "masks" in slots else [])):
        if titles.count(title) != 1:
            problems.add(slots.path(slot), f"{file} has {titles.count(title)} nodes called {title!r}; {_named(titles)}")
    shows = fields.text("mask_shows", "subject", ("subject", "scene"))
    if len(problems.found) > known:
        return None
    for place, setting in fields.mapping("set").items():
        title, name_of_input = _split(place)
        workflow = workflow.fill(title, **{name_of_input: setting})
    return Method(
        name, workflow, places, workflow.node(result), workflow.node(masks) if masks in titles else None, shows
    )


def _read_workflow(file: Path, where: str, problems: Problems) -> Workflow | None:
    try:
        graph = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        shipped = ", ".join(sorted(path.stem for path in API.glob("*.json")))
        problems.add(where, f"{file} does not exist; shipped are {shipped}")
        return None
    except (OSError, ValueError) as error:
        problems.add(where, f"{file} is not a JSON file ({error})")
        return None
    if isinstance(graph, dict) and isinstance(graph.get("nodes"), list):
        problems.add(where, f"{file} is in the format of the browser: export it with *Export (API)*")
        return None
    nodes = graph.values() if isinstance(graph, dict) else ()
    if not nodes or not all(isinstance(n, dict) and {"class_type", "inputs"} <= set(n) for n in nodes):
        problems.add(where, f"{file} is not a workflow in API format (node id: class_type, inputs)")
        return None
    for node in nodes:
        node.setdefault("_meta", {}).setdefault("title", node["class_type"])
    return Workflow(graph)


def _check_place(workflow: Workflow, place: str, what: str, file: Path, where: str, problems: Problems) -> None:
    """A problem when the workflow has no such input, or it is linked to another node."""
    title, name = _split(place)
    titles = _titles(workflow)
    if not name:
        problems.add(where, f"{place!r} must be written as node title.input")
    elif titles.count(title) != 1:
        problems.add(where, f"{file} has {titles.count(title)} nodes called {title!r} for {what}; {_named(titles)}")
    else:
        inputs = workflow.graph[workflow.node(title)]["inputs"]
        if name not in inputs:
            problems.add(where, f"{title!r} in {file} has no input {name!r} for {what}: {', '.join(inputs)}")
        elif isinstance(inputs[name], list):
            problems.add(where, f"{title}.{name} in {file} is linked to another node, so {what} cannot be set there")


def _split(place: str) -> tuple[str, str]:
    title, _, name = place.rpartition(".")
    return (title, name) if title else (name, "")


def _titles(workflow: Workflow) -> list[str]:
    return [node["_meta"]["title"] for node in workflow.graph.values()]


def _named(titles: list[str]) -> str:
    return f"its nodes are called {', '.join(sorted(set(titles)))}"


def _options(info: Mapping[str, Any], name: str) -> list[str] | None:
    """The values that a server offers for an input; None when it takes any."""
    for group in ("required", "optional"):
        described = info.get("input", {}).get(group, {}).get(name)
        if described is None:
            continue
        if isinstance(described[0], list):
            return described[0]
        if described[0] == "COMBO" and len(described) > 1:
            return described[1].get("options")
    return None


def _listed(options: list[str], most: int = 12) -> str:
    more = f" and {len(options) - most} more" if len(options) > most else ""
    return (", ".join(map(str, options[:most])) or "nothing") + more

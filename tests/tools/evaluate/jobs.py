"""Jobs: one picture each, named by what determines it, so that a finished one is never made again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .description import Case, Evaluation, slug
from .methods import Method


@dataclass(frozen=True)
class Job:
    """One method on one case with one seed; `key` changes with anything that could change the picture."""

    method: Method
    case: Case
    seed: int
    graph: dict[str, Any] = field(repr=False)
    image_name: str
    key: str

    @property
    def path(self) -> Path:
        """Where its files lie, without ending, relative to the evaluation's folder."""
        return Path(slug(self.method.name)) / f"{self.case.name}-{self.seed}"

    def order(self) -> Order:
        """What a server needs."""
        return Order(self.graph, self.image_name, self.case.source.load().png(), self.method.result, self.method.masks)


@dataclass(frozen=True)
class Order:
    """A graph to run, the picture it loads, the nodes whose pictures are wanted; it can be sent to another machine."""

    graph: dict[str, Any] = field(repr=False)
    image_name: str
    image: bytes = field(repr=False)
    result: str
    masks: str | None


def all_jobs(evaluation: Evaluation) -> list[Job]:
    """Every method × case × seed, case by case, so that a run that is stopped early can still be compared."""
    jobs = []
    for case in evaluation.cases:
        image = f"evaluate-{evaluation.digests[case.source][:24]}.png"
        for seed in evaluation.seeds:
            for method in evaluation.methods:
                graph = method.fill(checkpoint=evaluation.checkpoint, picture=image, prompt=case.prompt, seed=seed)
                jobs.append(Job(method, case, seed, graph, image, _key(graph, method)))
    return jobs


def _key(graph: dict[str, Any], method: Method) -> str:
    """A fingerprint of everything but the nodes' titles."""
    nodes = {node_id: (node["class_type"], node["inputs"]) for node_id, node in graph.items()}
    return hashlib.sha256(json.dumps([nodes, method.result, method.masks], sort_keys=True).encode()).hexdigest()

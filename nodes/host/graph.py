"""The workflow that the host executes now, in API format."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import nodes
from comfy_execution.graph_utils import is_link
from comfy_execution.utils import get_executing_context
from server import PromptServer

Graph = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Running:
    """A node that the host executes or fingerprints, and the workflow that was queued.

    A node that another node added while it ran is not in the workflow.
    """

    prompt_id: str
    node_id: str
    graph: Graph


def running() -> Running | None:
    """The node that the host executes or fingerprints now; None outside its execution."""
    context, server = get_executing_context(), getattr(PromptServer, "instance", None)
    queue = getattr(server, "prompt_queue", None)
    if context is None or queue is None:
        return None
    graphs = {item[1]: item[2] for item in queue.get_current_queue_volatile()[0]}
    return Running(context.prompt_id, context.node_id, graphs.get(context.prompt_id, {}))


def strings(graph: Graph, node: Mapping[str, Any]) -> list[str]:
    """The texts among a node's values, and among the values of nodes that it gets text from."""
    found = []
    for value in node["inputs"].values():
        if isinstance(value, str):
            found.append(value)
        elif is_link(value) and (source := graph.get(value[0])) is not None and "STRING" in types_of(source):
            found += strings(graph, source)
    return found


def types_of(node: Mapping[str, Any]) -> Sequence[str]:
    """The types of a node's outputs."""
    return getattr(nodes.NODE_CLASS_MAPPINGS.get(node["class_type"]), "RETURN_TYPES", ())


def encoding_nodes(graph: Graph, node_id: str) -> list[Mapping[str, Any]]:
    """The nodes that make the positive conditioning of this node of other things than conditionings."""
    found, seen, waiting = [], set(), [node_id]
    while waiting:
        name = waiting.pop()
        node = graph.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        links = {key: value[0] for key, value in node["inputs"].items() if is_link(value)}
        wanted = [links[key] for key in ("positive", "guider") if key in links][:1]
        if not wanted:
            wanted = [each for each in links.values() if each in graph and "CONDITIONING" in types_of(graph[each])]
        waiting += wanted
        if not wanted:
            found.append(node)
    return found


def identity(graph: Graph, node_id: str) -> str | None:
    """A digest of a node, its values and everything before it; None for a node that is not in the graph.

    Nodes that the host's cache treats as one, whatever their ids, have the same digest.
    """
    known: dict[str, str | None] = {}
    waiting = [node_id]
    while waiting:
        node = graph.get(waiting[-1])
        links = [] if node is None else [value for value in node["inputs"].values() if is_link(value)]
        before = [name for name, _ in links if name not in known]
        if before:
            waiting += before
        else:
            known[waiting.pop()] = None if node is None else _digest(node, known)
    return known[node_id]


def _digest(node: Mapping[str, Any], known: Mapping[str, str | None]) -> str:
    inputs = {
        name: ["link", known[value[0]], value[1]] if is_link(value) else ["value", value]
        for name, value in node["inputs"].items()
    }
    text = json.dumps([node["class_type"], inputs], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

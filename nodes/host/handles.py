"""Make a sampler run again when the handle that it filled is gone, although its latent is still in the host's cache.

A handle is an attention capture or a report: a node outputs it empty and a sampler fills it later. The host caches
every node's output under a key, to which the node may add a fingerprint. A node that outputs a handle keeps its
fingerprint as long as the host holds that handle. Then it gets a new one, so every node after it gets a new key, and
the sampler runs again. A weak reference to the handle shows whether the host still holds it.
"""

from __future__ import annotations

import uuid
from typing import TypeVar
from weakref import WeakValueDictionary

from .attention.observer import AttentionCapture
from .graph import identity, running
from .sampling.guidance_report import GuidanceReport
from .sampling.pause_report import PauseReport
from .sampling.report import Report

Handle = TypeVar("Handle", AttentionCapture, Report, GuidanceReport, PauseReport)

# Node identity -> the handle that the node outputs; only the host's cache keeps a handle alive.
_alive: WeakValueDictionary[str, AttentionCapture | Report | GuidanceReport | PauseReport] = WeakValueDictionary()

# Node identity -> its fingerprint, and the id of the queued workflow that the fingerprint was made for.
_fingerprints: dict[str, tuple[str, str]] = {}


def tracked(handle: Handle) -> Handle:
    """Remember, without keeping it alive, that the executing node outputs this handle; return the handle."""
    now = running()
    name = now and identity(now.graph, now.node_id)
    if name is not None:
        _alive[name] = handle
    return handle


def fingerprint() -> str:
    """Return the fingerprint of the node whose fingerprint the host wants now.

    It stays the same until the node's handle is gone, or until the run of some latent was not found in the handle.
    """
    now = running()
    name = now and identity(now.graph, now.node_id)
    if name is None:
        return ""
    handle = _alive.get(name)
    value, made_for = _fingerprints.get(name, ("", ""))
    if made_for != now.prompt_id and (handle is None or handle.runs.lost):
        value, made_for = uuid.uuid4().hex, now.prompt_id
    fresh = {key: old for key, old in _fingerprints.items() if key in _alive or old[1] == now.prompt_id}
    _fingerprints.clear()
    _fingerprints.update(fresh | {name: (value, made_for)})
    return value

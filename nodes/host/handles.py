"""Make a sampler run again when what it left in a handle is gone, though its latent is still in the host's cache.

A handle is an attention capture or a report: a node gives it away empty and a sampler fills it later. The host caches
what nodes give under a key, which a node may add a fingerprint to. A node that gives a handle keeps its fingerprint as
long as the host holds that handle; afterwards it has a new one, so every node behind it has a new key, and the sampler
runs again. The host does not tell a node whether its output is still held; a weak reference to the handle does.
"""

from __future__ import annotations

import uuid
from typing import TypeVar
from weakref import WeakValueDictionary

from .attention.observer import AttentionCapture
from .graph import identity, running
from .sampling.report import Report

Handle = TypeVar("Handle", AttentionCapture, Report)

# Node identity -> the handle that the node gave; only the host's cache keeps a handle alive.
_alive: WeakValueDictionary[str, AttentionCapture | Report] = WeakValueDictionary()

# Node identity -> its fingerprint, and the id of the queued workflow that the fingerprint was made for.
_fingerprints: dict[str, tuple[str, str]] = {}


def tracked(handle: Handle) -> Handle:
    """Remember, without keeping it alive, that the executing node gives this handle; return the handle."""
    now = running()
    name = now and identity(now.graph, now.node_id)
    if name is not None:
        _alive[name] = handle
    return handle


def fingerprint() -> str:
    """Return the fingerprint of the node that the host asks now.

    It stays the same until the node's handle is gone, or until the handle could not tell which run made a latent.
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

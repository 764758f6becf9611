"""Make a sampler run again when what it left in a handle is gone, though its latent is still in the host's cache.

The host caches what nodes give by a key that a node can add a fingerprint to. A node that gives a handle has the same
fingerprint as long as the host keeps what it gave, and a new one when that is gone: everything behind it, the sampler
too, then has a new key and runs again. The host tells a node neither; a weak reference to the handle does.
"""

from __future__ import annotations

import uuid
from typing import TypeVar
from weakref import WeakValueDictionary

from .attention.captured import AttentionCapture
from .graph import identity, running
from .sampling.report import Report

Handle = TypeVar("Handle", AttentionCapture, Report)

# By the identity of the node that gave them; only what nodes gave keeps them alive.
_alive: WeakValueDictionary[str, AttentionCapture | Report] = WeakValueDictionary()

# By the same: the fingerprint, and the queued workflow that it was made for.
_fingerprints: dict[str, tuple[str, str]] = {}


def given(handle: Handle) -> Handle:
    """Remember `handle` as what the executing node gives, and return it."""
    now = running()
    name = now and identity(now.graph, now.node_id)
    if name is not None:
        _alive[name] = handle
    return handle


def fingerprint() -> str:
    """For the node that the host fingerprints now: the same as long as its handle lives and is not asked in vain."""
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

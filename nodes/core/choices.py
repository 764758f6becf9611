"""Choices that a user makes by name."""

from __future__ import annotations

from collections.abc import Iterable


def one_of(name: str, value: object, allowed: Iterable[str]) -> None:
    """Raise ValueError that states `name`, the value and what is allowed, unless the value is allowed."""
    allowed = tuple(allowed)
    if value not in allowed:
        raise ValueError(f"{name} {value!r} is not one of: {', '.join(allowed)}")

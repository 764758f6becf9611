"""Choices that a user makes by name, such as a threshold rule or a colour map."""

from __future__ import annotations

from collections.abc import Iterable


def one_of(name: str, value: object, allowed: Iterable[str]) -> None:
    """Raise ValueError unless `value` is allowed; the error states the name, the value and what is allowed.

    name: the choice as the user knows it: the id of the node's input, if there is one.
    """
    allowed = tuple(allowed)
    if value not in allowed:
        raise ValueError(f"{name} {value!r} is not one of: {', '.join(allowed)}")

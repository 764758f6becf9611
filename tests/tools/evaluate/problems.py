"""Everything that is wrong with an evaluation, gathered before anything is queued."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


class Problems:
    """A list of what is wrong, each with the field or file it is about."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def add(self, where: object, what: str) -> None:
        """Note one problem."""
        self.found.append(f"{where}: {what}")

    def stop_if_any(self) -> None:
        """ValueError that lists them all."""
        if self.found:
            count = f"{len(self.found)} problems" if len(self.found) > 1 else "1 problem"
            raise ValueError(f"{count}, nothing was queued:\n" + "\n".join(f"  {line}" for line in self.found))


class Fields:
    """A mapping of the description; what has the wrong type, is missing or unknown becomes a problem."""

    def __init__(self, value: Any, where: str, problems: Problems, known: set[str]) -> None:
        self.where, self._problems = where, problems
        self._values: Mapping[str, Any] = value if isinstance(value, dict) else {}
        if not isinstance(value, dict):
            problems.add(where or "the description", f"must be a mapping of fields, got {value!r}")
        for name in self._values:
            if name not in known:
                problems.add(self.path(name), f"unknown field; known are {', '.join(sorted(known))}")

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def path(self, name: object) -> str:
        """The full name of a field."""
        return f"{self.where}.{name}" if self.where else str(name)

    def raw(self, name: str, default: Any = None) -> Any:
        """The value as it was written."""
        return self._values.get(name, default)

    def text(self, name: str, default: str | None = None, among: tuple[str, ...] | None = None) -> str | None:
        """A text, one of `among` when that is given."""
        allowed = f"one of {', '.join(among)}" if among else "a text"
        return self._checked(name, default, lambda v: isinstance(v, str) and (not among or v in among), allowed)

    def texts(self, name: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        """A text or a list of texts."""
        values = self._checked(name, default, lambda v: _all(v, str), "a text or a list of texts")
        return (values,) if isinstance(values, str) else tuple(values)

    def numbers(self, name: str, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """A whole number or a list of them."""
        values = self._checked(name, default, lambda v: _all(v, int), "a whole number or a list of them")
        return (values,) if isinstance(values, int) else tuple(values)

    def mapping(self, name: str) -> Mapping[str, Any]:
        """A mapping; empty when it is not there."""
        return self._checked(name, {}, lambda v: isinstance(v, dict), "a mapping")

    def _checked(self, name: str, default: Any, fits: Callable[[Any], bool], allowed: str) -> Any:
        value = self._values.get(name)
        if value is None:
            return default
        if not fits(value):
            self._problems.add(self.path(name), f"must be {allowed}, got {value!r}")
            return default
        return value


def _all(value: Any, kind: type) -> bool:
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(isinstance(v, kind) and not isinstance(v, bool) for v in values)

"""Choose among a model's attention layers, by name or by grid."""

from __future__ import annotations

import re
from dataclasses import dataclass


def one_layer(available: tuple[str, ...], wanted: str) -> str:
    """The name of the single layer that `wanted` names, see `select_layers`; grids are not allowed.

    Raises ValueError, which lists the layers, unless it is exactly one.
    """
    chosen = select_layers(available, wanted)
    if chosen.grids or len(chosen.names) != 1:
        found = [name for name in available if name in chosen.names] or available
        raise ValueError(f"layer {wanted!r} is not one layer; choose last, or one of: {', '.join(found)}")
    return next(iter(chosen.names))


def single_layers(available: tuple[str, ...], wanted: str) -> tuple[str, ...]:
    """The layers that `wanted` names, separated by commas, in the network's order. Raises as `one_layer` for each."""
    chosen = {one_layer(available, name) for name in wanted.split(",")}
    return tuple(name for name in available if name in chosen)


@dataclass(frozen=True)
class LayerSelection:
    """The chosen layers, by name or by the (height, width) of their grid of query positions."""

    names: frozenset[str]
    grids: frozenset[tuple[int, int]]

    def __contains__(self, layer: tuple[str, tuple[int, int]]) -> bool:
        name, grid = layer
        return name in self.names or grid in self.grids


def select_layers(
    available: tuple[str, ...], wanted: str, kind: str = "cross-attention", others: tuple[str, ...] = ()
) -> LayerSelection:
    """Read a choice of layers.

    wanted: `all`, `last`, or a list separated by commas of names or beginnings of names (`output`, `output.5`,
    `middle.0.0`), ranges of numbers in a part (`double.8-18`) or in running order from 0 (`8-18`), and grids (`16x16`,
    height x width). Raises ValueError, which lists the layers, if one of them is unknown; it says what `kind` of layers
    they are, and which `others` the caller understands.
    """
    names: set[str] = set()
    grids: set[tuple[int, int]] = set()
    for item in (part.strip().lower() for part in wanted.split(",")):
        if size := re.fullmatch(r"(\d+)\s*x\s*(\d+)", item):
            grids.add((int(size[1]), int(size[2])))
            continue
        found = {"all": available, "last": available[-1:]}.get(item)
        if found is None and (span := re.fullmatch(r"(?:([a-z]+)\.)?(\d+)-(\d+)", item)):
            found = _between(available, span[1], int(span[2]), int(span[3]))
        elif found is None:
            found = tuple(name for name in available if item and f"{name}.".startswith(f"{item}."))
        if not found:
            raise ValueError(
                f"no {kind} layer is called {item!r}; choose {', '.join((*others, 'all', 'last'))}, a grid such as "
                f"16x16, a range such as 0-{len(available) - 1}, or among: {', '.join(available)}"
            )
        names.update(found)
    return LayerSelection(frozenset(names), frozenset(grids))


def _between(available: tuple[str, ...], part: str | None, first: int, last: int) -> tuple[str, ...]:
    """The layers from the number `first` to `last`: of this part of the network, or, if it is None, of all layers."""
    numbered = [(i if part is None else int(name.split(".")[1]), name) for i, name in enumerate(available)]
    return tuple(name for number, name in numbered if first <= number <= last and part in (None, name.split(".")[0]))

"""Stand beside a model's cross-attention for one call of the network, whatever else is installed there."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor

from .arrangement import Arranger
from .rows import Rows


class CrossAttentionHook(ABC):
    """Finds every cross-attention that the network computes; subclasses say what happens there.

    rows: the conditionings whose attention is meant.
    """

    def __init__(self, rows: list[Rows]) -> None:
        self._rows = rows
        # The cross-attention that the network computes next. Shapes cannot tell it from self-attention: 77 query
        # positions exist as well as 77 tokens, and other nodes change the number of either.
        self._next: dict | None = None
        self._arranger = Arranger(rows, ())

    def install(self, options: dict) -> dict:
        """A copy of the host's transformer options with the hook in it; what is installed there stays in effect."""
        options = dict(options)
        patches = dict(options.get("patches", {}))
        others = patches.get("attn2_patch", [])
        self._arranger = Arranger(self._rows, [*others, *patches.get("attn2_output_patch", [])])
        patches["attn2_patch"] = [*([self._enter] if others else []), *others, self._announce]
        options["patches"] = patches
        previous = options.get("optimized_attention_override")
        options["optimized_attention_override"] = _around(self._beside(previous), previous)
        replacers = options.get("patches_replace", {})
        if replacers.get("attn2"):
            around = {block: _around(self._around(each), each) for block, each in replacers["attn2"].items()}
            options["patches_replace"] = {**replacers, "attn2": around}
        return options

    def _enter(self, n: Tensor, context: Tensor, value: Tensor, extra_options: dict) -> tuple[Tensor, Tensor, Tensor]:
        """The first attn2 patch, in front of other nodes'."""
        self._arranger.enter(n, context)
        return n, context, value

    def _announce(
        self, n: Tensor, context: Tensor, value: Tensor, extra_options: dict
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The last attn2 patch: the next attention is this block's cross-attention."""
        self._next = extra_options
        self._arranger.leave(n, context)
        return n, context, value

    @abstractmethod
    def _beside(self, previous: Callable | None) -> Callable:
        """The attention override, around one that is there already."""

    @abstractmethod
    def _around(self, replacer: Callable) -> Callable:
        """The attn2 replacement, around one that another node installed."""


def _around(ours: Callable, theirs: Callable | None) -> Callable:
    """`ours`, from which `inspect.unwrap` gets to another node's patch, so that a message can name it."""
    return ours if theirs is None else functools.update_wrapper(ours, theirs, assigned=(), updated=())

"""What a block of the network puts out during one model call, with its gradient by what the network was given."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..attention.positives import PromptRows
from ..families.family import Family
from ..patch_names import replaced_parts
from .word_maps import end_record


class RecordedFeatures:
    """Reads the output of `block` inside its own `with`; without one (None) it does nothing.

    end: where recording ends; leave: see `end_record`.
    """

    def __init__(self, family: Family, block: str | None, end: str, leave: bool) -> None:
        self._family, self._block = family, block
        self._end, self._leave = end, leave
        self._found: Tensor | None = None

    def __enter__(self) -> RecordedFeatures:
        return self

    def __exit__(self, *_: object) -> None:
        self._found = None  # the record keeps a repeated block's options, and by them this

    def watched(self, options: dict) -> dict:
        """The transformer options with which a call is read."""
        return options if self._block is None else self._family.with_blocks(options, (self._block,), self._see)

    def of_rows(self, row: PromptRows, network: nn.Module, options: dict) -> Tensor | None:
        """The features of a conditioning's rows after the call, at least float32 [B,C,h,w].

        Raises ValueError where the block was not seen, with the names of what may hide it; options: of the call.
        """
        if self._block is None:
            return None
        if self._found is None:
            raise ValueError(
                f"the output of block {self._block}, which keep_appearance needs, could not be seen: it was left out "
                f"or computed by {replaced_parts(network, options)}. Connect the model without that node, or set "
                "keep_appearance to 0"
            )
        return self._found[row.rows].to(torch.promote_types(self._found.dtype, torch.float32))

    def _see(self, name: str, output: Tensor) -> None:
        self._found = output.clone()  # the network, or another node, may change it afterwards
        if name == self._end:
            end_record(self._leave)

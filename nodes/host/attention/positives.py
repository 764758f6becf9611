"""The positive conditionings that hold the subjects' prompt: their rows in a model call, their place in the frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..patch_names import of_other_nodes, patch_name
from .twin_blocks import TARGET, twin_blocks


@dataclass(frozen=True)
class PromptRows:
    """Where one positive conditioning is: in the network's batch, and in the frame.

    rows: in the batch. contexts: the texts [B or 1,T,d] that their keys may be made from. own: whether the first of
    these is the conditioning's own text; if not, another node has to put it there. length: tokens of the context in
    this call, in which a text may be repeated. size, offset: its area in the latent, (a, b) at (y, x). weight: how much
    it counts there, a number or [B or 1,a,b]. count: all rows of the batch. padding: how many tokens
    stand in front of the text: the host's filling, or of pictures.
    """

    rows: slice
    contexts: tuple[Tensor, ...]
    own: bool
    length: int
    size: tuple[int, int]
    offset: tuple[int, int]
    weight: Tensor | float
    count: int
    padding: int = 0

    def is_whole(self, grid: tuple[int, int]) -> bool:
        """Whether the conditioning covers the whole latent evenly."""
        return self.size == grid and isinstance(self.weight, float)


class Positives:
    """Those positive conditionings of one step that hold the subjects' prompt.

    listed: the guider's list, the very object.
    """

    def __init__(
        self,
        listed: list[dict],
        prompt: Sequence[Tensor] | None,
        warn: Callable[[str], None],
        model_options: Mapping,
        pads_in_front: bool = False,
        block: str = TARGET,
        pictures: int = 0,
    ) -> None:
        """Choose by `prompt` (contexts [1,T,d] as a CONDITIONING holds them); None takes the first conditioning's.

        Where none of them holds that prompt, another node may put it into their rows while the network runs.
        model_options: of the call. pads_in_front: whether the host fills up a short text at its beginning. block: whose
        rows are meant in a twin run. pictures: how many tokens of the prompt's context stand in front of its text, see
        `same_prompt.SampledPrompt`.
        """
        self._twin = twin_blocks(model_options)
        self._block = block
        wrapper = model_options.get("model_function_wrapper")
        self.listed = listed
        self._warn = warn
        self._pads_in_front = pads_in_front
        self._pictures = pictures
        self._caller = "another node" if wrapper is None else patch_name(wrapper)
        text = [cond for cond in listed if "c_crossattn" in cond["model_conds"]]
        wanted = self._contexts(text[0]) if prompt is None and text else prompt or ()
        chosen = [cond for cond in text if any(_equal(own, other) for own in self._contexts(cond) for other in wanted)]
        self._elsewhere = () if chosen else tuple(wanted)
        self._by_uuid = {cond["uuid"]: cond for cond in chosen or text}
        if not text:
            warn("the sampler's guider has no positive text conditioning: no attention is captured")
        elif prompt is None and len(chosen) < len(text):
            warn(
                f"{len(text)} positive conditionings are combined; attention is captured for the first one's prompt "
                f"and not for the {len(text) - len(chosen)} that hold another prompt"
            )

    def __bool__(self) -> bool:
        return bool(self._by_uuid)

    def among(self, lists: Sequence[list[dict] | None]) -> int | None:
        """Index of the positive list among the lists that the host evaluates; None if it is not among them.

        It is recognised by identity, else by the ids of its conditionings, since another node may evaluate changed
        copies (CADS).
        """
        own = [cond["uuid"] for cond in self.listed]
        copies = (i for i, each in enumerate(lists) if each and [cond.get("uuid") for cond in each] == own)
        return next((i for i, each in enumerate(lists) if each is self.listed), next(copies, None))

    def rows(
        self, x: Tensor, context: Tensor, options: dict, index: int, batch: int, grid: tuple[int, int]
    ) -> list[PromptRows]:
        """Where the chosen conditionings lie in a call of the model with input `x` [rows,C,h,w].

        context: [rows,T,d], what the network attends to in this call. options: the host's transformer options. index:
        of the positive list among the lists it evaluates. batch, grid: of the latent.
        """
        kinds, uuids = options["cond_or_uncond"], options["uuids"]
        if self._elsewhere and not of_other_nodes(options.get("patches", {}).get("attn2_patch", [])):
            self._warn("none of the positive conditionings holds the chosen prompt: no attention is captured")
            return []
        if x.shape[0] != batch * len(kinds):
            self._warn(
                f"the network was called with {x.shape[0]} rows instead of {len(kinds)} conditionings of {batch} "
                f"latents: {self._caller} splits the batch in its own way; such calls are not captured"
            )
            return []
        found = []
        for j, (kind, uuid) in enumerate(zip(kinds, uuids, strict=True)):
            cond = self._by_uuid.get(uuid)
            if kind != index or cond is None:
                continue
            size, offset = area_of(cond, grid)
            if tuple(x.shape[-2:]) != size:
                self._warn(
                    f"the network saw a latent of {tuple(x.shape[-2:])} instead of {size}: {self._caller} cuts the "
                    "latent into tiles; such calls are not captured"
                )
                continue
            rows, length = self._rows(j, batch), context.shape[1]
            own = context[rows, : self._context(cond).shape[1]]
            contexts = tuple(each.to(x.device) for each in self._elsewhere or (own,))
            weight = _weight(cond, size, offset)
            padding = own.shape[1] - self._contexts(cond)[-1].shape[1] if self._pads_in_front else self._pictures
            placed = size, offset, weight, len(x), padding
            found.append(PromptRows(rows, contexts, not self._elsewhere, length, *placed))
        return found

    def _rows(self, j: int, batch: int) -> slice:
        """Of the j-th conditioning of a call."""
        inside = slice(0, batch) if self._twin is None else self._twin.rows(self._block)
        return slice(j * batch + inside.start, j * batch + inside.stop)

    def _context(self, cond: dict) -> Tensor:
        """What the network gets; in a twin run, of the block's own text."""
        return self._contexts(cond)[0]

    def _contexts(self, cond: dict) -> tuple[Tensor, ...]:
        """What the network gets, and what the CONDITIONING held: the host makes the one from the other."""
        own = None if self._twin is None else self._twin.text(cond, self._block)
        if own is not None:
            return (own,)
        made, encoded = cond["model_conds"]["c_crossattn"].cond, cond.get("cross_attn")
        return (made,) if encoded is None else (made, encoded)


def _equal(context: Tensor, other: Tensor) -> bool:
    return context is other or (context.shape == other.shape and torch.equal(context, other.to(context)))


def area_of(cond: dict, grid: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Size (a, b) and offset (y, x) of a conditioning's area in the latent, cut at the border as the host cuts it."""
    if "area" not in cond:
        return grid, (0, 0)
    sizes, corner = cond["area"][: len(cond["area"]) // 2], cond["area"][len(cond["area"]) // 2 :]
    (a, b), (y, x) = sizes[-2:], corner[-2:]  # in front of them those of frames
    return (min(grid[0] - y, a), min(grid[1] - x, b)), (y, x)


def _weight(cond: dict, size: tuple[int, int], offset: tuple[int, int]) -> Tensor | float:
    """How much a conditioning counts: its strength times its mask, a number or [B or 1,a,b]."""
    strength = float(cond.get("strength", 1.0))
    if "mask" not in cond:
        return strength
    (a, b), (y, x) = size, offset
    mask = cond["mask"].reshape(-1, *cond["mask"].shape[-2:])
    return mask[:, y : y + a, x : x + b].float() * (strength * float(cond.get("mask_strength", 1.0)))


def contexts_of(conditioning: list[list[Any]]) -> list[Tensor]:
    """The text contexts [1,T,d] of a CONDITIONING. Raises ValueError when there is none."""
    contexts = [entry[0] for entry in conditioning if entry[0] is not None]
    if not contexts:
        raise ValueError("the conditioning holds no text: connect the output of CLIP Text Encode")
    return contexts

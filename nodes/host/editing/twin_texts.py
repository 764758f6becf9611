"""The prompts of the pictures beside the target in a guider's conditionings.

A conditioning whose text is a batch gives each picture its own. So their rows are rows of one conditioning: areas,
masks, ControlNet, timestep ranges and guidance act on all alike.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import comfy.samplers
import torch
from comfy.utils import repeat_to_batch_size
from torch import Tensor

from ..attention.model_call import OURS
from ..attention.twin_blocks import APPEARANCE, SOURCE

# The names of other blocks' own lists among the guider's, while the host prepares them.
OWN_LISTS = {
    "positive": {SOURCE: OURS + "source", APPEARANCE: OURS + "appearance"},
    "negative": {SOURCE: OURS + "source_negative"},
}
# Lists of prompts that guiders have and that all blocks may share.
_KNOWN = {"positive", "negative", "empty_negative_prompt"}
# What the host makes of a prompt: the text itself, and what SDXL reads beside it.
_TEXT, _POOLED = "c_crossattn", "y"

Texts = dict[Any, tuple[Tensor, ...]]  # id of a conditioning -> contexts [1 or B,T,d] of each block


def own_list(conditioning: list, block: str = SOURCE) -> list[dict]:
    """A block's CONDITIONING as the host's guiders keep it, its texts alone: where they act is said by the target's.

    Raises ValueError where there is no text, or a text has a schedule or a LoRA of its own.
    """
    found = []
    for context, options in conditioning:
        if context is None:
            raise ValueError(f"the {block} prompt holds no text: connect the output of CLIP Text Encode to it")
        if options.get("hooks") is not None or "clip_start_percent" in options:
            raise ValueError(
                f"the {block} prompt has a LoRA or a schedule of its own, which only the target's can have: encode it "
                "with a CLIP without hooks"
            )
        kept = {name: options[name] for name in _SIZES if name in options}
        found.append({**kept, "cross_attn": context, "model_conds": {}, "uuid": uuid.uuid4()})
    return found


_SIZES = (
    "pooled_output",
    "width",
    "height",
    "crop_w",
    "crop_h",
    "target_width",
    "target_height",
    "aesthetic_score",
)


def check_guider(guider: comfy.samplers.CFGGuider) -> None:
    """Raise ValueError for a guider without a positive prompt, or with further ones."""
    others = sorted(name for name in set(guider.conds) - _KNOWN if not name.startswith(OURS))
    if "positive" not in guider.conds or others:
        raise ValueError(
            f"the guider {type(guider).__name__} has the prompts {', '.join(sorted(guider.conds))}, but Twin Sampling "
            f"knows what to do with {', '.join(sorted(_KNOWN))} alone. Use a KSampler or CFGGuider"
        )


def joined(
    listed: list[dict], own: Mapping[str, list[dict]], names: Sequence[str], batch: int
) -> tuple[list[dict], Texts]:
    """A prepared list of the target's conditionings with the texts of all blocks, and those by the conditionings' ids.

    own: the prepared lists of the blocks that have a prompt of their own, with one text for all or as many as there are
    different ones of the target. names: of all blocks, in their order. batch: pictures of each block. Raises ValueError
    for another number.
    """
    originals: list[Tensor] = []
    for cond in listed:
        text = _text(cond)
        if text is not None and not any(text is other for other in originals):
            originals.append(text)
    given = {block: _different(own[block], block, len(originals)) for block in own}
    result, texts = [], {}
    for cond in listed:
        text = _text(cond)
        if text is None:
            result.append(cond)
            continue
        number = next(i for i, other in enumerate(originals) if text is other)
        conds = {block: each[min(number, len(each) - 1)] for block, each in given.items()}
        each = [conds.get(name, cond) for name in names]
        result.append({**cond, "model_conds": _joined(cond["model_conds"], each, batch)})
        texts[cond["uuid"]] = tuple(map(_text, each))
    return result, texts


def _different(own: list[dict], block: str, wanted: int) -> list[dict]:
    """A block's conditionings with text, one for all or as many as there are target prompts."""
    given = [cond for cond in own if _text(cond) is not None]
    if all(_text(cond) is _text(given[0]) for cond in given):  # the host repeats it for the areas of the target's
        given = given[:1]
    if len(given) != 1 and len(given) < wanted:
        raise ValueError(
            f"there are {len(given)} {block} prompts for {wanted} target prompts: connect one {block} prompt for all, "
            "or combine as many, in the same order"
        )
    return given


def _text(cond: dict) -> Tensor | None:
    made = cond["model_conds"].get(_TEXT)
    return None if made is None else made.cond


def _joined(target: dict, blocks: Sequence[dict], batch: int) -> dict:
    """The target's `model_conds` with the texts of all blocks, whose conditionings these are."""
    conds = dict(target)
    for name in (_TEXT, _POOLED):
        each = [cond["model_conds"].get(name) for cond in blocks]
        if name not in conds or any(made is None for made in each):
            continue
        own = conds[name].cond
        texts = [made.cond.to(own) for made in each]
        if name == _TEXT:
            length = math.lcm(*(text.shape[1] for text in texts))
            texts = [text.repeat(1, length // text.shape[1], 1) for text in texts]
        conds[name] = type(conds[name])(torch.cat([repeat_to_batch_size(text, batch) for text in texts]))
    return conds

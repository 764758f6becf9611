"""The source prompt beside the target's in a guider's conditionings.

A conditioning whose text is a batch gives each picture its own. So the rows of source and target are rows of one
conditioning: areas, masks, ControlNet, timestep ranges and guidance act on both alike.
"""

from __future__ import annotations

import math
import uuid
from typing import Any

import comfy.samplers
import torch
from comfy.utils import repeat_to_batch_size
from torch import Tensor

from ..attention.model_call import OURS

# The names of the source's own lists among the guider's while the host prepares them.
SOURCE_LISTS = {"positive": OURS + "source", "negative": OURS + "source_negative"}
# Lists of prompts that guiders have and that source and target may share.
_KNOWN = {"positive", "negative", "empty_negative_prompt"}
# What the host makes of a prompt: the text itself, and what SDXL reads beside it.
_TEXT, _POOLED = "c_crossattn", "y"

Texts = dict[Any, tuple[Tensor, Tensor]]  # id of a conditioning -> contexts of source and target [1 or B,T,d]


def source_list(conditioning: list) -> list[dict]:
    """A CONDITIONING as the host's guiders keep it, its texts alone: where they act is said by the target's.

    Raises ValueError where there is no text, or a text has a schedule or a LoRA of its own.
    """
    found = []
    for context, options in conditioning:
        if context is None:
            raise ValueError("the source prompt holds no text: connect the output of CLIP Text Encode to source")
        if options.get("hooks") is not None or "clip_start_percent" in options:
            raise ValueError(
                "the source prompt has a LoRA or a schedule of its own, which only the target's can have: encode it "
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


def joined(listed: list[dict], source: list[dict], batch: int) -> tuple[list[dict], Texts]:
    """A prepared list of conditionings with source and target text, and both texts by the conditionings' ids.

    source: the prepared list of the source's, one for all or as many as there are different texts. batch: pictures of
    each block. Raises ValueError for another number.
    """
    originals: list[Tensor] = []
    for cond in listed:
        text = _text(cond)
        if text is not None and not any(text is other for other in originals):
            originals.append(text)
    sources = [cond for cond in source if _text(cond) is not None]
    if all(_text(cond) is _text(sources[0]) for cond in sources):  # the host repeats it for the areas of the target's
        sources = sources[:1]
    if len(sources) != 1 and len(sources) < len(originals):
        raise ValueError(
            f"there are {len(sources)} source prompts for {len(originals)} target prompts: connect one source prompt "
            "for all, or combine as many, in the same order"
        )
    result, texts = [], {}
    for cond in listed:
        text = _text(cond)
        if text is None:
            result.append(cond)
            continue
        number = next(i for i, other in enumerate(originals) if text is other)
        theirs = sources[min(number, len(sources) - 1)]
        result.append(_joined(cond, theirs, batch))
        texts[cond["uuid"]] = _text(theirs), text
    return result, texts


def _text(cond: dict) -> Tensor | None:
    made = cond["model_conds"].get(_TEXT)
    return None if made is None else made.cond


def _joined(target: dict, source: dict, batch: int) -> dict:
    """The target's conditioning with the texts of both blocks."""
    conds = dict(target["model_conds"])
    for name in (_TEXT, _POOLED):
        if name in conds and name in source["model_conds"]:
            own, other = conds[name].cond, source["model_conds"][name].cond
            if name == _TEXT:
                length = math.lcm(own.shape[1], other.shape[1])
                own, other = (each.repeat(1, length // each.shape[1], 1) for each in (own, other))
            both = [repeat_to_batch_size(each, batch) for each in (other.to(own), own)]
            conds[name] = type(conds[name])(torch.cat(both))
    return {**target, "model_conds": conds}

"""DenseDiffusion in every run of a model: phrases in their segments, see `core.methods.dense_diffusion`.

`positive_rows` runs it. The rows of the call stay as they are; those of the positive prompt are computed once more,
with wider heads, by the user's own attention backend.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from comfy.ldm.modules.attention import get_attention_function
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ...core.attention.probabilities import token_columns
from ...core.methods.dense_diffusion import FLATTENED, DenseDiffusion, Segments, falling, modulated_attention
from ...core.methods.guidance import Part
from ...core.methods.structured_diffusion import exchanged
from ...core.methods.word_places import Places, inside
from ...core.words.subjects import shorten
from ..attention.attention_call import AttentionCall
from ..attention.model_call import OURS, step_of
from ..attention.positives import area_of
from ..attention.twin_blocks import TWIN_KEY
from ..families.family import Family, family_of
from ..families.offers import EDITING
from ..families.sites import CROSS, SELF
from ..sampling.live_prompt import installed_by_us
from .editors import EditedCall, EditingProcessor
from .placed_phrases import PlacedPhrases
from .positive_rows import EditedStep, PositiveRows
from .regional_attention import WRAPPER_KEY as REGIONS_KEY
from .structured_attention import WRAPPER_KEY as STRUCTURED_KEY

NAME = "Place Phrases"
WRAPPER_KEY = OURS + "dense_diffusion"

# What edits the same attention in another way.
_OTHERS = {
    TWIN_KEY: "Twin Sampling",
    REGIONS_KEY: "Regional Attention",
    STRUCTURED_KEY: "Structured Diffusion",
}
# Backends that have kernels for some widths of heads alone.
_OF_FIXED_WIDTHS = ("sage", "sage3")


def install_dense_diffusion(patcher: ModelPatcher, phrases: PlacedPhrases, method: DenseDiffusion) -> None:
    """Let every sampler that runs `patcher` (changed in place: pass a clone) put phrases into their segments.

    Without phrases, or with both strengths 0, nothing is installed. Raises ValueError for a model that no family knows
    whose attention can be edited, and where phrases are placed on it already; the samplers raise it when none of their
    positive conditionings holds the prompt, and beside what edits the same attention in another way.
    """
    family = family_of(patcher, EDITING)
    if not phrases.rows or method.is_off:
        return
    if any(WRAPPER_KEY in kind for kind in patcher.wrappers.values()):
        raise ValueError(
            f"two {NAME} are on one model: connect the model to one of them, with all phrases in its layout or masks"
        )
    _Dense(phrases, method, family).install(patcher, WRAPPER_KEY)


@dataclass
class _Step(EditedStep):
    """See `EditedStep`.

    conds: the positive conditionings that hold the prompt, by id. grid: of the latent. strengths: w λ by kind of
    attention, 0 outside of the window.
    """

    conds: Mapping[Any, dict]
    grid: tuple[int, int]
    strengths: Mapping[str, float]


class _Dense(PositiveRows):
    """See `PositiveRows`."""

    def __init__(self, phrases: PlacedPhrases, method: DenseDiffusion, family: Family) -> None:
        super().__init__(NAME, family)
        self._phrases = phrases
        self._method = method

    def begin(self, guider: Any, x: Tensor, timestep: Tensor, model_options: dict) -> _Step | None:
        """See `PositiveRows`. Raises ValueError when no conditioning holds the prompt, and beside other editors."""
        self._require_alone(guider)
        listed = guider.conds.get("positive") or []
        texts = {cond["uuid"]: cond for cond in listed if cond.get("cross_attn") is not None}
        conds = {uuid: cond for uuid, cond in texts.items() if self._phrases.encoded.is_in(cond["cross_attn"])}
        if not conds:
            raise ValueError(
                f"{NAME} was given phrases of '{shorten(self._phrases.prompt)}', but this is not what is sampled. "
                "Connect the same text and the same CLIP to Prompt with Words or Parse Subjects, to this node and to "
                "the sampler's positive prompt"
            )
        method, sigma = self._method, timestep.flatten()[:1]
        step, levels = step_of(float(sigma), model_options), model_options["transformer_options"].get("sample_sigmas")
        within = step is not None and method.window.includes(step, len(levels) - 1)
        if not within and not self._phrases.alone:
            return None
        fall = falling(float(guider.inner_model.model_sampling.timestep(sigma))) if within else 0.0
        strengths = {CROSS: method.cross * fall, SELF: method.own * fall}
        return _Step(len(x), [cond["uuid"] for cond in listed], conds, tuple(x.shape[-2:]), strengths)

    def processor(
        self, step: _Step, call: EditedCall, x: Tensor, context: Tensor, network: nn.Module, options: dict
    ) -> EditingProcessor | None:
        """See `PositiveRows`."""
        parts = []
        for uuid, rows in self.conditionings(step, call.count, options):
            if uuid not in step.conds:
                continue
            cond = step.conds[uuid]
            size, corner = area_of(cond, step.grid)
            if tuple(x.shape[-2:]) != size:
                self.warn(
                    f"the network saw a latent of {tuple(x.shape[-2:])} instead of {size}: another node cuts it into "
                    f"tiles; in such calls no phrase has a place ({NAME})"
                )
                return None
            length = cond["cross_attn"].shape[1]
            columns = token_columns(self._phrases.rows, call.length, length)
            # beside a longer prompt the host repeats a text
            texts = [exchanged(each, self._phrases.alone) for each in context[rows].split(length, 1)]
            text = torch.cat(texts, 1) if self._phrases.alone else None
            parts.append(_Rows(rows, Part(step.grid, corner, size), columns, text))
        layers = self.family.key_layers(network), self.family.value_layers(network)
        return (
            DenseAttention(call, self._phrases.places, self._method, step.strengths, parts, layers) if parts else None
        )

    def _require_alone(self, guider: Any) -> None:
        """Raise ValueError where something on the model edits the same attention in another way."""
        installed = installed_by_us(guider)
        for key, other in _OTHERS.items():
            if key in installed:
                raise ValueError(
                    f"{NAME} and {other} are on one model, but both edit where the prompt is looked at: connect the "
                    "model to one of them"
                )


@dataclass(frozen=True)
class _Rows:
    """A positive conditioning in a model call.

    part: of the latent. columns: its phrases' tokens [T,S]. text: what its keys and values are made of [B,T,d]; None
    for what the network has.
    """

    rows: slice
    part: Part
    columns: Tensor
    text: Tensor | None


class DenseAttention(EditingProcessor):
    """Modulates the attention of positive conditionings' rows in one model call.

    strengths: w λ by kind of attention. layers: what makes keys and values of a text, by the name of the site.
    """

    def __init__(
        self,
        call: EditedCall,
        places: Places,
        method: DenseDiffusion,
        strengths: Mapping[str, float],
        parts: Sequence[_Rows],
        layers: tuple[Mapping[str, Callable[[Tensor], Tensor]], Mapping[str, Callable[[Tensor], Tensor]]],
    ) -> None:
        kinds = [
            kind for kind, strength in strengths.items() if strength or (kind == CROSS and parts[0].text is not None)
        ]
        super().__init__(NAME, kinds, call)
        self._places = places
        self._method = method
        self._strengths = strengths
        self._parts = parts
        self._keys, self._values = layers
        self._segments: dict[tuple[Part, tuple[int, int]], Segments] = {}
        self._fixed = False

    def backend(self, attention: Callable) -> Callable:
        """See `Processor`."""
        fixed = (get_attention_function(name, None) for name in _OF_FIXED_WIDTHS)
        self._fixed = any(inspect.unwrap(attention) is inspect.unwrap(each) for each in fixed if each is not None)
        return attention

    def edited(self, call: AttentionCall) -> AttentionCall:
        """See `EditingProcessor`."""
        if call.mask is not None:
            self.leave(call, "it has a mask of its own")
            return call
        if call.edits:
            self.leave(call, f"words have weights of their own: connect {NAME} in front of Pause Sampling")
            return call
        kind, name = call.site.kind, call.site.name
        strength, attend = self._strengths[kind], self._attend(call)
        for part in self._parts:
            if kind == CROSS and part.text is not None:
                text = part.text.to(call.k)
                call = call.with_rows(part.rows, k=self._keys[name](text), v=self._values[name](text))
            segments = self._segments_of(part.part, call.site.grid)
            if not strength or not (len(segments.of_group) or self._method.elsewhere == FLATTENED):
                continue
            modulated = partial(
                modulated_attention,
                attend=attend,
                heads=call.site.heads,
                amounts=segments.amounts(strength, self._method),
                members=segments.members,
                shared=segments.tokens(part.columns) if kind == CROSS else segments.places,
                scale=call.scale,
            )
            call = call.with_computed(part.rows, modulated)
        return call

    def _segments_of(self, part: Part, grid: tuple[int, int]) -> Segments:
        if (part, grid) not in self._segments:
            self._segments[part, grid] = Segments.of(inside(self._places, grid, part))
        return self._segments[part, grid]

    def _attend(self, call: AttentionCall) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """The user's backend, or PyTorch's own where that one has no kernel for wider heads."""
        if not self._fixed:
            return call.attend
        scale = {} if call.scale is None else {"scale": call.scale}
        return partial(get_attention_function("pytorch"), heads=call.site.heads, **scale)

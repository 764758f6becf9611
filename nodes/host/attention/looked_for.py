"""Maps of words that are not in the prompt: the words encoded by the CLIP, and their attention in a model call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...core.attention.heads import joined
from ...core.attention.looked_for import READINGS, SCORES, SOFTMAX, appended_attention, score_maps
from ...core.attention.probabilities import token_attention
from ...core.choices import one_of
from ...core.words.looked_for import read_looked_for
from ...core.words.named_words import SEPARATORS
from ...core.words.subjects import LOOKED_FOR, Subject, Subjects
from ..tokens import tokenize
from .arrangement import Place
from .attention_call import AttentionCall


@dataclass(frozen=True)
class LookedFor:
    """Words to look for while a prompt is sampled: first those that stand in it, then the others.

    labels: of all of them. inside: the positions of the first ones in the prompt's context. vectors: the encoded tokens
    [N,d] of the others, one word after the other; counts: how many each has. reading: one of `READINGS`.
    """

    labels: tuple[str, ...]
    inside: tuple[tuple[int, ...], ...]
    vectors: Tensor
    counts: tuple[int, ...]
    reading: str

    @property
    def scores(self) -> int:
        """How many of the maps are scores and no shares of attention."""
        return len(self.labels) if self.reading == SCORES else 0


def encode_looked_for(clip: Any, subjects: Subjects, text: str, reading: str) -> LookedFor | None:
    """The words of `text` (see `read_looked_for`), encoded by the host's CLIP; None if there are none.

    Each word that is not in the prompt is encoded by itself, with its weights, as a prompt of its own. Raises
    ValueError without a CLIP, for one that is not a UNet's or has a schedule, and for words without tokens.
    """
    one_of("reading", reading, READINGS)
    if not any(word.strip() for word in SEPARATORS.split(text)):
        return None
    if clip is None:
        raise ValueError(
            f"look_for is '{text.strip()}', but no CLIP is connected to encode it: connect the CLIP that encodes the "
            "prompt, or empty look_for"
        )
    tokens = tokenize(clip, subjects.prompt)
    inside, absent = read_looked_for(text, subjects, tokens, anew=reading == SCORES)
    if not inside and not absent:
        return None
    vectors = [_encoded(clip, label, typed) for label, typed in absent.items()]
    return LookedFor(
        (*(_label(item, subjects) for item in inside), *absent),
        tuple(item.positions() for item in inside),
        torch.cat(vectors) if vectors else torch.zeros(0, 0),
        tuple(len(each) for each in vectors),
        reading,
    )


def _label(word: Subject, subjects: Subjects) -> str:
    """The label of a word of the prompt; a subject has its map of attention under it already."""
    return f"{word.label} ({SCORES})" if word.label in subjects.labels else word.label


def _encoded(clip: Any, label: str, typed: str) -> Tensor:
    """The tokens [n,d] of one word or phrase."""
    tokens = tokenize(clip, typed)
    places = {key: tuple(token.position for token in spans) for key, spans in tokens.items()}
    rows = tokens.context and tokens.context.of(places)
    positions = Subject(label, LOOKED_FOR, (0, len(typed)), places, rows).positions()
    made = clip.encode_from_tokens_scheduled(clip.tokenize(typed), show_pbar=False)
    if len(made) > 1:
        raise ValueError(
            f"the CLIP encodes '{label}' in {len(made)} ways, one after the other (its LoRA has a schedule): connect a "
            "CLIP without a schedule for look_for"
        )
    return made[0][0][0, list(positions)].detach().float().cpu()


class LookedForMaps:
    """Reads looked-for words beside the prompt's own, in one model call.

    key_layers: what makes keys of the words in each cross-attention, see `Family.key_layers`. context: the text [R,T,d]
    that the network gets; other nodes may give its attention another.
    """

    def __init__(
        self, looked: LookedFor, key_layers: Mapping[str, Callable[[Tensor], Tensor]], context: Tensor
    ) -> None:
        self._looked = looked
        self._key_layers = key_layers
        self._context = context

    def keys(self, call: AttentionCall) -> Tensor:
        """The keys [N,H*d] of the words that are not in the prompt, made by the call's own layer.

        Raises ValueError for words of another width than the text that the network attends to.
        """
        context, like = (self._context, call.k) if call.inputs.after is None else [call.inputs.after[1]] * 2
        vectors = self._looked.vectors
        if not len(vectors):
            return call.k.new_zeros(0, call.k.shape[-1])
        if vectors.shape[-1] != context.shape[-1]:
            raise ValueError(
                f"the CLIP that encodes {', '.join(self._looked.labels)} gives vectors of {vectors.shape[-1]} numbers, "
                f"but this model reads text as vectors of {context.shape[-1]}: connect the model's own CLIP"
            )
        return self._key_layers[call.site.name](vectors.to(like))

    def maps(self, place: Place, call: AttentionCall, keys: Tensor) -> Tensor:
        """Maps [S,B,Q] in these rows: of the subjects, the looked-for words in the prompt, and those that are not.

        keys: see `keys`.
        """
        q, k, mask = call.of_picture(place.rows)
        words = None if place.words is None else place.words.expand(len(q), -1)
        columns = place.columns.expand(len(q), -1, -1)
        heads, how = call.site.heads, {"words": words, "mask": mask, "scale": call.scale}
        counts = self._looked.counts
        if self._looked.reading == SOFTMAX:
            there = token_attention(q, k, heads, columns, text=call.site.keys, **how)
            return torch.cat([there, appended_attention(q, k, heads, keys, counts, **how)]) if counts else there
        named = columns.shape[-1] - len(self._looked.inside)
        inside = columns[..., named:]
        text = joined(k[..., call.site.keys, :], heads).float()
        own = (inside / inside.sum(1, keepdim=True).clamp_min(1)).transpose(1, 2) @ text
        absent = [each.float().mean(0).expand(len(q), 1, -1) for each in (keys.split(counts) if counts else ())]
        scores = score_maps(q, torch.cat([own, *absent], dim=1), heads, scale=call.scale)
        there = token_attention(q, k, heads, columns[..., :named], text=call.site.keys, **how)
        return torch.cat([there, scores])

"""The prompt of a run that goes on: another text for the rest of it, and words that count more or less."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, Protocol

import torch
from comfy.model_management import load_models_gpu
from torch import Tensor

from ...core.words.parsing import parse
from ...core.words.prompt_words import other_words
from ...core.words.subjects import Subjects
from ...core.words.tokens import TokenSpan
from ..attention.model_call import EXCHANGED, OURS
from ..attention.observer import WRAPPER_KEY as ATTENTION_KEY
from ..attention.twin_blocks import TWIN_KEY
from ..same_prompt import WRAPPER_KEY as PROMPT_KEY
from ..tokens import encode, tokenize
from .variants import KEY as VARIANTS_KEY

MOST_WEIGHTS = 1000  # letters
PAUSE_KEY, WEIGHTS_KEY = OURS + "pausing", OURS + "weighted_words"

# What this pack may have installed on a model whose prompt is exchanged: captures stop then. Masks, guidance and
# editors go on and would read the words of the first prompt at places where others stand.
LEAVES_WORDS = frozenset({ATTENTION_KEY, PROMPT_KEY, PAUSE_KEY, VARIANTS_KEY, WEIGHTS_KEY})


@dataclass(frozen=True)
class Reader:
    """A text and its tokens, by encoder."""

    text: str
    tokens: Mapping[str, Sequence[TokenSpan]]


class Weighted(Protocol):
    """What makes words count more or less in the model calls of a run. weights: of rows of the prompt's text."""

    weights: Mapping[int, float]

    def read(self, prompt: Reader, text: str) -> dict[int, float]:
        """What `text` says of words of a prompt. Raises ValueError for what it cannot be."""


class LivePrompt:
    """What can be done to the prompt of one sampler run.

    guider: the host's. noise: of the run [B,C,h,w]. clip: encodes new texts, None for none. words: of the connected
    capture, None for none. weighted: None where the model's attention cannot be edited. own: the run's text; empty
    where it is not known for certain. can_exchange, can_weigh: whether it can have another text, and weights of its
    words: where all positive conditionings have one text, and nothing else that is installed counts on it.
    """

    def __init__(
        self, guider: Any, noise: Tensor, clip: Any, words: Subjects | None, weighted: Weighted | None
    ) -> None:
        texts = [cond.get("cross_attn") for cond in getattr(guider, "conds", {}).get("positive", [])]
        alone = bool(texts) and all(text is not None and _same(text, texts[0]) for text in texts)
        certain = alone and words is not None and words.source is not None and words.source.encoded.is_in(texts[0])
        known, installed = words if certain else None, installed_by_us(guider)
        self.own = known.prompt if known else ""
        self.can_exchange = alone and clip is not None and installed <= LEAVES_WORDS
        words_known = known is not None or self.can_exchange
        self.can_weigh = alone and weighted is not None and words_known and TWIN_KEY not in installed
        self._weighted = weighted
        self._guider = guider
        self._shape = tuple(noise.shape)
        self._clip = clip
        self._known = known
        self._read: dict[str, Reader] = (
            {} if known is None else {known.prompt: Reader(known.prompt, known.prompt_tokens)}
        )
        self._encoded: dict[str, tuple[Tensor, dict[str, Any]]] = {}
        self._one_at_a_time = Lock()

    @property
    def weights(self) -> Mapping[int, float]:
        """Those that the words have now, by their rows in the encoded prompt."""
        return self._weighted.weights if self._weighted else {}

    @weights.setter
    def weights(self, weights: Mapping[int, float]) -> None:
        if self._weighted:
            self._weighted.weights = weights

    def text(self, prompt: str) -> str:
        """What `prompt` means: the run's own where nothing is written."""
        return prompt if prompt.strip() else self.own

    def check(self, prompt: str, weights: str) -> dict[int, float]:
        """The weights of rows of the encoded prompt, which is one that `text` gives. Nothing is encoded, and any thread
        may call this.

        Raises ValueError for a prompt that cannot be read, for weights of words that it lacks, and for weights of
        words that are not known because neither a capture nor a new text names them.
        """
        if not weights.strip() and prompt == self.own:
            return {}
        with self._one_at_a_time:
            if prompt not in self._read:
                if prompt == self.own:
                    raise ValueError(
                        "weights: which words the run's own prompt has is not known here. Write the prompt, too, or "
                        "connect Capture Attention to 'attention' of Pause Sampling"
                    )
                self._read[prompt] = Reader(prompt, tokenize(self._clip, prompt))
            return self._weighted.read(self._read[prompt], weights) if weights.strip() else {}

    def words(self, prompt: str) -> Subjects:
        """All words of a text that was checked."""
        if self._known is not None and prompt == self.own:
            found = self._known
        else:
            found = parse(prompt, self._read[prompt].tokens)
        return replace(found, items=(*found.items, *other_words(found)))

    def exchanged(self, positive: Sequence[dict], prompt: str) -> list[dict]:
        """The positive conditionings with another text, before the host has encoded them for the model.

        Raises ValueError where the connected CLIP is not one for this model.
        """
        if prompt not in self._encoded:
            self._encoded = {prompt: self._encode(prompt)}
        context, options = self._encoded[prompt]
        width = positive[0]["cross_attn"].shape[-1]
        if context.shape[-1] != width:
            raise ValueError(
                f"the CLIP of Pause Sampling encodes a token in {context.shape[-1]} numbers, the sampler's prompt has "
                f"{width}: connect the CLIP of this model"
            )
        return [{**cond, **options, "cross_attn": context, EXCHANGED: True} for cond in positive]

    def _encode(self, prompt: str) -> tuple[Tensor, dict[str, Any]]:
        """Encode a text. The host may have unloaded the models of the run for it: they are loaded again."""
        conditioning = encode(self._clip, prompt)
        if len(conditioning) != 1:
            raise ValueError(
                f"the CLIP of Pause Sampling makes {len(conditioning)} conditionings of a prompt, by its hooks: "
                "connect the CLIP without them"
            )
        batch, *others = self._shape
        needed = self._guider.inner_model.memory_required([2 * batch, *others])  # positive and negative rows
        load_models_gpu([self._guider.model_patcher, *self._guider.loaded_models], memory_required=needed)
        return conditioning[0][0], dict(conditioning[0][1])


def installed_by_us(guider: Any) -> frozenset[str]:
    """The keys of everything that this pack has installed on the model of a run that goes on."""
    wrappers = guider.model_options.get("transformer_options", {}).get("wrappers", {})
    return frozenset(key for kind in wrappers.values() for key in kind if str(key).startswith(OURS))


def _same(text: Tensor, other: Tensor) -> bool:
    return text is other or (text.shape == other.shape and torch.equal(text, other))

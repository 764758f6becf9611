"""Check, before a model is loaded, that the subjects' words come from the prompt that is sampled.

The text of an encoded prompt cannot be read back. So the text of Parse Subjects is encoded with its CLIP and compared
with what the sampler gets. If they differ, the workflow's other texts are encoded and compared too. If one of them is
what the sampler gets, a different text is sampled for certain: an error. If none is (averaged prompts; another encoder,
LoRA or clip skip than at Parse Subjects), nothing is certain: a warning, unless the workflow also encodes the subjects'
text itself.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from comfy_execution.graph_utils import is_link
from torch import Tensor

from ..core.words.prompt_text import MAX_CHARACTERS
from ..core.words.subjects import CONTEXT_ENCODERS, Subjects, shorten
from .attention.model_call import OURS
from .attention.positives import contexts_of
from .families.family import family_of
from .families.unet import UNet
from .graph import Graph, encoding_nodes, running, strings, types_of
from .ui.running_node import show_on_running_node

WRAPPER_KEY = OURS + "prompt"

# Largest relative distance between two vectors of the same token: half precision stays below it, another word in the
# text makes about 1.
_TOLERANCE = 0.02

_SHOWN = 400  # characters of each text in a message

# The host's nodes that encode a text with pictures in front of it, for the encoder whose tokens have this key. Behind
# the text stands what stands there without pictures.
_WITH_PICTURES = ("TextEncodeQwenImageEdit", "TextEncodeQwenImageEditPlus")
_ENCODER = "qwen25_7b"


@dataclass(frozen=True)
class Encoded:
    """An encoded text. contexts: [1,T,d] each, on the CPU. ids: its tokens, by encoder."""

    contexts: tuple[Tensor, ...]
    ids: Mapping[str, list]

    @classmethod
    def by(cls, clip: Any, text: str, conditioning: list | None = None) -> Encoded:
        """Encode `text` as CLIP Text Encode does. conditioning: what that node made of it, if it did already."""
        tokens = clip.tokenize(text)
        made = conditioning or clip.encode_from_tokens_scheduled(tokens, show_pbar=False)
        return cls(tuple(context.detach().float().cpu() for context, _ in made), _ids(tokens))

    def is_in(self, context: Tensor) -> bool:
        """Whether a sampler's context [B,T,d] begins with this text."""
        return any(_begins_with(context, own) for own in self.contexts)


class ParsedPrompt:
    """The text that Parse Subjects read; its CLIP encodes it when a sampler's prompt is first compared with it.

    The CLIP is kept until then and no longer.
    """

    def __init__(self, clip: Any, text: str, conditioning: list | None = None) -> None:
        """conditioning: the encoded text where there is one already."""
        self._text = text
        self._kept: Any = clip, conditioning
        self.clip = weakref.ref(clip)

    @cached_property
    def encoded(self) -> Encoded:
        """The encoded text."""
        clip, conditioning = self._kept
        made = Encoded.by(clip, self._text, conditioning)
        self._kept = None
        return made


@dataclass
class SampledPrompt:
    """What a sampler has found out about its prompt. pictures: rows that stand in front of the subjects' text there."""

    pictures: int = 0


def require_same_prompt(
    patcher: ModelPatcher,
    subjects: Subjects,
    positive: list | None,
    warn: Callable[[str], None],
    sampled: SampledPrompt | None = None,
) -> None:
    """Make samplers that run `patcher` (changed in place: pass a clone) compare their prompt with the subjects'.

    positive: the CONDITIONING of the subjects' prompt; None for the first positive one. When another text is sampled,
    or one that another text encoder made, the samplers raise a ValueError; when this cannot be known, they call `warn`.
    sampled: is told about the prompt that is sampled; without it a prompt that was encoded with pictures is an error.
    """
    if subjects.source is None:
        return
    unet = isinstance(family_of(patcher), UNet)

    def before_loading(
        executor: WrapperExecutor, model: Any, shape: Any, conds: dict, *args: Any, **options: Any
    ) -> Any:
        listed = [cond["cross_attn"] for cond in conds.get("positive") or [] if cond.get("cross_attn") is not None]
        contexts = listed[:1] if positive is None else contexts_of(positive)
        pictures = 0 if sampled is None or positive is not None else _rows_of_pictures(subjects, contexts)
        if sampled is not None:
            sampled.pictures = pictures
        if not pictures:
            _compare(subjects, contexts, warn, unet)
        return executor(model, shape, conds, *args, **options)

    patcher.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, WRAPPER_KEY, before_loading)


def _compare(subjects: Subjects, contexts: Sequence[Tensor], warn: Callable[[str], None], unet: bool) -> None:
    """Compare the subjects' prompt with the encoded prompts that are sampled; see `require_same_prompt`.

    unet: whether the model's text is that of CLIP, in which a word has the same row whichever CLIP encodes it.
    """
    clip, own, now = subjects.source.clip(), subjects.source.encoded, running()
    if not contexts or any(own.is_in(context) for context in contexts):
        return
    texts = encoded_texts(now.graph, now.node_id) if now is not None else []
    # Texts longer than Parse Subjects accepts are not encoded: that could take long.
    tried = [text for text in texts if text != subjects.prompt and len(text) <= MAX_CHARACTERS]
    others = {} if clip is None else {text: Encoded.by(clip, text) for text in tried}
    sampled = [[text for text, other in others.items() if other.is_in(context)] for context in contexts]
    words, parsed = ", ".join(subjects.labels), shorten(subjects.prompt, _SHOWN)
    same = [text for text, other in others.items() if other.ids == own.ids]
    if all(sampled) and not any(text in same for found in sampled for text in found):
        text = "', '".join(shorten(found[0], _SHOWN) for found in sampled)
        raise ValueError(
            f"the subjects {words} were parsed from '{parsed}', but the prompt that is sampled is '{text}'. Connect "
            "the same text to Parse Subjects and to CLIP Text Encode; where several prompts are combined, or regions "
            "have prompts of their own, connect the conditioning of the subjects' prompt to the input 'positive' "
            "('region' where there is one)"
        )
    widths, theirs = ({each.shape[-1] for each in some} for some in (own.contexts, contexts))
    if not unet and widths.isdisjoint(theirs):
        raise ValueError(
            f"the CLIP of Parse Subjects makes vectors of {' or '.join(map(str, sorted(widths)))} numbers, but those "
            f"of the prompt that is sampled have {' or '.join(map(str, sorted(theirs)))}: another text encoder made "
            f"them, so it is not known which are {words}. Connect the CLIP that encodes the prompt to Parse Subjects"
        )
    lengths = sorted({context.shape[1] for context in contexts})
    clip_alone = unet and set(own.ids) <= set(CONTEXT_ENCODERS)
    if subjects.context_length not in (None, *lengths) and not clip_alone:
        raise ValueError(
            f"the CLIP of Parse Subjects makes {subjects.context_length} rows of '{parsed}', but the prompt that is "
            f"sampled has {' or '.join(map(str, lengths))}, so it is not known which of them are {words}. Connect the "
            "very CLIP that encodes the prompt, with all its text encoders (CLIP and T5), and the same text. A prompt "
            "in a template of its own cannot be read; one that was encoded with pictures only where a Text Encode "
            "Qwen Image Edit node encodes this very text for the sampler, and nothing else is combined with it"
        )
    if not same and subjects.prompt not in texts:
        message = (
            f"it is not certain that the subjects {words} come from the prompt that is sampled: the CLIP of Parse "
            f"Subjects encodes no text of this workflow to what is sampled. Check that '{parsed}' is what is sampled"
        )
        warn(message)
        show_on_running_node(message)


def _rows_of_pictures(subjects: Subjects, contexts: Sequence[Tensor]) -> int:
    """How many rows of the context that is sampled stand in front of the subjects' text, encoded with pictures there.

    0 where that is not certain. Vectors cannot be compared then: each depends on the pictures.
    """
    now, own = running(), subjects.source.encoded
    if now is None or len(contexts) != 1 or set(own.ids) != {_ENCODER} or subjects.context_length is None:
        return 0
    found = encoding_nodes(now.graph, now.node_id)
    same = [node["class_type"] in _WITH_PICTURES and strings(now.graph, node) == [subjects.prompt] for node in found]
    more = contexts[0].shape[1] - subjects.context_length
    return max(0, more) if found and all(same) else 0


def encoded_texts(graph: Graph, node_id: str) -> list[str]:
    """Texts of the nodes before this one that output a CONDITIONING: their own and those of nodes linked to them."""
    texts: dict[str, None] = {}
    seen: set[str] = set()
    waiting = [node_id]
    while waiting:
        name = waiting.pop()
        node = graph.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        waiting += [value[0] for value in node["inputs"].values() if is_link(value)]
        if name != node_id and "CONDITIONING" in types_of(node):
            texts |= dict.fromkeys(strings(graph, node))
    return list(texts)


def _begins_with(context: Tensor, own: Tensor) -> bool:
    if context.shape[-1] != own.shape[-1] or context.shape[1] < own.shape[1]:
        return False
    there = context[:1, : own.shape[1]].float().cpu()
    return bool(((there - own).norm(dim=-1) <= _TOLERANCE * own.norm(dim=-1)).all())


def _ids(tokens: Mapping[str, list]) -> dict[str, list]:
    """The tokens without their weights; embedding vectors as lists of numbers."""
    return {
        key: [token if isinstance(token, int) else token.tolist() for chunk in chunks for token, *_ in chunk]
        for key, chunks in tokens.items()
    }

"""Tokenize and encode the prompt as the connected CLIP does, and find the characters that every token was made of.

The host's tokenizer is not imitated: a shallow copy of it runs on the prompt, and what it gives to the encoders' own
tokenizers, and they to theirs and to the embedding folder, is recorded. The host's object is never changed.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import nodes

from ..core.words.prompt_text import check_prompt, plain_text
from ..core.words.subjects import CONTEXT_ENCODERS
from ..core.words.token_offsets import Offsets, check_slow, token_offsets
from ..core.words.tokens import PromptTokens, TokenizedText, TokenSpan, spans_within, token_spans
from .context_rows import context_rows
from .llama_tokens import mistaken_offsets
from .unreadable_encoders import check_readable

# A prompt that no template has in it: what is around it in the text that an encoder gets is the template.
_SENTINEL = "qzxjvkwpsentinelqzxjvkwp"


@dataclass
class _Heard:
    """What an encoder was given. weights: whether its parentheses are weights. calls: what it looked up, in order.

    The kinds of calls are ("text", ...), ("embedding", ...) and ("missing", ...).
    """

    text: str
    weights: bool
    calls: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class _Encoder:
    """An encoder's tokenizer, and what a prompt made it hear."""

    tokenizer: Any
    heard: list[_Heard] = field(default_factory=list)


class _RecordedTokenizer:
    """Stands in for an encoder's own tokenizer and records the texts that it is called with."""

    def __init__(self, tokenizer: Any, calls: list[tuple[str, str]]) -> None:
        self._tokenizer = tokenizer
        self._calls = calls

    def __call__(self, text: str, *args: Any, **kwargs: Any) -> Any:
        self._calls.append(("text", text))
        return self._tokenizer(text, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


def tokenize(clip: Any, prompt: str) -> PromptTokens:
    """Return the tokens of the prompt for each encoder of a connected CLIP, each with its span of characters.

    clip: the host's CLIP object. Keys are the host's ("l", "g", "h", "t5xxl", "qwen3_4b" …); an encoder that gets only
    parts of some prompts (quoted text) has none. Raises ValueError for a prompt that is too long or nested too deep,
    and for an encoder whose token positions cannot be found exactly or that is not there.
    """
    if clip is None:  # what the host's loader gives then
        raise ValueError(
            "the connected CLIP is empty: the checkpoint has no text encoder. Load one with Load CLIP and connect that"
        )
    check_prompt(prompt)
    check_readable(clip)
    batches, encoders = _listen(clip, prompt)
    templates: dict[str, tuple[str, str] | None] = dict.fromkeys(batches, ("", ""))
    if prompt.strip() and any(encoders[key].heard[0].text != prompt for key in batches):
        _, others = _listen(clip, _SENTINEL)
        templates = {key: _template(encoders[key].heard[0].text, others[key], prompt) for key in batches}
    spans: dict[str, tuple[TokenSpan, ...]] = {}
    notes: dict[str, None] = {}
    for key, template in templates.items():
        heard = encoders[key].heard[0]
        if template is None:
            continue
        if not prompt.strip():
            spans[key] = ()
            continue
        texts = _tokenized_texts(encoders[key].tokenizer, heard.calls, [list(chunk) for chunk in batches[key]], notes)
        found = token_spans(plain_text(heard.text, heard.weights), texts)
        start = len(template[0])
        spans[key] = spans_within(found, start, start + len(prompt))
    return PromptTokens(_cut_to_common_length(spans, batches), context_rows(clip, prompt, spans), tuple(notes))


def encode(clip: Any, prompt: str) -> list:
    """The CONDITIONING of a prompt, as the host's own node CLIP Text Encode makes it."""
    return nodes.CLIPTextEncode().encode(clip, prompt)[0]


def _listen(clip: Any, prompt: str) -> tuple[Mapping[str, list], dict[str, _Encoder]]:
    """Let a copy of the CLIP's tokenizer tokenize a prompt: the host's result, and what each encoder heard."""
    outer = copy.copy(clip.tokenizer)
    encoders: dict[str, _Encoder] = {}
    for name, tokenizer in vars(clip.tokenizer).items():
        if hasattr(tokenizer, "tokenize_with_weights") and hasattr(tokenizer, "tokenizer"):
            check_slow(tokenizer.tokenizer, prompt)
            encoder = encoders[name.removeprefix("clip_")] = _Encoder(tokenizer)
            setattr(outer, name, _recorded(encoder))
    options = getattr(clip, "tokenizer_options", None)
    batches = outer.tokenize_with_weights(prompt, True, **({"tokenizer_options": options} if options else {}))
    if any(key not in encoders or len(encoders[key].heard) != 1 for key in batches):
        raise ValueError(
            f"The connected CLIP tokenizes for {sorted(batches)} but has tokenizers {sorted(encoders)}, so the "
            "positions of the words' tokens cannot be found. Connect a CLIP that ComfyUI's own nodes load."
        )
    return batches, encoders


def _template(text: str, other: _Encoder, prompt: str) -> tuple[str, str] | None:
    """What the host puts before and behind the prompt in the text that an encoder gets.

    other: what the encoder heard of `_SENTINEL`. A prompt that brings its own template gets none. None for an encoder
    that is not given the prompt, but maybe parts of it.
    """
    if not other.heard:
        return None
    before, found, behind = other.heard[0].text.partition(_SENTINEL)
    for template in (("", ""), (before, behind)):
        if found and text == template[0] + prompt + template[1]:
            return template
    raise ValueError(
        f"the connected CLIP makes '{text[:80]}' of the prompt '{prompt[:80]}', which is not understood, so token "
        "positions would be a guess. Connect a CLIP that ComfyUI's own nodes load."
    )


def _recorded(encoder: _Encoder) -> Any:
    """Return a copy of the encoder's tokenizer that tells `encoder` what it hears."""
    twin = copy.copy(encoder.tokenizer)

    def tokenize_with_weights(text: str, *args: Any, **kwargs: Any) -> Any:
        off = kwargs.get("disable_weights", getattr(encoder.tokenizer, "disable_weights", False))
        plain_text(text, not off)  # refuses what the host would take minutes for
        heard = _Heard(text, not off)
        encoder.heard.append(heard)
        twin.tokenizer = _RecordedTokenizer(encoder.tokenizer.tokenizer, heard.calls)
        return type(twin).tokenize_with_weights(twin, text, *args, **kwargs)

    def try_get_embedding(name: str) -> Any:
        if not name.strip():
            raise ValueError("The prompt has 'embedding:' without a name after it; write embedding:name or remove it.")
        result = encoder.tokenizer._try_get_embedding(name)
        # The text after the name is passed to the tokenizer next; what comes before it belongs to the embedding.
        rest = "".join(result[-1].split())
        typed = "".join(name.split()).removesuffix(rest)
        kind = "missing" if result[0] is None else "embedding"
        encoder.heard[-1].calls.append((kind, encoder.tokenizer.embedding_identifier + typed))
        return result

    twin.tokenize_with_weights = tokenize_with_weights
    twin._try_get_embedding = try_get_embedding
    return twin


def _tokenized_texts(
    encoder: Any, calls: list[tuple[str, str]], chunks: list[list[tuple[Any, ...]]], notes: dict[str, None]
) -> list[TokenizedText]:
    """Return the texts that the encoder was given, in order, with the positions of their tokens.

    The host may cut the last tokens of a long prompt off. notes: gets what is wrong with the tokens.
    """
    groups = _groups(chunks, encoder.embedding_size)
    texts: list[TokenizedText] = []
    word = 0
    for kind, text in calls:
        if kind == "missing":
            texts.append(TokenizedText(text, (), ()))
            continue
        word += 1
        tokens = groups.get(word, [])
        positions = tuple(position for _, position in tokens)
        if kind == "embedding":
            offsets: Offsets = ((0, len(text)),) * len(tokens)
        else:
            offsets = _offsets(encoder, text, [token for token, _ in tokens], notes)
        texts.append(TokenizedText(text, offsets, positions))
    silent = not groups and any(
        encoder.tokenizer(text)["input_ids"][_kept(encoder)] for kind, text in calls if kind == "text"
    )
    if silent or max(groups, default=0) > word:
        raise ValueError(
            "The tokenizer of the connected CLIP does not tell which tokens belong to which text of the prompt, so the "
            "positions of the words' tokens cannot be found. Connect a CLIP that ComfyUI's own nodes load."
        )
    return texts


def _offsets(encoder: Any, text: str, tokens: list[int], notes: dict[str, None]) -> Offsets:
    mistaken = mistaken_offsets(encoder.tokenizer, text, tokens)
    if mistaken is None:
        return token_offsets(encoder.tokenizer, text, tokens, _kept(encoder))
    offsets, note = mistaken
    notes[note] = None
    return offsets


def _kept(encoder: Any) -> slice:
    """Which of its tokenizer's ids the host keeps: not begin and end, which it adds itself."""
    return slice(encoder.tokens_start, -1 if encoder.tokenizer_adds_end_token else None)


def _groups(chunks: list[list[tuple[Any, ...]]], width: int) -> Mapping[int, list[tuple[Any, int | None]]]:
    """Return the host's word number -> the word's tokens and their positions in the whole sequence.

    The host drops embedding vectors of another width when it encodes; the tokens after them in the chunk move up.
    """
    groups: dict[int, list[tuple[Any, int | None]]] = {}
    base = 0
    for chunk in chunks:
        emitted = base
        for token, _weight, *numbers in chunk:
            dropped = not isinstance(token, int) and token.shape[-1] != width
            if any(numbers):
                groups.setdefault(numbers[0], []).append((token, None if dropped else emitted))
            emitted += not dropped
        base += len(chunk)
    return groups


def _cut_to_common_length(
    spans: dict[str, tuple[TokenSpan, ...]], batches: Mapping[str, list[list[Any]]]
) -> dict[str, tuple[TokenSpan, ...]]:
    """Drop tokens past the shorter of two CLIP encoders: the host joins them along the features and cuts the longer."""
    lengths = [sum(map(len, batches[key])) for key in batches if key in CONTEXT_ENCODERS]
    shortest = min(lengths, default=0)
    return {
        key: tuple(token for token in found if token.position < shortest) if key in CONTEXT_ENCODERS else found
        for key, found in spans.items()
    }

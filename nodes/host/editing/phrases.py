"""Phrases of a prompt, each encoded alone with the prompt's own CLIP and weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from ...core.methods.structured_diffusion import PhraseAlone
from ...core.words.named_words import SEPARATORS, one_entry
from ...core.words.parsing import SELECTIONS, WHOLE_PHRASE, find_words, parse
from ...core.words.subjects import Subject, Subjects
from ...core.words.tokens import PromptTokens, token_list
from ..tokens import tokenize


def phrases_alone(clip: Any, subjects: Subjects, named: str) -> list[PhraseAlone]:
    """The phrases of the subjects' prompt: those that are `named`, separated by commas, or all that the parser finds.

    Raises ValueError for one that is not in the prompt, or whose tokens alone are others, and for a CLIP whose encoding
    changes in the course of a run.
    """
    prompt, tokens = subjects.prompt, tokenize(clip, subjects.prompt)
    if named.strip():
        found = [item for part in SEPARATORS.split(named) if part.strip() for item in _named(part, prompt, tokens)]
    else:
        found = noun_phrases(prompt, tokens)
    return encoded_alone(clip, prompt, found, "name the other phrases in 'phrases', without this one")


def noun_phrases(prompt: str, tokens: PromptTokens) -> list[Subject]:
    """All noun phrases that the parser finds, without their articles."""
    return list(parse(prompt, tokens, "", "auto", WHOLE_PHRASE, SELECTIONS[1]).items)


def encoded_alone(clip: Any, prompt: str, items: Iterable[Subject], instead: str) -> list[PhraseAlone]:
    """Phrases of a prompt, encoded alone. Raises ValueError as `phrases_alone`. instead: what to do then."""
    weights = _weights(clip.tokenize(prompt))
    return [PhraseAlone(item.text, item.positions(), _alone(clip, item, weights, instead)) for item in items]


def described(phrases: Iterable[tuple[str, tuple[int, ...]]]) -> str:
    """A line for each phrase, its words and rows, for the user."""
    lines = [f"{words} | tokens {', '.join(map(str, rows))}" for words, rows in phrases]
    return "\n".join(lines) or "(no phrase was found: nothing is changed)"


def _named(words: str, prompt: str, tokens: PromptTokens) -> tuple[Subject, ...]:
    found = find_words(prompt, tokens, one_entry(words.strip(), "subject", "phrases"))
    if not found:
        listed = token_list(prompt, next(iter(tokens.values()), ()))
        raise ValueError(f"phrases: '{words.strip()}' is not in the prompt. It has the tokens {listed}")
    return found


def _alone(clip: Any, item: Subject, weights: dict[str, list[float]], instead: str) -> Tensor:
    """The rows [n,d] of a phrase that is encoded by itself, its tokens as heavy as in the prompt."""
    text = item.text.replace("(", r"\(").replace(")", r"\)")
    spans, batches = tokenize(clip, text), clip.tokenize(text)
    for key, positions in item.tokens.items():
        own = sorted({span.position for span in spans.get(key, ())})
        if len(own) != len(positions):
            raise ValueError(
                f"'{item.text}' has {len(positions)} tokens in the prompt, but {len(own)} alone, so the one cannot "
                f"take the place of the other: {instead}"
            )
        heavy = dict(zip(own, (weights[key][position] for position in positions), strict=True))
        batches[key] = _with_weights(batches[key], heavy)
    made = clip.encode_from_tokens_scheduled(batches, show_pbar=False)
    if len(made) != 1:
        raise ValueError(
            f"the connected CLIP encodes a text in {len(made)} ways in the course of a run (hooks with a schedule): "
            "connect the CLIP without them"
        )
    return made[0][0][0, sorted({span.position for each in spans.values() for span in each})].detach().float().cpu()


def _weights(batches: dict[str, list]) -> dict[str, list[float]]:
    """The weight of every token that an encoder emits, by encoder."""
    return {key: [float(token[1]) for chunk in chunks for token in chunk] for key, chunks in batches.items()}


def _with_weights(chunks: list, heavy: dict[int, float]) -> list:
    """The host's chunks of tokens with other weights at some positions."""
    start, found = 0, []
    for chunk in chunks:
        found.append([(token[0], heavy.get(start + i, token[1]), *token[2:]) for i, token in enumerate(chunk)])
        start += len(chunk)
    return found

"""The two prompts of Prompt-to-Prompt as the connected CLIP reads them, and the words that the user names in them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ...core.choices import one_of
from ...core.methods.prompt_to_prompt import Window
from ...core.words.alignment import Alignment, ChunkedPrompt, refined, same_words, swapped
from ...core.words.named_words import SEPARATORS, one_entry
from ...core.words.parsing import find_words
from ...core.words.subjects import CONTEXT_ENCODERS, shorten
from ...core.words.tokens import TokenSpan, token_list
from ..same_prompt import Encoded
from ..tokens import tokenize

AUTO, SWAP, REFINE = WAYS = ("auto", "swap", "refine")

Value = TypeVar("Value")

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)"
_WINDOW = re.compile(rf"({_NUMBER})(?:\s*-\s*({_NUMBER}))?")


@dataclass(frozen=True)
class ReadPrompt:
    """A prompt with its tokens in the context, the spans of each encoder, and its encoding."""

    tokens: ChunkedPrompt
    spans: Mapping[str, tuple[TokenSpan, ...]]
    encoded: Encoded

    @classmethod
    def by(cls, clip: Any, text: str, which: str) -> ReadPrompt:
        """Read `text` with a CLIP of the host's. which: "source" or "target", for messages.

        Raises ValueError for a CLIP that is not a UNet's, and where its encoders disagree about positions.
        """
        spans = tokenize(clip, text)
        if not spans or set(spans) - set(CONTEXT_ENCODERS):
            raise ValueError(
                f"the connected CLIP encodes for {', '.join(sorted(spans))}, but Prompt-to-Prompt edits models that "
                f"read {', '.join(CONTEXT_ENCODERS)} alone (SD 1.x, SD 2.x, SDXL)"
            )
        first, *others = spans.values()
        if any([t.position for t in other] != [t.position for t in first] for other in others):
            raise ValueError(
                f"the encoders of the connected CLIP have the words of the {which} prompt '{shorten(text)}' at "
                "different positions, so its words cannot be paired: remove the embedding from it"
            )
        batches = {key: each for key, each in clip.tokenize(text).items() if key in spans}
        chunks = min(([len(chunk) for chunk in each] for each in batches.values()), key=sum)
        return cls(ChunkedPrompt(text, first, tuple(chunks)), spans, Encoded.by(clip, text))

    def of_words(self, text: str, source: str, read: Callable[[str], Value]) -> dict[int, Value]:
        """What `text` says of words, by the positions of their tokens: `dog: 2, red car#2: 0.5`.

        source: the input that it was typed into. read: reads what stands after the colon. Raises ValueError for an
        entry without a colon, or a word that the prompt lacks; it lists the tokens there are.
        """
        return of_words(self.tokens.prompt, self.spans, text, source, read, "target prompt")


def of_words(
    prompt: str,
    spans: Mapping[str, Sequence[TokenSpan]],
    text: str,
    source: str,
    read: Callable[[str], Value],
    which: str = "prompt",
) -> dict[int, Value]:
    """What `text` says of words of a prompt, see `ReadPrompt.of_words`. spans: its tokens, by encoder."""
    found: dict[int, Value] = {}
    for part in SEPARATORS.split(text.replace("：", ":")):
        if not part.strip():
            continue
        words, colon, value = (each.strip() for each in part.rpartition(":"))
        if not colon or not words:
            raise ValueError(f"{source}: '{part.strip()}' is no word with a value. Write for instance dog: 0.5")
        places = find_words(prompt, spans, one_entry(words, "subject", source))
        if not places:
            tokens = next(iter(spans.values()), ())
            raise ValueError(
                f"{source}: '{words}' is not in the {which}. It has the tokens {token_list(prompt, tokens)}"
            )
        found |= {position: read(value) for place in places for position in place.positions()}
    return found


def paired(source: ReadPrompt, target: ReadPrompt, way: str) -> Alignment:
    """The prompts' alignment. way: SWAP, REFINE, or AUTO: swap where they have as many words.

    Raises ValueError for another way, and as `swapped`.
    """
    one_of("words", way, WAYS)
    swap = way == SWAP or (way == AUTO and same_words(source.tokens, target.tokens))
    return (swapped if swap else refined)(source.tokens, target.tokens)


def read_weight(text: str) -> float:
    """A weight such as `2` or `-0.5`. Raises ValueError for anything else."""
    if not re.fullmatch(_NUMBER, text):
        raise ValueError(f"weights: '{text}' is not a number. Write for instance dog: 2, or red: -1")
    return float(text)


def read_window(text: str) -> Window:
    """A window such as `0.2-0.8`, or `0.4` for one from the beginning. Raises ValueError for anything else."""
    found = _WINDOW.fullmatch(text)
    if found is None:
        raise ValueError(f"word_windows: '{text}' is no part of a run. Write for instance dog: 0-0.4, or dog: 0.4")
    first, last = found.groups()
    return Window(0.0, float(first)) if last is None else Window(float(first), float(last))

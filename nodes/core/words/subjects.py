"""A prompt and its subjects: the value that crosses nodes as EL_SUBJECTS."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from .tokens import TokenSpan

LOOKED_FOR = "looked for"
OTHER = "other"

Role = Literal["subject", "scene", "looked for", "other"]

# Encoders whose output is the cross-attention context of a UNet; SDXL joins "l" and "g" along the feature axis.
CONTEXT_ENCODERS = ("l", "g", "h")


@dataclass(frozen=True)
class Subject:
    """One word or phrase of the prompt.

    text: as it stands in the prompt, without weights. role: "subject" or "scene"; "looked for" and "other", if it is
    neither but maps of it are wanted. span: characters [start, end) of the prompt as typed. tokens: encoder key of the
    host's tokenizer ("l", "g", "h", "t5xxl") -> ascending positions of its tokens in the sequence that the encoder
    emits, chunks one after another (chunk * 77 + i for CLIP). rows: the ascending rows of the encoded prompt that hold
    any of them, see `ContextRows`; None if no encoder was asked. number: which of several in the prompt that are alike
    it is, counted from 1; 0 if there is one.
    """

    text: str
    role: Role
    span: tuple[int, int]
    tokens: Mapping[str, tuple[int, ...]]
    rows: tuple[int, ...] | None = None
    number: int = 0

    @property
    def label(self) -> str:
        """The text; of several that are alike, "dog#2", as `override` names it."""
        return f"{self.text}#{self.number}" if self.number else self.text

    def positions(self) -> tuple[int, ...]:
        """Return the subject's rows in the text that the network reads.

        Where no encoder was asked, it is taken for that of a UNet: the union of the tokens over the CLIP encoders,
        which agree unless a textual-inversion embedding has a different number of vectors in each. Raises ValueError
        when no CLIP encoder was connected or the subject has no token in any.
        """
        clip = [self.tokens[key] for key in CONTEXT_ENCODERS if key in self.tokens]
        if self.rows is None and not clip:
            raise ValueError(
                f"'{self.text}' has token positions for {sorted(self.tokens)} only, but the attention of a UNet is "
                f"read at those of a CLIP encoder ({', '.join(CONTEXT_ENCODERS)}). Connect the CLIP that belongs to "
                "the model."
            )
        positions = tuple(sorted(set().union(*clip))) if self.rows is None else self.rows
        if not positions:
            raise ValueError(f"'{self.text}' has no token in the text encoder; choose another word of the prompt.")
        return positions


@dataclass(frozen=True)
class Subjects:
    """A prompt and its subjects in the order of the prompt.

    parser: name of what found them, for display. words: encoder key -> ascending positions of all the prompt's own
    tokens, that is without begin-of-text, end-of-text and padding. word_rows: the rows of the encoded prompt that hold
    any of these, and context_length: how many rows it has; None if no encoder was asked. source: what lets the host
    recognise this prompt in a conditioning; None if it cannot. notes: what is wrong with the tokens, for display.
    uninterpreted: syntax of other programs in the prompt, which the text encoder reads as words. absent: named words
    that were left out because the prompt does not have them. unread: the language whose words were not looked for,
    "Chinese", "Japanese" or "other"; "" if all were. prompt_tokens: the prompt's tokens, see `parse`.
    """

    prompt: str
    items: tuple[Subject, ...]
    parser: str
    words: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    source: Any = field(default=None, compare=False, repr=False)
    uninterpreted: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    unread: str = ""
    word_rows: tuple[int, ...] | None = None
    context_length: int | None = None
    notes: tuple[str, ...] = ()
    prompt_tokens: Mapping[str, Sequence[TokenSpan]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def labels(self) -> tuple[str, ...]:
        """The label of every subject, in order."""
        return tuple(item.label for item in self.items)

    def with_role(self, role: Literal["all", "subject", "scene"]) -> Subjects:
        """Return the subjects of one role, or all of them.

        Raises ValueError if none is left; the error lists the subjects there are.
        """
        items = tuple(item for item in self.items if role in ("all", item.role))
        if not items:
            found = ", ".join(f"{item.text} ({item.role})" for item in self.items) or "nothing"
            wanted = "subject or scene" if role == "all" else role
            raise ValueError(
                f"The prompt '{shorten(self.prompt)}' has no {wanted}; found: {found}. "
                "Name the words yourself in 'override' of Parse Subjects or Prompt with Words, or choose another role."
            )
        return replace(self, items=items)

    def positions(self) -> tuple[tuple[int, ...], ...]:
        """Return `Subject.positions` of every subject, in order."""
        return tuple(item.positions() for item in self.items)

    def word_positions(self) -> tuple[int, ...]:
        """Return the rows of all the prompt's own tokens in the text that the network reads.

        Where no encoder was asked, it is taken for that of a UNet, see `Subject.positions`. Raises ValueError when no
        CLIP encoder was connected.
        """
        if self.word_rows is not None:
            return self.word_rows
        clip = [self.words[key] for key in CONTEXT_ENCODERS if key in self.words]
        if not clip:
            raise ValueError(
                f"the words of '{shorten(self.prompt)}' have no positions in a CLIP encoder "
                f"({', '.join(CONTEXT_ENCODERS)}). Connect the CLIP that belongs to the model to Parse Subjects."
            )
        return tuple(sorted(set().union(*clip)))


def joined_text(items: Iterable[Subject], role: Role) -> str:
    """Return the texts of one role, separated by ", "; each text once."""
    return ", ".join(dict.fromkeys(item.text for item in items if item.role == role))


def shorten(text: str, length: int = 80) -> str:
    """Return text on one line, cut in the middle to about `length` characters, for error messages."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length // 2]} … {line[-length // 2 :]}"

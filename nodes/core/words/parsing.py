"""A prompt's subjects with their token positions: English, named words and tokens put together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..choices import one_of
from .english.foreign_syntax import CleanedText, remove_foreign_syntax
from .english.pipeline import tag_text
from .english.roles import FoundWord, find_roles, is_tag_list
from .named_words import NamedWords, read_named_words
from .prompt_text import PlainText, check_prompt, plain_text
from .subjects import Subject, Subjects
from .tokens import TokenSpan, positions_of, token_list

# What stands for a subject, and which of the things that a prompt names are subjects.
EXTENTS = HEAD_NOUN, WHOLE_PHRASE = ("head noun", "whole phrase")
MAIN_SUBJECT = "main subject"
SELECTIONS = (MAIN_SUBJECT, "all things")

_EMBEDDING = re.compile(r"\bembedding:[^\s,<\[]+")
_DECORATION = re.compile(r"[\[\]{}<>\"“”«»*_~`]+|(?<!\w)['‘’]|['‘’](?!\w)")
_SPACES = re.compile(r"\s+")


def parse(
    prompt: str,
    tokens: Mapping[str, Sequence[TokenSpan]],
    override: str = "",
    parser: str = "auto",
    extent: str = HEAD_NOUN,
    which: str = MAIN_SUBJECT,
) -> Subjects:
    """Return the subject and scene words of a prompt with their token positions in every encoder.

    tokens: encoder key -> the prompt's tokens in order, as the host's `tokenize` returns them; {} without an encoder.
    override: the user's named words, see `read_named_words`. If any has a role, only named words get that role; the
    parser finds the other one. parser: "auto", "spacy" or "rules", see `tag_text`; auto uses the rules for lists of
    tags, on which no spaCy model was trained. extent: the head noun ("dog") or the whole phrase without its article
    ("small white dog"). which: the main subject and what "and" joins to it, or all things that the prompt names.
    Raises ValueError for named words that are not in the prompt, for an unknown choice and for a prompt that is too
    long or nested too deep.
    """
    one_of("words", extent, EXTENTS)
    one_of("which", which, SELECTIONS)
    check_prompt(prompt)
    plain = plain_text(prompt)
    text, origin = spaced_text(plain)
    cleaned = remove_foreign_syntax(text)
    found, tagged_by = _found_by_parser(cleaned, origin, parser, extent == WHOLE_PHRASE, which == MAIN_SUBJECT)
    named: list[FoundWord] = []
    entries = read_named_words(override)
    for entry in entries:
        spans = _places(entry, text, origin)
        named += _named(prompt, plain, spans, entry, tokens)
    named_roles = {entry.role for entry in entries}
    covered = {i for start, end, _ in named for i in range(start, end)}
    unnamed = [each for each in found if each[2] not in named_roles and covered.isdisjoint(range(*each[:2]))]
    items = (_subject(plain, *each, tokens) for each in sorted({*named, *unnamed}))
    return Subjects(
        prompt,
        tuple(item for item in items if not tokens or any(item.tokens.values())),
        tagged_by,
        {key: tuple(sorted({token.position for token in spans})) for key, spans in tokens.items()},
        uninterpreted=cleaned.foreign,
    )


def find_words(prompt: str, tokens: Mapping[str, Sequence[TokenSpan]], entry: NamedWords) -> tuple[Subject, ...]:
    """Return every place at which named words stand in a prompt, none if they do not. tokens: see `parse`."""
    plain = plain_text(prompt)
    places = _places(entry, *spaced_text(plain))
    return tuple(_subject(plain, start, end, entry.role, tokens) for start, end in places)


def table(subjects: Subjects) -> str:
    """Return the preview text: one line per subject with word, role and token positions per encoder, then the parser.

    Notes that the user must see come first, since a node shows only two lines until it is enlarged.
    """
    rows = [
        f"{item.text} | {item.role} | "
        + "  ".join(f"{key}: {', '.join(map(str, found)) or '-'}" for key, found in item.tokens.items())
        for item in subjects.items
    ]
    return "\n".join([*_notes(subjects.uninterpreted), *(rows or ["(nothing found)"]), f"parser: {subjects.parser}"])


def _notes(uninterpreted: Sequence[str]) -> list[str]:
    """Return notes on syntax of other programs, which ComfyUI's text encoder reads as plain words."""
    if not uninterpreted:
        return []
    notes = [f"note: ComfyUI itself does not interpret {'  '.join(uninterpreted)}; the text encoder reads it as words."]
    if any(typed.startswith("{") for typed in uninterpreted):
        notes.append("note: the browser picks one of {a|b} in the box of CLIP Text Encode; give both nodes one text.")
    return notes


def spaced_text(plain: PlainText) -> tuple[str, list[int]]:
    """Return the text with a space where a weight ends inside a run of letters, which the host reads as two words.

    The second result is the index in `plain.text` of each of its characters.
    """
    origin: list[int] = []
    characters: list[str] = []
    for i, character in enumerate(plain.text):
        if i in plain.borders and character.isalnum() and characters and characters[-1].isalnum():
            characters.append(" ")
            origin.append(i)
        characters.append(character)
        origin.append(i)
    return "".join(characters), origin


def _places(entry: NamedWords, text: str, origin: Sequence[int]) -> list[tuple[int, int]]:
    """Return [start, end) in the plain text of named words. text, origin: see `spaced_text`."""
    return [(origin[start], origin[end - 1] + 1) for start, end in entry.find(text)]


def _found_by_parser(
    cleaned: CleanedText, origin: Sequence[int], parser: str, whole_phrase: bool, main: bool
) -> tuple[list[FoundWord], str]:
    """Return what the parser finds, characters of the plain text, and the name of what tagged the text.

    origin: the index in the plain text of each character of the text before foreign syntax was taken out.
    """
    text, kept = _for_tagger(cleaned.text)
    is_list = parser == "auto" and is_tag_list(text)
    doc, tagged_by = tag_text(text, "rules" if is_list else parser)
    typed = [origin[cleaned.origin[i]] for i in kept]
    found = [(typed[start], typed[end - 1] + 1, role) for start, end, role in find_roles(doc, whole_phrase, main)]
    return found, f"{tagged_by} (list of tags)" if is_list else tagged_by


def _for_tagger(text: str) -> tuple[str, list[int]]:
    """Return the text for the tagger and the index in `text` of each of its characters.

    An embedding becomes a made-up name of equal length; quotes and brackets, which say nothing about grammar, become
    spaces. Of several marks or spaces in a row only the first is kept, and the first comma: spaCy takes quadratic time
    for long runs.
    """
    named = _EMBEDDING.sub(lambda match: "E" + "x" * (len(match[0]) - 1), text)
    kept: list[int] = []
    plainer = "".join(" " if c.isspace() else c for c in _DECORATION.sub(lambda match: " " * len(match[0]), named))
    for i, character in enumerate(plainer):
        last = plainer[kept[-1]] if kept else ""
        separates = character == "," != last
        if separates or character.isalnum() or not last or last.isalnum() or (character == " ") != (last == " "):
            kept.append(i)
    return "".join(plainer[i] for i in kept), kept


def _named(
    prompt: str,
    plain: PlainText,
    spans: Sequence[tuple[int, int]],
    entry: NamedWords,
    tokens: Mapping[str, Sequence[TokenSpan]],
) -> list[FoundWord]:
    """Return the occurrences of named words, characters of the plain text, with their role; each must have a token."""
    if not spans:
        raise _absent(prompt, entry.words, "is not in the prompt", tokens)
    for start, end in spans:
        positions = [positions_of(plain.span(start, end), there) for there in tokens.values()]
        if positions and not any(positions):
            fault = "has no token in any text encoder (an embedding that is not there?)"
            raise _absent(prompt, entry.words, fault, tokens)
    return [(start, end, entry.role) for start, end in spans]


def _absent(prompt: str, words: str, fault: str, tokens: Mapping[str, Sequence[TokenSpan]]) -> ValueError:
    listed = "; ".join(f"{key}: {token_list(prompt, spans)}" for key, spans in tokens.items())
    return ValueError(
        f"override: '{words}' {fault}. The prompt's tokens: {listed or 'none, no text encoder is connected'}"
    )


def _subject(plain: PlainText, start: int, end: int, role: str, tokens: Mapping[str, Sequence[TokenSpan]]) -> Subject:
    span = plain.span(start, end)
    positions = {key: positions_of(span, spans) for key, spans in tokens.items()}
    return Subject(_SPACES.sub(" ", plain.text[start:end]), role, span, positions)

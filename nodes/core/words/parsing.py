"""A prompt's subjects with their token positions: what the parsers find, named words and tokens put together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..choices import one_of
from .chinese_japanese import LIBRARIES, find_unspaced_roles, segment
from .english.foreign_syntax import CleanedText, remove_foreign_syntax
from .english.pipeline import tag_text
from .english.roles import FoundWord, find_roles, is_tag_list
from .named_words import NamedWords, read_named_words
from .prompt_text import PlainText, check_prompt, plain_text
from .prompt_words import spaced_text, subject_at
from .scripts import language_of, unspaced_runs
from .subjects import CONTEXT_ENCODERS, Role, Subject, Subjects, shorten
from .tokens import PromptTokens, TokenSpan, context_of, positions_in, token_list

# What stands for a subject, and which of the things that a prompt names are subjects.
EXTENTS = HEAD_NOUN, WHOLE_PHRASE = ("head noun", "whole phrase")
MAIN_SUBJECT = "main subject"
SELECTIONS = (MAIN_SUBJECT, "all things")

Span = tuple[int, int]  # [start, end)

_EMBEDDING = re.compile(r"\bembedding:[^\s,<\[]+")
_DECORATION = re.compile(r"[\[\]{}<>\"“”«»*_~`]+|(?<!\w)['‘’]|['‘’](?!\w)")
_SHOWN = 400  # characters of a prompt in a message


def parse(
    prompt: str,
    tokens: Mapping[str, Sequence[TokenSpan]],
    override: str = "",
    parser: str = "auto",
    extent: str = HEAD_NOUN,
    which: str = MAIN_SUBJECT,
) -> Subjects:
    """Return the subject and scene words of a prompt with their token positions in every encoder.

    tokens: encoder key -> the prompt's tokens in order, as the host's `tokenize` returns them, with the rows that hold
    them if it is PromptTokens; {} without an encoder.
    override: the user's named words, see `read_named_words`. If any has a role, only named words get that role; the
    parser finds the other one, without what is named to have none. parser: "auto", "spacy" or "rules", see `tag_text`;
    auto uses the rules for lists of tags, on which no spaCy model was trained. extent: the head noun ("dog") or the
    whole phrase without its article ("small white dog"). which: the main subject and what "and" joins to it, or all
    things that the prompt names. Chinese and Japanese are read with the libraries of `LIBRARIES` where they are
    installed. Raises ValueError for named words that are not in the prompt and have to be, for an unknown choice and
    for a prompt that is too long or nested too deep.
    """
    one_of("words", extent, EXTENTS)
    one_of("which", which, SELECTIONS)
    check_prompt(prompt)
    plain = plain_text(prompt)
    text, origin = spaced_text(plain)
    cleaned = remove_foreign_syntax(text)
    found, tagged_by = _found_by_parser(cleaned, origin, parser, extent == WHOLE_PHRASE, which == MAIN_SUBJECT)
    named: list[FoundWord] = []
    unused: list[tuple[int, int]] = []
    absent: list[str] = []
    named_roles: set[Role | None] = set()
    for entry in read_named_words(override):
        spans = _places(entry, text, origin)
        if entry.if_present and not _have_tokens(plain, spans, tokens):
            absent.append(entry.label)
            continue
        _check_named(prompt, plain, spans, entry, tokens)
        named_roles.add(entry.role)
        if entry.role is None:
            unused += spans
        else:
            named += [(start, end, entry.role) for start, end in spans]
    covered = {i for start, end in (*unused, *(each[:2] for each in named)) for i in range(start, end)}
    unnamed = [each for each in found if each[2] not in named_roles and covered.isdisjoint(range(*each[:2]))]
    items = (
        subject_at(plain, (text, origin), (start, end), role, tokens) for start, end, role in sorted({*named, *unnamed})
    )
    words = {key: tuple(sorted({token.position for token in spans})) for key, spans in tokens.items()}
    context = context_of(tokens)
    return Subjects(
        prompt,
        tuple(item for item in items if not tokens or (any(item.tokens.values()) if item.rows is None else item.rows)),
        tagged_by,
        words,
        uninterpreted=cleaned.foreign,
        absent=tuple(dict.fromkeys(absent)),
        unread=_unread(cleaned.text),
        word_rows=context and context.of(words),
        context_length=context and context.length,
        notes=tokens.notes if isinstance(tokens, PromptTokens) else (),
        prompt_tokens=tokens,
    )


def find_words(prompt: str, tokens: Mapping[str, Sequence[TokenSpan]], entry: NamedWords) -> tuple[Subject, ...]:
    """Return every place at which named words stand in a prompt, none if they do not. tokens: see `parse`."""
    plain = plain_text(prompt)
    spaced = spaced_text(plain)
    return tuple(subject_at(plain, spaced, place, entry.role, tokens) for place in _places(entry, *spaced))


def table(subjects: Subjects) -> str:
    """Return the preview text: one line per subject with word, role and token positions per encoder, then the parser.

    The rows of the encoded prompt are shown, too, unless they are those positions, as those of CLIP alone are. Notes
    that the user must see come first, since a node shows only two lines until it is enlarged.
    """
    lines = [f"{item.text} | {item.role} | {_where(item)}" for item in subjects.items]
    return "\n".join([*_notes(subjects), *(lines or ["(nothing found)"]), f"parser: {subjects.parser}"])


def _where(item: Subject) -> str:
    places = dict(item.tokens)
    if item.rows is not None and any(key not in CONTEXT_ENCODERS for key in places):
        places["rows"] = item.rows
    return "  ".join(f"{key}: {', '.join(map(str, found)) or '-'}" for key, found in places.items())


def _notes(subjects: Subjects) -> list[str]:
    """Return notes on named words that are not there, on unread words, and on syntax of other programs."""
    notes = [*subjects.notes]
    if subjects.absent:
        notes.append(f"note: not in this prompt, left out: {', '.join(subjects.absent)}.")
    if subjects.unread in LIBRARIES:
        library = LIBRARIES[subjects.unread]
        notes.append(
            f"note: {subjects.unread} words are used only where 'override' names them; to have them found, install "
            f"{library} into ComfyUI's Python: pip install {library}."
        )
    elif subjects.unread:
        notes.append("note: words of a script without spaces between words are used only where 'override' names them.")
    if subjects.uninterpreted:
        listed = "  ".join(subjects.uninterpreted)
        notes.append(f"note: ComfyUI itself does not interpret {listed}; the text encoder reads it as words.")
    if any(typed.startswith("{") for typed in subjects.uninterpreted):
        notes.append("note: the browser picks one of {a|b} in the box of CLIP Text Encode; give both nodes one text.")
    return notes


def _unread(text: str) -> str:
    """Return the language of a text's unspaced script where nothing here can find its words, "" if there is none."""
    if not unspaced_runs(text) or segment(text) is not None:
        return ""
    return language_of(text) or "other"


def _places(entry: NamedWords, text: str, origin: Sequence[int]) -> list[Span]:
    """Return [start, end) in the plain text of named words. text, origin: see `spaced_text`."""
    return [(origin[start], origin[end - 1] + 1) for start, end in entry.find(text)]


def _found_by_parser(
    cleaned: CleanedText, origin: Sequence[int], parser: str, whole_phrase: bool, main: bool
) -> tuple[list[FoundWord], str]:
    """Return what the parser finds, characters of the plain text, and the name of what tagged the text.

    origin: the index in the plain text of each character of the text before foreign syntax was taken out.
    """
    text, kept = _for_tagger(_without_unspaced(cleaned.text))
    is_list = parser == "auto" and is_tag_list(text)
    doc, tagged_by = tag_text(text, "rules" if is_list else parser)
    typed = [origin[cleaned.origin[i]] for i in kept]
    found = [(typed[start], typed[end - 1] + 1, role) for start, end, role in find_roles(doc, whole_phrase, main)]
    if is_list:
        tagged_by = f"{tagged_by} (list of tags)"
    read = segment(cleaned.text)
    if read is not None:
        tagged_by = f"{tagged_by}, {LIBRARIES[language_of(cleaned.text)]}"
        for start, end, role in find_unspaced_roles(read, whole_phrase, main):
            found.append((origin[cleaned.origin[start]], origin[cleaned.origin[end - 1]] + 1, role))
    return found, tagged_by


def _without_unspaced(text: str) -> str:
    """Return the text with spaces in place of scripts without spaces between words, of which the tagger knows none."""
    for start, end in unspaced_runs(text):
        text = text[:start] + " " * (end - start) + text[end:]
    return text


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


def _have_tokens(plain: PlainText, spans: Sequence[Span], tokens: Mapping[str, Sequence[TokenSpan]]) -> bool:
    """Return whether there are spans, characters of the plain text, and each has a token that the network reads."""
    if not tokens:
        return bool(spans)
    found = [positions_in(plain.span(*span), tokens) for span in spans]
    context = context_of(tokens)
    return bool(found) and all(context.of(each) if context else any(each.values()) for each in found)


def _check_named(
    prompt: str, plain: PlainText, spans: Sequence[Span], entry: NamedWords, tokens: Mapping[str, Sequence[TokenSpan]]
) -> None:
    """Raise ValueError unless named words are in the prompt, and each occurrence has a token."""
    if not spans:
        raise _absent(prompt, entry.words, "is not in the prompt", tokens)
    if not _have_tokens(plain, spans, tokens):
        fault = "has no token in any text encoder (an embedding that is not there, or cut off a long prompt?)"
        raise _absent(prompt, entry.words, fault, tokens)


def _absent(prompt: str, words: str, fault: str, tokens: Mapping[str, Sequence[TokenSpan]]) -> ValueError:
    listed = "; ".join(f"{key}: {token_list(prompt, spans)}" for key, spans in tokens.items())
    there = f"The prompt's tokens: {listed}" if tokens else f"The prompt: {shorten(prompt, _SHOWN)}"
    return ValueError(
        f"override: '{words}' {fault}. Take it out of 'override', or empty 'override' to let the parser choose; "
        f"'{words}?' would use it only where it is there. {there}"
    )

"""The inputs of nodes that read a prompt: how its words are found, and which are used."""

from __future__ import annotations

from comfy_api.latest import io

from .core.words.english.pipeline import PARSERS
from .core.words.parsing import EXTENTS, SELECTIONS


def parser_input(advanced: bool = False) -> io.Input:
    """The parser that finds the words."""
    return io.Combo.Input(
        "parser",
        options=list(PARSERS),
        default=PARSERS[0],
        tooltip="rules: built-in English word lists and rules. spacy: an installed English spaCy model. "
        "auto: the spaCy model if one is installed, but rules for lists of tags.",
        advanced=advanced or None,
    )


def override_input() -> io.Input:
    """Words that the user names instead."""
    return io.String.Input(
        "override",
        default="",
        tooltip="Words or phrases of the prompt to use instead of those that the parser finds, separated "
        "by commas: dog, red car. dog#2 is only the second dog; without a number every occurrence counts. "
        "scene: beach names the scene, not: ball is left out, cat? is used only if the prompt has it.",
    )


def extent_input() -> io.Input:
    """Head noun or whole phrase."""
    return io.Combo.Input(
        "words",
        options=list(EXTENTS),
        default=EXTENTS[0],
        advanced=True,
        tooltip="What stands for a subject: its head noun (dog), as in the paper, or the whole phrase "
        "with its adjectives (small white dog).",
    )


def selection_input() -> io.Input:
    """Which things become subjects. Optional, since Parse Subjects of 0.1.0 does not have it."""
    return io.Combo.Input(
        "which",
        options=list(SELECTIONS),
        default=SELECTIONS[0],
        optional=True,
        advanced=True,
        tooltip="Which things become subjects. main subject: what the prompt is a picture of, and what "
        "'and' joins to it (a dog and a cat). all things: every thing that is mentioned (also the ball "
        "they play with).",
    )

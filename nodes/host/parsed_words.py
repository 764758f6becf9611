"""Parse a prompt with its CLIP's tokens, and tell the browser what was found, also when the run fails."""

from __future__ import annotations

from typing import Any

from ..core.words.chips import chips
from ..core.words.parsing import SELECTIONS, parse, table
from ..core.words.subjects import Subjects
from .tokens import tokenize
from .ui.running_node import send_from_running_node, show_on_running_node

# The message that js/chips.js listens for: what a run that failed would have shown.
FAILED = "explainable_latents.chips"


def parse_and_show(
    clip: Any, text: str, override: str, parser: str, extent: str, which: str
) -> tuple[Subjects, dict[str, Any]]:
    """Return `parse` of the prompt, and what its chips show: the prompt, its words, and named words that it lacks.

    The table of words, roles and tokens is shown on the running node. When the named words are a mistake, the chips of
    the prompt without them are sent to the browser, before the ValueError: the user needs them to correct it.
    """
    tokens = tokenize(clip, text)
    found = parse(text, tokens, "", parser, extent, which)
    mentioned = parse(text, tokens, "", parser, extent, SELECTIONS[1])
    try:
        named = parse(text, tokens, override, parser, extent, which) if override else found
    except ValueError:
        send_from_running_node(FAILED, _shown(found, found, mentioned))
        raise
    show_on_running_node(table(named))
    return named, _shown(named, found, mentioned)


def _shown(named: Subjects, found: Subjects, mentioned: Subjects) -> dict[str, Any]:
    return {
        "prompt": named.prompt,
        "words": chips(named, found, mentioned),
        "absent": list(named.absent),
        "unread": named.unread,
    }

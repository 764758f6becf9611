"""Parse a prompt, and tell the browser what was found: after a run, when a run fails, and while the prompt is typed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

from ..core.words.chips import chips
from ..core.words.parsing import SELECTIONS, parse, table
from ..core.words.subjects import Subjects
from ..core.words.tokens import TokenSpan
from .tokens import tokenize
from .ui.running_node import send_from_running_node, show_on_running_node

# The message that js/chips.js listens for: what a run that failed would have shown.
FAILED = "explainable_latents.chips"

# The server reads what is typed in a thread of its own, maybe while a node runs; taggers are loaded once and shared.
_ONE_AT_A_TIME = Lock()


def parse_and_show(
    clip: Any, text: str, override: str, parser: str, extent: str, which: str
) -> tuple[Subjects, dict[str, Any]]:
    """Return `parse` of the prompt, and what its chips show: the prompt and the node's choices that were read, the
    words, and named words that the prompt lacks.

    The table of words, roles and tokens is shown on the running node. When the named words are a mistake, the chips of
    the prompt without them are sent to the browser, before the ValueError: the user needs them to correct it.
    """
    named, shown, problem = _parsed(tokenize(clip, text), text, override, parser, extent, which)
    if problem is not None:
        send_from_running_node(FAILED, shown)
        raise problem
    show_on_running_node(table(named))
    return named, shown


def live_words(text: str, override: str, parser: str, extent: str, which: str) -> dict[str, Any]:
    """What the chips of a prompt show before any run, and `problem`: the message with which a run would fail, or "".

    No encoder is asked. Of a prompt that cannot be read there are no chips.
    """
    try:
        _, shown, problem = _parsed({}, text, override, parser, extent, which)
    except ValueError as error:
        return {"prompt": text, "choices": {}, "words": [], "absent": [], "unread": "", "problem": str(error)}
    return {**shown, "problem": "" if problem is None else str(problem)}


def _parsed(
    tokens: Mapping[str, Sequence[TokenSpan]], text: str, override: str, parser: str, extent: str, which: str
) -> tuple[Subjects, dict[str, Any], ValueError | None]:
    """The words, what their chips show, and what is wrong with the named words, without which both are then."""
    with _ONE_AT_A_TIME:
        found = parse(text, tokens, "", parser, extent, which)
        mentioned = parse(text, tokens, "", parser, extent, SELECTIONS[1])
        named, problem = found, None
        if override:
            try:
                named = parse(text, tokens, override, parser, extent, which)
            except ValueError as error:
                problem = error
    shown = {
        "prompt": named.prompt,
        "choices": {"override": override, "parser": parser, "words": extent, "which": which},
        "words": chips(named, found, mentioned),
        "absent": list(named.absent),
        "unread": named.unread,
    }
    return named, shown, problem

"""Text on a node while the browser shows it, without any JavaScript of ours."""

from __future__ import annotations

from comfy_execution.utils import get_executing_context
from server import PromptServer


def show_on_running_node(text: str) -> None:
    """Show text on whatever node the host executes now; nothing where it executes none or no server runs.

    No node has to ask for its id: the host may put the id of one that does into the key of everything behind it, so
    that a copy of the node makes the sampler run again.
    """
    context, server = get_executing_context(), getattr(PromptServer, "instance", None)
    if context is not None and server is not None:
        server.send_progress_text(text, context.node_id)

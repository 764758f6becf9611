"""Text on a node while the browser shows it, without any JavaScript of ours."""

from __future__ import annotations

from comfy_api.latest import io
from comfy_execution.utils import get_executing_context
from server import PromptServer


def show_on_node(node: type[io.ComfyNode], text: str) -> None:
    """Show text on a running node whose schema asks for `io.Hidden.unique_id`; nothing where no server runs."""
    unique_id = getattr(node.hidden, "unique_id", None)
    server = getattr(PromptServer, "instance", None)
    if unique_id and server is not None:
        server.send_progress_text(text, unique_id)


def show_on_running_node(text: str) -> None:
    """Show text on whatever node the host executes now; nothing where it executes none or no server runs."""
    context, server = get_executing_context(), getattr(PromptServer, "instance", None)
    if context is not None and server is not None:
        server.send_progress_text(text, context.node_id)

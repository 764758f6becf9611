"""The node that the host executes now: its progress bar, text on it, and the user's cancel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import comfy.utils
from comfy_execution.utils import ExecutionContext, get_executing_context
from server import PromptServer

from ...core.gradients.definition import Progress


def show_on_running_node(text: str) -> None:
    """Show text on the node that the host executes now, if there is one; needs no JavaScript of this pack.

    The node's own id is not needed: for a node that asks for its id the host may put it into the cache key of every
    node after it, so that a mere copy of the node would make the sampler run again. Nodes 2.0 reads the text as
    Markdown, where only two spaces at its end break a line.
    """
    context, server = _running()
    if context is not None and server is not None:
        server.send_progress_text(text.replace("\n", "  \n"), context.node_id)


def browser_listens() -> bool:
    """Whether a node is executed now for a browser, or another client, that hears of it."""
    who = listener()
    return who is not None and who.connection() is not None


@dataclass(frozen=True)
class Listener:
    """The client that queued the run, which may be a browser: what is sent to it is sent to nobody else."""

    client: str
    context: ExecutionContext
    server: PromptServer

    def connection(self) -> Any | None:
        """The websocket that it has now, if any."""
        return self.server.sockets.get(self.client)

    def send(self, event: str, content: Mapping[str, Any]) -> None:
        """Send it a message."""
        self.server.send_sync(event, content, self.client)

    def ids(self) -> dict[str, str | None]:
        """Those of the running node, the run and its workflow.

        The browser may show another workflow by now, where the node's number is that of another node. A run that was
        queued without its workflow has None for it.
        """
        workflow = _workflow(self.server, self.context.prompt_id)
        return {"node": self.context.node_id, "run": self.context.prompt_id, "workflow": workflow}


def listener() -> Listener | None:
    """Who hears of the node that the host executes now; None where no client queued the run."""
    context, server = _running()
    if context is None or server is None or server.client_id is None:
        return None
    return Listener(server.client_id, context, server)


def send_from_running_node(event: str, content: Mapping[str, Any]) -> None:
    """Send a message to the browser that queued the run, with the ids of the running node, the run and its workflow."""
    who = listener()
    if who is not None:
        who.send(event, {**content, **who.ids()})


def _workflow(server: PromptServer, run: str) -> str | None:
    """The id of the workflow that a run was queued from, as the browser sent it with the run."""
    running, _ = server.prompt_queue.get_current_queue_volatile()
    found = next((extra for _, prompt_id, _, extra, *_ in running if prompt_id == run), None)
    for name in ("extra_pnginfo", "workflow", "id"):  # whoever queues a run may send anything
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _running() -> tuple[ExecutionContext | None, PromptServer | None]:
    return get_executing_context(), getattr(PromptServer, "instance", None)


def progress_bar() -> Progress:
    """Start a progress bar on the running node. The returned function reports progress; it raises on cancel."""
    bar = comfy.utils.ProgressBar(1)

    def report(done: int, total: int) -> None:
        stop_when_cancelled(done, total)
        bar.update_absolute(done, total)

    return report


def stop_when_cancelled(done: int, total: int) -> None:
    """Report progress where a sampler shows its own bar: only raise the host's exception when the user cancels."""
    comfy.model_management.throw_exception_if_processing_interrupted()

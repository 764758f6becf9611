"""What can go wrong with the test host. Every message is written for the person at the keyboard."""


class HostError(Exception):
    """Base of the errors below."""


class InstallError(HostError):
    """The test host cannot be set up."""


class ServerError(HostError):
    """The server does not start, or is gone."""


class ComfyError(HostError):
    """ComfyUI refused a graph or failed while running it; `node_id` and `node_class` say where, when they are known."""

    def __init__(self, message: str, node_id: str | None = None, node_class: str | None = None) -> None:
        super().__init__(message)
        self.node_id = node_id
        self.node_class = node_class


class Interrupted(ComfyError):
    """The run was cancelled."""

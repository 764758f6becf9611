"""Workflow tests talk to one real ComfyUI server, which runs for the whole session."""

from collections.abc import Iterator

import pytest

from tests.comfyui.client import ComfyClient
from tests.comfyui.server import ComfyServer


@pytest.fixture(scope="session")
def server() -> Iterator[ComfyServer]:
    """A running server with this pack and the toy model."""
    with ComfyServer() as running:
        yield running


@pytest.fixture
def client(server: ComfyServer) -> Iterator[ComfyClient]:
    """A client of that server."""
    with ComfyClient(server) as connected:
        yield connected

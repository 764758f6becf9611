"""Workflow tests talk to one real ComfyUI server, which runs for the whole session."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.comfyui.client import ComfyClient
from tests.comfyui.server import ComfyServer

SERVER_NODES = Path(__file__).with_name("server_nodes.py")


@pytest.fixture(scope="session")
def server() -> Iterator[ComfyServer]:
    """A running server with this pack, the toy model and the nodes in `server_nodes.py`."""
    with ComfyServer(custom_nodes=[SERVER_NODES]) as running:
        yield running


@pytest.fixture
def client(server: ComfyServer) -> Iterator[ComfyClient]:
    """A client of that server."""
    with ComfyClient(server) as connected:
        yield connected

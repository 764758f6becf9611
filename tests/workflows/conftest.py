"""Workflow tests talk to one real ComfyUI server, which runs for the whole session."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from tests.tools.comfyui.archive import write_archive
from tests.tools.comfyui.client import ComfyClient
from tests.tools.comfyui.paths import ROOT
from tests.tools.comfyui.server import ComfyServer
from tests.workflows.answering import AnsweringBrowser

SERVER_NODES = Path(__file__).with_name("server_nodes.py")
SMALL_MODELS = ROOT / "tests" / "tools" / "workflows" / "small_models.py"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """A running server with the pack as users get it, the toy models and the nodes in these two files."""
    folder = tmp_path_factory.mktemp("archive")
    shutil.unpack_archive(write_archive(folder / "node.zip"), folder / "pack")
    with ComfyServer(custom_nodes=[SERVER_NODES, SMALL_MODELS], pack=folder / "pack") as running:
        yield running


@pytest.fixture
def client(server: ComfyServer) -> Iterator[ComfyClient]:
    """A client of that server."""
    with ComfyClient(server) as connected:
        yield connected


@pytest.fixture
def browser(server: ComfyServer) -> Iterator[AnsweringBrowser]:
    """A stand-in for a browser, which has announced itself."""
    with AnsweringBrowser(server) as connected:
        assert connected.announce() == {"connected": True, "pauses": 0}
        yield connected


@pytest.fixture
def get(server: ComfyServer) -> Callable[[str], bytes]:
    """What the browser gets for a path; fails when it gets nothing."""

    def answer(path: str) -> bytes:
        response = requests.get(server.url + path, timeout=60, proxies={"no_proxy": "*"})
        assert response.ok, f"{path}: {response.status_code}"
        return response.content

    return answer


@pytest.fixture(scope="session")
def small_models(server: ComfyServer) -> None:
    """Small random models in the places of the files that the templates for transformers name."""
    with ComfyClient(server) as connected:
        connected.run({"1": {"class_type": "TestSmallModels", "inputs": {}}})

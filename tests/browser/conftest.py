"""Browser tests: one real server and one real Chromium for the whole session, a fresh page for every test."""

from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.tools.browser.front import FLAGS, Front
from tests.tools.browser.install import find
from tests.tools.comfyui.client import ComfyClient
from tests.tools.comfyui.errors import InstallError
from tests.tools.comfyui.server import ComfyServer

SERVER_NODES = Path(__file__).with_name("server_nodes.py")
FAILED = pytest.StashKey[bool]()


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


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium."""
    program = find()
    if program is None:
        raise InstallError("there is no Chromium: run `make browser`")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture
def open_front(browser: Browser, server: ComfyServer, request: pytest.FixtureRequest) -> Iterator[Callable[..., Front]]:
    """Opens pages. After the test: a screenshot when it failed, and no error of ours may be in the console."""
    opened: list[Front] = []

    def opener(**options: bool) -> Front:
        opened.append(Front(browser, server, **options))
        return opened[-1]

    yield opener
    for front in opened:
        if request.node.stash.get(FAILED, False):
            front.shot(f"failed-{request.node.name}")
        front.close()
    assert [error for front in opened for error in front.errors] == []


@pytest.fixture
def front(open_front: Callable[..., Front]) -> Front:
    """A page with Nodes 2.0."""
    return open_front()


@pytest.fixture(params=[True, False], ids=["nodes2", "classic"])
def either_front(open_front: Callable[..., Front], request: pytest.FixtureRequest) -> Front:
    """A page of each renderer."""
    return open_front(vue=request.param)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Generator[None, pytest.TestReport, object]:
    """Let fixtures know whether their test failed."""
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    return report

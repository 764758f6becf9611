"""Browser tests: one real server, one real Chromium and a page of each renderer for the whole session.

Tests share these two pages, and each is reset before another test gets it: to open one takes longer than most tests.
A test that needs a new page, or does to its page what a reset does not undo, opens one by `open_front`.
"""

from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.tools.browser.front import FLAGS, Front
from tests.tools.browser.install import find
from tests.tools.comfyui.client import ComfyClient
from tests.tools.comfyui.errors import InstallError
from tests.tools.comfyui.paths import ROOT
from tests.tools.comfyui.server import ComfyServer
from tests.tools.thorough import THOROUGH

SERVER_NODES = Path(__file__).with_name("server_nodes.py")
SMALL_MODELS = ROOT / "tests" / "tools" / "workflows" / "small_models.py"
FAILED = pytest.StashKey[bool]()
Opener = Callable[..., Front]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a test that runs in both renderers `make test` has one, in turn; the other is left to `make test-thorough`."""
    cases: dict[str, dict[tuple, int]] = {}
    for item in items:
        given = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        if "vue" in given and item.path.parent == SERVER_NODES.parent:
            others = tuple((name, repr(value)) for name, value in given.items() if name != "vue")
            turns = cases.setdefault(item.path.name, {})
            turn = turns.setdefault((item.originalname, *others), len(turns))
            if given["vue"] is (turn % 2 == 1):
                item.add_marker(THOROUGH)


@pytest.fixture(scope="session")
def server() -> Iterator[ComfyServer]:
    """A running server with this pack, the toy models and the nodes in these two files."""
    with ComfyServer(custom_nodes=[SERVER_NODES, SMALL_MODELS]) as running:
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


@pytest.fixture(scope="session")
def kept_pages(browser: Browser, server: ComfyServer) -> Iterator[dict[bool, Front]]:
    """The pages that tests share, by renderer, as soon as a test has asked for one."""
    pages: dict[bool, Front] = {}
    yield pages
    for page in pages.values():
        page.close()


@pytest.fixture
def shared_front(kept_pages: dict[bool, Front], browser: Browser, server: ComfyServer, checked: list[Front]) -> Opener:
    """Gives the shared page of a renderer, as good as new."""

    def give(vue: bool) -> Front:
        if vue not in kept_pages:
            kept_pages[vue] = Front(browser, server, vue=vue)
        kept_pages[vue].reset()  # a new page, too, so that the first test finds the view that all others find
        checked.append(kept_pages[vue])
        return kept_pages[vue]

    return give


@pytest.fixture
def open_front(browser: Browser, server: ComfyServer, checked: list[Front]) -> Opener:
    """Opens new pages, which are closed after the test."""

    def give(**options: bool) -> Front:
        checked.append(Front(browser, server, **options))
        return checked[-1]

    return give


@pytest.fixture
def checked(kept_pages: dict[bool, Front], request: pytest.FixtureRequest) -> Iterator[list[Front]]:
    """The pages of a test. After it: a screenshot when it failed, and no error of ours may be in the console."""
    used: list[Front] = []
    yield used
    failed = request.node.stash.get(FAILED, False)
    for front in used:
        kept = kept_pages.get(front.vue) is front
        if failed:
            front.shot(f"failed-{request.node.name}")
        if failed and kept:  # nobody knows what is left on it
            del kept_pages[front.vue]
        if failed or not kept:
            front.close()
    assert [error for front in used for error in front.errors] == []


@pytest.fixture
def front(shared_front: Opener) -> Front:
    """The shared page with Nodes 2.0."""
    return shared_front(True)


@pytest.fixture(params=[True, False], ids=["nodes2", "classic"])
def vue(request: pytest.FixtureRequest) -> bool:
    """Each renderer: whether it is Nodes 2.0."""
    return request.param


@pytest.fixture
def either_front(shared_front: Opener, vue: bool) -> Front:
    """The shared page of each renderer."""
    return shared_front(vue)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Generator[None, pytest.TestReport, object]:
    """Let fixtures know whether their test failed."""
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    return report

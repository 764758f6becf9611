"""Browser tests: one real server, one real Chromium and one page for the whole session."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.install import find
from tests.comfyui.errors import InstallError
from tests.comfyui.server import ComfyServer

# No sandbox, because containers run as root; the rest keeps the browser off the network and the graphics card.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def server() -> Iterator[ComfyServer]:
    """A running server with this pack and the toy model."""
    with ComfyServer() as running:
        yield running


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

"""The real front end in a real browser."""

from playwright.sync_api import Browser

from tests.comfyui.server import ComfyServer

SLOW = 240_000  # milliseconds: far more than any machine needs


def test_the_front_end_knows_our_nodes(server: ComfyServer, browser: Browser):
    page = browser.new_page()
    page.goto(server.url, timeout=SLOW)
    page.wait_for_function(
        "!!window.app?.graph && !!window.LiteGraph?.registered_node_types.ELParseSubjects", timeout=SLOW
    )
    page.close()

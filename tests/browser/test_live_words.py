"""Prompt with Words: its words follow the text while one types, before any run, in both renderers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Route, expect

from tests.tools.browser.front import Front
from tests.tools.comfyui.paths import TOY_CHECKPOINT

WORDS = "Words"
LIVE_WORDS = "**/explainable_latents/words"


@pytest.fixture
def words(either_front: Front) -> Iterator[Locator]:
    """The panel of a new node; nothing is ever run."""
    queued: list[str] = []
    either_front.page.on("request", record := lambda request: queued.append(request.url))
    either_front.clear()
    either_front.add("ELPromptWords", WORDS, (200, 60))
    yield either_front.panel(WORDS)
    either_front.page.remove_listener("request", record)
    assert [url for url in queued if url.endswith("/api/prompt")] == []


def type_prompt(front: Front, text: str) -> None:
    """Put a text into the node's own box, by the keyboard."""
    box = front.page.locator("textarea:visible")
    box.fill("")
    box.press_sequentially(text)


def test_words_follow_what_is_typed_and_a_click_keeps_the_focus(either_front: Front, words: Locator):
    front = either_front
    expect(words.get_by_role("button", name="dog: subject")).to_be_visible()  # of the text that a new node has
    type_prompt(front, "a cat in a forest")
    expect(words.get_by_role("button", name="cat: subject")).to_be_visible()
    expect(words.get_by_role("button", name="forest: scene")).to_be_visible()
    expect(words.get_by_role("button", name="dog")).to_have_count(0)
    front.shot(f"live-words-{'nodes2' if front.vue else 'classic'}")
    with front.page.expect_response(LIVE_WORDS):
        words.get_by_role("button", name="forest").press("Enter")
    expect(words.get_by_role("button", name="forest: not used")).to_be_focused()
    assert "forest" in front.value(WORDS, "override")


def test_a_mistake_is_told_before_any_run(either_front: Front, words: Locator):
    either_front.set(WORDS, override="<b>zebra</b>")
    expect(words.get_by_text("'<b>zebra</b>' is not in the prompt")).to_be_visible()
    expect(words.get_by_role("button", name="beach: scene")).to_be_visible()
    either_front.set(WORDS, override="")
    expect(words.get_by_text("is not in the prompt")).to_be_hidden()


def test_a_late_answer_to_an_older_text_is_not_shown(either_front: Front, words: Locator):
    expect(words.get_by_role("button", name="dog: subject")).to_be_visible()
    late: list[Route] = []

    def answer(route: Route) -> None:
        if "horse" in (route.request.post_data or ""):
            late.append(route)
        else:
            route.continue_()

    either_front.page.route(LIVE_WORDS, answer)
    with either_front.page.expect_request(LIVE_WORDS):
        either_front.set(WORDS, text="a horse on a road")
    expect(words.get_by_role("button", name="dog")).to_be_disabled()  # of the text before: not for this override
    either_front.set(WORDS, text="a cat on a road")
    expect(words.get_by_role("button", name="cat: subject")).to_be_visible()
    with either_front.page.expect_response(LIVE_WORDS):
        late[0].continue_()
    with either_front.page.expect_response(LIVE_WORDS):  # an answer that is shown, after the one that must not be
        either_front.set(WORDS, which="all things")
    either_front.settle()
    expect(words.get_by_role("button", name="cat: subject")).to_be_visible()
    expect(words.get_by_role("button", name="horse")).to_have_count(0)


def test_a_run_that_was_queued_before_a_change_does_not_replace_the_words_after_it(either_front: Front):
    front = either_front
    front.clear()
    front.add("CheckpointLoaderSimple", "Checkpoint")
    front.set("Checkpoint", ckpt_name=TOY_CHECKPOINT.name)
    front.add("ELPromptWords", WORDS, (450, 60))
    front.link("Checkpoint", 1, WORDS, "clip")
    front.set(WORDS, text="a girl with a kite on a hill")
    panel = front.panel(WORDS)
    (shown,) = [output for output in front.press_run().values() if "el_chips" in output]
    expect(panel.get_by_role("button", name="kite: left out")).to_be_visible()
    front.set(WORDS, which="all things")
    expect(panel.get_by_role("button", name="kite: subject")).to_be_visible()
    front.run("shown => app.graph.nodes.find(node => node.type === 'ELPromptWords').onExecuted(shown)", shown)
    expect(panel.get_by_role("button", name="girl: subject")).to_be_visible()
    expect(panel.get_by_role("button", name="kite: subject")).to_be_visible()


def test_without_an_answer_the_words_are_those_of_the_last_run(either_front: Front):
    front = either_front
    front.page.route(LIVE_WORDS, lambda route: route.fulfill(status=503))
    front.clear()
    front.add("CheckpointLoaderSimple", "Checkpoint")
    front.set("Checkpoint", ckpt_name=TOY_CHECKPOINT.name)
    front.add("ELPromptWords", WORDS, (450, 60))
    front.link("Checkpoint", 1, WORDS, "clip")
    panel = front.panel(WORDS)
    expect(panel.get_by_role("status")).to_have_text("Run once, then choose the words here.")
    front.press_run()
    expect(panel.get_by_role("button", name="beach: scene")).to_be_visible()
    front.set(WORDS, text="a cat")
    expect(panel.get_by_role("status")).to_contain_text("The prompt has changed")

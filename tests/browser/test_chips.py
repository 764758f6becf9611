"""Token chips under Parse Subjects, by mouse and by keyboard, in both renderers, and their rules against Python's."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, expect

from explainable_latents.nodes.core.words.chips import chips
from explainable_latents.nodes.core.words.parsing import parse
from tests.tools.browser.front import OURS, Front, still_box
from tests.tools.comfyui.paths import TOY_CHECKPOINT
from tests.tools.thorough import further

WORDS = "Words"
LIVE_WORDS = "**/explainable_latents/words"
PROMPT = "a cat and a dog on the beach, a dog <img src=x onerror=alert(1)>"


NODE = f"app.graph.nodes.find((node) => node.title === '{WORDS}')"


def parsed(front: Front, prompt: str = PROMPT) -> Locator:
    """Run Parse Subjects and return its chips."""
    front.clear()
    front.add("CheckpointLoaderSimple", "Checkpoint")
    front.set("Checkpoint", ckpt_name=TOY_CHECKPOINT.name)
    front.add("ELParseSubjects", WORDS, (450, 60))
    front.set(WORDS, text=prompt, parser="rules")
    front.link("Checkpoint", 1, WORDS, "clip")
    front.look_at("Checkpoint")
    front.press_run()
    panel = front.panel(WORDS)
    expect(panel.get_by_role("button").first).to_be_visible()
    return panel


def roles(panel: Locator) -> dict[str, str]:
    """Chip number and word -> role, for those that have one."""
    found = panel.locator(".el-chips button").evaluate_all(
        "all => all.map(b => [b.textContent.replace(/^. /, ''), b.dataset.role])"
    )
    return {f"{i} {word}": role for i, (word, role) in enumerate(found) if role}


def test_mouse(either_front: Front):
    front = either_front
    panel = parsed(front)
    assert {"1 cat": "subject", "4 dog": "subject", "7 beach": "scene"}.items() <= roles(panel).items()
    panel.get_by_role("button", name="cat").click()
    assert roles(panel)["1 cat"] == "scene"
    assert "scene: cat" in front.value(WORDS, "override")
    panel.get_by_role("button", name="cat").click()
    assert "1 cat" not in roles(panel)
    override = front.value(WORDS, "override")
    assert "dog#1" in override
    assert "scene: beach" in override
    outputs = front.press_run()
    (text,) = [output["text"][0] for output in outputs.values() if "el_chips" in output]
    rows = [line.split(" | ")[:2] for line in text.splitlines()]
    assert ["dog", "subject"] in rows
    assert ["beach", "scene"] in rows
    assert "cat" not in [row[0] for row in rows]
    front.shot(f"chips-{'nodes2' if front.vue else 'classic'}")


def test_keyboard(either_front: Front):
    front = either_front
    panel = parsed(front)
    panel.get_by_role("button").first.focus()
    for key in ("Tab", "Space"):
        front.page.keyboard.press(key)
    assert roles(panel)["1 cat"] == "scene"
    assert front.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    expect(panel.get_by_role("button", name="cat: scene")).to_be_focused()
    front.page.keyboard.press("Enter")
    assert "1 cat" not in roles(panel)
    assert front.run("app.graph.nodes.length") == 2


def test_reload_and_a_saved_workflow_keep_the_chips(
    open_front: Callable[..., Front], shared_front: Callable[..., Front], vue: bool
):
    front = open_front(vue=vue)
    panel = parsed(front)
    panel.get_by_role("button", name="cat").click()
    before, override = roles(panel), front.value(WORDS, "override")
    saved = front.run("JSON.parse(JSON.stringify(app.graph.serialize()))")
    front.wait_until_kept("scene: cat")
    front.open()
    front.wait("app.graph.nodes.length === 2")
    assert front.value(WORDS, "override") == override
    expect(front.panel(WORDS).get_by_role("button", name="cat: scene")).to_be_visible()
    assert roles(front.panel(WORDS)) == before
    other = shared_front(not vue)
    other.load(saved)
    expect(other.panel(WORDS).get_by_role("button", name="cat: scene")).to_be_visible()
    assert roles(other.panel(WORDS)) == before


def test_one_undo_takes_back_one_click(either_front: Front):
    front = either_front
    panel = parsed(front)
    front.run("window.dispatchEvent(new MouseEvent('mouseup'))")  # the front end has seen all that was there before
    panel.get_by_role("button", name="cat").click()
    first = front.value(WORDS, "override")
    assert "scene: cat" in first
    panel.get_by_role("button", name="cat").click()
    assert front.value(WORDS, "override") != first
    front.run("app.extensionManager.command.execute('Comfy.Undo')")
    front.wait("override => app.graph.nodes.some((node) => node.widgets?.some((w) => w.value === override))", first)


def test_words_are_text_and_an_old_prompt_is_told(front: Front):
    panel = parsed(front)
    assert panel.locator("img").count() == 0
    front.page.route(LIVE_WORDS, lambda route: route.fulfill(status=503))
    front.set(WORDS, text="something else")
    expect(panel.get_by_role("status")).to_contain_text("The prompt has changed")
    expect(panel.get_by_role("button", name="cat")).to_be_disabled()
    front.set(WORDS, override="scene: dog")
    assert roles(panel)["4 dog"] == "scene"


def test_a_mistake_is_told_on_the_page_as_text(front: Front):
    parsed(front)
    front.set(WORDS, override="<img src=x onerror=alert(2)>")
    run_with_mistake(front)
    front.page.get_by_test_id("error-overlay-see-errors").click()
    expect(front.page.get_by_text("is not in the prompt").first).to_be_visible()
    assert front.page.locator("img[src=x]").count() == 0
    front.shot("mistake")


def test_an_override_from_another_node_is_left_alone(front: Front):
    panel = parsed(front)
    front.add("PrimitiveString", "Mine", (450, 700))
    front.link("Mine", 0, WORDS, "override")
    expect(panel.get_by_role("button", name="cat")).to_be_disabled()


def run_with_mistake(front: Front) -> None:
    """Click Run, for a run that fails."""
    with front.page.expect_response(lambda answer: answer.url.endswith("/api/prompt")):
        front.page.get_by_test_id("queue-button").click()


def test_words_of_chips_that_a_new_prompt_lacks_are_left_out_and_cleared_by_one_click(either_front: Front):
    front = either_front
    panel = parsed(front)
    panel.get_by_role("button", name="cat").click()
    expect(panel.get_by_role("alert")).to_be_hidden()
    front.set(WORDS, text="a horse and a dog in a field")
    front.press_run()
    expect(panel.get_by_role("alert")).to_contain_text("Not in this prompt, left out: cat, beach.")
    assert roles(panel) == {"4 dog": "subject", "7 field": "scene"}
    front.shot(f"absent-{'nodes2' if front.vue else 'classic'}")
    panel.get_by_role("button", name="Clear them").click()
    expect(panel.get_by_role("alert")).to_be_hidden()
    assert "cat" not in front.value(WORDS, "override")
    assert "beach" not in front.value(WORDS, "override")
    front.press_run()
    expect(panel.get_by_role("alert")).to_be_hidden()


def test_chips_of_a_linked_prompt(either_front: Front):
    front = either_front
    panel = parsed(front)
    front.add("PrimitiveStringMultiline", "Prompt", (100, 600))
    front.set("Prompt", value="a cat on the beach")
    front.link("Prompt", 0, WORDS, "text")
    assert front.value(WORDS, "text") == "a cat on the beach"  # the greyed box shows what is linked
    expect(panel.get_by_role("button", name="dog")).to_have_count(0)  # the chips are those of the new prompt
    expect(panel.get_by_role("button", name="cat: subject")).to_be_visible()
    panel.get_by_role("button", name="cat").click()
    front.set("Prompt", value="a horse in a field")
    expect(panel.get_by_role("button", name="horse: subject")).to_be_visible()
    assert front.value(WORDS, "text") == "a horse in a field"
    front.press_run()
    expect(panel.get_by_role("alert")).to_contain_text("Not in this prompt, left out: cat, beach.")
    assert roles(panel) == {"1 horse": "subject", "4 field": "scene"}


def test_what_was_typed_comes_back_when_the_link_goes(either_front: Front):
    front = either_front
    parsed(front)
    front.add("PrimitiveStringMultiline", "Prompt", (100, 600))
    front.set("Prompt", value="a cat on the beach")
    front.link("Prompt", 0, WORDS, "text")
    front.set("Prompt", value="a horse in a field")
    assert front.value(WORDS, "text") == "a horse in a field"
    front.load(front.run("JSON.parse(JSON.stringify(app.graph.serialize()))"))
    front.wait(f"app.graph.nodes.find(node => node.title === '{WORDS}').widgets[0].value === 'a horse in a field'")
    front.run(
        """title => {
            const node = app.graph.nodes.find((each) => each.title === title);
            node.disconnectInput(node.inputs.findIndex((input) => input.name === "text"));
        }""",
        WORDS,
    )
    assert front.value(WORDS, "text") == PROMPT
    expect(front.panel(WORDS).get_by_role("button", name="dog")).not_to_have_count(0)


def test_a_failed_run_of_another_workflow_leaves_the_chips_alone(front: Front):
    """The node in front has the same number, but not the named words that the run failed on."""
    panel = parsed(front)
    before = roles(panel)
    stored = front.run(f"{NODE}.properties.el_chips")
    failed = {**stored, "words": [], "choices": {**stored["choices"], "override": "zebra"}}
    tell = (
        "([words, title]) => { const { id } = app.graph.nodes.find((node) => node.title === title);"
        "app.api.dispatchCustomEvent('explainable_latents.chips', { ...words, node: String(id) }); }"
    )
    front.run(tell, [failed, WORDS])
    assert front.run(f"{NODE}.properties.el_chips") == stored
    assert roles(panel) == before
    front.set(WORDS, override="zebra")
    front.run(tell, [failed, WORDS])  # of what the node says now
    assert front.run(f"{NODE}.properties.el_chips") == failed


def test_a_prompt_that_another_node_computes_is_not_guessed_from_what_is_typed_there(front: Front):
    panel = parsed(front)
    front.add("TestPrompt", "Prompt", (100, 600))
    front.set("Prompt", style="horse")
    front.link("Prompt", 0, WORDS, "text")
    front.press_run()
    expect(panel.get_by_role("button", name="beach: scene")).to_be_visible()
    assert roles(panel) == {"1 horse": "subject", "4 beach": "scene"}
    assert front.value(WORDS, "text") == "a horse on the beach"
    # What an undo of the next change comes back to has it in the box, too.
    seen = front.run("app.extensionManager.workflow.activeWorkflow.changeTracker.activeState")
    (node,) = [node for node in seen["nodes"] if node["title"] == WORDS]
    assert node["widgets_values"][0] == "a horse on the beach"


def test_a_failed_run_refreshes_the_chips_and_says_how_to_clear(either_front: Front):
    front = either_front
    panel = parsed(front)
    front.set(WORDS, text="a horse in a field", override="zebra")
    run_with_mistake(front)
    expect(panel.get_by_role("button", name="horse")).to_be_visible()
    front.page.get_by_test_id("error-overlay-see-errors").click()
    expect(front.page.get_by_text("or empty 'override' to let the parser choose").first).to_be_visible()


def test_the_last_word_of_a_role_can_be_left_unused(either_front: Front):
    front = either_front
    panel = parsed(front, "a horse in a field")
    for _ in range(2):
        panel.get_by_role("button", name="horse").click()
    assert roles(panel) == {"4 field": "scene"}
    outputs = front.press_run()
    (text,) = [output["text"][0] for output in outputs.values() if "el_chips" in output]
    assert [line.split(" | ")[:2] for line in text.splitlines()[:-1]] == [["field", "scene"]]
    assert roles(panel) == {"4 field": "scene"}


def test_what_was_left_out_is_taken_in_by_one_click(either_front: Front):
    front = either_front
    panel = parsed(front, "a girl with a kite on a hill, rule of thirds, award winning")
    kite = panel.get_by_role("button", name="kite: left out")
    expect(kite).to_be_visible()
    expect(panel.get_by_role("status")).to_contain_text("○ left out")
    assert panel.locator("[data-left-out]").all_inner_texts() == ["○ kite"]
    front.shot(f"left-out-{'nodes2' if front.vue else 'classic'}")
    kite.click()
    outputs = front.press_run()
    (text,) = [output["text"][0] for output in outputs.values() if "el_chips" in output]
    subjects = [line.split(" | ")[0] for line in text.splitlines() if " | subject" in line]
    assert subjects == ["girl", "kite"]


def test_a_key_that_deletes_nodes_deletes_none_while_a_chip_has_the_focus(either_front: Front):
    front = either_front
    panel = parsed(front)
    front.run("title => app.canvas.selectNode(app.graph.nodes.find((node) => node.title === title))", WORDS)
    for key in ("Delete", "Backspace"):
        panel.get_by_role("button", name="cat").focus()
        front.page.keyboard.press(key)
    panel.get_by_role("button", name="cat").click()
    assert roles(panel)["1 cat"] == "scene"
    assert front.run("app.graph.nodes.length") == 2


def height(front: Front) -> float:
    """How high the node is on the page, in pixels."""
    front.settle()
    if front.vue:
        number = front.run("title => app.graph.nodes.find((node) => node.title === title).id", WORDS)
        return still_box(front.page.locator(f"[data-node-id='{number}']"))["height"]
    return front.run("title => app.graph.nodes.find((node) => node.title === title).size[1]", WORDS)


def test_a_long_prompt_makes_the_node_no_longer(either_front: Front):
    front = either_front
    panel = parsed(front, f"a {'large' if front.vue else 'small'} dog")  # of its own: see the next test
    before = height(front)
    front.set(WORDS, text="a dog and a cat " * 60)
    front.press_run()
    expect(panel.get_by_role("button")).to_have_count(300)
    assert height(front) <= before + 10
    assert panel.locator(".el-chips").evaluate("list => list.scrollHeight > list.clientHeight")


def test_the_table_on_the_node_keeps_its_lines(either_front: Front):
    front = either_front
    # A prompt of its own: a run that only gives what the server has in its cache sends no text.
    parsed(front, f"a cat and a dog on the beach, {'large' if front.vue else 'small'}")
    shown = front.page.get_by_text("beach | scene")
    shown.wait_for()
    lines = [line.strip() for line in shown.inner_text().splitlines()]
    assert [line.split(" | ")[0] for line in lines if " | " in line] == ["cat", "dog", "beach"]


@pytest.mark.parametrize(("palette", "dark"), [("light", False), further(("dark", True))])
def test_panels_follow_the_theme(open_front: Callable[..., Front], palette: str, dark: bool):
    front = open_front(settings={"Comfy.ColorPalette": palette})
    panel = parsed(front)

    def is_dark() -> bool:
        colours = panel.evaluate("panel => [getComputedStyle(panel).backgroundColor, getComputedStyle(panel).color]")
        paper, ink = (sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(", "))) for colour in colours)
        return paper < ink

    front.becomes(is_dark, dark)
    front.shot(f"theme-{palette}")


PROMPTS = (
    "a cat and a dog on the beach, a dog",
    "(small:1.2) white dog in a forest near a river",
    "masterpiece, 1girl, beach, embedding:my_cat",
    "dog-house, a Dog on a road",
    "a girl with a kite on a hill near a lake",
)


@pytest.fixture
def rules(front: Front) -> Callable[..., object]:
    """Calls a function of override.js."""

    def call(name: str, *arguments: object) -> object:
        script = f"async ([name, given]) => (await import('{OURS}override.js'))[name](...given)"
        return front.run(script, [name, list(arguments)])

    return call


def test_roles_are_those_of_the_parser(rules: Callable[..., object]):
    """Random toggles: after each, JavaScript's roles and written override mean the same to Python."""
    chance = random.Random(7)
    for prompt in PROMPTS:
        found = parse(prompt, {}, "", "rules")
        override = ""
        for _ in range(12):
            listed = chips(found, found)
            index, role = chance.randrange(len(listed)), chance.choice(["subject", "scene", ""])
            override = rules("withRole", listed, override, index, role)
            meant = {(item.text.lower(), item.role) for item in parse(prompt, {}, override, "rules").items}
            shown = rules("rolesOf", listed, override)
            assert {(c["text"].lower(), r) for c, r in zip(listed, shown, strict=True) if r} == meant, (
                prompt,
                override,
            )
            if role:
                assert shown[index] == role, (prompt, override)


def test_what_names_no_chip_stays(rules: Callable[..., object]):
    found = parse("a red car on a road", {}, "", "rules")
    listed = chips(found, found)
    car = [chip["text"] for chip in listed].index("car")
    assert rules("withRole", listed, "red car, SCENE: road", car, "subject") == "red car, car?, scene: road"
    assert rules("withRole", listed, "", car, "scene") == "scene: car?, scene: road?"
    assert rules("withRole", listed, "zebra?", car, "") == "zebra?, not: car?"


def test_what_the_prompt_lacks_can_be_taken_out(rules: Callable[..., object]):
    override = "zebra, Dog?, dog#2?, scene: beach?\ncat?"
    assert rules("absentWords", override, ["Dog", "beach", "gone"]) == ["Dog", "beach"]
    assert rules("withoutAbsent", override, ["Dog", "dog#2", "beach"]) == "zebra, cat?"

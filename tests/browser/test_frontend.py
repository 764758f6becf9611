"""What a user finds without reading anything: the nodes in the search, their help, the templates."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, TimeoutError, expect

from tests.tools.browser.front import SLOW, VISITED, Front
from tests.tools.browser.templates import fill
from tests.tools.comfyui.base import PACK_NAME
from tests.tools.comfyui.client import ComfyClient
from tests.tools.thorough import THOROUGH, further
from tests.tools.workflows.index import TEMPLATES, Template

CARD = re.compile("^template-workflow-")
SLOWEST = ("13", "15", "16a", "17")  # the numbers of templates whose runs take longest
PAUSES = {"26_pause_and_paint": 2}  # how often a template's run waits for its user
LOCALE, TEXT_IS_DRAWN = "Comfy.Locale", 8 / 14  # the host draws text of 8 pixels and more, and its size is 14
MOMENT = SLOW / 4  # milliseconds, only where the test is about to fail
# The host's words for what is clicked, and ours, by the language of the interface.
TEMPLATES_BUTTON = re.compile("Templates|模板")
EXTENSIONS = re.compile("^(Extensions|扩展)$")
OURS_IN = {"en": PACK_NAME, "zh": "可解释 Latent"}
PICTURE_IS_THERE = (
    "name => [...document.querySelectorAll('[role=dialog] img')].some(i => i.alt === name && i.naturalWidth)"
)
# Nodes on each other, and links that go to the left or pass under a node, as the renderer has placed them.
BADLY_PLACED = """() => {
    const nodes = app.graph.nodes;
    const named = (id) => app.graph.getNodeById(id);
    const bad = [];
    for (const link of app.graph.links.values()) {
        const [source, target] = [named(link.origin_id), named(link.target_id)];
        const [x0, y0] = source.getOutputPos(link.origin_slot);
        const [x3, y3] = target.getInputPos(link.target_slot);
        if (x0 >= x3) bad.push(`${source.title} -> ${target.title} goes to the left`);
        const reach = 0.25 * Math.hypot(x3 - x0, y3 - y0);
        for (const node of nodes.filter((each) => each !== source && each !== target)) {
            const [x, y, width, height] = node.boundingRect;
            for (let t = 0; t <= 1; t += 0.02) {
                const [a, b, c, d] = [(1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t ** 2, t ** 3];
                const [u, v] = [a * x0 + b * (x0 + reach) + c * (x3 - reach) + d * x3, (a + b) * y0 + (c + d) * y3];
                if (u > x + 20 && u < x + width - 20 && v > y && v < y + height) {
                    bad.push(`${source.title} -> ${target.title} passes under ${node.title}`);
                    break;
                }
            }
        }
    }
    for (const one of nodes) {
        for (const other of nodes.filter((each) => each.id > one.id)) {
            const [[x, y, w, h], [u, v, k, m]] = [one.boundingRect, other.boundingRect];
            if (x < u + k && u < x + w && y < v + m && v < y + h) bad.push(`${one.title} lies on ${other.title}`);
        }
    }
    return bad;
}"""
# Our nodes that are higher than their places, which is where links and other nodes are kept away from.
GROWN = """(places) => app.graph.nodes
    .filter((node) => node.type.startsWith("EL") && !node.flags.collapsed)
    .map((node) => [node.title, node.boundingRect[3] - LiteGraph.NODE_TITLE_HEIGHT, places[node.id]])
    .filter(([title, height, place]) => height > place + 1)"""


def badly_placed(front: Front) -> list[str]:
    """What lies on or passes under what. Nodes get their sizes a moment after they, or their pictures, are there."""
    front.settle()
    with contextlib.suppress(TimeoutError):
        front.page.wait_for_function(f"({BADLY_PLACED})().length === 0", timeout=MOMENT)
    return front.run(BADLY_PLACED)


def our_nodes(client: ComfyClient) -> dict[str, str]:
    """Node id -> display name."""
    return {name: info["display_name"] for name, info in client.object_info().items() if name.startswith("EL")}


def test_each_node_is_found_in_the_search_and_can_be_added(front: Front, client: ComfyClient):
    nodes = our_nodes(client)
    assert len(set(nodes.values())) == len(nodes) > 0
    front.clear()
    front.run("app.extensionManager.command.execute('Workspace.SearchBox.Toggle')")
    search = front.page.locator("input[role=combobox]")  # a found node's picture has widgets of this role, too
    for name in nodes.values():
        search.fill(name)
        found = front.page.get_by_role("option").filter(has_text=name).filter(has_text=PACK_NAME)
        expect(found.first).to_be_visible()
    front.shot("search")
    front.page.keyboard.press("Escape")
    expect(search).to_have_count(0)
    last, name = list(nodes.items())[-1]
    front.add_from_search(name, PACK_NAME)
    assert front.run("app.graph.nodes.map((node) => node.type)") == [last]


def browse_templates(front: Front) -> Locator:
    """Click through the template browser to ours."""
    dialog = front.page.get_by_role("dialog")
    front.page.get_by_role("button", name=TEMPLATES_BUTTON).first.click()
    pack = dialog.get_by_text(OURS_IN[front.settings[LOCALE]], exact=True).first
    extensions = dialog.get_by_text(EXTENSIONS, exact=True)
    pack.or_(extensions).first.wait_for()
    if not pack.is_visible():
        extensions.click()
    pack.click()
    dialog.get_by_test_id(f"template-workflow-{TEMPLATES[0].file}").wait_for()
    return dialog


def open_template(front: Front, template: Template) -> None:
    """Click through the template browser to one of ours, and on it."""
    dialog = browse_templates(front)
    card = dialog.get_by_test_id(f"template-workflow-{template.file}")
    card.scroll_into_view_if_needed()
    card.click()
    dialog.wait_for(state="hidden")
    front.wait("count => app.graph.nodes.length === count", len(template.page["nodes"]))


def load_template(front: Front, template: Template) -> None:
    """Open one of ours as the template browser does after a click."""
    front.run(
        "([graph, name]) => app.loadGraphData(graph, true, true, name, { openSource: 'template' })",
        [template.page, template.file],
    )
    front.wait("count => app.graph.nodes.length === count", len(template.page["nodes"]))


@THOROUGH  # a page of its own
def test_what_the_host_opens_at_a_first_start_is_closed(open_front: Callable[..., Front]):
    front = open_front(settings={VISITED: False})
    assert front.page.get_by_role("dialog").count() == 0
    open_template(front, TEMPLATES[0])


@THOROUGH  # half a minute for each language
@pytest.mark.parametrize("language", ["en", "zh"])
def test_templates_have_their_order_titles_and_descriptions(open_front: Callable[..., Front], language: str):
    front = open_front(settings={LOCALE: language})
    dialog = browse_templates(front)
    cards = dialog.get_by_test_id(CARD)

    def listed() -> int:
        cards.last.scroll_into_view_if_needed()  # more are listed where the list is seen to end
        return cards.count()

    front.becomes(listed, len(TEMPLATES))
    for card, template in zip(cards.all(), TEMPLATES, strict=True):
        expect(card).to_contain_text(f"{template.number} {template.title[language]}")
        # the host writes a space for a hyphen in a description
        expect(card).to_contain_text(template.description[language].replace("-", " "))
        card.scroll_into_view_if_needed()  # where its picture is loaded
        front.wait(PICTURE_IS_THERE, f"{template.number} {template.title[language]}")
    front.shot(f"templates-{language}")


@THOROUGH  # most of a minute
def test_a_template_opens_in_chinese(open_front: Callable[..., Front]):
    """Titles, and the host's own names where a title says no more; not of a workflow that a user has saved."""
    front = open_front(settings={LOCALE: "zh"})
    chinese = re.compile("[\u4e00-\u9fff]")
    named = "[...app.graph.nodes, ...app.graph.groups].map((each) => each.title)"
    for template in TEMPLATES:
        front.load(template.page)
        front.wait("count => app.graph.nodes.length === count", len(template.page["nodes"]))
        english = [title for title in front.run(named) if not chinese.search(title)]
        assert english == ["About this template"], template
    saved = front.run("JSON.parse(JSON.stringify(app.graph.serialize()))")
    saved["nodes"][0]["title"] = "Result"
    front.load(saved)
    assert front.run("app.graph.nodes[0].title") == "Result"


@THOROUGH
@pytest.mark.parametrize("javascript", [True, False])
def test_who_searches_for_attention_finds_all_that_concerns_it(open_front: Callable[..., Front], javascript: bool):
    front = open_front(javascript=javascript)
    dialog = browse_templates(front)
    dialog.get_by_role("combobox").or_(dialog.get_by_placeholder("Search")).first.fill("attention")
    concerned = [template for template in TEMPLATES if "Attention" in template.tags]
    assert len(concerned) == 26
    other = next(template for template in TEMPLATES if template not in concerned)
    expect(dialog.get_by_test_id(f"template-workflow-{other.file}")).to_have_count(0)
    for template in concerned:
        expect(dialog.get_by_test_id(f"template-workflow-{template.file}")).to_have_count(1)
    front.errors.clear()  # that our files did not load, where they must not


@THOROUGH  # a minute for each renderer
@pytest.mark.parametrize("vue", [True, False], ids=["nodes2", "classic"])
def test_a_template_opens_with_text_and_no_link_behind_a_node(open_front: Callable[..., Front], vue: bool):
    """In a window of 1920 × 1080, as the template browser opens them: all of a template is in view."""
    front = open_front(vue=vue)
    front.page.set_viewport_size({"width": 1920, "height": 1080})
    front.wait("app.canvas.canvas.clientWidth > 1800")
    for template in TEMPLATES:
        load_template(front, template)
        assert badly_placed(front) == [], template
        assert front.run(GROWN, {str(node["id"]): node["size"][1] for node in template.page["nodes"]}) == [], template
        assert front.run("app.canvas.ds.scale") >= TEXT_IS_DRAWN, template


@pytest.mark.parametrize("template", [further(t) if t.number in SLOWEST else t for t in TEMPLATES], ids=str)
def test_a_template_is_whole_and_runs_from_the_run_button(front: Front, client: ComfyClient, template: Template):
    load_template(front, template)
    missing = "app.graph.nodes.map(node => node.type).filter(type => !LiteGraph.registered_node_types[type])"
    assert front.run(missing) == []
    assert plain(front.prompt()) == plain(template.prompt)
    fill(front, client)
    outputs = front.press_run(lambda: go_on(front, PAUSES.get(template.graph, 0)))
    images = [item for output in outputs.values() for item in output.get("images", [])]
    assert images
    front.run("app.canvas.fitViewToSelectionAnimated?.() ?? null")
    assert badly_placed(front) == []  # with what the run has shown on its nodes
    front.shot(f"ran-{template}")


def go_on(front: Front, pauses: int) -> None:
    """Answer the pauses of a run that waits for its user, so many of them."""
    for _ in range(pauses):
        badge = front.page.locator(".el-pause-badge")
        step = badge.inner_text()
        front.page.locator(".el-pause-panel").get_by_role("button", name="Continue").click()
        expect(badge.filter(has_text=step)).to_have_count(0)


@THOROUGH  # a minute
def test_without_our_javascript_workflows_are_the_same_and_run(open_front: Callable[..., Front], client: ComfyClient):
    front = open_front(javascript=False)
    assert front.run("app.extensions.filter(e => e.name.startsWith('explainable_latents'))") == []
    for template in TEMPLATES:
        front.load(template.page)
        assert plain(front.prompt()) == plain(template.prompt), template
    fill(front, client)
    assert front.press_run()
    front.errors.clear()  # that our files did not load


def plain(prompt: dict) -> dict:
    """Class and inputs of every node."""
    return {node_id: (node["class_type"], node["inputs"]) for node_id, node in prompt.items()}

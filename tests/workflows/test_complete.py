"""Nothing is left out: every node has its texts, help pages and pictures in every language, and a workflow shows it."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest
from PIL import Image

from tests.tools.comfyui.base import PACK_NAME
from tests.tools.comfyui.client import ComfyClient
from tests.tools.comfyui.paths import ROOT
from tests.tools.workflows.index import TEMPLATES
from tests.tools.workflows.layout import described_inputs

DOCS = ROOT / "js" / "docs"
LANGUAGES = sorted(path.parent.name for path in (ROOT / "locales").glob("*/nodeDefs.json"))
FOREIGN = {"zh": "[\u4e00-\u9fff]"}  # what a text of that language cannot be without
PICTURE = re.compile(r"!\[([^]]+)\]\((images/[\w.]+)\)")
PICTURE_BYTES = 60 * 1024


@pytest.fixture
def nodes(client: ComfyClient) -> dict[str, dict[str, Any]]:
    """Our nodes as the server describes them."""
    found = {name: node for name, node in client.object_info().items() if name.startswith("EL")}
    assert found
    return found


def test_there_is_a_second_language():
    assert LANGUAGES
    assert set(LANGUAGES) == set(FOREIGN)


def test_every_node_says_what_it_is(nodes):
    lacking = [
        f"{name}: {what}"
        for name, node in nodes.items()
        for what in ("display_name", "category", "description", "search_aliases")
        if not node.get(what)
    ]
    assert lacking == []


def test_every_input_and_output_has_a_tooltip(nodes):
    lacking = [
        f"{name}.{entry}" for name, node in nodes.items() for entry, _, options in described_inputs(node)
        if not options.get("tooltip")
    ]  # fmt: skip
    for name, node in nodes.items():
        tips = node["output_tooltips"] or ()
        assert len(tips) == len(node["output"]), name
        lacking += [f"{name} -> {title}" for title, tip in zip(node["output_name"], tips, strict=True) if not tip]
    assert lacking == []


def expected_texts(node: dict[str, Any]) -> set[str]:
    """The places in a locale file that a node needs filled."""
    places = {"display_name", "description"}
    for entry, _, options in described_inputs(node):
        places |= {f"inputs.{entry}.name", f"inputs.{entry}.tooltip"}
        if options.get("control_after_generate"):
            places.add("inputs.control_after_generate.name")
    for slot in range(len(node["output"])):
        places |= {f"outputs.{slot}.name", f"outputs.{slot}.tooltip"}
    return places


def texts(tree: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """The texts of a locale file by their place."""
    found = {}
    for key, value in tree.items():
        found |= texts(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_browser_gets_every_text_in_the_language_and_none_that_is_stale(get, nodes, language):
    served = json.loads(get("/api/i18n"))[language]
    translated = served["nodeDefs"]
    assert set(translated) >= set(nodes), "nodes without an entry"
    assert {name for name in translated if name.startswith("EL")} <= set(nodes), "entries of nodes that are gone"
    for name, node in nodes.items():
        found = texts(translated[name])
        assert set(found) == expected_texts(node), name
        assert all(text.strip() for text in found.values()), name
        # the front end's message format gives these a meaning of their own
        assert not [text for text in found.values() if re.search("[{}@|]", text)], name
        sentences = [text for place, text in found.items() if place.endswith(("tooltip", "description"))]
        assert [text for text in sentences if not re.search(FOREIGN[language], text)] == [], name
    categories = {node["category"] for node in nodes.values()}
    assert categories <= set(served["nodeCategories"])


@pytest.mark.parametrize("language", ["en", *LANGUAGES])
def test_every_node_has_a_help_page_with_a_picture(get, nodes, language):
    for name, node in nodes.items():
        title = node["display_name"]
        path = f"{name}.md"
        if language != "en":
            path = f"{name}/{language}.md"
            title = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_bytes())[name]["display_name"]
        page = get(f"/extensions/{PACK_NAME}/docs/{path}").decode()
        assert page.splitlines()[0] == f"# {title}", path
        # the front end looks for pictures beside the English pages, whatever the language
        pictures = PICTURE.findall(page)
        assert [picture for _, picture in pictures] == [f"images/{name}.webp"], path
        data = get(f"/extensions/{PACK_NAME}/docs/{pictures[0][1]}")
        assert len(data) <= PICTURE_BYTES, pictures
        assert Image.open(io.BytesIO(data)).format == "WEBP"


def test_no_page_or_picture_is_of_a_node_that_is_gone(nodes):
    assert {path.stem for path in DOCS.glob("*.md")} == {"guide", *nodes}
    assert {path.stem for path in (DOCS / "images").glob("EL*")} == set(nodes)
    for language in LANGUAGES:
        assert {path.parent.name for path in DOCS.glob(f"*/{language}.md")} == {"guide", *nodes}
    assert {path.stem for path in DOCS.glob("*/*.md")} == set(LANGUAGES)


def test_every_node_is_in_a_shipped_workflow(nodes):
    graphs = [json.loads(path.read_text(encoding="utf-8")) for path in (ROOT / "workflows" / "api").glob("*.json")]
    shown = {node["class_type"] for graph in graphs for node in graph.values()}
    assert sorted(set(nodes) - shown) == []


def test_the_readme_names_every_node(nodes):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = " ".join(line.split("|")[1] for line in readme.splitlines() if line.startswith("| "))
    assert [node["display_name"] for node in nodes.values() if node["display_name"] not in rows] == []


def test_notes_of_the_workflows_have_no_inline_code():
    """The front end shows it in a colour that can hardly be read on a note."""
    for path in (ROOT / "workflows").glob("*.json"):
        notes = [n for n in json.loads(path.read_text(encoding="utf-8"))["nodes"] if n["type"] == "MarkdownNote"]
        assert notes, path
        assert not any("`" in note["widgets_values"][0] for note in notes), path


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_guide_and_the_readme_are_an_index_of_the_templates(language):
    pages = {"en": ["README.md", "js/docs/guide.md"], "zh": ["js/docs/guide/zh.md"]}[language]
    for page in pages:
        text = (ROOT / page).read_text(encoding="utf-8")
        rows = re.findall(r"^\| (\d\d\w? [^|]+) \| ([^|]+) \|$", text, re.MULTILINE)
        expected = [(f"{each.number} {each.title[language]}", each.description[language]) for each in TEMPLATES]
        assert rows == expected, page

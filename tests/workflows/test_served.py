"""What the browser gets from the pack, linked as an installation has it: the workflow templates."""

import json
from urllib.parse import quote

import pytest

from tests.tools.comfyui.base import PACK_NAME
from tests.tools.comfyui.paths import ROOT
from tests.tools.workflows.graphs import API
from tests.tools.workflows.index import TEMPLATES


def test_the_template_gallery_lists_every_workflow(get):
    listed = json.loads(get("/api/workflow_templates"))[PACK_NAME]
    assert sorted(listed) == [template.file for template in TEMPLATES]


def test_every_graph_has_its_template_and_gallery_picture():
    assert sorted(path.stem for path in API.glob("*.json")) == [template.graph for template in TEMPLATES]
    pictures = sorted(path.stem for path in (ROOT / "workflows").glob("*.jpg"))
    assert pictures == [template.file for template in TEMPLATES]


@pytest.mark.parametrize("name", [quote(template.file) for template in TEMPLATES])
def test_a_template_and_its_thumbnail_are_served(get, name: str):
    graph = json.loads(get(f"/api/workflow_templates/{PACK_NAME}/{name}.json"))
    assert graph["nodes"]
    assert get(f"/api/workflow_templates/{PACK_NAME}/{name}.jpg").startswith(b"\xff\xd8")

"""What the browser gets from the pack, linked as an installation has it: the workflow templates."""

import json

import pytest

from tests.tools.comfyui.base import PACK_NAME
from tests.tools.comfyui.paths import ROOT

WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))


def test_the_template_gallery_lists_every_workflow(get):
    listed = json.loads(get("/api/workflow_templates"))[PACK_NAME]
    assert sorted(listed) == [file.stem for file in WORKFLOWS]


@pytest.mark.parametrize("name", [file.stem for file in WORKFLOWS] or ["01_baseline"])
def test_a_template_and_its_thumbnail_are_served(get, name: str):
    graph = json.loads(get(f"/api/workflow_templates/{PACK_NAME}/{name}.json"))
    assert graph["nodes"]
    assert get(f"/api/workflow_templates/{PACK_NAME}/{name}.jpg").startswith(b"\xff\xd8")

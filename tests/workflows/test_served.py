"""What the browser gets from the pack, linked as an installation has it: help pages and workflow templates."""

import json

import pytest
import requests

from tests.comfyui.base import PACK_NAME
from tests.comfyui.client import ComfyClient
from tests.comfyui.paths import ROOT
from tests.comfyui.server import ComfyServer

WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))


def get(server: ComfyServer, path: str) -> bytes:
    answer = requests.get(server.url + path, timeout=10, proxies={"no_proxy": "*"})
    assert answer.ok, f"{path}: {answer.status_code}"
    return answer.content


def test_every_node_has_a_help_page(server: ComfyServer, client: ComfyClient):
    ids = [name for name in client.object_info() if name.startswith("EL")]
    assert ids
    for node_id in ids:
        page = get(server, f"/extensions/{PACK_NAME}/docs/{node_id}.md")
        assert page == (ROOT / "js" / "docs" / f"{node_id}.md").read_bytes()
        assert len(page) > 200


def test_the_template_gallery_lists_every_workflow(server: ComfyServer):
    listed = json.loads(get(server, "/api/workflow_templates"))[PACK_NAME]
    assert sorted(listed) == [file.stem for file in WORKFLOWS]


@pytest.mark.parametrize("name", [file.stem for file in WORKFLOWS] or ["01_baseline"])
def test_a_template_and_its_thumbnail_are_served(server: ComfyServer, name: str):
    graph = json.loads(get(server, f"/api/workflow_templates/{PACK_NAME}/{name}.json"))
    assert graph["nodes"]
    assert get(server, f"/api/workflow_templates/{PACK_NAME}/{name}.jpg").startswith(b"\xff\xd8")

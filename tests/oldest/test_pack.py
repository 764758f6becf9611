"""The pack in the real ComfyUI on the oldest Python that it promises. Run by `make test-oldest`, which sets both up."""

import sys
from dataclasses import replace
from pathlib import Path

from tests.tools.comfyui.client import ComfyClient
from tests.tools.comfyui.install import Environment, plan
from tests.tools.comfyui.server import ComfyServer
from tests.tools.toy_world.cases import keep_the_context
from tests.tools.workflows.graphs import Workflow
from tests.tools.workflows.pipelines import run_case


def test_a_shipped_workflow_runs_on_this_python():
    host = replace(plan({}), environments=(Environment(Path(sys.prefix), ()),))
    workflow = Workflow.shipped("02_aggregated_attention")
    with ComfyServer(host=host) as server, ComfyClient(server) as client:
        assert client.stats()["system"]["python_version"] == sys.version
        result = run_case(client, workflow, keep_the_context()[0], steps=4, manipulate_at="1, 2")
    assert result.images(workflow.node("Result"))

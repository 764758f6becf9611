"""Nodes that make the real server do what users' graphs do to it: take long, fail, show text."""

import time

import comfy.utils
from comfy_api.latest import ComfyExtension, io, ui

CATEGORY = "tests"


class TestSlow(io.ComfyNode):
    """Takes `steps` times 20 ms and reports its progress, which is also where a cancel reaches it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TestSlow",
            category=CATEGORY,
            is_output_node=True,
            inputs=[io.Int.Input("steps"), io.Int.Input("seed")],
        )

    @classmethod
    def execute(cls, steps: int, seed: int) -> io.NodeOutput:
        progress = comfy.utils.ProgressBar(steps)
        for _ in range(steps):
            time.sleep(0.02)
            progress.update(1)
        return io.NodeOutput(ui=ui.PreviewText(f"{steps} steps, seed {seed}"))


class TestFail(io.ComfyNode):
    """Fails with `message`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TestFail", category=CATEGORY, is_output_node=True, inputs=[io.String.Input("message")]
        )

    @classmethod
    def execute(cls, message: str) -> io.NodeOutput:
        raise ValueError(message)


class TestNodes(ComfyExtension):
    """What ComfyUI loads."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [TestSlow, TestFail]


async def comfy_entrypoint() -> ComfyExtension:
    return TestNodes()

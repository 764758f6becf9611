"""Nodes that make the real server do what users' graphs do to it: take long, fail, show text, use up the memory."""

import itertools
import json
import time
import types
from typing import Any

import comfy.utils
import comfy_execution.caching
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


class TestNumbers(io.ComfyNode):
    """Shows labels and numbers of saliency as JSON."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TestNumbers",
            category=CATEGORY,
            is_output_node=True,
            inputs=[io.Custom("EL_SALIENCY").Input("saliency")],
        )

    @classmethod
    def execute(cls, saliency: Any) -> io.NodeOutput:
        maps = dict(zip(saliency.labels, saliency.maps.flatten(1).tolist(), strict=True))
        return io.NodeOutput(ui=ui.PreviewText(json.dumps(maps)))


class TestScarceMemory(io.ComfyNode):
    """The host finds memory short until its RAM-pressure cache has dropped so many entries, of its own choice."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TestScarceMemory",
            category=CATEGORY,
            is_output_node=True,
            inputs=[io.Int.Input("entries"), io.Int.Input("seed")],
        )

    @classmethod
    def execute(cls, entries: int, seed: int) -> io.NodeOutput:
        # the cache asks once before it begins, and before each entry
        answers = itertools.chain([0] * (entries + 1), itertools.repeat(2**60))
        memory = types.SimpleNamespace(virtual_memory=lambda: types.SimpleNamespace(available=next(answers)))
        comfy_execution.caching.psutil = memory
        return io.NodeOutput(ui=ui.PreviewText(f"{entries} entries"))


class TestNodes(ComfyExtension):
    """What ComfyUI loads."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [TestSlow, TestFail, TestNumbers, TestScarceMemory]


async def comfy_entrypoint() -> ComfyExtension:
    return TestNodes()

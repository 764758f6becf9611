"""Nodes that make the real server do what users' graphs do to it: take long, fail, show text, use up the memory."""

import gc
import itertools
import json
import sys
import threading
import time
import types
from typing import Any

import comfy.utils
import comfy_execution.caching
import psutil
import torch
from comfy_api.latest import ComfyExtension, io, ui
from server import PromptServer

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


class TestLeftOver(io.ComfyNode):
    """Shows what is alive on the server: objects of pauses, its threads, how many websockets, events and tensors it
    has, and its memory in bytes.
    """

    CLASSES = (
        "Pause",
        "Painter",
        "RunWithPauses",
        "StagedValues",
        "LivePrompt",
        "ShownCall",
        "SamplingEnded",
        "Answer",
        "VariantsOfRun",
        "Asker",
        "FreshStart",
        "WentBack",
    )

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(node_id="TestLeftOver", category=CATEGORY, is_output_node=True, inputs=[io.Int.Input("seed")])

    @classmethod
    def execute(cls, seed: int) -> io.NodeOutput:
        gc.collect()
        kinds = [type(each) for each in gc.get_objects()]
        alive = [kind.__name__ for kind in kinds if kind.__name__ in cls.CLASSES and ".nodes.host." in kind.__module__]
        # the server keeps threads of its own for what it answers beside its loop
        threads = [each.name for each in threading.enumerate() if not each.name.startswith("asyncio")]
        found = {
            "alive": alive,
            "threads": sorted(threads),
            "sockets": len(PromptServer.instance.sockets),
            "events": kinds.count(threading.Event) - threading.active_count(),  # each thread has one
            "tensors": sum(issubclass(kind, torch.Tensor) for kind in kinds),
            "bytes": psutil.Process().memory_info().rss,
        }
        return io.NodeOutput(ui=ui.PreviewText(json.dumps(found)))


def of_the_pack(name: str) -> types.ModuleType:
    """A module of the pack, which the host imports under a name that depends on its folder."""
    return next(module for full, module in list(sys.modules.items()) if full.endswith(f".nodes.{name}"))


class TestAsks(io.ComfyNode):
    """Asks its user as a sampler does, with another grace for a browser that has gone; shows why the pause was over."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = [io.Float.Input("grace"), io.String.Input("then"), io.Int.Input("seed")]
        return io.Schema(node_id="TestAsks", category=CATEGORY, is_output_node=True, inputs=inputs)

    @classmethod
    def execute(cls, grace: float, then: str, seed: int) -> io.NodeOutput:
        limit = of_the_pack("host.pauses.pause").Limit(60.0, then, grace)
        outcome = of_the_pack("host.pauses.asking").ask(lambda: {"kind": "step", "step": 1, "values": []}, limit)
        return io.NodeOutput(ui=ui.PreviewText(outcome.reason))


class TestNodes(ComfyExtension):
    """What ComfyUI loads."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [TestSlow, TestFail, TestNumbers, TestScarceMemory, TestLeftOver, TestAsks]


async def comfy_entrypoint() -> ComfyExtension:
    return TestNodes()

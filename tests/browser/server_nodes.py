"""Nodes for tests: as many maps as a long run gives, without the run; a prompt that a node computes."""

from __future__ import annotations

import importlib
import itertools

import nodes
import torch
import torch.nn.functional as F
from comfy_api.latest import ComfyExtension, io

LABELS = ("dog", "cat", "house", "tree", "beach", "sky", "ball", "<img src=x onerror=alert(1)>")


class TestSaliency(io.ComfyNode):
    """For each step and word a round spot that wanders: word w at column w · width / words, row by step.

    The second picture is the first one's mirror image. Refining once more makes the spots wider.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TestSaliency",
            category="tests",
            inputs=[
                io.Int.Input("steps"),
                io.Int.Input("words", max=len(LABELS)),
                io.Int.Input("side"),
                io.Boolean.Input("same", default=False, optional=True),
                io.Int.Input("pictures", default=1, max=2, optional=True),
                io.Int.Input("refine", default=0, max=8, optional=True),
            ],
            outputs=[io.Custom("EL_SALIENCY").Output()],
        )

    @classmethod
    def execute(
        cls, steps: int, words: int, side: int, same: bool = False, pictures: int = 1, refine: int = 0
    ) -> io.NodeOutput:
        at = torch.arange(side, dtype=torch.float32)
        maps = [
            torch.exp(-((at[:, None] - side * (s + 0.5) / steps) ** 2 + (at - side * (w + 0.5) / words) ** 2) / side)
            for s in range(steps)
            for w in range(words)
        ]
        names = tuple(f"{LABELS[0]}#{w + 1}" for w in range(words)) if same else LABELS[:words]
        labels = names if steps == 1 else tuple(f"{name}, step {s}" for s in range(steps) for name in names)
        module = nodes.NODE_CLASS_MAPPINGS["ELSaliencyOverlay"].__module__.removesuffix("images") + "core.maps.saliency"
        batch = torch.stack([torch.stack(maps), torch.stack(maps).flip(-1)][:pictures], 1)
        *less, most = itertools.accumulate([batch] + [3] * refine, lambda maps, size: F.avg_pool2d(maps, size, 1, 1))
        made = importlib.import_module(module).Saliency(most, labels, 1.0, None, (side, side), 8, refine, tuple(less))
        return io.NodeOutput(made)


class TestPrompt(io.ComfyNode):
    """A prompt that is computed from the only text of the node, as nodes with styles or wildcards do."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TestPrompt", category="tests", inputs=[io.String.Input("style")], outputs=[io.String.Output()]
        )

    @classmethod
    def execute(cls, style: str) -> io.NodeOutput:
        return io.NodeOutput(f"a {style} on the beach")


class TestNodes(ComfyExtension):
    """What ComfyUI loads."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [TestSaliency, TestPrompt]


async def comfy_entrypoint() -> ComfyExtension:
    return TestNodes()

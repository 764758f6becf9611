"""A ComfyUI node for `same_pictures`: makes what nodes give a LATENT, which the host saves with all its bits."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import ComfyExtension, io


class TestExactNumbers(io.ComfyNode):
    """The numbers of a MASK, an IMAGE or saliency."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TestExactNumbers",
            category="tests",
            inputs=[io.AnyType.Input("value")],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, value: Any) -> io.NodeOutput:
        return io.NodeOutput({"samples": getattr(value, "maps", value)})


class TestNodes(ComfyExtension):
    """What ComfyUI loads."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [TestExactNumbers]


async def comfy_entrypoint() -> ComfyExtension:
    return TestNodes()

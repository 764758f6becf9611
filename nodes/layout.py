"""Layout from Text: boxes for words, written by a person or a language model, or drawn on the node."""

from __future__ import annotations

from comfy_api.latest import io, ui

from .core.layout_text.units import AUTO, ORDERS, UNITS
from .host.layouts import layout_outputs
from .sockets import CATEGORY, Layout


class ELLayoutFromText(io.ComfyNode):
    """Reads boxes with words from a text, as people and language models write them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELLayoutFromText",
            display_name="Layout from Text",
            category=CATEGORY,
            description="Where things are to go in the picture: boxes with words, from a text ('dog: left half'), "
            "from the answer of a language model, or drawn on the node by mouse or keyboard.",
            search_aliases=["bounding box", "boxes", "regions", "llm planner", "layout", "bbox", "draw boxes"],
            is_output_node=True,
            inputs=[
                io.String.Input(
                    "text",
                    multiline=True,
                    default="dog: left half\nball: 0.6, 0.7, 0.2, 0.2",
                    tooltip="An entry in each line, or with semicolons between them: words, a colon, and a place (left "
                    "half, right third, top, centre, top left corner) or x, y, width and height. Or the list of a "
                    "language model, with whatever stands around it. Boxes that you move on the node are written here.",
                ),
                io.Int.Input(
                    "width",
                    default=512,
                    min=16,
                    max=4096,
                    step=8,
                    tooltip="Width of the masks and of the preview in pixels. Shares and places do not depend on it.",
                ),
                io.Int.Input(
                    "height",
                    default=512,
                    min=16,
                    max=4096,
                    step=8,
                    tooltip="Height of the masks and of the preview in pixels.",
                ),
                io.Combo.Input(
                    "numbers",
                    options=list(UNITS),
                    default=AUTO,
                    advanced=True,
                    tooltip="What plain numbers are; a number with a percent sign is always percent. auto: shares of "
                    "the picture if none is above 1, else pixels of a picture of 512x512, as language models plan, or "
                    "thousandths of the picture under the names bbox_2d and box_2d. pixels: of width and height.",
                ),
                io.Combo.Input(
                    "order",
                    options=list(ORDERS),
                    default=AUTO,
                    advanced=True,
                    tooltip="What the four numbers of a box are. auto: x, y, width, height; under the name bbox_2d "
                    "left, top, right, bottom, and under box_2d top, left, bottom, right. Numbers with names of their "
                    "own (x1, width) are read by these.",
                ),
            ],
            outputs=[
                Layout.Output(display_name="layout", tooltip="The boxes with their words."),
                io.Mask.Output(
                    display_name="masks",
                    tooltip="A mask for each box, in the order of the text: 1 inside. A pixel that the box covers in "
                    "part has that share.",
                ),
                io.Image.Output(display_name="preview", tooltip="The boxes with their words, drawn."),
            ],
        )

    @classmethod
    def execute(cls, text: str, width: int, height: int, numbers: str, order: str) -> io.NodeOutput:
        """Read the text and show the boxes on the node."""
        layout, masks, preview, shown = layout_outputs(text, numbers, order, height, width)
        return io.NodeOutput(layout, masks, preview, ui={**ui.PreviewImage(preview, cls=cls).as_dict(), **shown})


NODES = [ELLayoutFromText]

"""Gaussian Smooth and Dilate take saliency or a mask, and the browser lets them connect accordingly."""

from __future__ import annotations

from tests.tools.browser.front import Front

CONNECT = """([source, target, name]) => {
    const find = (title) => app.graph.nodes.find((node) => node.title === title);
    const [from, to] = [find(source), find(target)];
    const slot = to.inputs.findIndex((input) => input.name === name);
    from.connect(0, to, slot);
    const link = app.graph.getLink(to.inputs[slot].link);
    return { linked: link !== undefined && link !== null && link.origin_id === from.id, gives: to.outputs[0]?.type };
}"""


def test_what_goes_in_comes_out(either_front: Front):
    front = either_front

    def connect(source: str, target: str, name: str) -> dict:
        return front.run(CONNECT, [source, target, name])

    for kind in ("ELSmoothSaliency", "ELDilateSaliency"):
        front.clear()
        nodes = {"probe": "ELProbeAttention", "mask": "SolidMask", "image": "EmptyImage", "invert": "InvertMask"}
        for title, node in {**nodes, "threshold": "ELSaliencyToMask", "first": kind, "second": kind}.items():
            front.add(node, title)
        assert connect("mask", "first", "maps") == {"linked": True, "gives": "MASK"}
        assert connect("first", "invert", "mask")["linked"]
        assert not connect("first", "threshold", "saliency")["linked"]
        assert connect("probe", "second", "maps") == {"linked": True, "gives": "EL_SALIENCY"}
        assert connect("second", "threshold", "saliency")["linked"]
        assert not connect("image", "second", "maps")["linked"]

"""Placing nodes: no wire passes under a node, all go to the right, and what cannot be placed is refused."""

import pytest

from tests.tools.workflows.pages import Column, Page
from tests.tools.workflows.placing import HEIGHTS, ROW_GAP, TITLE_BAR, Box, Wire, place

NOTES = (0, 0), (0, 0)


def graph(**kinds: str) -> dict:
    return {str(i): {"class_type": kind, "_meta": {"title": title}} for i, (title, kind) in enumerate(kinds.items())}


def columns(*titles: tuple[str, ...]) -> tuple[Column, ...]:
    return tuple(Column(200, "a", each) for each in titles)


def test_a_wire_that_nothing_is_in_the_way_of_is_straight():
    boxes = {"a": Box(0, 0, 100, 50), "b": Box(400, 0, 100, 50), "c": Box(200, 0, 100, 50)}
    points = list(Wire("a", 0, "b", 0).points(boxes))
    assert points[0] == (100, 14)
    assert points[-1] == (400, 14)
    assert [y for _, y in points] == pytest.approx([14] * len(points))
    assert len(Wire("a", 0, "b", 0).under(boxes, "c")) > 5
    boxes["c"].y = 100
    assert Wire("a", 0, "b", 0).under(boxes, "c") == []


def test_a_wire_ends_at_the_sockets_and_at_the_bar_of_a_folded_node():
    boxes = {"a": Box(0, 0, 100, 50), "b": Box(400, 100, 100, 0, folded=True)}
    points = list(Wire("a", 2, "b", 3).points(boxes))
    assert points[0] == (100, 14 + 2 * 20)
    assert points[-1] == (400, 100 - 15)


def test_a_node_is_moved_below_the_wires_that_pass_over_it_with_those_under_it():
    page = Page(columns(("a",), ("b", "c"), ("d",)), NOTES)
    kinds = graph(a="LoadImage", b="VAEEncode", c="VAEDecode", d="SaveImage")
    boxes = place(page, kinds, [Wire("a", 0, "d", 0)])
    assert boxes["b"].y - TITLE_BAR > 14
    assert boxes["c"].y == boxes["b"].y + HEIGHTS["VAEEncode"] + ROW_GAP + TITLE_BAR
    assert boxes["a"].y == boxes["d"].y == 0
    assert [boxes[title].x for title in "abcd"] == [0, 244, 244, 488]


def test_what_cannot_be_placed_is_refused():
    kinds = graph(a="LoadImage", b="VAEEncode")
    with pytest.raises(ValueError, match="from 'b' to 'a' does not go to the right"):
        place(Page(columns(("a",), ("b",)), NOTES), kinds, [Wire("b", 0, "a", 0)])
    with pytest.raises(ValueError, match=r"the page names \['a'\], the graph has \['a', 'b'\]"):
        place(Page(columns(("a",)), NOTES), kinds, [])

"""Named places of a picture."""

from __future__ import annotations

import itertools

import pytest

from explainable_latents.nodes.core.layout_text.places import read_place

THIRD = pytest.approx(1 / 3)
TWO_THIRDS = pytest.approx(2 / 3)
# Name -> left, top, right, bottom.
PLACES = {
    "left half": (0, 0, 0.5, 1),
    "left": (0, 0, 0.5, 1),
    "right": (0.5, 0, 1, 1),
    "top": (0, 0, 1, 0.5),
    "bottom half": (0, 0.5, 1, 1),
    "right third": (TWO_THIRDS, 0, 1, 1),
    "left two thirds": (0, 0, TWO_THIRDS, 1),
    "top quarter": (0, 0, 1, 0.25),
    "bottom three quarters": (0, 0.25, 1, 1),
    "centre": (0.25, 0.25, 0.75, 0.75),
    "center third": (THIRD, THIRD, TWO_THIRDS, TWO_THIRDS),
    "middle column": (THIRD, 0, TWO_THIRDS, 1),
    "middle row": (0, THIRD, 1, TWO_THIRDS),
    "top centre": (0.25, 0, 0.75, 0.5),
    "centre left third": (0, 0.25, THIRD, 0.75),
    "top left": (0, 0, 0.5, 0.5),
    "bottom right quarter": (0.5, 0.5, 1, 1),
    "top left corner": (0, 0, THIRD, THIRD),
    "bottom-right corner": (TWO_THIRDS, TWO_THIRDS, 1, 1),
    "upper right third": (TWO_THIRDS, 0, 1, THIRD),
    "whole picture": (0, 0, 1, 1),
    "everywhere": (0, 0, 1, 1),
    "The LEFT half of the picture": (0, 0, 0.5, 1),
    "on the right side": (0.5, 0, 1, 1),
    "左半": (0, 0, 0.5, 1),
    "右边": (0.5, 0, 1, 1),
    "上方": (0, 0, 1, 0.5),
    "左上角": (0, 0, THIRD, THIRD),
    "右下": (0.5, 0.5, 1, 1),
    "左侧三分之一": (0, 0, THIRD, 1),
    "中间": (0.25, 0.25, 0.75, 0.75),
    "全图": (0, 0, 1, 1),
}
NONE = (
    "",
    "half",
    "lft half",
    "left right",
    "left left",
    "top bottom",
    "top left half",
    "left corner",
    "centre corner",
    "behind the dog",
    "whole left",
    "centre centre",
    "of the picture",
    "left half and right half",
    "中间左右",
)


@pytest.mark.parametrize("name", PLACES)
def test_where_a_place_is(name: str):
    assert read_place(name) == PLACES[name]


@pytest.mark.parametrize("name", NONE)
def test_what_is_no_place(name: str):
    assert read_place(name) is None


def test_opposite_places_are_mirror_images():
    sizes = ("", "half", "third", "quarter", "two thirds", "three quarters")
    for left, right, size in ((*pair, size) for pair in (("left", "right"), ("top", "bottom")) for size in sizes):
        one, other = read_place(f"{left} {size}"), read_place(f"{right} {size}")
        assert one is not None
        assert sorted([*one]) == pytest.approx(sorted(1 - side for side in other))


def test_the_order_of_words_does_not_matter():
    for words in (("top", "left", "corner"), ("bottom", "centre", "third")):
        found = {read_place(" ".join(each)) for each in itertools.permutations(words)}
        assert len(found) == 1
        assert None not in found

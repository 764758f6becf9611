"""Where each word belongs: which box names which word, and which cells of a grid are its own."""

from __future__ import annotations

import re

import pytest
import torch

from explainable_latents.nodes.core.layout import Box, Layout
from explainable_latents.nodes.core.methods.guidance import Part
from explainable_latents.nodes.core.methods.word_places import Boxes, Masks, in_boxes, inside, placed
from explainable_latents.nodes.core.words.subjects import Subject, Subjects

LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)


def subjects(*texts: str) -> Subjects:
    """Words of a prompt; those that are alike are numbered."""
    items = []
    for i, text in enumerate(texts):
        number = texts[: i + 1].count(text) if texts.count(text) > 1 else 0
        items.append(Subject(text, "subject", (i, i + 1), {"l": (i + 1,)}, number=number))
    return Subjects(" ".join(texts), tuple(items), "rules")


def layout(*words: str) -> Layout:
    """A box for each, one below the other."""
    return Layout(tuple(Box(each, 0.0, i / len(words), 1.0, (i + 1) / len(words)) for i, each in enumerate(words)))


@pytest.mark.parametrize(
    ("prompt", "boxes", "expected"),
    [
        (("dog", "cat"), ("cat", "dog"), {"dog": [1], "cat": [0]}),
        (("dog", "cat", "park"), ("a red dog",), {"dog": [0]}),
        (("red car", "sheep"), ("CAR", "Sheep"), {"red car": [0], "sheep": [1]}),
        (("dog", "dog"), ("dog", "a dog"), {"dog#1": [0], "dog#2": [1]}),
        (("dog", "dog"), ("dog#2", "dog"), {"dog#1": [1], "dog#2": [0]}),
        (("dog",), ("dog", "dog"), {"dog": [0, 1]}),
        (("dog", "cat"), ("a dog and a cat",), {"dog": [0], "cat": [0]}),
        (("dog", "hot dog"), ("hot dog",), {"hot dog": [0]}),
        (("狗", "猫"), ("猫",), {"猫": [0]}),
        (("狗", "猫"), ("一只白色的猫", "dog和狗"), {"狗": [1], "猫": [0]}),
        (("t-shirt", "shirt"), ("a red t-shirt",), {"t-shirt": [0]}),
    ],
)
def test_a_box_names_words_by_label_or_text(prompt, boxes, expected):
    asked = layout(*boxes)
    words, places = in_boxes(subjects(*prompt), asked)
    found = dict(zip(words.labels, places.boxes, strict=True))
    assert found == {label: tuple(asked.boxes[i] for i in numbers) for label, numbers in expected.items()}


@pytest.mark.parametrize("box", ["do", "cats", "ball", "!"])
def test_a_box_that_names_no_word_is_refused_with_the_words_there_are(box):
    says = re.escape(f"the box of '{box}' names no word of the prompt; its words are: dog, cat. Write one of them")
    with pytest.raises(ValueError, match=says):
        in_boxes(subjects("dog", "cat"), layout("dog", box))


def test_several_boxes_of_a_word_are_its_place_together():
    found = Boxes(((Box("dog", *LEFT), Box("dog", 0.25, 0.0, 0.75, 0.5)),)).shares((2, 4))
    assert found.tolist() == [[[1, 1, 1, 0], [1, 1, 0, 0]]]


def test_masks_are_averaged_onto_the_grid_and_a_tiny_place_is_still_one():
    masks = torch.zeros(2, 64, 64)
    masks[0, :32], masks[1, 5, 5] = 1, 1
    found = inside(Masks(masks), (8, 8), Part((16, 16), (0, 0), (16, 16)))
    assert found[0].sum(1).tolist() == [8, 8, 8, 8, 0, 0, 0, 0]
    assert found[1].nonzero().tolist() == [[0, 0]]
    with pytest.raises(ValueError, match="mask 2 is empty: each word needs a place of its own"):
        Masks(torch.stack([masks[0], torch.zeros(64, 64)]))


@pytest.mark.parametrize("grid", [(1, 1), (3, 5), (5, 3), (9, 7)])
def test_a_box_has_a_cell_on_every_grid_and_a_mask_of_it_has_the_same(grid):
    boxes = Boxes(((Box("dog", 0.31, 0.42, 0.33, 0.9),), (Box("cat", *RIGHT),)))
    size = 100, 100
    part = Part(size, (0, 0), size)
    found = inside(boxes, grid, part)
    assert found.any(dim=(1, 2)).all()
    assert torch.equal(inside(Masks(boxes.shares(size)), grid, part), found)


def test_a_part_of_the_latent_sees_its_part_of_a_place():
    boxes, part = Boxes(((Box("dog", *LEFT),), (Box("cat", *RIGHT),))), Part((8, 8), (2, 2), (4, 4))
    dog, cat = inside(boxes, (2, 2), part).tolist()
    assert dog == [[True, False]] * 2
    assert cat == [[False, True]] * 2
    assert not inside(boxes, (2, 2), Part((8, 8), (0, 4), (8, 4)))[0].any()


def test_either_a_layout_or_a_mask_for_each_word():
    words, masks = subjects("dog", "cat"), torch.ones(2, 8, 8)
    assert placed(words, layout("cat"), None)[0].labels == ("cat",)
    assert placed(words, None, masks)[0] == words
    with pytest.raises(ValueError, match="Neither layout nor masks are connected: connect one of them"):
        placed(words, None, None)
    with pytest.raises(ValueError, match="Both layout and masks are connected"):
        placed(words, layout("cat"), masks)
    with pytest.raises(ValueError, match=r"there are 1 masks for 2 words \(dog, cat\)\. Connect one mask for each"):
        placed(words, None, masks[:1])


@pytest.mark.parametrize(("share", "columns"), [(0.45, 1), (0.55, 2)])
def test_a_cell_is_a_words_own_if_its_place_covers_more_than_half_of_it(share, columns):
    places = Boxes(((Box("dog", 0.0, 0.0, (1 + share) / 4, 1.0),),))  # one column of four, and this share of the next
    own = inside(places, (4, 4), Part((4, 4), (0, 0), (4, 4)))
    expected = torch.zeros(1, 4, 4, dtype=torch.bool)
    expected[..., :columns] = True
    assert torch.equal(own, expected)

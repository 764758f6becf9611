"""Segment Picture on the toy checkpoint."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.tools.toy_world.pictures import random_picture
from tests.tools.workflows.pipelines import TOY_THRESHOLD

SEEDS = range(920_000, 920_003)


@pytest.fixture(scope="module")
def drawn():
    return [random_picture(seed) for seed in SEEDS]


@pytest.fixture(scope="module")
def latent(toy, drawn):
    return {"samples": torch.cat([toy.vae.encode(torch.from_numpy(p.image.copy()).float()[None] / 255) for p in drawn])}


DEFAULTS = {
    "threshold": TOY_THRESHOLD,
    "anchors": 16,
    "k_means": False,
    "noise_level": 0.3,
    "add_noise": False,
    "seed": 0,
}


def segment(nodes, toy, latent, positive=None, **more):
    inputs = {"model": toy.model, "positive": positive or toy.negative, "latent": latent, **DEFAULTS, **more}
    return nodes["ELSegmentPicture"].execute(**inputs)


def lines_of(shown):
    """The lines of the only text that was shown on the node; spaces at their ends are the host's Markdown."""
    (text,) = shown
    return [line.rstrip() for line in text.splitlines()]


def test_a_batch_gives_label_maps_masks_and_lines(nodes, toy, latent, shown):
    out = segment(nodes, toy, latent)
    images, masks, text = out.result
    assert images.shape == (3, 128, 128, 3)
    assert images.dtype == masks.dtype == torch.float32
    assert lines_of(shown()) == text.splitlines()
    assert out.ui["text"] == (text,)
    assert len(out.ui["images"]) == 3
    lines = text.splitlines()
    assert len(lines) == len(masks)
    areas = [(line.split()[3].rstrip("):"), float(mask.sum())) for line, mask in zip(lines, masks, strict=True)]
    for picture in "123":
        own = [area for number, area in areas if number == picture]
        assert own == sorted(own, reverse=True)
        assert sum(own) == 128 * 128
    # as many colours in a picture as it has masks
    counts = [len(image.flatten(0, 1).unique(dim=0)) for image in images]
    assert counts == [sum(number == picture for number, _ in areas) for picture in "123"]


def test_the_same_input_gives_the_same_regions(nodes, toy, latent):
    one, other = (segment(nodes, toy, latent).result for _ in range(2))
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])
    assert one[2] == other[2]


def test_one_region_of_each_picture_is_its_subject(nodes, toy, latent, drawn):
    """Mean over the pictures; the mean of the best of as many random squares is below 0.3."""
    _, masks, text = segment(nodes, toy, latent).result
    best = []
    for number, picture in enumerate(drawn, 1):
        lines = zip(masks.bool().numpy(), text.splitlines(), strict=True)
        own = [mask for mask, line in lines if f"(picture {number})" in line]
        best.append(max((mask & picture.mask).sum() / (mask | picture.mask).sum() for mask in own))
    assert np.mean(best) > 0.5


def test_a_picture_that_is_not_cut_says_what_to_do(nodes, toy, latent, shown):
    _, masks, text = segment(nodes, toy, latent, threshold=5.0).result
    assert torch.equal(masks, torch.ones(3, 128, 128))
    assert [line.split(", ")[0] for line in text.splitlines()] == [
        f"mask {i} (picture {i + 1}): 100.0%" for i in range(3)
    ]
    advice = "3 of 3 pictures are one region: the attention of all places is alike at this threshold; lower it."
    assert lines_of(shown()) == [*text.splitlines(), advice]


def test_with_the_prompts_words_regions_have_names(nodes, toy, latent):
    one = {"samples": latent["samples"][:1]}
    text = segment(nodes, toy, one, toy.positive, subjects=toy.subjects).result[2]
    assert {line.split(": ")[1].split(",")[0] for line in text.splitlines()} <= {"dog", "beach"}
    assert text.startswith("mask 0: ")

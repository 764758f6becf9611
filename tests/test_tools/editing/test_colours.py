"""The measures of `make bench-colours`."""

import numpy as np
import pytest
import torch
from skimage.color import deltaE_ciede2000, rgb2lab

from tests.benchmarks.colours import PROMPT, SOURCE, measured, report
from tests.tools.toy_world.group_judge import Seen
from tests.tools.toy_world.pictures import PALETTE
from tests.tools.toy_world.quality_groups import Prompt

ASKED = Prompt({"dog": "red"}, "beach")


def seen(colour: str, columns: slice) -> Seen:
    mask = torch.zeros(16, 16, dtype=torch.bool)
    mask[4:8, columns] = True
    return Seen({"dog": (colour, mask)}, "beach")


def drawn(colour: str, columns: slice, elsewhere: int) -> np.ndarray:
    pixels = np.full((16, 16, 3), elsewhere, np.uint8)
    pixels[4:8, columns] = PALETTE[colour]
    return pixels


def test_a_colour_is_compared_where_the_subject_is_and_the_rest_outside_of_both():
    own, source = slice(2, 6), slice(4, 8)
    found = measured(ASKED, seen("red", own), seen("blue", source), drawn("red", own, 100), drawn("blue", source, 110))
    named, distance, overlap, kept = found
    assert (named, distance, overlap) == (1.0, pytest.approx(0.0, abs=1e-4), pytest.approx(2 / 6))
    assert kept == pytest.approx(20 * np.log10(255 / 10))


def test_another_colour_is_as_far_away_as_the_two_are():
    place = slice(2, 6)
    pictures = drawn("blue", place, 0), drawn("red", place, 1)
    named, distance, *_ = measured(ASKED, seen("blue", place), seen("red", place), *pictures)
    red, blue = (rgb2lab(np.array(PALETTE[colour]) / 255) for colour in ("red", "blue"))
    assert named == 0.0
    assert distance == pytest.approx(float(deltaE_ciede2000(blue, red)))


def test_the_table_has_means_over_prompts_and_nothing_of_the_source_beside_itself():
    values = [(1.0, 4.0, 0.9, 30.0), (0.0, 6.0, 0.7, 28.0)]
    text = report({SOURCE: values, PROMPT: values}, {SOURCE: [0.0, 0.0], PROMPT: [0.0, 0.5]})
    assert text.splitlines()[2:] == [
        f"| {SOURCE} | 0 ± 0 % | 50 ± 50 % | 5.0 ± 1.0 | – | – |",
        f"| {PROMPT} | 25 ± 25 % | 50 ± 50 % | 5.0 ± 1.0 | 0.80 ± 0.10 | 29.0 ± 1.0 dB |",
    ]

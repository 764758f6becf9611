"""The measures and tables of `make bench-guidance`."""

import re
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from scipy import stats

from tests.benchmarks.guidance.asked import (
    LEFT,
    RIGHT,
    Asked,
    Outcome,
    all_asked,
    batches,
    box_around,
    box_iou,
    in_its_half,
    largest_part,
    outcome,
    similarity_outside,
)
from tests.benchmarks.guidance.tables import interval, kept, mean, read, report
from tests.benchmarks.guidance.variants import ORDER, PLAIN, VARIANTS
from tests.tools.comfyui.paths import ROOT
from tests.tools.toy_world.group_judge import Seen
from tests.tools.toy_world.quality_groups import Prompt

LAYOUT = "Place Words, layout guidance"


def shown(there=(True, True), coloured=(), in_half=(True, True), iou=(0.5, 0.5), ssim=1.0, time=1.0) -> Outcome:
    return Outcome(there, coloured, in_half, iou, ssim, time)


def filled(rows: slice, columns: slice, side: int = 16) -> np.ndarray:
    mask = np.zeros((side, side), bool)
    mask[rows, columns] = True
    return mask


def test_the_prompts_are_about_every_pair_and_ask_for_either_side():
    asked = all_asked()
    assert len(asked) == len({each.seed for each in asked}) == 84
    assert len({tuple(each.prompt.things) for each in asked}) == 42
    for coloured in (False, True):
        own = [each for each in asked if all(each.prompt.things.values()) == coloured]
        assert len(own) == 42
        assert Counter(next(iter(each.boxes.values())) for each in own) == {LEFT: 21, RIGHT: 21}
    assert all(set(each.boxes) == set(each.prompt.things) for each in asked)
    assert all(sorted(each.boxes.values()) == [LEFT, RIGHT] for each in asked)


def test_a_batch_is_guided_by_the_same_words_on_the_same_sides():
    asked = all_asked()
    parts = batches(asked)
    assert sorted(i for part in parts for i in part) == list(range(84))
    for part in parts:
        assert len({tuple(asked[i].boxes.values()) for i in part}) == 1
        places = {tuple(asked[i].prompt.text.split().index(name) for name in asked[i].prompt.things) for i in part}
        assert len(places) == 1
    assert batches(asked[:1]) == [(0,)]


def test_further_seeds_are_of_the_same_prompts_and_drawn_by_themselves():
    once, asked = all_asked(), all_asked(3)
    assert asked[:84] == once
    assert len({each.seed for each in asked}) == 252
    for i, each in enumerate(asked):
        assert (each.prompt, each.boxes) == (once[i % 84].prompt, once[i % 84].boxes)
    assert batches(asked)[: len(batches(once))] == batches(once)
    few = batches(asked, 10)
    assert sorted(i for part in few for i in part) == [*range(10), *range(84, 94), *range(168, 178)]
    assert all(len({i // 84 for i in part}) == 1 for part in few)


def test_boxes_by_hand():
    assert box_around(filled(slice(4, 8), slice(0, 2))) == (0, 0.25, 0.125, 0.5)
    assert box_iou((0, 0, 0.5, 1), (0.25, 0, 1, 1)) == pytest.approx(0.25)
    assert box_iou((0, 0, 0.5, 0.5), (0, 0, 0.5, 0.5)) == 1
    assert box_iou((0, 0, 0.25, 1), (0.5, 0, 1, 1)) == 0


def test_the_half_is_that_of_the_centroid():
    wide = filled(slice(0, 4), slice(2, 13))  # its centroid is 7.5 of 16
    assert in_its_half(wide, LEFT)
    assert not in_its_half(wide, RIGHT)


def test_a_stray_pixel_does_not_count():
    mask = filled(slice(4, 8), slice(4, 8))
    mask[15, 15] = True
    assert (largest_part(mask) == filled(slice(4, 8), slice(4, 8))).all()
    assert not largest_part(np.zeros((4, 4), bool)).any()


def test_similarity_is_that_outside_of_the_boxes():
    rng = np.random.default_rng(0)
    plain = rng.integers(0, 255, (64, 64, 3), np.uint8)
    inside, outside = plain.copy(), plain.copy()
    inside[40:60, 8:24] = 0  # more than a window away from the box's edge
    outside[:16] = 0
    assert similarity_outside(plain, inside, [LEFT]) == pytest.approx(1)
    assert similarity_outside(plain, outside, [LEFT]) < 0.9


def test_an_outcome_by_hand():
    asked = Asked(Prompt({"dog": "red", "cat": "blue"}, "beach"), 1, {"dog": LEFT, "cat": RIGHT})
    dog = torch.from_numpy(filled(slice(64, 96), slice(16, 48), 128))
    cat = torch.from_numpy(filled(slice(64, 96), slice(80, 112), 128))
    picture = np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8)
    iou = (0.25 * 0.25) / (0.5 * 0.625)
    both = outcome(asked, Seen({"dog": ("red", cat), "cat": ("red", cat)}, "beach"), picture, picture, 2.0)
    assert both == shown(coloured=(True, False), in_half=(False, True), iou=(0.0, pytest.approx(iou)), time=2.0)
    one = outcome(asked, Seen({"dog": ("red", dog), "car": ("blue", cat)}, "beach"), picture, picture, 1.0)
    assert one == shown((True, False), (True,), (True,), (pytest.approx(iou),))
    blank = outcome(asked, Seen({"dog": ("red", dog & False)}, "beach"), picture, picture, 1.0)
    assert blank == shown((True, False), (True,), (), ())


def test_a_mean_counts_every_value_once():
    assert mean([[1, 0], [], [1]]) == pytest.approx(2 / 3)
    assert np.isnan(mean([[], []]))


def test_the_interval_is_that_of_another_bootstrap():
    rng = np.random.default_rng(3)
    plain = rng.random(60)
    guided = plain + 0.2 + 0.1 * rng.standard_normal(60)
    low, high = interval([[x] for x in guided], [[x] for x in plain])
    other = stats.bootstrap(
        (guided, plain), lambda a, b, axis: (a - b).mean(axis), paired=True, method="percentile", rng=rng
    ).confidence_interval
    assert (low, high) == (pytest.approx(other.low, abs=0.005), pytest.approx(other.high, abs=0.005))
    # pairs have nothing to do with how much the pictures differ among themselves
    shifted = interval([[x + 0.5] for x in plain], [[x] for x in plain])
    assert shifted == (pytest.approx(0.5), pytest.approx(0.5))


def test_the_table_compares_the_same_prompts():
    found = {
        0: {PLAIN: shown(in_half=(True, False)), LAYOUT: shown(time=2.5, ssim=0.75)},
        1: {PLAIN: shown((False, True), in_half=(False,), iou=(0.25,)), LAYOUT: shown(time=2.5, ssim=0.75)},
        5: {PLAIN: shown()},
    }
    plain, layout = report(found).splitlines()[2:]
    assert plain == "| plain | 3 | 3 | 67 % | – | 60 % | 0.45 | 1.00 | 1.0 × |"
    assert layout.startswith(f"| {LAYOUT} | 2 | 2 | 100 % [+0, +100] | – | 100 % [+50, +100] | 0.50 [+0.00, +0.25] |")
    assert layout.endswith("| 0.75 [0.75, 0.75] | 2.5 × |")


def test_pictures_of_one_prompt_are_drawn_together():
    rng = np.random.default_rng(5)
    there = rng.random((30, 3, 2)) < np.array([0.6, 0.9])  # 30 prompts with 3 seeds, plain and guided
    found = {
        i + 84 * turn: {name: shown((bool(there[i, turn, at]), True)) for at, name in enumerate((PLAIN, LAYOUT))}
        for turn in range(3)
        for i in range(30)
    }
    other = stats.bootstrap(
        (there[..., 1].mean(1), there[..., 0].mean(1)), lambda a, b, axis: (a - b).mean(axis), paired=True, rng=rng
    ).confidence_interval
    _, layout = report(found).splitlines()[2:]
    name, prompts, pictures, both = (cell.strip() for cell in layout.strip("|").split("|")[:4])
    assert (name, prompts, pictures) == (LAYOUT, "30", "90")
    mean_there, low, high = (int(each) for each in re.findall(r"[+-]?\d+", both))
    assert mean_there == round(100 * there[..., 1].mean())
    assert (low, high) == (pytest.approx(100 * other.low, abs=2), pytest.approx(100 * other.high, abs=2))


def test_every_variant_is_run_once():
    assert [name for group in ORDER for name in group] == [PLAIN, *VARIANTS]


def test_what_is_kept_is_read_and_printed_without_drawing(tmp_path):
    found = {3: {PLAIN: shown(coloured=(True,)), LAYOUT: shown(ssim=0.5)}, 0: {PLAIN: shown((False, True), iou=())}}
    file = tmp_path / "found.json"
    file.write_text(kept(found))
    assert read(file.read_text()) == found
    command = [sys.executable, "-m", "tests.benchmarks.guidance", "--prompts", "0", "--out", str(file)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert report(found) in run.stdout
    assert file.read_text() == kept(found)

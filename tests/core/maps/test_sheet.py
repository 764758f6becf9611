"""Which maps a sheet shows and where: no strips, steps thinned out and said so."""

from itertools import pairwise

import pytest

from explainable_latents.nodes.core.maps.sheet import STRIP, arrange, sheet_of


def labels(steps: int, words: int) -> tuple[str, ...]:
    return tuple(f"word {w}, step {s}" for s in range(steps) for w in range(words))


def test_what_fits_is_shown_whole():
    sheet = sheet_of(labels(3, 2), 2)
    assert sheet.left_out == ""
    assert sheet.blocks[1] == ((2, 0), (2, 1), (3, 0), (3, 1))


def test_steps_are_thinned_out_evenly_and_it_is_said():
    sheet = sheet_of(labels(50, 5), 1)
    assert sheet.left_out == "20 of 50 steps, evenly spaced"
    steps = [block[0][0] // 5 for block in sheet.blocks]
    assert (steps[0], steps[-1], len(steps)) == (0, 49, 20)
    assert {b - a for a, b in pairwise(steps)} == {2, 3}


def test_a_batch_or_a_list_of_words_that_is_too_long_for_one_step():
    sheet = sheet_of(labels(3, 2), 64)
    assert sheet.left_out == "1 of 3 steps, evenly spaced; 50 of 64 pictures, the first ones"
    assert sheet.blocks[0][-1] == (5, 49)
    assert sheet_of([f"word {w}" for w in range(120)], 2).left_out == (
        "1 of 2 pictures, the first ones; 100 of 120 words, the first ones"
    )
    layers = tuple(f"dog, input.{i} (8x8)" for i in range(130))
    assert sheet_of(layers, 1).left_out == "100 of 130 layers, evenly spaced"


def test_words_that_a_step_lacks_leave_no_tile():
    sheet = sheet_of(("dog, step 1", "cat, step 1", "cat, step 2"), 1)
    assert sheet.blocks == (((0, 0), (1, 0)), ((2, 0),))
    assert arrange(sheet, (1, 1)) == [[(0, 0), (1, 0)], [(2, 0), None]]


@pytest.mark.parametrize(
    ("steps", "words", "batch", "tile", "rows", "columns"),
    [
        (1, 2, 1, (96, 64), 1, 2),
        (20, 3, 1, (256, 300), 7, 9),  # was 3 columns and 20 rows: 800 x 6128 pixels
        (5, 2, 1, (288, 230), 3, 4),
        (2, 2, 3, (288, 230), 2, 6),
        (50, 1, 1, (256, 300), 6, 9),
        (1, 5, 8, (256, 300), 5, 8),
        (1, 1, 1, (100, 1000), 1, 1),
    ],
)
def test_a_sheet_is_a_grid(steps, words, batch, tile, rows, columns):
    sheet = sheet_of(labels(steps, words), batch)
    page = arrange(sheet, tile)
    assert (len(page), len(page[0])) == (rows, columns)
    assert [entry for row in page for entry in row if entry] == [entry for block in sheet.blocks for entry in block]


def test_no_sheet_is_a_strip():
    for steps in (1, 2, 3, 7, 20, 50, 120):
        for words in (1, 2, 3, 5, 8, 30):
            for batch in (1, 2, 5, 16):
                for tile in ((256, 300), (512, 300), (256, 560)):
                    sheet = sheet_of(labels(steps, words), batch)
                    page = arrange(sheet, tile)
                    shown = sum(map(len, sheet.blocks))
                    assert sorted(entry for row in page for entry in row if entry) == sorted(
                        entry for block in sheet.blocks for entry in block
                    )
                    stretch = len(page[0]) * tile[0] / (len(page) * tile[1])
                    if shown > 4:
                        assert 1 / STRIP <= stretch <= STRIP, (steps, words, batch, tile, stretch)

"""Layout from Text in this process, as ComfyUI calls it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

TEXT = "a dog: left half; a ball: 0.6, 0.7, 0.2, 0.2"


def run(nodes, text: str, width: int = 64, height: int = 48, numbers: str = "auto", order: str = "auto"):
    return nodes["ELLayoutFromText"].execute(text, width, height, numbers, order)


def test_a_mask_for_each_box_and_a_picture_of_them(nodes, shown):
    out = run(nodes, TEXT)
    layout, masks, preview = out.result
    assert [box.words for box in layout.boxes] == ["a dog", "a ball"]
    assert masks.shape == (2, 48, 64)
    assert masks.dtype == preview.dtype == torch.float32
    assert torch.equal(masks[0], torch.cat([torch.ones(48, 32), torch.zeros(48, 32)], 1))
    assert masks[1].double().sum().item() == pytest.approx(0.04 * 48 * 64, rel=1e-5)  # float32
    # 0.6 of 64 columns are 38.4: of column 38 the box covers 0.6; 0.7 of 48 rows are 33.6
    assert masks[1, 40, 38].item() == pytest.approx(0.6)
    assert masks[1, 33, 45].item() == pytest.approx(0.4)
    assert masks[1, 40, 37].item() == 0
    assert preview.shape == (1, 48, 64, 3)
    (text,) = shown()
    assert [line.rstrip() for line in text.splitlines()] == [
        "a dog: left 0%, top 0%, width 50%, height 100%",
        "a ball: left 60%, top 70%, width 20%, height 20%",
        "plain numbers: shares",
    ]
    (editor,) = out.ui["el_layout"]
    assert [TEXT[slice(*each["words_span"])] for each in editor["boxes"]] == ["a dog", "a ball"]
    assert len({each["colour"] for each in editor["boxes"]}) == 2


def test_in_the_preview_every_box_has_a_frame_of_its_own_colour_and_small_ones_lie_on_large_ones(nodes, shown):
    out = run(nodes, "ant: 0.4, 0.4, 0.2, 0.2; room: whole picture", 256, 256)
    picture = (out.result[2][0] * 255).round().int().numpy()
    colours = [each["colour"] for each in out.ui["el_layout"][0]["boxes"]]
    ant, room = (np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) for colour in colours)
    assert (picture[0] == room).all()
    assert (picture[-1] == room).all()
    assert (picture[102, 102:154] == ant).all()
    assert not (picture[128, 120] == room).all()  # between them: both tints on the paper


def test_a_box_smaller_than_a_pixel_has_its_area_and_is_drawn(nodes, shown):
    _, masks, preview = run(nodes, "ant: 0.501, 0.501, 0.002, 0.002", 16, 16).result
    assert masks.sum().item() == pytest.approx(0.002**2 * 256, rel=1e-4)  # float32
    assert masks.count_nonzero() == 1
    assert (preview[0, 8, 8] != preview[0, 0, 15]).any()


def test_odd_sizes_and_the_unit_of_the_masks_pixels(nodes, shown):
    layout, masks, preview = run(nodes, "[('dog', [0, 0, 50, 31])]", 100, 62, "pixels").result
    assert (layout.boxes[0].right, layout.boxes[0].bottom) == (0.5, 0.5)
    assert masks.shape == (1, 62, 100)
    assert preview.shape == (1, 62, 100, 3)
    assert masks[0, :31, :50].eq(1).all()


def test_words_that_a_font_lacks_do_no_harm(nodes, shown):
    layout, masks, _ = run(nodes, "狗 🐕: 左半").result
    assert layout.boxes[0].words == "狗 🐕"
    assert masks[0, :, :32].eq(1).all()


def test_a_mistake_is_an_error_with_its_line(nodes, shown):
    with pytest.raises(ValueError, match="Line 2 of the layout, 'cat: behind the dog': 'behind the dog' is no place"):
        run(nodes, "dog: left half\ncat: behind the dog")

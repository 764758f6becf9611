"""Saliency Overlay: the pictures, and what they take."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from explainable_latents.nodes.core.maps.saliency import Saliency
from tests.host.memory import MostBytes


def bump(batch=1, steps=1):
    maps = torch.zeros(2 * steps, batch, 8, 12)
    maps[..., 2, 9] = 1
    maps[1::2] += 1
    labels = tuple(f"{word}, step {i}" for i in range(steps) for word in ("dog", "beach"))
    return Saliency(maps, labels, 1.0, None, (8, 12))


def test_opacity_mixes_picture_and_heat(nodes):
    image = torch.full((1, 64, 96, 3), 0.25)
    overlay = nodes["ELSaliencyOverlay"]
    results = [overlay.execute(bump(), "sea", opacity, "each map", image).result[1] for opacity in (0.0, 0.5, 1.0)]
    assert torch.equal(results[0], image.expand(2, -1, -1, -1))
    assert torch.allclose(results[1], (results[0] + results[2]) / 2, atol=1e-6)
    alone = overlay.execute(bump(), "sea", 0.5, "each map").result[1]
    assert torch.equal(alone, results[2])
    brightest = alone[0].sum(-1).argmax()
    assert (brightest // 96 // 8, brightest % 96 // 8) == (2, 9)


def test_a_shared_scale_compares_words(nodes):
    overlay = nodes["ELSaliencyOverlay"]
    each, shared = (overlay.execute(bump(), "grey", 1.0, scale).result[1] for scale in ("each map", "shared"))
    assert each[1].max() == pytest.approx(each[0].max())
    assert shared[1].max() < 0.2 < shared[0].max()


def test_the_picture_may_be_larger_but_not_of_another_shape(nodes):
    overlay = nodes["ELSaliencyOverlay"]
    black = torch.zeros(1, 256, 384, 4)
    half, whole = (overlay.execute(bump(), "fire", opacity, "each map", black).result[1] for opacity in (0.5, 1.0))
    assert half.shape == (2, 256, 384, 3)
    assert torch.allclose(half, whole / 2, atol=1e-6)
    brightest = whole[0].sum(-1).argmax()
    assert (brightest // 384 // 32, brightest % 384 // 32) == (2, 9)
    with pytest.raises(ValueError, match="an image of 64x64 pixels cannot belong to a latent of 12x8"):
        overlay.execute(bump(), "fire", 0.5, "each map", torch.zeros(1, 64, 64, 3))


def test_pictures_of_a_batch_lie_under_their_own_maps(nodes):
    images = torch.stack([torch.full((64, 96, 3), value) for value in (0.1, 0.9)])
    pictures = nodes["ELSaliencyOverlay"].execute(bump(2), "fire", 0.0, "each map", images).result[1]
    assert pictures[:, 0, 0, 0].tolist() == pytest.approx([0.1, 0.9, 0.1, 0.9])


def test_many_maps_of_a_large_picture_take_little_memory(nodes):
    """30 maps at 1024 x 1024: 0.1.0 took 1.8 GB, which is 15 GB for 5 words and 50 steps."""
    maps = torch.rand(30, 1, 128, 128, generator=torch.Generator().manual_seed(1))
    labels = tuple(f"word {w}, step {s}" for s in range(6) for w in range(5))
    image = torch.rand(1, 1024, 1024, 3, generator=torch.Generator().manual_seed(2))
    with MostBytes() as memory:
        sheet, pictures, _ = nodes["ELSaliencyOverlay"].execute(
            Saliency(maps, labels, 1.0, None, (128, 128)), "fire", 0.6, "each map", image
        )
    assert pictures.shape == (30, 1024, 1024, 3)
    # Beside what is returned: one picture with its parts, and the maps themselves.
    assert memory.most - 4 * (pictures.numel() + sheet.numel()) <= 32 * 1024**2 + 4 * 4 * maps.numel()
    assert sheet.shape[1] * sheet.shape[2] <= 1.1 * (1 << 23)


def test_pictures_beyond_the_budget_are_smaller_but_none_is_missing(nodes, shown, monkeypatch):
    from explainable_latents.nodes.host.ui import heat_maps

    monkeypatch.setattr(heat_maps, "OVERLAYS_PIXELS", 4 * 32 * 48)
    image = torch.full((1, 64, 96, 3), 0.25)
    pictures = nodes["ELSaliencyOverlay"].execute(bump(steps=2), "fire", 0.0, "each map", image)[1]
    assert torch.equal(pictures, torch.full((4, 32, 48, 3), 0.25))
    assert shown() == ["overlays: 48x32 pixels, as 4 larger ones take too much memory"]


def test_a_cancel_ends_the_drawing(nodes):
    import comfy.model_management as management

    management.interrupt_current_processing()
    with pytest.raises(management.InterruptProcessingException):
        nodes["ELSaliencyOverlay"].execute(bump(steps=2), "fire", 1.0, "each map")


def test_a_sheet_of_many_steps_is_thinned_out_and_says_so(nodes, shown):
    """50 steps of 5 words: 20 steps are shown in a grid, the pictures are all there, a line on the sheet tells it."""
    labels = tuple(f"word {w}, step {s}" for s in range(50) for w in range(5))
    maps = torch.rand(250, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    sheet, pictures, raw = nodes["ELSaliencyOverlay"].execute(
        Saliency(maps, labels, 1.0, None, (4, 4)), "fire", 1.0, "each map"
    )
    assert shown() == ["sheet: 20 of 50 steps, evenly spaced"]
    assert (len(pictures), len(raw)) == (250, 250)
    assert sheet.shape[2] == 8 + 3 * 5 * (256 + 8)
    assert sheet.shape[1] == 8 + 7 * (21 + 256 + 21 + 8) + 21
    few = nodes["ELSaliencyOverlay"].execute(
        Saliency(maps[:100], labels[:100], 1.0, None, (4, 4)), "fire", 1.0, "each map"
    )[0]
    assert shown() == []
    assert sheet.shape[1] - few.shape[1] == 21  # the line that tells it
    assert torch.equal(few[0, -1], few[0, -1, :1].expand(few.shape[2], 3))
    assert sheet[0, -21:, :, 0].max() > 0.9  # letters


@pytest.mark.parametrize(("batch", "steps", "columns", "rows"), [(1, 1, 2, 1), (1, 5, 4, 3), (3, 2, 6, 2)])
def test_steps_stand_in_rows(nodes, batch, steps, columns, rows):
    sheet = nodes["ELSaliencyOverlay"].execute(bump(batch, steps), "fire", 1.0, "each map").result[0]
    tile = 96 * 3
    assert sheet.shape[2] == 8 + columns * (tile + 8)
    assert (sheet.shape[1] - 8) % rows == 0
    assert 0 <= sheet.min() < sheet.max() <= 1


def test_the_pictures_of_a_comparison_are_left_for_the_browser(nodes, shown):
    import folder_paths

    random = torch.Generator().manual_seed(0)
    image, reference, plain = (torch.rand(batch, 40, 60, 3, generator=random) for batch in (3, 1, 3))
    mask = torch.ones(1, 40, 60)
    old = nodes["ELCompareImages"].execute(image, reference, mask)
    (entry,) = old.ui["el_compare"]
    assert {name: len(files) for name, files in entry["files"].items()} == {"reference": 1, "result": 3}
    assert entry["kept_part"] is True
    assert [f"picture {i}: {line}" for i, line in enumerate(entry["figures"]["result"], 1)] == old.args[2].split("\n")[
        :3
    ]
    (file, *_) = entry["files"]["result"]
    written = np.asarray(Image.open(Path(folder_paths.get_temp_directory()) / file["file"]))
    assert np.array_equal(written, (image[0] * 255).round().byte().numpy())
    third = nodes["ELCompareImages"].execute(image, reference, mask, plain)
    assert third.args[:2] == old.args[:2]
    assert shown()[-1].replace("  \n", "\n") == third.args[2]
    alone = nodes["ELCompareImages"].execute(plain, reference, mask).args[2]
    assert third.args[2] == f"{old.args[2]}\nplain: {alone}"


def test_large_pictures_are_made_smaller_for_the_browser(nodes):
    import folder_paths

    image = torch.rand(1, 1400, 700, 3)
    (entry,) = nodes["ELCompareImages"].execute(image, image).ui["el_compare"]
    (file,) = entry["files"]["result"]
    assert Image.open(Path(folder_paths.get_temp_directory()) / file["file"]).size == (512, 1024)
    assert "identical" in entry["figures"]["result"][0]  # not Infinity, which is no JSON
    json.dumps(entry, allow_nan=False)


def test_a_third_picture_of_another_size_is_refused(nodes):
    with pytest.raises(ValueError, match=r"different sizes .* plain 60×48, reference 60×40"):
        nodes["ELCompareImages"].execute(
            torch.rand(1, 40, 60, 3), torch.rand(1, 40, 60, 3), None, torch.rand(1, 48, 60, 3)
        )

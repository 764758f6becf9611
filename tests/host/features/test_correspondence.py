"""Points and masks found in other pictures by the trained toy model, and in pictures of any size."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from explainable_latents.nodes.core.maps.masks import Shaping
from explainable_latents.nodes.core.maps.points import spread_points
from explainable_latents.nodes.core.methods.correspondence import carry_mask, find_points
from explainable_latents.nodes.host.features.correspondence import Pictures, carried_mask, dift, found_points
from explainable_latents.nodes.host.features.picture_features import encode
from tests.tools.toy_world.pictures import Kind, make_picture
from tests.tools.toy_world.subjects import LANDMARKS, landmark

# Of the toy model auto is output.1.
READ = {"block": "auto", "noise_level": 0.1, "noises": 4, "seed": 3}


@pytest.fixture(scope="module")
def pack(comfy, toy_checkpoint):
    """Model, VAE and an empty prompt."""
    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(str(toy_checkpoint))
    return SimpleNamespace(model=model, vae=vae, empty=clip.encode_from_tokens_scheduled(clip.tokenize("")))


def reader(pack, **changes):
    return dift(pack.model, pack.empty, **{**READ, **changes})


def drawn(subject: str, scene: str, colour: str, seed: int):
    """IMAGE, MASK and the named points [P,2] of a toy picture."""
    picture = make_picture(Kind(subject, scene, colour), seed)
    figure, left, top = picture.figure
    points = [landmark(subject, name, figure.width) for name in LANDMARKS[subject]]
    image = torch.from_numpy(picture.image.copy()).float()[None] / 255
    return image, torch.from_numpy(picture.mask).float()[None], torch.tensor(points) + torch.tensor([left, top])


CARS = [drawn("car", "beach", "red", 3), drawn("car", "city", "blue", 8), drawn("car", "forest", "white", 5)]


def parsed(texts: list[str]) -> list[torch.Tensor]:
    return [torch.tensor([[each["x"], each["y"]] for each in json.loads(text)]) for text in texts]


@torch.inference_mode()
def test_wheels_lamp_and_window_of_a_car_are_found_on_other_cars(pack):
    image, _, asked = CARS[0]
    others = torch.cat([each[0] for each in CARS[1:]])
    pictures = Pictures(pack.vae, image, others)
    points, coordinates, sheet = found_points(reader(pack), pictures, json.dumps(asked.tolist()), None, 8, "all points")
    assert len(points) == len(coordinates) == len(sheet) == 2
    for text, whole, (_, _, true) in zip(points, parsed(coordinates), CARS[1:], strict=True):
        found = torch.tensor(json.loads(text))
        assert torch.equal(found[:, :2].floor(), whole.float())
        assert ((found[:, :2] - true).norm(dim=1) < 0.15 * 80).float().mean() >= 0.75
        assert ((found[:, 2] > 0.5) & (found[:, 2] <= 1)).all()
    assert sheet.shape == (2, 384, 2 * 384 + 8, 3)


@torch.inference_mode()
def test_a_car_is_found_by_the_mask_of_another(pack):
    others = torch.cat([each[0] for each in CARS[1:]])
    found = carried_mask(reader(pack), Pictures(pack.vae, CARS[0][0], others), CARS[0][1], 5, 0.5)
    assert found.shape == (2, 128, 128)
    for mask, (_, true, _) in zip(found.bool(), CARS[1:], strict=True):
        assert (mask & true[0].bool()).sum() / (mask | true[0].bool()).sum() > 0.5


@torch.inference_mode()
@pytest.mark.parametrize("size", [(128, 128), (117, 94), (64, 203)])
def test_a_picture_finds_itself_whatever_its_size(pack, size):
    """Sides that are no multiple of 8: points and masks are in the pixels of the whole picture."""
    picture = F.interpolate(CARS[0][0].movedim(-1, 1), size=size, mode="bilinear").movedim(1, -1)
    height, width = size
    asked = torch.tensor(
        [[0.3 * width, 0.5 * height], [0.7 * width, 0.6 * height], [1.0, 1.0], [width - 6, height - 6]]
    )
    pictures = Pictures(pack.vae, picture, picture)
    points, _, sheet = found_points(reader(pack), pictures, json.dumps(asked.tolist()), None, 8, "mutual")
    found = torch.tensor(json.loads(points[0]))
    assert len(found) == 4, "all are found again"
    # one place of the features is 8 pixels wide; the encoder does not see the outermost pixels
    assert (found[:, :2] - asked).abs().max() <= 8
    assert sheet.shape[0] == 1
    mask = torch.zeros(1, height, width)
    mask[:, height // 4 : height // 2, : width // 2] = 1
    carried = carried_mask(reader(pack), pictures, mask, 1, 0.5)
    assert carried.shape == mask.shape
    # the outline of a mask on places 8 pixels wide
    assert (carried != mask).float().mean() < 0.12


@torch.inference_mode()
def test_what_the_node_gives_is_what_core_makes_of_the_features(pack):
    image, mask, asked = CARS[0]
    other = CARS[1][0]
    made = reader(pack)
    a, b = (next(made.read(encode(pack.vae, each).latents, lambda *_: None))[0]["output.1"] for each in (image, other))
    expected = find_points(a, b, asked, (128, 128), (128, 128))
    pictures = Pictures(pack.vae, image, other)
    points, _, _ = found_points(made, pictures, json.dumps(asked.tolist()), None, 8, "all points")
    # the text is rounded
    torch.testing.assert_close(torch.tensor(json.loads(points[0]))[:, :2], expected.points, rtol=0, atol=0.01)
    kept, _, _ = found_points(made, pictures, json.dumps(asked.tolist()), None, 8, "mutual")
    mutual = torch.tensor(json.loads(kept[0])).view(-1, 3)[:, :2]
    torch.testing.assert_close(mutual, expected.points[expected.back <= 8], rtol=0, atol=0.01)
    shares = carry_mask(a, b, F.avg_pool2d(mask, 8)[0], 5)
    expected = F.interpolate(shares[None, None], size=(128, 128), mode="bilinear")[0]
    torch.testing.assert_close(carried_mask(made, pictures, mask, 5, 0.0), expected)


@torch.inference_mode()
def test_points_of_a_mask_are_looked_for_in_each_picture_of_a_batch(pack):
    pictures = torch.cat([each[0] for each in CARS])
    masks = torch.cat([each[1] for each in CARS])
    points, _, _ = found_points(reader(pack), Pictures(pack.vae, pictures, pictures), "", masks, 3, "all points")
    for text, mask in zip(points, masks, strict=True):
        assert (torch.tensor(json.loads(text))[:, :2] - spread_points(mask, 3)).abs().max() <= 8
    one, _, _ = found_points(reader(pack), Pictures(pack.vae, pictures[:1], pictures), "", masks[:1], 3, "all points")
    assert one[0] == points[0], "a picture's answer does not depend on the batch"


@torch.inference_mode()
def test_a_mask_of_another_resolution_is_fitted_to_the_picture(pack):
    image, mask, _ = CARS[0]
    small = F.interpolate(mask[:, None], size=(32, 32), mode="area")[:, 0]
    pictures = Pictures(pack.vae, image, CARS[1][0])
    whole, fitted = (carried_mask(reader(pack), pictures, each, 5, 0.5) for each in (mask, small))
    assert (whole != fitted).float().mean() < 0.03


@torch.inference_mode()
def test_a_carried_mask_keeps_its_largest_part(pack):
    pictures = Pictures(pack.vae, CARS[0][0], torch.cat([each[0] for each in CARS[1:]]))
    found = carried_mask(reader(pack), pictures, CARS[0][1], 3, 0.2)
    for parts in (Shaping(parts="largest"), Shaping(parts="largest", part_count=2, fill_holes=True)):
        kept = carried_mask(reader(pack), pictures, CARS[0][1], 3, 0.2, parts)
        for one, whole in zip(kept.numpy(), found.numpy(), strict=True):
            islands, count = ndimage.label(whole, np.ones((3, 3)))
            assert count > 1
            sizes = np.bincount(islands.ravel())[1:]
            largest = np.isin(islands, 1 + np.argsort(-sizes, kind="stable")[: parts.part_count])
            assert np.array_equal(one > 0, ndimage.binary_fill_holes(largest) if parts.fill_holes else largest)
    with pytest.raises(ValueError, match=r"threshold 0\.0 gives shares, not a mask that has parts"):
        carried_mask(reader(pack), pictures, CARS[0][1], 3, 0.0, Shaping(parts="largest"))


@pytest.mark.parametrize(
    ("text", "mask", "words"),
    [
        ("", None, "give either points or a mask: neither is given"),
        ("[[1, 2]]", torch.ones(1, 128, 128), "both are given. Clear 'points'"),
        ("[[500, 2]]", None, "outside of the picture of 128x128"),
        ("", torch.zeros(1, 128, 128), "the mask is empty"),
        ("", torch.ones(2, 128, 128), "2 masks for 1 pictures A"),
    ],
)
def test_mistakes_are_errors_before_the_model_is_called(pack, text, mask, words):
    image = CARS[0][0]
    with pytest.raises(ValueError, match=words):
        found_points(reader(pack), Pictures(pack.vae, image, image), text, mask, 8, "all points")


def test_further_mistakes(pack):
    image = CARS[0][0]
    with pytest.raises(ValueError, match="keep 'best' is not one of: all points, mutual"):
        found_points(reader(pack), Pictures(pack.vae, image, image), "[[1, 2]]", None, 8, "best")
    with pytest.raises(ValueError, match="picture A is a batch of 2 and picture B of 3"):
        Pictures(pack.vae, image.repeat(2, 1, 1, 1), image.repeat(3, 1, 1, 1))
    with pytest.raises(ValueError, match="pictures of 128x5 pixels are too small: each side needs 8"):
        carried_mask(reader(pack), Pictures(pack.vae, image[:, :5], image), torch.ones(1, 5, 128), 1, 0.5)
    with pytest.raises(ValueError, match="neighbours 300 is not from 1 to 256"):
        carried_mask(reader(pack), Pictures(pack.vae, image, image), torch.ones(1, 128, 128), 300, 0.5)
    with pytest.raises(ValueError, match=r"noise level 0\.0 is not in the range"):
        carried_mask(reader(pack, noise_level=0.0), Pictures(pack.vae, image, image), torch.ones(1, 9, 9), 1, 0.5)


@torch.inference_mode()
def test_the_seed_decides_and_the_sheet_shows_both_pictures(pack):
    image, mask, _ = CARS[0]
    pictures = Pictures(pack.vae, image, CARS[1][0])
    first, again, other = (carried_mask(reader(pack, seed=s), pictures, mask, 5, 0.0) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    _, _, sheet = found_points(reader(pack), pictures, "[[100, 20]]", None, 8, "all points")
    # enlarged three times, a gap between; away from the points and the line
    left, right = sheet[0, 330:, :384], sheet[0, 330:, -384:]
    for side, picture in ((left, image), (right, CARS[1][0])):
        enlarged = picture[0].repeat_interleave(3, 0).repeat_interleave(3, 1)[330:]
        assert np.isclose((side - enlarged).abs().max(), 0, atol=1 / 255)

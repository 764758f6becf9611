"""Regions that a few toy pictures teach, found in others; and the file of what was taught."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file

from explainable_latents.nodes.host.features.classifier import Classifier, file_of, version_of
from explainable_latents.nodes.host.features.picture_features import chosen_blocks
from explainable_latents.nodes.host.features.teaching import found_regions, named_masks, taught
from explainable_latents.nodes.teaching import ELFindRegions
from tests.host.unets import conditioning, random_unet
from tests.tools.toy_world.pictures import Kind, make_picture

HOW = {"blocks": "auto", "levels": "0.05, 0.25", "pixels": 300, "seed": 3}


def drawn(subject: str, scene: str, colour: str, seed: int):
    """IMAGE and MASK of a toy picture."""
    picture = make_picture(Kind(subject, scene, colour), seed)
    return torch.from_numpy(picture.image.copy()).float()[None] / 255, torch.from_numpy(picture.mask).float()[None]


TEACHERS = [drawn("dog", "beach", "red", 1), drawn("dog", "city", "blue", 2), drawn("dog", "forest", "white", 3)]
OTHERS = [drawn("dog", "desert", "gray", 4), drawn("dog", "beach", "yellow", 5), drawn("dog", "runway", "brown", 6)]
PICTURES, MASKS = (torch.cat(each) for each in zip(*TEACHERS, strict=True))


@pytest.fixture(scope="module")
def pack(comfy, toy_checkpoint):
    """Model, VAE, an empty prompt, and a classifier of dogs."""
    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(str(toy_checkpoint))
    empty = clip.encode_from_tokens_scheduled(clip.tokenize(""))
    with torch.inference_mode():
        dogs = taught(model, vae, empty, PICTURES, {"dog": MASKS}, **HOW)
    return SimpleNamespace(model=model, vae=vae, empty=empty, dogs=dogs)


@pytest.fixture
def output(tmp_path, monkeypatch):
    """ComfyUI's output folder."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))
    return tmp_path


def iou(mask: torch.Tensor, truth: torch.Tensor) -> float:
    mask, truth = mask.bool(), truth.bool()
    return float((mask & truth).sum() / (mask | truth).sum())


@torch.inference_mode()
def test_three_pictures_teach_what_a_dog_is(pack):
    masks, uncertainty, names = found_regions(pack.model, pack.vae, torch.cat([each[0] for each in OTHERS]), pack.dogs)
    assert names == "dog"
    assert masks.shape == uncertainty.shape == (3, 128, 128)
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    for mask, (_, truth) in zip(masks, OTHERS, strict=True):
        assert iou(mask, truth[0]) > 0.6
    assert uncertainty.min() >= 0
    assert uncertainty.max() <= 1
    wrong = torch.cat([each[1] for each in OTHERS]) != masks
    assert uncertainty[wrong].mean() > 2 * uncertainty[~wrong].mean()


@torch.inference_mode()
def test_a_pictures_regions_do_not_depend_on_its_batch_and_fit_any_size(pack):
    image = OTHERS[0][0]
    both = torch.cat([image, OTHERS[1][0]])
    alone, unsure, _ = found_regions(pack.model, pack.vae, image, pack.dogs)
    together, unsure_too, _ = found_regions(pack.model, pack.vae, both, pack.dogs)
    assert torch.equal(alone[0], together[0])
    # the VAE's own rounding depends on the batch
    torch.testing.assert_close(unsure[0], unsure_too[0], rtol=0, atol=1e-4)
    fitted = F.interpolate(image.movedim(-1, 1), size=(117, 131), mode="bilinear").movedim(1, -1)
    mask, uncertainty, _ = found_regions(pack.model, pack.vae, fitted, pack.dogs)
    assert mask.shape == uncertainty.shape == (1, 117, 131)


@torch.inference_mode()
def test_several_classes_come_one_after_the_other_and_where_masks_overlap_nothing_is_learnt(pack):
    upper = torch.zeros(3, 128, 128)
    upper[:, :70] = 1
    masks = named_masks("dog, above", [MASKS, upper, None, None])
    made = taught(pack.model, pack.vae, pack.empty, PICTURES, masks, **HOW)
    assert made.recipe.names == ("rest", "dog", "above")
    found, _, names = found_regions(pack.model, pack.vae, PICTURES, made)
    assert names == "dog, above"
    assert found.shape == (6, 128, 128)
    assert not (found[:3].bool() & found[3:].bool()).any()
    below = MASKS.bool() & ~upper.bool()
    for picture in range(3):
        assert (found[picture].bool() & below[picture]).sum() > 0.8 * below[picture].sum()
        sky = upper[picture].bool() & ~MASKS[picture].bool()
        assert (found[3 + picture].bool() & sky).sum() > 0.8 * sky.sum()


@torch.inference_mode()
def test_masks_may_cover_everything_and_leave_no_rest(pack):
    masks = {"dog": MASKS, "scene": 1 - MASKS}
    made = taught(pack.model, pack.vae, pack.empty, PICTURES, masks, **HOW)
    dog, scene = found_regions(pack.model, pack.vae, OTHERS[0][0], made)[0]
    assert torch.equal(dog, 1 - scene)
    assert iou(dog, OTHERS[0][1][0]) > 0.6


@torch.inference_mode()
def test_the_same_seed_teaches_the_same_and_another_another(pack):
    few = {**HOW, "pixels": 40}
    first, again, other = (
        taught(pack.model, pack.vae, pack.empty, PICTURES[:1], {"dog": MASKS[:1]}, **{**few, "seed": seed})
        for seed in (3, 3, 4)
    )
    for (w, b), (v, c), (u, _) in zip(
        first.perceptrons.layers, again.perceptrons.layers, other.perceptrons.layers, strict=True
    ):
        assert torch.equal(w, v)
        assert torch.equal(b, c)
        assert not torch.equal(w, u)


@torch.inference_mode()
def test_what_is_saved_finds_the_same_again(pack, output):
    path = pack.dogs.save("my dogs")
    assert path == output / "explainable-latents" / "my dogs.safetensors"
    loaded = Classifier.given(None, "my dogs")
    assert loaded.recipe == pack.dogs.recipe
    assert Classifier.load("my dogs.safetensors").recipe == loaded.recipe
    found = found_regions(pack.model, pack.vae, OTHERS[0][0], loaded)
    expected = found_regions(pack.model, pack.vae, OTHERS[0][0], pack.dogs)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    with safe_open(path, "pt") as file:
        recipe = json.loads(file.metadata()["recipe"])
    assert recipe["names"] == ["rest", "dog"]
    assert recipe["blocks"] == ["output.0", "output.2"]
    assert recipe["noise_levels"] == [0.05, 0.25]
    assert recipe["family"].startswith("SD 1.x")
    before = version_of("my dogs")
    pack.dogs.save("my dogs")
    assert version_of("my dogs") != before
    assert version_of("") == ""
    assert version_of("no such") == "none"
    assert ELFindRegions.fingerprint_inputs(file="my dogs") == version_of("my dogs")
    # what the host knows of a name that another node gives: without a value of its own the file could be an older one
    assert math.isnan(ELFindRegions.fingerprint_inputs(file=None))


def test_a_checkpoint_without_a_vae_is_named(pack):
    with pytest.raises(ValueError, match="the connected VAE is empty"):
        found_regions(pack.model, None, PICTURES, pack.dogs)


def test_another_model_is_an_error_and_the_same_in_another_precision_is_not(pack, comfy):
    with pytest.raises(ValueError, match="the regions dog were taught with another model than BaseModel"):
        pack.dogs.reader(random_unet("SD15"))
    finetuned = pack.model.model.diffusion_model.out[0]
    weight = finetuned.weight.data.clone()
    try:
        finetuned.weight.data = weight.bfloat16().to(weight)
        pack.dogs.reader(pack.model)
        finetuned.weight.data = weight * 1.05
        with pytest.raises(ValueError, match="taught with another model"):
            pack.dogs.reader(pack.model)
    finally:
        finetuned.weight.data = weight
    other = replace(pack.dogs, recipe=replace(pack.dogs.recipe, family="Flux"))
    with pytest.raises(ValueError, match="taught with another model"):
        other.reader(pack.model)


@pytest.mark.parametrize("name", ["", "  ", "../dogs", "a/b", "/etc/dogs", "..\\dogs"])
def test_a_name_that_leads_elsewhere_is_an_error(output, name):
    with pytest.raises(ValueError, match="is not a name for a file in"):
        file_of(name)


def test_a_file_that_is_not_there_or_anothers_is_an_error(output):
    with pytest.raises(ValueError, match=r"there is no classifier 'cats' in .*; there are: none"):
        Classifier.load("cats")
    (output / "explainable-latents").mkdir()
    save_file({"mean": torch.zeros(3)}, output / "explainable-latents" / "other.safetensors")
    with pytest.raises(ValueError, match=r"there is no classifier 'cats' in .*; there are: other"):
        Classifier.load("cats")
    with pytest.raises(ValueError, match=r"other\.safetensors was not saved by Teach Regions"):
        Classifier.load("other")


def test_either_a_classifier_or_a_file(pack):
    with pytest.raises(ValueError, match="give either a classifier or a file: neither is given"):
        Classifier.given(None, "")
    with pytest.raises(ValueError, match="both are given"):
        Classifier.given(pack.dogs, "dogs")
    assert Classifier.given(pack.dogs, " ") is pack.dogs


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"masks": {"dog": MASKS[:2]}}, "2 masks of dog for 3 pictures"),
        ({"masks": {"dog": 0 * MASKS}}, "no pixel of the pictures is dog alone"),
        ({"masks": {"dog": 0 * MASKS + 1}}, "450 pixels of 1 classes: at least two of each are needed"),
        ({"levels": "0.1; 0.2"}, "are not numbers separated by commas"),
        ({"levels": "0.1, 1.5"}, r"noise level 1\.5 is not in the range"),
        ({"blocks": "output.0, attic"}, "blocks 'attic' is not one of: auto, input"),
        ({"positive": conditioning(1, area=(8, 8, 0, 0))}, "this one has area"),
        ({"positive": conditioning(1) + conditioning(2)}, "this one has 2 conditionings"),
        ({"save_as": "../dogs"}, "is not a name for a file in"),
    ],
)
def test_mistakes_of_teaching_are_errors(pack, changes, words):
    given = {"positive": pack.empty, "masks": {"dog": MASKS}, **HOW, **changes}
    with pytest.raises(ValueError, match=words):
        taught(pack.model, pack.vae, given.pop("positive"), PICTURES, given.pop("masks"), **given)


@pytest.mark.parametrize(("names", "count"), [("", 1), ("a, b", 1), ("a", 2), ("a, a", 2), ("rest", 1)])
def test_each_mask_has_a_name_of_its_own(names, count):
    with pytest.raises(ValueError, match=f"for {count} masks: give each mask one name"):
        named_masks(names, [MASKS[:1]] * count + [None])


def test_auto_are_the_decoders_last_blocks_on_each_grid(pack):
    assert chosen_blocks(pack.model, "auto") == ("output.0", "output.2")
    assert chosen_blocks(pack.model, " output.1 ,input.0, output.1") == ("input.0", "output.1")
    deep = {"transformer_depth": [1] * 8, "transformer_depth_output": [1] * 12, "model_channels": 32}
    as_deep = random_unet("SD15", num_res_blocks=[2] * 4, channel_mult=[1] * 4, **deep)
    assert chosen_blocks(as_deep, "auto") == ("output.1", "output.4", "output.7", "output.10")


@torch.inference_mode()
def test_training_takes_inference_tensors_and_leaves_the_mode_as_it_was(pack):
    made = taught(pack.model, pack.vae, pack.empty, PICTURES, {"dog": MASKS}, **{**HOW, "pixels": 40})
    assert torch.is_inference_mode_enabled()
    assert not any(tensor.requires_grad for layer in made.perceptrons.layers for tensor in layer)

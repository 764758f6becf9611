"""Pictures cut into regions, of small random networks."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from explainable_latents.nodes.core.maps.regions import named, regions_of
from explainable_latents.nodes.core.methods.diffseg import segment
from explainable_latents.nodes.host.attention.observer import observe
from explainable_latents.nodes.host.attention.place_reader import PlaceProbe
from explainable_latents.nodes.host.one_call import call_once, probe
from explainable_latents.nodes.host.regions import Segmenting, outputs, segment_pictures
from tests.host.unets import SUBJECTS, conditioning, noise, random_unet, sample

# Random networks attend to nearly everything alike: with this threshold there are several regions.
HOW = Segmenting(threshold=0.1, anchors=8)
GRID = (12, 16)


@pytest.fixture(scope="module")
def model(comfy):
    return random_unet(model_channels=64)  # narrower ones attend too evenly for several regions


def nothing(done, total):
    pass


def by_hand(model, latent, how=HOW, seed=0):
    """The regions of one picture."""
    patcher = model.clone()

    def call():
        call_once(patcher, conditioning(1), {"samples": latent}, how.noise_level, seed, clean=not how.add_noise)

    attention, grid = PlaceProbe(patcher).look(call, nothing)
    size = tuple(8 * side for side in latent.shape[-2:])
    return regions_of(segment(attention, grid, size, how.threshold, how.anchors, how.k_means, nothing))


@pytest.mark.parametrize("kind", ["SD15", "SD20", "SDXL"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_picture_is_cut_as_its_attention_says(comfy, kind, dtype):
    network, latent = random_unet(kind, dtype), noise(1, GRID)
    (found,) = segment_pictures(network, conditioning(1), {"samples": latent}, HOW)
    expected = by_hand(network, latent)
    assert found.labels.shape == (96, 128)
    assert torch.equal(found.labels, expected.labels)
    assert found.areas == expected.areas
    assert found.names == ()
    assert sum(found.areas) == 96 * 128


@pytest.mark.parametrize("how", [HOW, Segmenting(0.5, 0.1, 8, k_means=True, add_noise=True, seed=5)])
def test_each_picture_of_a_batch_has_the_regions_that_it_has_alone(model, how):
    latents = noise(3, GRID)
    together = segment_pictures(model, conditioning(1), {"samples": latents, "batch_index": [4, 7, 5]}, how, SUBJECTS)
    for latent, number, found in zip(latents, (4, 7, 5), together, strict=True):
        one = {"samples": latent[None], "batch_index": [number]}
        (alone,) = segment_pictures(model, conditioning(1), one, how, SUBJECTS)
        assert torch.equal(found.labels, alone.labels)
        assert (found.areas, found.names) == (alone.areas, alone.names)
    assert len({each.areas for each in together}) > 1


def test_options_do_what_they_say(model):
    latent = noise(1, GRID)

    def count(**options):
        how = Segmenting(**{"threshold": HOW.threshold, "anchors": HOW.anchors} | options)
        (found,) = segment_pictures(model, conditioning(1), {"samples": latent}, how)
        assert torch.equal(found.labels, by_hand(model, latent, how, how.seed).labels)
        return len(found.areas)

    assert count(threshold=10.0) == 1
    assert count(threshold=0.02) > count() > 1
    assert count(anchors=1) == 1
    assert count(k_means=True) > 1
    assert count(add_noise=True, seed=3) > 1


def test_regions_are_named_by_the_maps_of_the_same_call(model):
    """The maps are those that an observer of this very call gets; the word is the one that is strongest there."""
    latent = {"samples": noise(1, GRID)}
    patcher = model.clone()
    capture = observe(patcher, SUBJECTS)
    call_once(patcher, conditioning(1), latent, HOW.noise_level, 0, clean=True)
    (found,) = segment_pictures(model, conditioning(1), latent, HOW, SUBJECTS)
    (plain,) = segment_pictures(model, conditioning(1), latent, HOW)
    assert torch.equal(found.labels, plain.labels)
    assert found.names == named(plain, capture.latest().maps[:, 0], SUBJECTS.labels).names
    assert set(found.names) == {"dog", "beach"}
    noised = Segmenting(0.5, HOW.threshold, HOW.anchors, add_noise=True, seed=3)
    (found,) = segment_pictures(model, conditioning(1), latent, noised, SUBJECTS)
    maps = probe(model, conditioning(1), latent, SUBJECTS, 0.5, 3).maps
    assert found.names == named(found, maps[:, 0], SUBJECTS.labels).names


def test_outputs_are_one_picture_after_the_other_and_lines_count_the_masks(model):
    pictures = segment_pictures(model, conditioning(1), {"samples": noise(3, GRID)}, HOW, SUBJECTS)
    images, masks, text = outputs(pictures)
    counts = [len(each.areas) for each in pictures]
    assert images.shape == (3, 96, 128, 3)
    assert masks.shape == (sum(counts), 96, 128)
    lines, numbers = text.splitlines(), [i for i, count in enumerate(counts, 1) for _ in range(count)]
    assert len(lines) == len(masks)
    for i, (line, picture, mask) in enumerate(zip(lines, numbers, masks, strict=True)):
        assert line.startswith(f"mask {i} (picture {picture}): ")
        word, share, colour = line.partition(": ")[2].split(", ")
        assert word in ("dog", "beach")
        assert share == f"{float(mask.mean()):.1%}"
        wanted = torch.tensor([int(colour[j : j + 2], 16) for j in (1, 3, 5)]) / 255
        assert (images[picture - 1][mask.bool()] - wanted).abs().max() <= 0.5 / 255 + 1e-6
    for each, part in zip(pictures, masks.split(counts), strict=True):
        assert torch.equal(part.sum(0), torch.ones(96, 128))
        assert part.sum((1, 2)).tolist() == sorted(each.areas, reverse=True)
    assert outputs(pictures[:1])[2].startswith("mask 0: ")


def test_what_this_packs_nodes_put_on_the_model_sees_nothing_of_it(model):
    watched, latent = model.clone(), {"samples": noise(1, GRID)}
    capture = observe(watched, SUBJECTS)
    samples = sample(watched, 2)
    before = capture.saliency(samples, "all", "each").maps
    (found,) = segment_pictures(watched, conditioning(1), latent, HOW)
    (plain,) = segment_pictures(model, conditioning(1), latent, HOW)
    assert torch.equal(found.labels, plain.labels)
    assert torch.equal(capture.saliency(samples, "all", "each").maps, before)


def test_a_batch_of_conditionings_is_refused(model):
    import comfy.controlnet

    batch = {"samples": noise(2, GRID)}
    texts = [[torch.cat([conditioning(seed)[0][0] for seed in (1, 2)]), {}]]
    with pytest.raises(ValueError, match=r"a text of its own for each picture .* one at a time"):
        segment_pictures(model, texts, batch, HOW)
    control = comfy.controlnet.ControlBase()
    control.set_previous_controlnet(comfy.controlnet.ControlBase().set_cond_hint(torch.zeros(2, 3, 96, 128)))
    hints = [[conditioning(1)[0][0], {**conditioning(1)[0][1], "control": control}]]
    with pytest.raises(ValueError, match="a ControlNet picture of its own for each picture"):
        segment_pictures(model, hints, batch, HOW)


@pytest.mark.parametrize("level", [0.0, 1.5])
def test_a_noise_level_outside_its_range_is_named(model, level):
    with pytest.raises(ValueError, match=f"noise level {level} is not in the range"):
        segment_pictures(model, conditioning(1), {"samples": noise()}, Segmenting(level))


def test_the_bar_rises_from_one_picture_to_the_next_to_its_end(model, monkeypatch):
    """The host leaves out reports that follow each other too fast, but for the first and the last."""
    import comfy.utils

    monkeypatch.setattr(comfy.utils, "PROGRESS_THROTTLE_MIN_INTERVAL", 0.0, raising=False)  # not in older ones
    reports = []
    comfy.utils.set_progress_bar_global_hook(lambda done, total, *_, **__: reports.append(round(6 * done / total, 3)))
    try:
        segment_pictures(model, conditioning(1), {"samples": noise(3, GRID)}, HOW)
    finally:
        comfy.utils.set_progress_bar_global_hook(None)
    assert reports == sorted(reports)
    # in sixths: each picture's seven layers are half of its third
    assert [sum(low < each <= low + 1 for each in reports) for low in (0, 2, 4)] == [7, 7, 7]
    assert reports[-1] == 6


def test_cancelling_ends_it_between_two_layers(model):
    import comfy.model_management as management

    def press(*_):
        management.interrupt_current_processing(True)

    block = model.model.diffusion_model.middle_block[1]
    calls = []
    handles = [
        block.register_forward_pre_hook(press),
        model.model.diffusion_model.out.register_forward_pre_hook(lambda *_: calls.append(1)),
    ]
    try:
        with pytest.raises(management.InterruptProcessingException):
            segment_pictures(model, conditioning(1), {"samples": noise(2, GRID)}, HOW)
    finally:
        for handle in handles:
            handle.remove()
        management.interrupt_current_processing(False)
    assert calls == []


def test_nothing_is_kept(model):
    patcher = model.clone()
    made = segment_pictures(patcher, conditioning(1), {"samples": noise(1, GRID)}, HOW, SUBJECTS)
    labels = weakref.ref(made[0].labels)
    gone = weakref.ref(patcher)
    del made, patcher
    gc.collect()
    assert labels() is None
    assert gone() is None

"""Probe Attention and Saliency Overlay on the toy checkpoint, through the nodes' own `execute`."""

import inspect

import numpy as np
import pytest
import torch

from explainable_latents.nodes.core.maps.saliency import Saliency
from explainable_latents.nodes.core.words.parsing import parse
from explainable_latents.nodes.host.tokens import tokenize
from tests.host.memory import MostBytes

PROMPT = "a dog on the beach"


@pytest.fixture(scope="module")
def nodes(comfy):
    from explainable_latents.nodes import attention, images

    classes = [cls for module in (attention, images) for cls in vars(module).values() if inspect.isclass(cls)]
    return {cls.define_schema().node_id: cls for cls in classes if cls.__name__.startswith("EL")}


@pytest.fixture(scope="module")
def toy(comfy, toy_checkpoint):
    import types

    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(str(toy_checkpoint))
    positive, negative = (clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in (PROMPT, ""))
    subjects = parse(PROMPT, tokenize(clip, PROMPT))
    return types.SimpleNamespace(model=model, vae=vae, positive=positive, negative=negative, subjects=subjects)


def picture(seed):
    from tests.tools.toy_world.pictures import random_picture

    drawn = next(p for s in range(seed, seed + 500) if (p := random_picture(s)).kind.subject == "dog")
    return torch.from_numpy(drawn.image.copy()).float()[None] / 255, torch.from_numpy(np.asarray(drawn.mask))


def test_schemas_and_signatures_agree(nodes):
    assert set(nodes) == {
        "ELCaptureAttention",
        "ELProbeAttention",
        "ELAttentionSaliency",
        "ELSaliencyOverlay",
        "ELCompareImages",
    }
    for cls in nodes.values():
        schema = cls.define_schema()
        assert {i.id for i in schema.inputs} == set(inspect.signature(cls.execute).parameters)
        assert all(i.tooltip for i in schema.inputs)
        assert all(o.tooltip for o in schema.outputs)
        assert schema.description
        assert schema.search_aliases


def test_capture_to_overlay(nodes, toy):
    import nodes as host

    model, attention = (
        nodes["ELCaptureAttention"].execute(toy.model, toy.subjects, 0.0, 1.0, "all", "nearest", "all tokens").result
    )
    latent = {"samples": torch.zeros(2, 4, 16, 16)}
    settings = (1, 6, 3.0, "euler", "normal", toy.positive, toy.negative, latent)
    (made,) = host.common_ksampler(model, *settings)
    (stock,) = host.common_ksampler(toy.model, *settings)
    assert torch.equal(made["samples"], stock["samples"])
    (saliency,) = nodes["ELAttentionSaliency"].execute(attention, made, "all", "mean", False).result
    assert saliency.labels == ("dog", "beach")
    image = toy.vae.decode(made["samples"])
    sheet, overlays, maps = nodes["ELSaliencyOverlay"].execute(saliency, "fire", 0.6, "each map", image).result
    assert overlays.shape == (4, 128, 128, 3)
    assert maps.shape == (4, 16, 16)
    assert torch.equal(maps.amax((-2, -1)), torch.ones(4))
    assert sheet.ndim == 4
    assert sheet.shape[0] == 1
    # one row: two words, two latents
    assert sheet.shape[2] > 4 * 256


def test_a_probe_is_one_call_and_repeats(nodes, toy):
    from comfy.patcher_extension import WrappersMP

    model = toy.model.clone()
    calls = []

    def count(executor, x, *args, **kwargs):
        calls.append(len(x))
        return executor(x, *args, **kwargs)

    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test", count)
    image, _ = picture(900_000)
    latent = {"samples": toy.vae.encode(image)}
    how = ("all", "nearest", "all tokens")
    (saliency,) = nodes["ELProbeAttention"].execute(model, toy.positive, latent, toy.subjects, 0.5, 3, *how).result
    assert calls == [1]
    assert saliency.step is None
    assert saliency.grid == (16, 16)
    expected = float(toy.model.get_model_object("model_sampling").sigma(torch.tensor(499.5)))
    assert saliency.sigma == pytest.approx(expected, rel=1e-4)
    again = nodes["ELProbeAttention"].execute(model, toy.positive, latent, toy.subjects, 0.5, 3, *how).result[0]
    other = nodes["ELProbeAttention"].execute(model, toy.positive, latent, toy.subjects, 0.5, 4, *how).result[0]
    assert torch.equal(again.maps, saliency.maps)
    assert not torch.equal(other.maps, saliency.maps)


def test_a_probe_under_guidance_nodes_is_the_plain_probe(nodes, toy):
    from comfy_extras.nodes_pag import PerturbedAttentionGuidance
    from comfy_extras.nodes_sag import SelfAttentionGuidance

    latent = {"samples": toy.vae.encode(picture(900_000)[0])}
    guided = SelfAttentionGuidance.execute(PerturbedAttentionGuidance.execute(toy.model, 3.0)[0], 0.5, 2.0)[0]
    how = (toy.positive, latent, toy.subjects, 0.3, 3, "all", "nearest", "prompt words")
    maps = [nodes["ELProbeAttention"].execute(model, *how).result[0].maps for model in (toy.model, guided)]
    assert torch.allclose(*maps, atol=1e-6)
    assert guided.model_options["sampler_post_cfg_function"]


@pytest.mark.parametrize("level", [0.0, 1.5, -0.1])
def test_noise_levels_outside_the_range(nodes, toy, level):
    latent = {"samples": torch.zeros(1, 4, 16, 16)}
    with pytest.raises(ValueError, match=f"noise level {level} is not in the range"):
        nodes["ELProbeAttention"].execute(
            toy.model, toy.positive, latent, toy.subjects, level, 0, "all", "nearest", "all tokens"
        )


def test_the_dogs_map_lies_on_the_dog(nodes, toy):
    """Mean-threshold IoU over pictures with a dog; a random map of that size would reach about 0.12."""
    values = []
    for i in range(10):
        image, mask = picture(910_000 + 500 * i)
        latent = {"samples": toy.vae.encode(image)}
        how = (0.3, i, "all", "bilinear", "all tokens")
        maps = nodes["ELProbeAttention"].execute(toy.model, toy.positive, latent, toy.subjects, *how).result[0].maps
        found = (maps[0, 0] > maps[0, 0].mean()).repeat_interleave(8, 0).repeat_interleave(8, 1)
        values.append(((found & mask).sum() / (found | mask).sum()).item())
    assert np.mean(values) > 0.4


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
    assert overlay.execute(bump(), "fire", 0.5, "each map", torch.zeros(1, 256, 384, 4)).result[1].shape == (
        2,
        256,
        384,
        3,
    )
    with pytest.raises(ValueError, match="an image of 64x64 pixels cannot belong to a latent of 12x8"):
        overlay.execute(bump(), "fire", 0.5, "each map", torch.zeros(1, 64, 64, 3))


def test_pictures_have_the_size_of_the_models_own_pixels(nodes, toy):
    """A model whose latent pixels are 16 picture pixels wide: heat maps and masks are as large as its pictures."""
    import comfy.latent_formats
    import nodes as host

    from explainable_latents.nodes.gradients import ELGradientSaliency
    from explainable_latents.nodes.maps import ELSaliencyToMask

    class Coarse(comfy.latent_formats.SD15):
        spacial_downscale_ratio = 16

    model = toy.model.clone()
    model.add_object_patch("latent_format", Coarse())
    latent = {"samples": torch.zeros(1, 4, 16, 16)}
    watched, attention = nodes["ELCaptureAttention"].execute(model, toy.subjects, 0, 1, "all", "nearest", "all tokens")
    made = host.common_ksampler(watched, 1, 1, 1.0, "euler", "normal", toy.positive, toy.negative, latent)[0]
    probed = (model, toy.positive, latent, toy.subjects, 0.5, 3)
    found = [
        nodes["ELAttentionSaliency"].execute(attention, made, "all", "mean", each_layer)[0]
        for each_layer in (False, True)
    ]
    found.append(nodes["ELProbeAttention"].execute(*probed, "all", "nearest", "all tokens")[0])
    found.append(ELGradientSaliency.execute(*probed, "absolute", "Abs-Grad-SAM", "structured", "last")[0])
    for saliency in found:
        assert saliency.spatial_scale == 16
        assert nodes["ELSaliencyOverlay"].execute(saliency, "fire", 0.5, "each map")[1].shape[1:] == (256, 256, 3)
        assert ELSaliencyToMask.execute(saliency, "", "mean", 0.0, "union", False, "together")[0].shape == (1, 256, 256)


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


def test_pictures_beyond_the_budget_are_smaller_but_none_is_missing(nodes, monkeypatch):
    from explainable_latents.nodes.host.ui import heat_maps as preview

    told = []
    monkeypatch.setattr(preview, "show_on_running_node", told.append)
    monkeypatch.setattr(preview, "OVERLAYS_PIXELS", 4 * 32 * 48)
    image = torch.full((1, 64, 96, 3), 0.25)
    pictures = nodes["ELSaliencyOverlay"].execute(bump(steps=2), "fire", 0.0, "each map", image)[1]
    assert torch.equal(pictures, torch.full((4, 32, 48, 3), 0.25))
    assert told == ["overlays: 48x32 pixels, as 4 larger ones take too much memory"]


def test_a_cancel_ends_the_drawing(nodes):
    import comfy.model_management as management

    management.interrupt_current_processing()
    with pytest.raises(management.InterruptProcessingException):
        nodes["ELSaliencyOverlay"].execute(bump(steps=2), "fire", 1.0, "each map")


def test_a_sheet_of_many_steps_is_thinned_out_and_says_so(nodes, monkeypatch):
    """50 steps of 5 words: 20 steps are shown in a grid, the pictures are all there, a line on the sheet tells it."""
    from explainable_latents.nodes.host.ui import heat_maps as preview

    told = []
    monkeypatch.setattr(preview, "show_on_running_node", told.append)
    labels = tuple(f"word {w}, step {s}" for s in range(50) for w in range(5))
    maps = torch.rand(250, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    sheet, pictures, raw = nodes["ELSaliencyOverlay"].execute(
        Saliency(maps, labels, 1.0, None, (4, 4)), "fire", 1.0, "each map"
    )
    assert told == ["sheet: 20 of 50 steps, evenly spaced"]
    assert (len(pictures), len(raw)) == (250, 250)
    assert sheet.shape[2] == 8 + 3 * 5 * (256 + 8)
    assert sheet.shape[1] == 8 + 7 * (21 + 256 + 21 + 8) + 21
    few = nodes["ELSaliencyOverlay"].execute(
        Saliency(maps[:100], labels[:100], 1.0, None, (4, 4)), "fire", 1.0, "each map"
    )[0]
    assert len(told) == 1
    assert sheet.shape[1] - few.shape[1] == 21  # the line that tells it
    assert torch.equal(few[0, -1], few[0, -1, :1].expand(few.shape[2], 3))
    assert sheet[0, -21:, :, 0].max() > 0.9  # letters


@pytest.mark.parametrize(("batch", "steps", "columns", "rows"), [(1, 1, 2, 1), (1, 5, 4, 3), (3, 2, 6, 2)])
def test_steps_stand_in_rows(nodes, batch, steps, columns, rows):
    sheet = nodes["ELSaliencyOverlay"].execute(bump(batch, steps), "fire", 1.0, "each map").result[0]
    tile = 96 * 3
    assert sheet.shape[2] == 8 + columns * (tile + 8)
    assert (sheet.shape[1] - 8) % rows == 0
    assert torch.isfinite(sheet).all()

"""Capture Attention, Attention Saliency and Probe Attention on the toy checkpoint."""

import numpy as np
import pytest
import torch


def picture(seed):
    from tests.tools.toy_world.pictures import random_picture

    drawn = next(p for s in range(seed, seed + 500) if (p := random_picture(s)).kind.subject == "dog")
    return torch.from_numpy(drawn.image.copy()).float()[None] / 255, torch.from_numpy(np.asarray(drawn.mask))


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


def test_pictures_have_the_size_of_the_models_own_pixels(nodes, toy):
    """A model whose latent pixels are 16 picture pixels wide: heat maps and masks are as large as its pictures."""
    import comfy.latent_formats
    import nodes as host

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
    found.append(nodes["ELGradientSaliency"].execute(*probed, "absolute", "Abs-Grad-SAM", "structured", "last")[0])
    for saliency in found:
        assert saliency.spatial_scale == 16
        assert nodes["ELSaliencyOverlay"].execute(saliency, "fire", 0.5, "each map")[1].shape[1:] == (256, 256, 3)
        assert nodes["ELSaliencyToMask"].execute(saliency, "", "mean", 0.0, "union", False, "together")[0].shape == (
            1,
            256,
            256,
        )

"""Capturing changes nothing: the same latent bit for bit, whatever else is installed, before it or after it."""

import pytest
import torch

from explainable_latents.nodes.host.attention.observer import observe
from tests.host.patches import PATCHES
from tests.host.unets import SUBJECTS, conditioning, random_unet, sample, unet_config


@pytest.fixture(scope="module")
def model(comfy):
    return random_unet()


@pytest.mark.parametrize("backend", ["attention_basic", "attention_split", "attention_sub_quad", "attention_pytorch"])
@pytest.mark.parametrize("kind", ["SD15", "SD20", "SDXL"])
def test_every_backend_of_a_cpu(comfy, monkeypatch, backend, kind):
    from comfy.ldm.modules import attention

    monkeypatch.setattr(attention, "optimized_attention", getattr(attention, backend))
    model = random_unet(kind)
    observed = model.clone()
    capture = observe(observed, SUBJECTS)
    expected = sample(model)
    assert torch.isfinite(expected).all()
    assert torch.equal(sample(observed), expected)
    assert len(capture.runs.kept[-1].saliencies) == 3


@pytest.mark.parametrize("sampler", ["euler_ancestral", "ddpm", "heun", "dpmpp_2m", "dpmpp_2m_sde", "lcm", "uni_pc"])
def test_every_kind_of_sampler(model, sampler):
    observed = model.clone()
    capture = observe(observed, SUBJECTS)
    assert torch.equal(sample(observed, sampler=sampler), sample(model, sampler=sampler))
    calls = capture.runs.kept[-1].saliencies
    assert [call.step for call in calls] == sorted(call.step for call in calls)
    assert {call.step for call in calls} == {0, 1, 2}


@pytest.mark.parametrize("options", [{"layers": "last"}, {"resize": "bilinear"}, {"share": "prompt words"}])
def test_every_way_of_reading(model, options):
    observed = model.clone()
    capture = observe(observed, SUBJECTS, **options)
    assert torch.equal(sample(observed), sample(model))
    plain = model.clone()
    other = observe(plain, SUBJECTS)
    sample(plain)
    assert not torch.allclose(capture.latest().maps, other.latest().maps, atol=1e-5)


@pytest.mark.parametrize("name", PATCHES)
def test_in_front_of_and_behind_other_patches(model, name):
    patch = PATCHES[name]
    expected = sample(patch(model))
    assert torch.isfinite(expected).all()
    front = patch(model).clone()
    observed = model.clone()
    captures = [observe(front, SUBJECTS), observe(observed, SUBJECTS)]
    behind = patch(observed)
    assert torch.equal(sample(front), expected)
    assert torch.equal(sample(behind), expected)
    first, second = ([call.maps for call in capture.runs.kept[-1].saliencies] for capture in captures)
    assert len(first) == len(second) == 3
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(sample(model), sample(random_unet()))


@pytest.mark.parametrize("name", ["FreeU", "FreeU_V2", "HyperTile", "ToMe", "SAG", "PAG", "NAG", "LoRA"])
def test_the_other_patches_take_effect(model, name):
    assert not torch.equal(sample(PATCHES[name](model)), sample(model))


@pytest.mark.parametrize("name", ["SAG", "PAG", "split calls"])
def test_the_first_map_is_that_of_the_plain_model(model, name):
    maps = []
    for patched in (PATCHES[name](model), model.clone()):
        capture = observe(patched, SUBJECTS)
        sample(patched)
        maps.append(capture.runs.kept[-1].saliencies[0].maps * 256)
    assert torch.allclose(*maps, atol=1e-5)


@pytest.mark.parametrize("name", ["attn2 replaced", "attn2 replaced, through the host's attention"])
def test_a_replaced_attn2_is_observed_once_with_the_texts_keys(model, name):
    replaced = PATCHES[name](model)
    capture, plain = observe(replaced, SUBJECTS), model.clone()
    reference = observe(plain, SUBJECTS)
    sample(replaced, 1)
    sample(plain, 1)
    ours, theirs = (run.runs.kept[-1].layers for run in (capture, reference))
    assert ours.keys() == theirs.keys()
    # nothing has changed yet before the first replaced block
    first = next(iter(ours))
    assert torch.equal(ours[first], theirs[first])


def test_controlnet(model):
    import comfy.cldm.cldm
    import comfy.controlnet
    import comfy.ops
    import nodes

    config = unet_config("SD15")
    del config["out_channels"], config["transformer_depth_output"]
    network = comfy.cldm.cldm.ControlNet(
        hint_channels=3, **config, device="cpu", operations=comfy.ops.disable_weight_init
    )
    generator = torch.Generator().manual_seed(4)
    for value in network.parameters():
        value.data = torch.randn(value.shape, generator=generator) * 0.05
    control = comfy.controlnet.ControlNet(network, load_device=torch.device("cpu"))
    image = torch.rand(1, 128, 128, 3, generator=generator)
    positive, negative = nodes.ControlNetApplyAdvanced().apply_controlnet(
        conditioning(1), conditioning(2), control, image, 1.0, 0.0, 0.8
    )
    expected = sample(model, positive=positive, negative=negative)
    assert not torch.equal(expected, sample(model))
    observed = model.clone()
    capture = observe(observed, SUBJECTS)
    assert torch.equal(sample(observed, positive=positive, negative=negative), expected)
    assert len(capture.runs.kept[-1].saliencies) == 3
    assert len(capture.runs.kept[-1].layers) == 7


def test_weight_hooks_of_one_conditioning(model):
    import comfy.hooks

    name = "diffusion_model.output_blocks.1.1.transformer_blocks.0.attn2.to_k"
    generator = torch.Generator().manual_seed(8)
    rows, columns = model.model.get_parameter(f"{name}.weight").shape
    weights = {
        f"{name}.lora_up.weight": torch.randn(rows, 4, generator=generator),
        f"{name}.lora_down.weight": torch.randn(4, columns, generator=generator),
    }
    hooks = comfy.hooks.create_hook_lora(lora=weights, strength_model=1.0, strength_clip=0.0)
    positive = conditioning(1, hooks=hooks)
    expected = sample(model, positive=positive)
    assert not torch.equal(expected, sample(model))
    observed = model.clone()
    capture, plain = observe(observed, SUBJECTS), model.clone()
    other = observe(plain, SUBJECTS)
    assert torch.equal(sample(observed, positive=positive), expected)
    sample(plain)
    key = ("output.1.0", (8, 8))
    assert not torch.equal(capture.runs.kept[-1].layers[key], other.runs.kept[-1].layers[key])


def test_two_captures_of_one_model(model):
    observed = model.clone()
    first, second = observe(observed, SUBJECTS), observe(observed, SUBJECTS.with_role("scene"), layers="output")
    assert torch.equal(sample(observed), sample(model))
    assert first.latest().labels == ("dog", "beach")
    assert second.latest().labels == ("beach",)
    assert len(second.runs.kept[-1].layers) == 4

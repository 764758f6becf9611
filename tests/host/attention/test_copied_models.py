"""Where the host runs copies of the model: one for each device, or on a device that the user selects.

The host's own scheduler and threads run them here; `cpu:0` is another device than `cpu` to it.
"""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from explainable_latents.nodes.core.methods.masking import GradientMasking
from explainable_latents.nodes.host.attention.model_call import ModelCall
from explainable_latents.nodes.host.attention.observer import observe
from explainable_latents.nodes.host.attention.positives import PromptRows
from explainable_latents.nodes.host.sampling.ksampler import sample_masked
from explainable_latents.nodes.host.sampling.masked_latent import MaskedLatent
from tests.core.gradients.last_layers import relative_error
from tests.host.autograd.test_gradient_masking import KEEP, PAPER, REFERENCE
from tests.host.autograd.test_gradients import saliency
from tests.host.unets import SUBJECTS, conditioning, noise, random_unet, sample

OTHER = torch.device("cpu", 0)


def loaded():
    """A model of which the host can make a copy for another device."""
    model = random_unet("SD15", seed=4)
    model.cached_patcher_init = (lambda: random_unet("SD15", seed=4), ())
    return model


def split_between_devices(model):
    """As MultiGPU CFG Split does it: a copy on the other device, which gets half of the conditionings."""
    model = model.clone()
    other = model.deepclone_multigpu(new_load_device=OTHER)
    other.is_multigpu_base_clone = True
    model.set_additional_models("multigpu", [other])
    model.match_multigpu_clones()
    return model


def halves(prompt):
    """Two areas of a prompt, of which each device gets one."""
    return [[prompt[0][0], {"area": (6, 4, 0, x), "strength": 1.0}] for x in (0, 4)]


def networks_of(model):
    """A clone of the model, and the list of the networks that are called of it."""
    from comfy.patcher_extension import WrappersMP

    spied, called = model.clone(), []

    def spy(executor, *args, **kwargs):
        called.append(executor.class_obj)
        return executor(*args, **kwargs)

    spied.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "spy", spy)
    return spied, called


@pytest.mark.parametrize("how", [{}, {"definition": "aggregated"}], ids=str)
def test_gradients_of_a_model_that_is_split_between_devices(comfy, how):
    """Two areas of the prompt would run on two devices at once; those that are derived run on the model's own."""
    model = loaded()
    prompt = halves(conditioning(1))
    spied, called = networks_of(split_between_devices(model))
    with torch.inference_mode():
        sample(spied, steps=1, grid=(6, 8), positive=prompt)
    assert len(set(called)) == 2
    called.clear()
    found = saliency(spied, start=noise(1, (6, 8)), positive=prompt, **how)
    assert set(called) == {model.model.diffusion_model}
    assert torch.equal(found.maps, saliency(model, start=noise(1, (6, 8)), positive=prompt, **how).maps)


def test_masks_from_gradients_on_a_model_that_is_moved_to_another_device(comfy):
    """As Select Model Device does it, behind Masked Latent (model patch): the network is another one from then on."""
    model, plan = (
        loaded(),
        MaskedLatent(GradientMasking(SUBJECTS, PAPER), noise(1, (6, 8), seed=4), "1", KEEP, REFERENCE),
    )
    settings = (7, 3, 1.0, "euler", "normal", conditioning(1), conditioning(2), {"samples": noise(1, (6, 8))}, 0.7)
    with torch.inference_mode():
        expected, _, maps = sample_masked(model, settings, plan)
    patched = model.clone()
    report = plan.install(patched)
    moved, called = networks_of(patched.deepclone_multigpu(new_load_device=OTHER))
    with torch.inference_mode():
        import nodes

        *stock, denoise = settings
        (out,) = nodes.common_ksampler(moved, *stock, denoise=denoise)
    assert set(called) == {moved.model.diffusion_model} != {model.model.diffusion_model}
    assert torch.equal(out["samples"], expected["samples"])
    assert relative_error(report.outputs(out["samples"])[1].maps, maps.maps) <= 1e-5


@pytest.mark.parametrize("refine", [0, 2])
def test_a_capture_of_a_model_that_is_split_between_devices(comfy, refine):
    """The two halves are captured and refined on two devices, and put in one frame on the sampler's."""
    model, prompt, found = loaded(), halves(conditioning(1)), []
    for each in (model, split_between_devices(model)):
        spied, called = networks_of(each)
        capture = observe(spied, SUBJECTS, refine=refine)
        with torch.inference_mode():
            out = sample(spied, steps=2, grid=(6, 8), positive=prompt)
        found.append((len(set(called)), out, capture.saliency(out, "all", "mean").maps))
    assert [networks for networks, _, _ in found] == [1, 2]
    # the host evaluates the conditionings one by one then, not as a batch
    torch.testing.assert_close(found[1][1], found[0][1], atol=1e-4, rtol=1e-4)
    assert relative_error(found[1][2], found[0][2]) <= 1e-3


def test_maps_of_two_devices_are_put_in_one_frame_on_the_samplers():
    with FakeTensorMode():
        sampler, other = torch.device("cuda", 0), torch.device("cuda", 1)
        pieces = [
            (torch.ones(2, 1, 3, 2, device=device), PromptRows(slice(0, 1), (), True, 77, (6, 4), (0, x), weight, 1))
            for device, x, weight in ((sampler, 0, 1.0), (other, 4, torch.ones(1, 6, 4, device=other)))
        ]
        call = ModelCall([], 1, (6, 8), sampler, 1.0, 0, maps={"output.3.0": pieces})
        (frame,) = call.layers().values()
    assert (frame.shape, frame.device) == ((2, 1, 6, 8), sampler)

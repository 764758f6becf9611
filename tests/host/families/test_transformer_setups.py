"""LoRA, ControlNet, fp8 weights, reference pictures and the templates' guiders beside this pack, on transformers."""

from __future__ import annotations

import functools
import math

import pytest
import torch

from explainable_latents.nodes.core.attention.probabilities import ALL_TOKENS
from explainable_latents.nodes.core.maps.masks import Shaping
from explainable_latents.nodes.core.methods.masking import AttentionMasking
from explainable_latents.nodes.host.attention.observer import observe
from explainable_latents.nodes.host.families.family import family_of
from explainable_latents.nodes.host.one_call import gradient_saliency
from explainable_latents.nodes.host.sampling.masked_latent import MaskedLatent
from tests.host.families.gradient_oracle import definition
from tests.host.families.setups import NETWORKS, SETUPS, lora, official
from tests.host.families.test_transformers import SUBJECTS, expected
from tests.host.families.transformers import noise, sample, small
from tests.host.toy_sampling import KEEP, REFERENCE, masked_run

LEVEL, SEED = 0.5, 3
MASKING = AttentionMasking(SUBJECTS, Shaping())


@pytest.fixture(scope="module")
def plain(comfy):
    """What the network makes without any of it."""
    return functools.cache(lambda name: sample(name, small(name), 2, start=noise(name, 2)))


@pytest.fixture(scope="module")
def made(comfy):
    """Each setup once, as the server loads it."""

    @functools.cache
    def make(name, setup):
        with torch.inference_mode():
            return SETUPS[setup](name)

    return make


every_setup = pytest.mark.parametrize("setup", SETUPS)
every_network = pytest.mark.parametrize("name", NETWORKS)


@every_setup
@every_network
def test_the_words_of_the_positive_rows_are_captured_and_no_bit_of_the_picture_changes(made, plain, name, setup):
    """By the oracle: what the network's own modules put out, with all that is connected to it."""
    how, start = made(name, setup), noise(name, 2)
    observed = how.model.clone()
    capture = observe(observed, SUBJECTS, layers="all", share=ALL_TOKENS)
    out = sample(name, observed, 2, positive=how.positive, negative=how.negative, start=start)
    assert torch.equal(out, sample(name, how.model, 2, positive=how.positive, negative=how.negative, start=start))
    assert not torch.equal(out, plain(name))
    run, family = capture.runs.kept[-1], family_of(how.model)
    assert run.notes == []
    layers = family.site_names(how.model.model.diffusion_model, family.text_kind)
    each = [expected(name, how.model, one[None], how.positive, layers) for one in start]
    # in multiples of the maps' mean; calls of other shapes round the activations in other orders
    assert (run.saliencies[0].maps - torch.cat(each, dim=1)).abs().max() * math.prod(start.shape[-2:]) < 1e-4


@every_setup
@every_network
def test_masks_while_the_templates_graph_samples_are_those_of_the_captured_words(made, name, setup):
    """SamplerCustomAdvanced: outside the mask the finished latent is the reference, inside it is the plain one's."""
    how, reference, found = made(name, setup), 0.5 * noise(name, seed=4), {}

    def capture(model):
        found["capture"] = observe(model, SUBJECTS)

    def mask(model):
        found["report"] = MaskedLatent(MASKING, reference, "100%", KEEP, REFERENCE).install(model)

    unchanged = official(name, how.model, how)
    assert torch.equal(official(name, how.model, how, [capture]), unchanged)
    out = official(name, how.model, how, [capture, mask])
    masks, saliency, _ = found["report"].outputs(out)
    captured = found["capture"].runs.of(out).saliencies
    assert [each.step for each in captured] == [0, 1, 2]
    assert torch.equal(saliency.maps, captured[-1].maps)
    mask = masks[:, ::8, ::8].reshape(2, 1, *[1] * (out.ndim - 4), 16, 12)
    assert 0.05 < mask.mean() < 0.95
    # on its way into the model and out again the reference is scaled and rounded
    assert (out - torch.where(mask > 0, unchanged, reference)).abs().max() < 1e-5


@every_setup
@every_network
def test_ksampler_with_masked_latent(made, name, setup):
    import nodes

    how, start, reference = made(name, setup), {"samples": 0.5 * noise(name, 2, seed=3)}, 0.5 * noise(name, seed=4)
    settings = 5, 3, 3.0, "euler", "simple", how.positive, how.negative, start, 0.9
    with torch.inference_mode():
        (stock,) = nodes.common_ksampler(how.model, *settings[:-1], denoise=settings[-1])
        out, masks, _ = masked_run(how.model, settings, MASKING, {"samples": reference}, "100%", KEEP, REFERENCE)
    mask = masks[:, ::8, ::8].reshape(2, 1, *[1] * (reference.ndim - 4), 16, 12)
    assert 0.05 < mask.mean() < 0.95
    assert (out["samples"] - torch.where(mask > 0, stock["samples"], reference)).abs().max() < 1e-5


@every_setup
@every_network
def test_abs_grad_sam_is_that_of_the_network_with_all_of_it(made, name, setup):
    """Against autograd over the host's own network, whose weights it can save."""
    import comfy.model_management

    start, how, other = noise(name, grid=(6, 4)), made(name, setup), SETUPS[setup](name)
    comfy.model_management.load_models_gpu([other.model])
    elements = range(0, start[0].numel(), 5)
    sets = SUBJECTS.positions()
    defined = definition(name, other.model, start, other.positive, sets, LEVEL, SEED, elements)["absolute"]
    with torch.inference_mode():
        found = gradient_saliency(
            how.model, how.positive, {"samples": start}, SUBJECTS, LEVEL, SEED, "absolute", "structured"
        )
    assert (found.maps.flatten(1)[:, ::5] - defined).abs().max() <= 1e-5 * defined.max()


@every_network
def test_gradients_pass_no_bypassed_lora_behind_the_last_attention(comfy, name):
    how = lora(name, bypass=True)
    message = r"another node replaced how the model's Linear computes.*a bypassed LoRA"
    with torch.inference_mode(), pytest.raises(ValueError, match=message):
        gradient_saliency(
            how.model, how.positive, {"samples": noise(name)}, SUBJECTS, LEVEL, SEED, "absolute", "structured"
        )

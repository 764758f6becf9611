"""Beside guidance nodes of other packs: the picture stays bit for bit, and the maps are those of every step."""

import pytest
import torch

from explainable_latents.nodes.core.maps.masks import Shaping
from explainable_latents.nodes.core.methods.masking import AttentionMasking, GradientMasking
from explainable_latents.nodes.host.attention.observer import observe
from explainable_latents.nodes.host.sampling.masked_latent import MaskedLatent
from explainable_latents.nodes.words import ELParseSubjects
from tests.host.guidance_patches import GUIDANCE, hard_mask_by_time
from tests.host.toy_sampling import KEEP, PROMPT, REFERENCE, given, latent
from tests.host.unets import SUBJECTS, conditioning, noise, random_unet, sample

STEPS = 2


@pytest.fixture(scope="module")
def model(comfy):
    return random_unet()


def in_both_orders(model, patch, install):
    """The other node in front of ours and behind it, with what `install` returns."""
    front = patch(model).clone()
    first = install(front)
    observed = model.clone()
    second = install(observed)
    return (front, first), (patch(observed), second)


@pytest.mark.parametrize("name", GUIDANCE)
def test_a_capture_leaves_the_picture_as_it_is(model, name):
    patch = GUIDANCE[name]
    expected = sample(patch(model), STEPS)
    assert not torch.equal(expected, sample(model, STEPS))
    maps = []
    for patched, capture in in_both_orders(model, patch, lambda m: observe(m, SUBJECTS)):
        made = sample(patched, STEPS)
        assert torch.equal(made, expected)
        maps.append(capture.saliency(made, "subject", "each"))
    assert maps[0].labels == ("dog, step 0", "dog, step 1")
    assert torch.equal(maps[0].maps, maps[1].maps)


@pytest.mark.parametrize("name", GUIDANCE)
def test_a_masked_latent_works_with_it_in_any_order(model, name):
    patch = GUIDANCE[name]

    def masked(masking):
        return lambda m: MaskedLatent(masking, noise(seed=4), "1", KEEP, REFERENCE).install(m)

    expected = sample(patch(model), STEPS)
    for patched, _ in in_both_orders(model, patch, masked(given(1.0))):
        assert torch.equal(sample(patched, STEPS), expected)
    attention = AttentionMasking(SUBJECTS.with_role("subject"), Shaping())
    made = [sample(patched, STEPS) for patched, _ in in_both_orders(model, patch, masked(attention))]
    assert torch.equal(*made)
    assert not torch.equal(made[0], expected)


def test_a_noise_mask_that_changes_with_time(model):
    mask = torch.linspace(0, 1, 16).expand(1, 1, 16, 16)
    expected = sample(hard_mask_by_time(model), STEPS, noise_mask=mask)
    assert not torch.equal(expected, sample(model, STEPS, noise_mask=mask))
    for patched, capture in in_both_orders(model, hard_mask_by_time, lambda m: observe(m, SUBJECTS)):
        made = sample(patched, STEPS, noise_mask=mask)
        assert torch.equal(made, expected)
        assert capture.saliency(made, "subject", "each").labels == ("dog, step 0", "dog, step 1")


def test_prompts_that_are_joined_by_and_and_cut_by_masks(model):
    """As prompt-control writes AND, MASK and weights into conditionings."""
    left = torch.zeros(1, 128, 128)
    left[..., :64] = 1
    positive = [
        *conditioning(1, mask=left, mask_strength=0.7, strength=0.8),
        *conditioning(5, strength=1.2),
        *conditioning(6, mask=1 - left, mask_strength=1.0),
    ]
    observed = model.clone()
    capture = observe(observed, SUBJECTS, positive=conditioning(5))
    made = sample(observed, STEPS, positive=positive)
    assert torch.equal(made, sample(model, STEPS, positive=positive))
    assert capture.saliency(made, "subject", "each").labels == ("dog, step 0", "dog, step 1")


def test_a_node_that_hands_arguments_on_in_its_own_way(toy):
    """By position where the host does by name, and the other way round."""
    from comfy.patcher_extension import WrappersMP

    def load(executor, model, shape, conds, model_options=None, force_full_load=False, force_offload=False):
        return executor(model, shape, conds, model_options, force_full_load, force_offload)

    def predict(executor, x, timestep, model_options, seed):
        return executor(x, timestep, model_options=model_options, seed=seed)

    def evaluate(executor, model, conds, x_in, timestep, model_options):
        return executor(model, conds, x_in=x_in, timestep=timestep, model_options=model_options)

    model = toy.model.clone()
    for kind, wrapper in (("PREPARE_SAMPLING", load), ("PREDICT_NOISE", predict), ("CALC_COND_BATCH", evaluate)):
        model.add_wrapper_with_key(getattr(WrappersMP, kind), "another pack", wrapper)
    subjects = ELParseSubjects.execute(toy.clip, PROMPT, "rules", "", "head noun")[0].with_role("subject")
    capture = observe(model, subjects)
    report = MaskedLatent(GradientMasking(subjects, Shaping()), latent()["samples"], "1", KEEP, REFERENCE).install(
        model
    )
    made = toy.stock(latent(), "euler", scheduler="normal", steps=2, model=model)
    assert capture.saliency(made, "subject", "each").labels == ("dog, step 0", "dog, step 1")
    assert [entry.step for entry in report.manipulations(made)] == [1]

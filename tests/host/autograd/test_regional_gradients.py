"""Abs-Grad-SAM beside Attention Couple and NegPip, against autograd over a float64 copy of the network."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from explainable_latents.nodes.core.words.parsing import parse
from explainable_latents.nodes.host.families.family import cross_attention_layers
from explainable_latents.nodes.host.one_call import call_once, gradient_saliency, noise_sigma
from explainable_latents.nodes.host.same_prompt import ParsedPrompt
from explainable_latents.nodes.host.tokens import tokenize
from tests.core.gradients.last_layers import relative_error
from tests.host.regional_patches import Couple, interleaved, left_half, negpip
from tests.host.toy_sampling import latent
from tests.host.unets import SUBJECTS, conditioning, noise, random_unet

LEVEL, SEED = 0.5, 3
LEFT, REST = left_half(0.9), left_half(0.1)
TOKENS = [list(tokens) for tokens in SUBJECTS.positions()]


@pytest.fixture(scope="module")
def model(comfy):
    return random_unet()


def saliency(model, positive, solver="structured", **more):
    with torch.inference_mode():
        return gradient_saliency(
            model, positive, {"samples": noise(2, (5, 6))}, SUBJECTS, LEVEL, SEED, "absolute", solver, **more
        ).maps


def definition(model, positive, rows, period=77):
    """[S,B,C,h,w]: every probability of the last cross-attention is a variable; `rows[b]` are those that count."""
    from comfy.patcher_extension import WrappersMP

    spied, seen = model.clone(), []

    def spy(executor, x, t, context, y, control, options, **kwargs):
        seen.append((x, t, context, options))
        return executor(x, t, context, y, control, options, **kwargs)

    spied.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "spy", spy)
    call_once(spied, positive, {"samples": noise(2, (5, 6))}, LEVEL, SEED)
    ((x, t, context, options),) = seen
    network = copy.deepcopy(model.model.diffusion_model).double()
    network.dtype = torch.float64
    leaf = {}

    def last_attention(q, k, v, options):
        q, k, v = (x.unflatten(2, (options["n_heads"], -1)).transpose(1, 2) for x in (q, k, v))
        leaf["p"] = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, -1).detach().requires_grad_()
        return (leaf["p"] @ v).transpose(1, 2).flatten(2)

    kind, number, depth = cross_attention_layers(model)[-1].split(".")
    options = {**options, "patches_replace": {"attn2": {(kind, int(number), int(depth)): last_attention}}}
    z = -noise_sigma(model, LEVEL) * network(x.double(), t, context.double(), transformer_options=options)
    p, scores = leaf["p"], torch.zeros(len(TOKENS), *z.shape, dtype=torch.float64)
    for index in torch.cartesian_prod(*(torch.arange(n) for n in z.shape)).tolist():
        (gradient,) = torch.autograd.grad(z[tuple(index)], p, retain_graph=True)
        counts = (p * gradient.abs())[rows[index[0]]].unflatten(-1, (-1, period)).sum(-2)
        for s, tokens in enumerate(TOKENS):
            scores[(s, *index)] = counts[..., tokens].sum()
    return scores.detach().float()


def test_a_subject_of_the_samplers_own_text_beside_regions(model):
    couple = Couple([REST, LEFT], [conditioning(5)[0][0]])
    coupled = couple.install(model)
    expected = definition(coupled, conditioning(1), [[0], [1]])
    # as close as without another node, see test_gradients
    assert relative_error(saliency(coupled, conditioning(1)), expected) < 1e-4
    assert relative_error(saliency(coupled, conditioning(1), "exact"), expected) < 1e-4


def test_a_subject_of_a_region(model):
    couple = Couple([REST, LEFT], [conditioning(5)[0][0]])
    coupled = couple.install(model)
    expected = definition(coupled, conditioning(1), [[2], [3]])
    assert relative_error(saliency(coupled, conditioning(1), region=conditioning(5)), expected) < 1e-4


def test_a_text_that_a_region_shares_counts_in_both(model):
    couple = Couple([REST, LEFT], [conditioning(1, 2)[0][0][:, :77].repeat(1, 2, 1)], [1.0, 0.8])
    coupled = couple.install(model)
    expected = definition(coupled, conditioning(1), [[0, 2], [1, 3]])
    assert relative_error(saliency(coupled, conditioning(1)), expected) < 1e-4


def test_beside_negpip(model):
    positive = interleaved(conditioning(1), [3])
    expected = definition(negpip(model), positive, [[0], [1]])
    assert relative_error(saliency(negpip(model), positive), expected) < 1e-4


def test_all_layers_are_variables_beside_regions(model):
    couple = Couple([torch.ones_like(LEFT), torch.zeros_like(LEFT)], [conditioning(5)[0][0]])
    found, plain = (saliency(each, conditioning(1), definition="aggregated") for each in (couple.install(model), model))
    # a region without share changes nothing
    assert relative_error(found, plain) < 1e-4


def test_a_regions_prompt_is_compared_with_the_subjects_and_the_samplers_is_not(toy, caplog):
    prompt = "a cat in the snow"
    found = parse(prompt, tokenize(toy.clip, prompt), "")
    subjects = replace(found.with_role("subject"), source=ParsedPrompt(toy.clip, prompt))
    region = toy.clip.encode_from_tokens_scheduled(toy.clip.tokenize(prompt))
    coupled = Couple([REST, LEFT], [region[0][0]]).install(toy.model)
    with torch.inference_mode():
        gradient_saliency(
            coupled, toy.positive, latent(), subjects, LEVEL, SEED, "absolute", "structured", region=region
        )
    assert not caplog.records

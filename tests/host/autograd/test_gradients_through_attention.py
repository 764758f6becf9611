"""Other nodes' attention in the part of the model that gradients pass: told where they cannot, right where they can."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from explainable_latents.nodes.host.attention.observer import observe
from tests.core.gradients.last_layers import relative_error
from tests.host.autograd.test_gradients import saliency
from tests.host.patches import PATCHES
from tests.host.unets import SUBJECTS, noise, random_unet

GRID = (4, 4)
EXACT = {"solver": "exact", "layer": "middle"}
AGGREGATED = {"definition": "aggregated"}


def spelled_out(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Attention by its definition, as any node may write it."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    p = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1)
    return (p @ v).transpose(1, 2).flatten(2)


@torch.no_grad()
def kernel(q, k, v, heads):
    """An attention kernel that has no backward pass."""
    return spelled_out(q, k, v, heads)


def half_a_kernel(q, k, v, heads):
    return 0.5 * spelled_out(q, k, v, heads) + 0.5 * kernel(q, k, v, heads)


def a_tenth_from_a_kernel(q, k, v, heads):
    return 0.9 * spelled_out(q, k, v, heads) + 0.1 * kernel(q, k, v, heads)


def probabilities_from_a_kernel(q, k, v, heads):
    identity = torch.eye(k.shape[1]).expand(len(q), heads, -1, -1)
    with torch.no_grad():
        q, k = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k))
        p = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1) @ identity
    return (p @ v.unflatten(-1, (heads, -1)).transpose(1, 2)).transpose(1, 2).flatten(2)


def changed_after_it_was_used(q, k, v, heads):
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    p = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1)
    out = p @ v
    p.mul_(0.5)
    return out.transpose(1, 2).flatten(2)


def in_half_precision(q, k, v, heads):
    return spelled_out(*(x.bfloat16() for x in (q, k, v)), heads).float()


def scaled_in_place(q, k, v, heads):
    return spelled_out(q.mul_(1.0), k, v, heads)


def with_noise(q, k, v, heads):
    return spelled_out(q, k, v, heads) + 0 * torch.rand(q.shape)


NOT_FOLLOWED = [kernel, half_a_kernel, a_tenth_from_a_kernel, probabilities_from_a_kernel, changed_after_it_was_used]
FOLLOWED = [spelled_out, scaled_in_place, with_noise]


def overridden(model, attention):
    """A node that gives the model another attention and ignores the one that it is offered."""

    def override(offered, q, k, v, heads, *args, **kwargs):
        return attention(q, k, v, heads)

    model = model.clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = override
    return model


def replaced(kind):
    def replace(model, attention):
        """A node that replaces one layer's attention behind the layer that counts."""

        def replacer(q, k, v, options):
            return attention(q, k, v, options["n_heads"])

        model = model.clone()
        getattr(model, f"set_model_{kind}_replace")(replacer, "output", 3)
        return model

    return replace


def watched(model, attention):
    """The same override on a model whose attention is captured, too."""
    model = overridden(model, attention)
    observe(model, SUBJECTS)
    return model


WAYS = [overridden, replaced("attn1"), replaced("attn2"), watched]
NAMES = ["override", "attn1", "attn2", "captured"]


@pytest.fixture(scope="module")
def model(comfy):
    return random_unet("SD15", seed=12)


@pytest.mark.parametrize("how", [EXACT, AGGREGATED], ids=["exact", "aggregated"])
@pytest.mark.parametrize("way", WAYS, ids=NAMES)
def test_an_attention_without_a_derivative_is_told_not_taken_for_a_constant(model, way, how):
    name = r"(overridden\.override|replaced\.replace\.replacer) of tests\.host\.autograd\.\w+"
    with pytest.raises(ValueError, match=rf"that {name} computes .* derivative 0 where .*Connect the model without"):
        saliency(way(model, kernel), start=noise(1, GRID), **how)


@pytest.mark.parametrize("attention", NOT_FOLLOWED[1:], ids=lambda f: f.__name__)
def test_an_attention_with_a_derivative_only_in_part_is_told(model, attention):
    for how in (EXACT, AGGREGATED):
        with pytest.raises(ValueError, match=r"gradients cannot pass the attention that .*override "):
            saliency(overridden(model, attention), start=noise(1, GRID), **how)


@pytest.mark.parametrize("way", WAYS, ids=NAMES)
def test_an_attention_that_autograd_can_follow_keeps_working(model, way):
    plain = saliency(model, start=noise(1, GRID), **AGGREGATED)
    for attention in FOLLOWED:
        found = saliency(way(model, attention), start=noise(1, GRID), **AGGREGATED)
        assert relative_error(found.maps, plain.maps) <= 1e-4


def test_the_exact_solver_follows_another_nodes_attention(model):
    plain, found = (saliency(m, start=noise(1, GRID), **EXACT) for m in (model, overridden(model, spelled_out)))
    assert relative_error(found.maps, plain.maps) <= 1e-4


def test_an_attention_in_half_precision_is_followed(model):
    """bfloat16 keeps less than 3 digits, and so do the maps; that is no reason to refuse."""
    halved = overridden(model, in_half_precision)
    plain, found = (saliency(m, start=noise(1, (24, 24)), **AGGREGATED) for m in (model, halved))
    assert float((found.maps - plain.maps).abs().sum() / plain.maps.sum()) <= 0.05


def test_the_last_layer_needs_no_derivative_of_any_attention(model):
    plain, found = (saliency(m, start=noise(1, GRID)) for m in (model, overridden(model, kernel)))
    assert relative_error(found.maps, plain.maps) <= 1e-4


def test_looking_whether_attention_has_a_derivative_leaves_random_numbers_as_they_are(model):
    def drawn_by(**how):
        drawn = []

        def draws(q, k, v, heads):
            drawn.append(float(torch.rand(1)))
            return spelled_out(q, k, v, heads)

        saliency(overridden(model, draws), start=noise(1, GRID), **how)
        return drawn

    plain, looked_at = drawn_by(), drawn_by(**AGGREGATED)
    assert len(looked_at) > len(plain)
    assert list(dict.fromkeys(looked_at)) == plain


def test_a_patch_that_changes_in_place_what_gradients_need_is_named(model):
    freed = PATCHES["FreeU_V2"](model)
    named = r"output_block_patch of comfy_extras\.nodes_freelunch"
    with pytest.raises(ValueError, match=rf"changes in place \(there are .*{named}\)"):
        saliency(freed, start=noise(1, (8, 8)), **AGGREGATED)

"""A network that autograd follows: weights that are not copied, blocks that are run again, and what raises."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from explainable_latents.nodes.core.gradients.definition import AGGREGATED
from explainable_latents.nodes.host.autograd.differentiable import differentiable
from explainable_latents.nodes.host.families.family import cross_attention_layers
from explainable_latents.nodes.host.families.unet_gradients import LayersAfter
from explainable_latents.nodes.host.one_call import call_once
from tests.host.autograd.test_gradients import partially_loaded, saliency
from tests.host.autograd.test_gradients_through_attention import (
    FOLLOWED,
    NOT_FOLLOWED,
    overridden,
    replaced,
    with_noise,
)
from tests.host.unets import conditioning, noise, random_unet

GRID = (6, 8)
ALL_LAYERS = {"definition": AGGREGATED}


def gradient(model, from_site: str | None) -> Tensor:
    """Of the output's sum, with respect to what is added behind the first cross-attention: [rows,Q,K]."""
    from comfy.patcher_extension import WrappersMP

    patched, found = model.clone(), []
    first = cross_attention_layers(model)[0]

    def added(n: Tensor, options: dict) -> Tensor:
        if f"{options['block'][0]}.{options['block'][1]}.{options['block_index']}" != first:
            return n
        torch.set_grad_enabled(True)
        found.append(torch.zeros_like(n, dtype=torch.float32, requires_grad=True))
        return n.float() + found[0]

    def around(executor, x, t, context, y, control, options, **kwargs):
        with differentiable(LayersAfter(executor.class_obj, from_site), x.device, options):
            out = executor(x, t, context, y, control, options, **kwargs)
            found.extend(torch.autograd.grad(out.float().sum(), found[0]))
            return out.detach()

    patched.set_model_attn2_output_patch(added)
    patched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test", around)
    patched.model_options["transformer_options"]["optimized_attention_override"] = with_derivative
    with torch.inference_mode():
        call_once(patched, conditioning(1), {"samples": noise(2, GRID)}, 0.5, 3)
    return found[1]


def with_derivative(attention, q, k, v, heads, *args, **kwargs):
    query, k, v = (x.float().unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    return torch.nn.functional.scaled_dot_product_attention(query, k, v).transpose(1, 2).flatten(2).to(q)


def as_fp8(model):
    """Weights that the host casts whenever they are used."""
    import comfy.ops

    for module in model.model.diffusion_model.modules():
        if isinstance(module, comfy.ops.CastWeightBiasOp):
            module.comfy_cast_weights = True
            module.to(torch.float8_e4m3fn)
    return model


def quantised():
    """A model whose feed-forward layers hold 8 bit numbers and their scales."""
    weights = random_unet("SD15", seed=1).model.diffusion_model.state_dict()
    form = torch.tensor(list(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8)
    for name in [name for name in weights if ".ff.net." in name and weights[name].ndim == 2]:
        scale = weights[name].abs().max() / 448
        weights[name] = (weights[name] / scale).to(torch.float8_e4m3fn)
        layer = name.removesuffix("weight")
        weights |= {f"{layer}weight_scale": scale, f"{layer}comfy_quant": form}
    with torch.inference_mode():
        return random_unet("SD15", weights=weights, quantised=True)


def patched_when_used():
    """A model of which the host loads next to nothing, with a patch on some weights: it is applied at every use."""
    model = random_unet("SD15", seed=3)
    weights = model.model.diffusion_model.state_dict()
    names = ["output_blocks.3.1.transformer_blocks.0.ff.net.2.weight", "input_blocks.2.0.op.weight"]
    model.add_patches({f"diffusion_model.{name}": ("diff", (0.1 * torch.ones_like(weights[name]),)) for name in names})
    return model


MODELS = {
    "SD15": lambda: random_unet("SD15", seed=1),
    "SD20 float16": lambda: random_unet("SD20", torch.float16, seed=2),
    "SDXL bfloat16": lambda: random_unet("SDXL", torch.bfloat16, seed=3),
    "fp8": lambda: as_fp8(random_unet("SD15", seed=4)),
    "quantised": quantised,
    "patched": patched_when_used,
}


@pytest.mark.parametrize("model", MODELS)
def test_weights_from_the_host_give_the_gradient_that_copies_give(comfy, monkeypatch, model):
    """Bit for bit: the same operations on the same numbers, forwards and back."""
    if model == "patched":
        partially_loaded(monkeypatch, 0.1)
    unet = MODELS[model]()
    copied, from_the_host = (gradient(unet, site) for site in (cross_attention_layers(unet)[0], None))
    assert float(copied.abs().min()) > 0
    assert torch.equal(from_the_host, copied)


@pytest.mark.parametrize("model", MODELS)
def test_blocks_that_are_run_again_give_the_same_maps(monkeypatch, little_memory, model):
    """Bit for bit; see test_memory for what it saves."""
    if model == "patched":
        partially_loaded(monkeypatch, 0.1)
    unet, halves = MODELS[model](), conditioning(1)
    halves = [[halves[0][0], {**halves[0][1], "area": (6, 4, 0, x), "strength": 1.0}] for x in (0, 4)]
    whole, areas = (saliency(unet, start=noise(2, GRID), positive=p, **ALL_LAYERS) for p in (None, halves))
    little_memory()
    assert torch.equal(saliency(unet, start=noise(2, GRID), **ALL_LAYERS).maps, whole.maps)
    assert torch.equal(saliency(unet, start=noise(2, GRID), positive=halves, **ALL_LAYERS).maps, areas.maps)


@pytest.mark.parametrize("attention", FOLLOWED, ids=lambda f: f.__name__)
@pytest.mark.parametrize("way", [overridden, replaced("attn1"), replaced("attn2")], ids=["override", "attn1", "attn2"])
def test_blocks_with_another_nodes_attention_are_run_again(little_memory, way, attention):
    model = way(random_unet("SD15", seed=12), attention)
    kept = saliency(model, start=noise(1, (4, 4)), **ALL_LAYERS)
    little_memory()
    assert torch.equal(saliency(model, start=noise(1, (4, 4)), **ALL_LAYERS).maps, kept.maps)


@pytest.mark.parametrize("attention", NOT_FOLLOWED, ids=lambda f: f.__name__)
def test_an_attention_without_a_derivative_is_told_when_blocks_are_run_again(little_memory, attention):
    little_memory()
    with pytest.raises(ValueError, match=r"gradients cannot pass the attention that .*override "):
        saliency(overridden(random_unet("SD15", seed=12), attention), start=noise(1, (4, 4)), **ALL_LAYERS)


def test_random_numbers_are_those_of_a_call_that_keeps_everything(little_memory):
    def drawn():
        torch.manual_seed(5)
        saliency(overridden(random_unet("SD15", seed=12), with_noise), start=noise(1, (4, 4)), **ALL_LAYERS)
        return torch.rand(1)

    expected = drawn()
    little_memory()
    assert torch.equal(drawn(), expected)


def skipped_in_place(model):
    """What only the downsampling convolution was given is changed when it comes by again, as a skip connection."""

    def patch(h, skipped, options):
        return h, skipped.mul_(0.5) if options["block"] == ("output", 2) else skipped

    model.set_model_output_block_patch(patch)


def kept_and_changed(model):
    """Within a transformer block a number is changed in place that autograd needs."""

    def patch(n, options):
        squared = n * n
        n.mul_(0.5)
        return squared

    model.set_model_attn1_output_patch(patch)


@pytest.mark.parametrize("memory", ["enough", "little"])
@pytest.mark.parametrize("change", [skipped_in_place, kept_and_changed])
def test_a_number_that_is_changed_in_place_is_told(little_memory, change, memory):
    model = random_unet("SD15", seed=12).clone()
    change(model)
    if memory == "little":
        little_memory()
    with pytest.raises(ValueError, match=rf"changes in place \(there are .*{change.__name__}\.patch"):
        saliency(model, start=noise(1, GRID), **ALL_LAYERS)


def test_behind_the_first_site_is_behind_all(comfy):
    for kind in ("SD15", "SD20", "SDXL"):
        model = random_unet(kind)
        network, layers = model.model.diffusion_model, cross_attention_layers(model)
        assert LayersAfter(network, None).modules == LayersAfter(network, layers[0]).modules
        assert [layer for layer in layers if LayersAfter(network, layer).only_end] == (
            [] if kind == "SDXL" else [layers[-1]]
        )

"""Abs-Grad-SAM on transformers: against autograd over the host's own network, and what it costs and leaves behind."""

from __future__ import annotations

import gc
from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from explainable_latents.nodes.core.gradients.patches import as_patches
from explainable_latents.nodes.core.maps.masks import Shaping, shape_mask
from explainable_latents.nodes.core.methods.masked_latent import Policy
from explainable_latents.nodes.core.methods.masking import GradientMasking
from explainable_latents.nodes.host.families.family import FAMILIES
from explainable_latents.nodes.host.families.offers import GRADIENTS
from explainable_latents.nodes.host.one_call import call_once, gradient_saliency
from explainable_latents.nodes.host.sampling.masked_latent import MaskedLatent
from tests.host.autograd.test_gradients import out_of_memory, state
from tests.host.autograd.test_memory import used_by
from tests.host.families.gradient_oracle import definition
from tests.host.families.test_transformers import KNOWN, SUBJECTS
from tests.host.families.transformers import SMALL, noise, prompt, sample, small
from tests.host.operations import Operations, at
from tests.host.pretended_gpu import GPU, pretended_gpu, values_of
from tests.tools.thorough import further

LEVEL, SEED = 0.5, 3

# Its own last layer is a convolution over pixels.
MIXING = "Chroma Radiance"
# What has no gradients, see `transformer_gradients.WITHOUT`.
REFUSED = {"PixelDiT"}
LOCAL = [name for name in KNOWN if name not in {MIXING, *REFUSED}]
# One of each kind of end: without a backward pass, and K passes behind joint and behind cross-attention.
ENDS = ["Flux.1", "Qwen-Image", "Wan"]

# 3,072 numbers of a patch, and as many passes.
LARGE = "HiDream-O1"
LONGER = [further(name) for name in KNOWN if name == LARGE]

# The numbers of a patch, and a function that one pass differentiates once.
PASSES = {
    "Flux.1": (0, "norm_backward"),
    "Qwen-Image": (64, "gelu_backward"),
    "Wan": (64, "gelu_backward"),
    "HunyuanDiT": (16, "gelu_backward"),
    "LTX-Video": (128, "gelu_backward"),
    LARGE: (3072, "silu_backward"),
}

GRIDS = {"PixArt": (34, 36), MIXING: (32, 16), LARGE: (64, 64)}


def start_of(name, batch=1, grid=None):
    return noise(name, batch, grid or GRIDS.get(name, (6, 4)))


def saliency(name, model, polarity="absolute", solver="structured", start=None, positive=None, **more):
    """As a node runs it: in inference mode."""
    latent = {"samples": start_of(name) if start is None else start}
    with torch.inference_mode():
        return gradient_saliency(
            model, positive or prompt(name), latent, SUBJECTS, LEVEL, SEED, polarity, solver, **more
        )


def expected(name, model, start=None, positive=None, every=1):
    """Polarity -> [S,E] of every so many elements, by `definition`."""
    start = start_of(name) if start is None else start
    sets, elements = SUBJECTS.positions(), range(0, start[0].numel(), every)
    return definition(name, model, start, positive or prompt(name), sets, LEVEL, SEED, elements)


def error(found, other, every=1):
    """The largest difference, as a share of the largest element: single ones may be 0."""
    return float((found.maps.flatten(1)[:, ::every] - other).abs().max() / other.max())


@pytest.fixture(scope="module")
def models(comfy):
    """As the server loads them: autograd cannot save their weights."""
    with torch.inference_mode():
        return {name: small(name) for name in KNOWN}


def backward_passes(action, of="norm_backward"):
    """How often a function of a network, its last norm, say, was differentiated in `action`."""
    done = Counter()
    with Operations(lambda name: done.update([name])):
        action()
    return sum(count for name, count in done.items() if of in name)


@pytest.mark.parametrize("name", [*(name for name in LOCAL if name != LARGE), *LONGER])
def test_structured_gives_what_autograd_over_the_whole_network_gives(models, name):
    every = {"PixArt": 37, LARGE: 61}.get(name, 5)
    # float32 on both sides; PixArt's many keys and large scores leave a digit less
    tolerance = 2e-5 if name == "PixArt" else 1e-5
    for polarity, other in expected(name, small(name), every=every).items():
        found = saliency(name, models[name], polarity)
        assert found.maps.shape == (2, 1, *[n for n in start_of(name).shape[1:] if n > 1])
        assert error(found, other, every) <= tolerance, polarity


@pytest.mark.parametrize("name", ENDS)
def test_odd_sides_and_every_picture_of_a_batch(models, name):
    """The last patches reach beyond an odd latent."""
    start = start_of(name, 3, (7, 5))
    found = saliency(name, models[name], start=start)
    for i, one in enumerate(start):
        alone = {"samples": one[None], "batch_index": [i]}
        with torch.inference_mode():
            single = gradient_saliency(
                models[name], prompt(name), alone, SUBJECTS, LEVEL, SEED, "absolute", "structured"
            )
        assert (found.maps[:, i] - single.maps[:, 0]).abs().max() <= 1e-4 * single.maps.mean()
    first = expected(name, small(name), start[:1], every=3)["absolute"]
    assert error(saliency(name, models[name], start=start[:1]), first, 3) <= 1e-5


def test_the_frames_of_a_video_are_pictures(models):
    start = torch.randn(1, 16, 3, 6, 4, generator=torch.Generator().manual_seed(1))
    found = saliency("Wan", models["Wan"], start=start)
    assert found.maps.shape == (2, 3, 16, 6, 4)
    other = expected("Wan", small("Wan"), start)["absolute"].unflatten(1, (16, 3, 6, 4)).transpose(1, 2)
    assert (found.maps - other).abs().max() <= 1e-5 * other.mean()
    exact = saliency("Wan", models["Wan"], start=start, solver="exact")
    assert (exact.maps - other).abs().max() <= 1e-5 * other.mean()


@pytest.mark.parametrize("name", [*(name for name in PASSES if name != LARGE), *LONGER])
def test_the_number_of_passes_does_not_grow_with_the_picture(models, name):
    """As many as a patch has numbers and one that checks; none where the last block has a closed form."""
    (numbers, once), grids = PASSES[name], ((6, 4), (12, 20))
    if name == LARGE:
        grids = (64, 64), (64, 96)
    counts = [
        backward_passes(lambda grid=grid: saliency(name, models[name], start=start_of(name, grid=grid)), once)
        for grid in grids
    ]
    assert counts == [numbers and numbers + 1] * 2


def without_a_residual(attention):
    """What another node may make of the attention: nothing that a closed form knows."""
    return attention * attention.sigmoid()


def test_another_node_within_the_last_block_is_in_the_gradient(models):
    """It is not what the closed form differentiates, so every number of a patch has a backward pass."""
    options = {"patches": {"attn1_output_patch": [lambda out, extra: without_a_residual(out)]}}
    changed, oracle = models["Flux.1"].clone(), small("Flux.1")
    for model in (changed, oracle):
        model.model_options["transformer_options"] = options
    found = saliency("Flux.1", changed)
    assert error(found, expected("Flux.1", oracle)["absolute"]) <= 1e-5
    assert (found.maps - saliency("Flux.1", models["Flux.1"]).maps).abs().max() > 0.1 * found.maps.mean()
    assert backward_passes(lambda: saliency("Flux.1", changed)) == 65


def test_a_node_that_mixes_positions_behind_the_attention_is_refused_and_exact_is_not(models):
    options = {"patches": {"attn1_output_patch": [lambda out, extra: out + out[:, 20:].mean(1, keepdim=True)]}}
    changed, oracle = models["Flux.1"].clone(), small("Flux.1")
    for model in (changed, oracle):
        model.model_options["transformer_options"] = options
    with pytest.raises(ValueError, match=r"mixes positions .*another node\)\. Choose the solver 'exact': 384 backward"):
        saliency("Flux.1", changed)
    assert error(saliency("Flux.1", changed, solver="exact"), expected("Flux.1", oracle)["absolute"]) <= 1e-5


def test_a_model_that_ends_in_a_convolution_is_refused_and_exact_is_not(models):
    with pytest.raises(ValueError, match=r"the model's own last layers, .* Choose the solver 'exact': 1536 backward"):
        saliency(MIXING, models[MIXING])
    found = saliency(MIXING, models[MIXING], solver="exact")
    assert error(found, expected(MIXING, small(MIXING), every=7)["absolute"], 7) <= 1e-5


@pytest.mark.parametrize("how", [{"layer": "double.0", "solver": "exact"}, {"definition": "aggregated"}], ids=str)
def test_other_layers_are_refused_before_the_model_is_called(models, how):
    where = "all layers" if "definition" in how else r"the layer double\.0"
    message = rf"gradients by {where}: not for the models Flux.*the layer 'last' \(single\.1\)"
    with pytest.raises(ValueError, match=message):
        saliency("Flux.1", models["Flux.1"], **how)


@pytest.mark.parametrize("name", [name for name in KNOWN if name in REFUSED])
def test_models_without_gradients_are_refused_before_they_are_called(models, name):
    message = r"Abs-Grad-SAM: not for the model .*, because blocks of single pixels.*; this works with.*Load one of"
    with pytest.raises(ValueError, match=message):
        saliency(name, models[name])


def reached(name, model):
    """How much each patch [Q] of a network's output changes with its last attention to the text at the last token.

    By a difference, in the forward pass alone.
    """
    network = model.model.diffusion_model
    layout = next(family for family in FAMILIES if family.site_names(network, family.text_kind)).layout
    count, made, done = len(layout.names(network)), [], []

    def override(own, q, k, v, heads, *args, **kwargs):
        out = own(q, k, v, heads, *args, **kwargs)
        if q.shape[-2] > SMALL[name].text[0]:  # not of the picture alone
            done.append(True)
            if len(made) == 1 and len(done) == count:
                out = out.clone()
                out[..., -1, :] += 1.0
        return out

    patched = model.clone()
    patched.model_options["transformer_options"] = {"optimized_attention_override": override}
    handle = network.register_forward_hook(lambda network, args, output: made.append(output))
    try:
        for _ in range(2):
            done.clear()
            with torch.inference_mode():
                call_once(patched, prompt(name), {"samples": noise(name)}, LEVEL, SEED)
    finally:
        handle.remove()
    assert len(done) == count
    return as_patches((made[1] - made[0]).abs(), layout.patch_of(network)[1:])[0].amax(-1)


@pytest.mark.parametrize("name", [name for name in KNOWN if name in {*REFUSED, "Qwen-Image"}])
def test_the_reason_why_a_model_is_refused_is_true(models, name):
    """Its last attention to the text at one token changes every patch; of a model with gradients that token's alone."""
    change = reached(name, models[name])
    assert change[-1] > 0
    assert (change[:-1] > 0).all() if name in REFUSED else (change[:-1] == 0).all()


def test_every_other_family_of_the_table_has_gradients():
    without = {family.name for family in FAMILIES if GRADIENTS not in family.offers}
    assert without == {"PixelDiT"}


@pytest.mark.parametrize("name", ["HunyuanDiT", "LTX-Video"])
def test_a_prompt_as_the_server_makes_it_is_left_as_it_was(models, name):
    """HunyuanDiT's network writes its padding into the text that it is given."""
    with torch.inference_mode():
        positive = [[vectors.clone(), {key: value if value is None else value.clone() for key, value in more.items()}]
                    for vectors, more in prompt(name)]  # fmt: skip
        if name == "HunyuanDiT":
            positive[0][1]["attention_mask"][:, -20:] = 0
        before = positive[0][0].clone()
    found = saliency(name, models[name], positive=positive)
    assert torch.equal(positive[0][0], before)
    other = expected(name, small(name), positive=positive, every=7)["absolute"]
    assert error(found, other, 7) <= 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "name", ["Flux.1", "Qwen-Image", "Wan", "Predict2", "Z-Image", "HunyuanDiT", "LTX-Video", *LONGER]
)
def test_half_precision(name, dtype, comfy):
    """What follows the attention is float32: no gradient is rounded, and both solvers find the same."""
    model, precisions = small(name, dtype), set()

    class Look(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if "backward" in func.name():
                precisions.update((func.name(), each.dtype) for each in tree_leaves(out) if each is not None)
            return out

    exact = saliency(name, model, solver="exact")
    with Look():
        found = saliency(name, model)
    assert (found.maps - exact.maps).abs().max() <= 1e-5 * exact.maps.mean()
    assert {name for name, precision in precisions if precision != torch.float32} == set()
    # autograd over the host's network rounds what follows the attention to this precision; measured: up to 0.75 of it
    other = expected(name, small(name, dtype), every=5)["absolute"]
    assert (found.maps.flatten(1)[:, ::5] - other).abs().mean() <= 2 * torch.finfo(dtype).eps * other.mean()


@pytest.mark.parametrize("name", ["Flux.1", "Qwen-Image"])
def test_on_a_gpu_nothing_mixes_devices(name, comfy):
    from comfy.model_patcher import ModelPatcher
    from comfy.patcher_extension import WrappersMP

    twin = small(name, torch.bfloat16)
    for module in twin.model.diffusion_model.modules():
        if hasattr(module, "comfy_cast_weights"):
            module.comfy_cast_weights = True
    model = ModelPatcher(twin.model, GPU, torch.device("cpu"))
    stay = lambda executor, model, shape, conds, **options: (model.model, conds, [])  # noqa: E731
    model.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, "weights stay", stay)
    other = saliency(name, twin).maps
    with pretended_gpu():
        found = saliency(name, model).maps
    torch.testing.assert_close(values_of(found), other, rtol=1e-3, atol=1e-5)


def still_recorded():
    """The tensors that autograd has a record of."""
    gc.collect()
    return {id(t) for t in gc.get_objects() if isinstance(t, torch.Tensor) and t.grad_fn is not None}


@pytest.mark.parametrize("name", ["Flux.1", "Qwen-Image", "LTX-Video"])
@pytest.mark.parametrize("ending", ["done", "cancelled", "out of memory"])
def test_the_model_is_afterwards_as_it_was(models, name, ending):
    """Output bit for bit, parameters, modules, options; no tensor of the call stays alive."""
    import comfy.model_management as management

    model = models[name]
    plain = sample(name, model)
    before, recorded = state(model), still_recorded()
    if ending == "done":
        saliency(name, model)
    else:

        def cancel():
            management.interrupt_current_processing()
            management.throw_exception_if_processing_interrupted()

        error, act = (
            (management.InterruptProcessingException, cancel)
            if ending == "cancelled"
            else (torch.OutOfMemoryError, out_of_memory)
        )
        # within the solver: a product of matrices in float32 behind the call of the network
        kind, number = ("backward", 3) if name != "Flux.1" else ("aten::var_mean", 1)
        with pytest.raises(error), at(kind, number, act):
            saliency(name, model)
    assert state(model) == before
    assert torch.is_grad_enabled()
    assert torch.equal(sample(name, model), plain)
    assert still_recorded() <= recorded


@pytest.mark.parametrize("name", [*ENDS, "Krea 2", "Z-Image", "HunyuanDiT", "LTX-Video", *LONGER])
def test_what_is_asked_for_is_what_it_takes(models, name):
    """Never more than the estimate beside a plain call; and all of it is given back."""
    grid = {LARGE: (256, 192)}.get(name, (48, 40))
    model, start = models[name], start_of(name, grid=grid)
    layers = next(family for family in FAMILIES if family.site_names(model.model.diffusion_model, family.text_kind))
    network = model.model.diffusion_model
    last = layers.site_names(network, layers.text_kind)[-1]
    with torch.inference_mode():
        plain, _ = used_by(lambda: call_once(model.clone(), prompt(name), {"samples": start}, LEVEL, SEED))
        found, left = used_by(lambda: saliency(name, model, start=start))
    estimate = layers.layers_after(network, last).memory(grid).structured(1, 3)
    print(f"{name}: plain {plain / 2**20:.1f} MB, with gradients {found / 2**20:.1f}, estimate {estimate / 2**20:.1f}")
    assert found - plain <= estimate
    assert left == 0


@pytest.mark.parametrize("name", ENDS)
def test_masks_while_sampling_with_distilled_guidance(models, name):
    """cfg 1, and the guidance of FluxGuidance where the network has one: the reported saliency makes the masks."""
    positive = prompt(name, guidance=3.5) if name == "Flux.1" else prompt(name)
    model, shaping = models[name].clone(), Shaping("mean")
    plan = MaskedLatent(GradientMasking(SUBJECTS, shaping), start_of(name), "1", Policy("keep"), Policy("reference"))
    report = plan.install(model)
    made = sample(name, model, 3, 1.0, positive, start=start_of(name))
    masks, found, _ = report.outputs(made)
    shape = [n for n in start_of(name).shape[1:] if n > 1]
    assert found.maps.shape == (2, 1, *shape)
    assert found.labels == ("dog, step 1", "beach, step 1")
    mask = shape_mask(found.maps, shaping, ("dog", "beach"))
    assert 0 < mask.mean() < 1
    assert torch.equal(masks[:, ::8, ::8], mask.mean(1))
    assert not torch.equal(made, sample(name, models[name], 3, 1.0, positive, start=start_of(name)))

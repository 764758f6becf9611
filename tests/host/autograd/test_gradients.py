"""Abs-Grad-SAM on the host's own UNets, against autograd over the whole network written here, and what it leaves."""

from __future__ import annotations

import copy

import pytest
import torch

from explainable_latents.nodes.core.words.subjects import Subject, Subjects
from explainable_latents.nodes.host.attention.layer_choice import one_layer
from explainable_latents.nodes.host.families.family import cross_attention_layers
from explainable_latents.nodes.host.one_call import call_once, gradient_saliency, noise_sigma
from tests.core.gradients.last_layers import relative_error
from tests.host import unets
from tests.host.operations import Operations, at
from tests.host.unets import SUBJECTS, conditioning, noise, random_unet

LEVEL, SEED = 0.5, 3
POLARITIES = ("absolute", "positive")


def subjects(*token_sets: tuple[int, ...]) -> Subjects:
    items = tuple(
        Subject(f"word{i}", "subject", (0, 1), {"l": tokens, "g": tokens}) for i, tokens in enumerate(token_sets)
    )
    return Subjects("a prompt", items, "rules")


def saliency(
    model, words=SUBJECTS, start=None, polarity="absolute", solver="structured", positive=None, level=LEVEL, **more
):
    """As a node runs it: in inference mode."""
    start = noise(1, (5, 6)) if start is None else start
    with torch.inference_mode():
        return gradient_saliency(
            model, positive or conditioning(1), {"samples": start}, words, level, SEED, polarity, solver, **more
        )


def definition(model, token_sets, start, layer=None):
    """Polarity -> [S,B,C,h,w] by autograd through a float64 copy of the network, one cross-attention spelled out.

    That is the last one, or `layer`.
    """
    dtype = torch.float64
    x, t, context, y = seen_by_the_network(model, start)
    network = copy.deepcopy(model.model.diffusion_model).to(dtype)
    network.dtype = dtype
    kind, number, depth = (layer or cross_attention_layers(model)[-1]).split(".")
    leaf = {}

    def last_attention(q, k, v, options):
        q, k, v = (x.unflatten(2, (options["n_heads"], -1)).transpose(1, 2) for x in (q, k, v))
        leaf["p"] = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, -1).detach().requires_grad_()
        return (leaf["p"] @ v).transpose(1, 2).flatten(2)

    patches = model.model_options["transformer_options"].get("patches", {})
    replaced = {"patches_replace": {"attn2": {(kind, int(number), int(depth)): last_attention}}, "patches": patches}
    out = network(x.to(dtype), t, context.to(dtype), None if y is None else y.to(dtype), transformer_options=replaced)
    sigma = noise_sigma(model, LEVEL)
    z = -sigma * out
    p = leaf["p"]
    scores = {polarity: torch.zeros(len(token_sets), *z.shape, dtype=dtype) for polarity in POLARITIES}
    for index in torch.cartesian_prod(*(torch.arange(n) for n in z.shape)).tolist():
        (gradient,) = torch.autograd.grad(z[tuple(index)], p, retain_graph=True)
        for polarity, counts in (("absolute", gradient.abs()), ("positive", gradient.relu())):
            for s, tokens in enumerate(token_sets):
                scores[polarity][(s, *index)] = (p * counts)[index[0], :, :, list(tokens)].sum()
    return {polarity: score.detach().float() for polarity, score in scores.items()}


def seen_by_the_network(model, start) -> tuple:
    """Input, timestep, context and vector that a probe of `start` gives the network."""
    from comfy.patcher_extension import WrappersMP

    spied, seen = model.clone(), []

    def spy(executor, x, t, context, y, *args, **kwargs):
        seen.append((x, t, context, y))
        return executor(x, t, context, y, *args, **kwargs)

    spied.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "spy", spy)
    call_once(spied, conditioning(1), {"samples": start}, LEVEL, SEED)
    return seen[0]


MORE_LAYERS = {"num_res_blocks": [2, 1], "transformer_depth": [1] * 3, "transformer_depth_output": [1] * 5}
UNETS = [
    # kind, changes, grid, batch, token sets
    ("SD15", {}, (4, 4), 1, [(3,)]),
    ("SD15", {}, (5, 6), 1, [(3,), (6, 7)]),
    ("SD15", {}, (9, 14), 1, [(2, 3)]),
    ("SD15", {}, (6, 4), 2, [(3,), (6,)]),
    ("SD15", {"num_heads": 1}, (4, 6), 1, [(1, 2, 3)]),
    ("SD15", {"num_heads": 2}, (4, 6), 1, [(3,), (3, 4)]),
    ("SD15", {"num_heads": 4}, (8, 2), 1, [(3, 5, 7)]),
    ("SD15", {"num_heads": 16}, (4, 4), 1, [(3, 4)]),
    ("SD15", {"num_heads": 32}, (4, 4), 1, [(3, 4, 5), (8, 9)]),
    ("SD15", {"model_channels": 32, "num_heads": 4}, (7, 5), 1, [(3,)]),
    ("SD15", {"model_channels": 96, "num_heads": 6}, (4, 5), 1, [(3,)]),
    ("SD15", {"model_channels": 32, "channel_mult": [1, 3], "num_heads": 2}, (6, 6), 1, [(3, 4)]),
    ("SD15", {"model_channels": 32, "channel_mult": [1, 4]}, (4, 6), 1, [(5,)]),
    ("SD15", MORE_LAYERS, (4, 4), 1, [(3,)]),
    ("SD20", {}, (4, 4), 1, [(3,)]),
    ("SD20", {}, (5, 6), 2, [(3,), (6, 7)]),
    ("SD20", {}, (3, 10), 1, [(1,), (2,), (3,)]),
    ("SD20", {"num_head_channels": 16}, (6, 5), 1, [(2, 3)]),
    ("SD20", {"num_head_channels": 8}, (4, 4), 3, [(2, 3)]),
    ("SD20", {"model_channels": 32, "num_head_channels": 32}, (12, 3), 1, [(76,)]),
    ("SD20", {"model_channels": 128}, (4, 4), 1, [(0, 1)]),
    ("SD20", {"channel_mult": [1, 1]}, (5, 5), 1, [(4, 6), (4,)]),
]


@pytest.mark.parametrize(("kind", "changes", "grid", "batch", "sets"), UNETS)
def test_both_solvers_give_what_autograd_over_the_whole_network_gives(comfy, kind, changes, grid, batch, sets):
    model = random_unet(kind, seed=UNETS.index((kind, changes, grid, batch, sets)), **changes)
    start = noise(batch, grid, seed=5)
    for polarity, expected in definition(model, sets, start).items():
        structured, exact = (saliency(model, subjects(*sets), start, polarity, s) for s in ("structured", "exact"))
        assert structured.labels == tuple(f"word{i}" for i in range(len(sets)))
        assert structured.maps.shape == (len(sets), batch, 4, *grid)
        assert relative_error(structured.maps, exact.maps) <= 1e-4, polarity
        # against float64: what the network's own float32 loses is in it
        assert relative_error(structured.maps, expected) <= 1e-3, polarity


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_models_derive_in_float32(comfy, dtype):
    """Gradients in float32: the two solvers agree, and the distance to the float32 model is the rounding before."""
    weights = random_unet("SD15", seed=1, model_channels=64).model.diffusion_model.state_dict()
    model = random_unet("SD15", dtype, weights={k: v.to(dtype) for k, v in weights.items()}, model_channels=64)
    reference = random_unet("SD15", weights={k: v.to(dtype).float() for k, v in weights.items()}, model_channels=64)
    fast, slow, full = saliency(model), saliency(model, solver="exact"), saliency(reference)
    assert fast.maps.dtype == torch.float32
    assert relative_error(fast.maps, slow.maps) <= 1e-4
    assert relative_error(fast.maps, full.maps) <= (0.02 if dtype == torch.float16 else 0.15)


def test_fp8_weights_that_the_host_casts_when_used(comfy):
    import comfy.ops

    weights = random_unet("SD15", seed=1).model.diffusion_model.state_dict()
    rounded = {k: v.to(torch.float8_e4m3fn).float() for k, v in weights.items()}
    reference = saliency(random_unet("SD15", weights=rounded))
    model = random_unet("SD15", weights=weights)
    for module in model.model.diffusion_model.modules():
        if isinstance(module, comfy.ops.CastWeightBiasOp):
            module.comfy_cast_weights = True
            module.to(torch.float8_e4m3fn)
    assert relative_error(saliency(model).maps, reference.maps) <= 1e-4


def test_quantised_weights_of_the_host(comfy):
    """Layers that the host keeps as 8 bit numbers with a scale: gradients are those of what they stand for."""
    import comfy.quant_ops

    weights = random_unet("SD15", seed=1).model.diffusion_model.state_dict()
    kept, meant = dict(weights), dict(weights)
    form = torch.tensor(list(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8)
    for name in [name for name in weights if ".transformer_blocks.0." in name and weights[name].ndim == 2]:
        scale = weights[name].abs().max() / 448
        kept[name] = (weights[name] / scale).to(torch.float8_e4m3fn)
        layer = name.removesuffix("weight")
        kept |= {f"{layer}weight_scale": scale, f"{layer}comfy_quant": form}
        meant[name] = kept[name].float() * scale
    with torch.inference_mode():  # as the host's loaders run
        model = random_unet("SD15", weights=kept, quantised=True)
    name = "output_blocks.3.1.transformer_blocks.0.ff.net.2"
    layer = model.model.diffusion_model.get_submodule(name)
    assert isinstance(layer.weight, comfy.quant_ops.QuantizedTensor)
    smoothing = torch.linspace(0.5, 2, layer.in_features)  # of what enters the layer, which such checkpoints may have
    layer.register_parameter("pre_quant_scale", torch.nn.Parameter(smoothing, requires_grad=False))
    meant[f"{name}.weight"] = meant[f"{name}.weight"] * smoothing
    found, expected = saliency(model), saliency(random_unet("SD15", weights=meant))
    assert relative_error(found.maps, saliency(model, solver="exact").maps) <= 1e-4
    assert relative_error(found.maps, expected.maps) <= 1e-3
    assert isinstance(layer.weight, comfy.quant_ops.QuantizedTensor)


def partially_loaded(monkeypatch, budget: int) -> None:
    """Have the host load models as onto a device with room for `budget` bytes of weights: the rest stays offloaded."""
    from comfy.model_management import LoadedModel

    load = LoadedModel.model_load
    monkeypatch.setattr(
        LoadedModel, "model_load", lambda self, _=0, force_patch_weights=False: load(self, budget, force_patch_weights)
    )


@pytest.mark.parametrize("budget", [0.1, 3e6])
@pytest.mark.parametrize("how", [{"solver": "structured"}, {"definition": "aggregated"}])
def test_offloaded_weights_and_their_patches(comfy, monkeypatch, budget, how):
    """What the host leaves offloaded it casts and patches when it is used; so do we, and leave it there."""
    weights = random_unet("SD15", seed=1).model.diffusion_model.state_dict()
    names = ["output_blocks.3.1.transformer_blocks.0.ff.net.2.weight", "out.2.weight", "out.0.bias", "out.2.bias"]
    change = {name: 0.1 * torch.ones_like(weights[name]) for name in names}
    patches = {f"diffusion_model.{name}": ("diff", (value,)) for name, value in change.items()}
    whole = random_unet("SD15", weights=weights | {name: weights[name] + change[name] for name in names})
    expected = saliency(whole, **how)
    model = random_unet("SD15", weights=weights)
    model.add_patches(patches)
    partially_loaded(monkeypatch, budget)
    assert relative_error(saliency(model, **how).maps, expected.maps) <= 1e-4
    network = model.model.diffusion_model
    cast = [getattr(module, "comfy_cast_weights", False) for module in network.modules()]
    assert model.model.model_lowvram
    assert any(cast)
    assert not all(cast)
    assert relative_error(saliency(model, **how).maps, expected.maps) <= 1e-4
    twin = random_unet("SD15", weights=weights)
    twin.add_patches(patches)
    for _ in range(2):
        call_once(twin.clone(), conditioning(1), {"samples": noise(1, (5, 6))}, LEVEL, SEED)
    left, plain = (
        [(n, p.requires_grad, p.dtype, p.device) for n, p in m.model.diffusion_model.named_parameters()]
        for m in (model, twin)
    )
    assert left == plain
    assert not any("forward" in vars(module) for module in network.modules())


def test_lora_takes_part(comfy):
    """A patch of the last layers' weights gives what the patched weights give, and none of it stays behind."""
    model = random_unet("SD15", seed=1)
    plain = saliency(model)
    patched, names = model.clone(), ("output_blocks.3.1.transformer_blocks.0.ff.net.2.weight", "out.2.weight")
    weights = dict(model.model.diffusion_model.state_dict())
    generator = torch.Generator().manual_seed(9)
    for name in names:
        change = 0.05 * torch.randn(weights[name].shape, generator=generator)
        patched.add_patches({f"diffusion_model.{name}": ("diff", (change,))}, 0.5)
        weights[name] = weights[name] + 0.5 * change
    found = saliency(patched)
    assert relative_error(found.maps, saliency(random_unet("SD15", weights=weights)).maps) <= 1e-4
    assert relative_error(found.maps, plain.maps) > 0.01
    assert torch.equal(saliency(model).maps, plain.maps)


def test_a_batch_gives_what_its_latents_give_alone(comfy):
    model = random_unet("SD15", seed=2)
    batch = noise(3, (4, 6), seed=7)
    together = saliency(model, start=batch)
    for i in range(3):
        alone = {"samples": batch[i : i + 1], "batch_index": [i]}
        with torch.inference_mode():
            one = gradient_saliency(model, conditioning(1), alone, SUBJECTS, LEVEL, SEED, "absolute", "structured")
        assert relative_error(together.maps[:, i : i + 1], one.maps) <= 1e-4


def test_a_prompt_of_several_chunks_and_a_word_in_the_second(comfy):
    model, words = random_unet("SD15", seed=3), subjects((80, 81), (3,))
    long = conditioning(1, chunks=2)
    found = saliency(model, words, positive=long)
    assert relative_error(found.maps, saliency(model, words, positive=long, solver="exact").maps) <= 1e-4
    with pytest.raises(ValueError, match="lie outside the conditioning's 77 tokens"):
        saliency(model, words)


def test_areas_of_one_prompt_are_put_in_one_frame(comfy):
    """Where one of two halves lies, the frame holds that half's own saliency; masks and strengths average them."""
    model, prompt = random_unet("SD15", seed=4), conditioning(1)
    halves = [[prompt[0][0], {"area": (6, 4, 0, x), "strength": 1.0}] for x in (0, 4)]
    found = saliency(model, start=noise(1, (6, 8)), positive=halves)
    assert found.maps.shape == (2, 1, 4, 6, 8)
    assert (found.maps > 0).all()
    doubled = [[prompt[0][0], {"strength": s}] for s in (0.25, 0.75)]
    whole = saliency(model, start=noise(1, (6, 8)))
    torch.testing.assert_close(saliency(model, start=noise(1, (6, 8)), positive=doubled).maps, whole.maps)


def test_the_aggregated_definition_of_areas_is_that_of_each(comfy):
    """Two conditionings of one model call: their halves are the maps of each, in the proportion of their sums."""
    model, prompt = random_unet("SD15", seed=4), conditioning(1)
    start = noise(1, (6, 8))
    halves = [[prompt[0][0], {"area": (6, 4, 0, x), "strength": 1.0}] for x in (0, 4)]
    found = saliency(model, start=start, positive=halves, definition="aggregated").maps
    for x, half in zip((0, 4), halves, strict=True):
        part = found[..., x : x + 4]
        alone = saliency(model, start=start, positive=[half], definition="aggregated").maps[..., x : x + 4]
        assert relative_error(part / part.sum((-2, -1), keepdim=True), alone) <= 1e-4


def test_polarity_follows_the_sign_of_the_prediction(comfy):
    """z falls where eps rises: positive parts are those of -eps, and both parts add up to the absolute saliency."""
    model, start = random_unet("SD15", seed=5), noise(1, (4, 4))
    absolute, positive = (saliency(model, subjects((3,)), start, polarity).maps for polarity in POLARITIES)
    assert relative_error(positive, definition(model, [(3,)], start)["positive"]) <= 1e-3
    assert (positive < absolute).all()


def test_deeper_models_have_the_exact_solver(comfy, caplog):
    """SDXL type: more blocks follow the last cross-attention; the structured solver says so, and what exact costs."""
    model, start, words = random_unet("SDXL", seed=6), noise(1, (4, 6)), subjects((3,), (6, 7))
    with pytest.raises(
        ValueError, match=r"further blocks follow the layer output.1.1 .*\. Choose the solver 'exact': 96 backward"
    ):
        saliency(model, words, start)
    with caplog.at_level("INFO", logger="explainable_latents"):
        saliency(model, words, start, solver="exact")
    assert "exact solver: 96 backward passes, about 2 seconds" in caplog.text
    for polarity, expected in definition(model, [(3,), (6, 7)], start).items():
        found = saliency(model, words, start, polarity, "exact")
        assert relative_error(found.maps, expected) <= 1e-3, polarity


@pytest.mark.parametrize(
    ("kind", "layer", "grid", "batch"),
    [
        ("SD15", "output.2", (4, 6), 1),
        ("SD15", "middle", (5, 3), 2),
        ("SD20", "input.1", (4, 4), 1),
        ("SDXL", "output.0.1", (4, 4), 1),
        ("SDXL", "middle.0.0", (4, 5), 1),
    ],
)
def test_an_earlier_layer_by_the_exact_solver(comfy, kind, layer, grid, batch):
    """Everything behind the layer is in it: self-attention, down- and upsampling, the skip connections."""
    model, start, words = random_unet(kind, seed=12), noise(batch, grid), subjects((3,), (6, 7))
    name = one_layer(cross_attention_layers(model), layer)
    last = saliency(model, words, start, solver="exact")
    for polarity, expected in definition(model, [(3,), (6, 7)], start, name).items():
        found = saliency(model, words, start, polarity, "exact", layer=layer)
        assert relative_error(found.maps, expected) <= 2e-3, polarity
        assert relative_error(found.maps, last.maps) > 0.1, polarity
    with pytest.raises(ValueError, match=f"further blocks follow the layer {name} .*layer 'last'.*solver 'exact'"):
        saliency(model, words, start, layer=layer)


def test_several_layers_have_the_maps_that_each_has_alone(comfy):
    """In the network's order, whatever the order of the names."""
    model, start = random_unet("SD15", seed=12), noise(1, (4, 4))
    together = saliency(model, start=start, solver="exact", layer="last, output.2.0")
    assert together.labels == ("dog, output.2.0", "beach, output.2.0", "dog, output.3.0", "beach, output.3.0")
    for part, layer in zip(together.maps.split(2), ("output.2", "last"), strict=True):
        assert relative_error(part, saliency(model, start=start, solver="exact", layer=layer).maps) <= 1e-4
    with pytest.raises(ValueError, match=r"further blocks follow the layer output\.2\.0"):
        saliency(model, start=start, layer="last, output.2.0")


@pytest.mark.parametrize("wanted", ["all", "output", "16x16", "output.3, output", "output.9", ""])
def test_a_layer_that_is_not_one_is_told(comfy, wanted):
    with pytest.raises(ValueError, match=r"choose (last|all).*output\.3\.0"):
        saliency(random_unet("SD15"), layer=wanted)


@pytest.mark.parametrize("kind", ["SD15", "SDXL"])
@pytest.mark.parametrize("polarity", ["absolute", "positive"])
def test_the_aggregated_definition_is_one_gradient_by_all_layers(comfy, kind, polarity):
    model, start, sets = random_unet(kind, seed=9), noise(2, (6, 8)), [(3,), (6, 7)]
    x, t, context, y = seen_by_the_network(model, start)
    network = copy.deepcopy(model.model.diffusion_model).double()
    network.dtype = torch.float64
    p, changes, grids = {}, {}, {}

    def spelled_out(q, k, v, options):
        name = (*options["block"], options["block_index"])
        q, k, v = (x.unflatten(2, (options["n_heads"], -1)).transpose(1, 2) for x in (q, k, v))
        p[name] = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, -1)
        changes[name] = torch.zeros_like(p[name], requires_grad=True)
        grids[name] = options["activations_shape"][-2:]
        return ((p[name] + changes[name]) @ v).transpose(1, 2).flatten(2)

    layers = [name.split(".") for name in cross_attention_layers(model)]
    replacers = {(kind, int(number), int(depth)): spelled_out for kind, number, depth in layers}
    options = {"patches_replace": {"attn2": replacers}}
    out = network(x.double(), t, context.double(), None if y is None else y.double(), transformer_options=options)
    gradients = torch.autograd.grad(-out.sum(), list(changes.values()))
    expected = torch.zeros(2, 2, 6, 8, dtype=torch.float64)
    for name, gradient in zip(changes, gradients, strict=True):
        counts = gradient.abs() if polarity == "absolute" else gradient.relu()
        for s, tokens in enumerate(sets):
            scores = (p[name] * counts)[..., list(tokens)].sum((1, 3)).unflatten(1, grids[name])
            expected[s] += torch.nn.functional.interpolate(scores.unsqueeze(1), (6, 8))[:, 0]
    expected = (expected / expected.sum((-2, -1), keepdim=True)).detach()
    assert len(changes) == len(layers) > 3
    found = saliency(model, subjects(*sets), start, polarity, definition="aggregated")
    assert found.maps.shape == (2, 2, 6, 8)
    assert relative_error(found.maps, expected.float()) <= 2e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("kind", "batch"), [("SD15", 2), ("SD20", 1)])
def test_the_closed_form_is_used_where_the_block_is_the_usual_one(comfy, kind, batch, dtype):
    """And autograd where another node changes the block without mixing positions; the numbers are right either way.

    The closed form differentiates the block's nonlinearity once, autograd once per feature of its output.
    """
    model, start = random_unet(kind, dtype, seed=13), noise(batch, (5, 6))
    changed = model.clone()
    changed.set_model_attn2_output_patch(lambda n, options: 0.5 * n * n.sigmoid())
    passes = []
    for each in (model, changed):
        computed = []
        with Operations(computed.append):
            found = saliency(each, start=start).maps
        assert relative_error(found, saliency(each, start=start, solver="exact").maps) <= 1e-4
        passes.append(computed.count("aten::gelu_backward"))
    assert passes[0] == 1
    assert passes[1] > 1


def test_other_nodes_patches_take_part(comfy):
    """An attention override, an attn2 replacer and an output patch of other nodes stay in effect."""
    model = random_unet("SD15", seed=7)
    plain, calls = saliency(model), []

    def attn2(q, k, v, options):
        from comfy.ldm.modules.attention import optimized_attention

        calls.append("attn2")
        return 0.5 * optimized_attention(q, k, v, options["n_heads"])

    def override(attention, *args, **kwargs):
        calls.append("override")
        return attention(*args, **kwargs)

    same, halved, mixing = model.clone(), model.clone(), model.clone()
    same.model_options["transformer_options"]["optimized_attention_override"] = override
    assert torch.equal(saliency(same).maps, plain.maps)
    assert "override" in calls
    halved.set_model_attn2_replace(attn2, "output", 3, 0)
    assert relative_error(saliency(halved).maps, plain.maps) > 0.01
    assert "attn2" in calls
    mixing.set_model_attn2_output_patch(lambda n, options: n + n.mean(1, keepdim=True))
    with pytest.raises(ValueError, match="another node mixes positions"):
        saliency(mixing)
    start = noise(1, (4, 4))
    expected = definition(mixing, [(3,), (6, 7)], start)["absolute"]
    assert relative_error(saliency(mixing, start=start, solver="exact").maps, expected) <= 1e-3
    assert relative_error(saliency(model, start=start, solver="exact").maps, expected) > 0.01


@pytest.mark.parametrize(("kind", "solver"), [("SD15", "structured"), ("SD15", "exact"), ("SDXL", "exact")])
def test_control_takes_part(comfy, kind, solver):
    """What a ControlNet adds (in place, inference tensors) before and behind the last cross-attention."""
    from comfy.patcher_extension import WrappersMP

    model, start = random_unet(kind, seed=10), noise(1, (4, 6))
    plain, controlled, blocks = saliency(model, start=start, solver=solver), model.clone(), []

    def shapes(executor, x, t, context, y, control, options, **kwargs):
        patch = {"output_block_patch": [lambda h, hsp, o: blocks.append(hsp.shape) or (h, hsp)]}
        return executor(x, t, context, y, control, {**options, "patches": patch}, **kwargs)

    def control(executor, x, t, context, y, _, options, **kwargs):
        hints = {"output": [0.5 * torch.ones(shape) for shape in reversed(blocks)]}
        return executor(x, t, context, y, hints, options, **kwargs)

    spied = model.clone()
    spied.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "shapes", shapes)
    call_once(spied, conditioning(1), {"samples": start}, LEVEL, SEED)
    controlled.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "control", control)
    found = saliency(controlled, start=start, solver=solver)
    assert relative_error(found.maps, plain.maps) > 0.01
    # not bit for bit: CPU kernels may round by the alignment of the memory they are given
    assert relative_error(saliency(controlled, start=start, solver=solver).maps, found.maps) < 1e-5


class Interrupt(Exception):
    """What ends a run early."""


# When memory runs out: the weights' precision, and the operation, by its kind and its number among these.
OUT_OF_MEMORY = {
    "out of memory in the model": (torch.float32, ("convolution", 20)),
    "out of memory for the weights": (torch.float16, ("_to_copy", 10)),
    "out of memory in the first pass": (torch.float32, ("backward", 1)),
    "out of memory in a later layer": (torch.float32, ("backward", 3)),
}


def state(model) -> dict:
    """Everything of a model that the call could change."""
    network = model.model.diffusion_model
    return {
        "parameters": {name: (id(p), p.requires_grad, p.dtype) for name, p in network.named_parameters()},
        "attributes": {name: sorted(vars(module)) for name, module in network.named_modules()},
        "options": str(model.model_options),
        "wrappers": str(model.wrappers),
    }


@pytest.mark.parametrize("how", [{"solver": "structured"}, {"solver": "exact"}, {"definition": "aggregated"}])
@pytest.mark.parametrize("ending", ["done", "cancelled", *OUT_OF_MEMORY])
def test_the_model_is_afterwards_as_it_was(comfy, how, ending):
    """Output bit for bit, parameters, modules, options; no tensor of the call stays alive."""
    import gc

    import comfy.model_management as management

    def cancel() -> None:
        management.interrupt_current_processing()
        if "definition" in how:  # one backward pass, in which nothing but another node's code looks
            management.throw_exception_if_processing_interrupted()

    dtype, operation = OUT_OF_MEMORY.get(ending, (torch.float32, ("backward", 2)))
    model = random_unet("SD15", dtype, seed=8)
    how_sampled = {"steps": 2, "grid": (6, 8)}
    with torch.inference_mode():
        expected = unets.sample(model, **how_sampled)
    before = state(model)
    if ending == "done":
        saliency(model, **how)
    else:
        error = management.InterruptProcessingException if ending == "cancelled" else torch.OutOfMemoryError
        with pytest.raises(error), at(*operation, cancel if ending == "cancelled" else out_of_memory):
            saliency(model, **how)
    assert state(model) == before
    assert torch.is_grad_enabled()
    with torch.inference_mode():
        assert torch.equal(unets.sample(model, **how_sampled), expected)
    gc.collect()
    assert not [t for t in gc.get_objects() if isinstance(t, torch.Tensor) and t.grad_fn is not None]


def out_of_memory() -> None:
    raise torch.OutOfMemoryError("simulated")

"""Maps refined by self-attention while a sampler runs, against the attention matrices of the same run in float64."""

from __future__ import annotations

import gc
import itertools
import logging
import math
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F

from explainable_latents.nodes.core.attention.aggregate import aggregate, normalise
from explainable_latents.nodes.core.maps.masks import Shaping
from explainable_latents.nodes.core.methods.masking import AttentionMasking, GradientMasking
from explainable_latents.nodes.host.attention.observer import observe
from explainable_latents.nodes.host.one_call import gradient_saliency, probe
from explainable_latents.nodes.host.sampling.masked_latent import MaskedLatent
from tests.host.patches import PATCHES
from tests.host.toy_sampling import KEEP
from tests.host.unets import SUBJECTS, conditioning, noise, random_unet, sample, unet_config

# The layers that are taken of these networks: the last three of the decoder on the finest grid that has attention.
TAKEN = {
    "SD15": ("output.2.0", "output.3.0"),
    "SD20": ("output.2.0", "output.3.0"),
    "SDXL": ("output.0.1", "output.1.0", "output.1.1"),
}

# In multiples of a map's mean: maps are float32 sums over layers, and the backend's rounding is carried along.
CLOSE = 2e-5


@pytest.fixture(scope="module")
def model(comfy):
    return random_unet()


class SelfAttentionMatrices:
    """Another node's override that notes S [B,N,N] of the prompt's rows, in float64: per layer one for each call."""

    def __init__(self, batch: int = 1) -> None:
        self.seen: dict[str, list[torch.Tensor]] = {}
        self._batch = batch

    def __call__(self, attention, q, k, v, heads, *args, **kwargs):
        options = kwargs["transformer_options"]
        if q.shape[-2] == k.shape[-2] == math.prod(options["activations_shape"][-2:]):
            name = ".".join(map(str, (*options["block"], options["block_index"])))
            for i, kind in enumerate(options["cond_or_uncond"]):
                if kind == 0:
                    rows = slice(i * self._batch, (i + 1) * self._batch)
                    a, b = (t[rows].detach().double().unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k))
                    s = torch.softmax(a @ b.transpose(-1, -2) / math.sqrt(a.shape[-1]), dim=-1).mean(1)
                    self.seen.setdefault(name, []).append(s)
        return attention(q, k, v, heads, *args, **kwargs)

    def mean(self, kind: str, call: int, names: Sequence[str] = ()) -> torch.Tensor:
        """S of one call, averaged over these layers, or those that are taken unless something else is asked for."""
        return torch.stack([self.seen[name][call] for name in names or TAKEN[kind]]).mean(0)


def observed(model, **options):
    """A patched clone, its capture, and what the other node notes."""
    patcher = model.clone()
    return patcher, observe(patcher, SUBJECTS, **options)


def noting(model, batch: int = 1):
    patcher, matrices = model.clone(), SelfAttentionMatrices(batch)
    patcher.model_options["transformer_options"]["optimized_attention_override"] = matrices
    return patcher, matrices


def spread(maps: torch.Tensor, matrix: torch.Tensor, power: int) -> torch.Tensor:
    values = maps.double().flatten(2)
    for _ in range(power):
        values = torch.einsum("bij,sbj->sbi", matrix, values)
    return values.unflatten(-1, maps.shape[-2:])


def assert_same_maps(found: torch.Tensor, expected: torch.Tensor, close: float = CLOSE) -> None:
    """Both in multiples of their means, whatever their size."""
    a, b = (normalise(maps.double()) * math.prod(maps.shape[-2:]) for maps in (found, expected))
    assert torch.allclose(a, b, rtol=0, atol=close)


@pytest.mark.parametrize(
    ("kind", "power", "batch", "grid"),
    [("SD15", 1, 1, (16, 16)), ("SD15", 3, 3, (8, 12)), ("SD20", 2, 1, (16, 12)), ("SDXL", 2, 2, (12, 16))],
)
def test_maps_are_multiplied_with_the_decoders_self_attention(comfy, kind, power, batch, grid):
    network = random_unet(kind)
    noted, matrices = noting(network, batch)
    start = noise(batch, grid)
    how = {"steps": 2, "start": start}
    patcher, plain = observed(noted)
    stock = sample(patcher, **how)
    matrices.seen.clear()
    patcher, refined = observed(noted, refine=power)
    made = sample(patcher, **how)
    assert torch.equal(made, stock)
    of_layers = grid if kind != "SDXL" else (grid[0] // 2, grid[1] // 2)
    for call, (before, after) in enumerate(
        zip(plain.runs.kept[0].saliencies, refined.runs.kept[0].saliencies, strict=True)
    ):
        there = F.interpolate(before.maps, size=of_layers, mode="bilinear")
        expected = F.interpolate(spread(there, matrices.mean(kind, call), power), size=grid, mode="area")
        assert_same_maps(after.maps, expected)
        assert not torch.allclose(before.maps, after.maps, rtol=0.01)
        assert torch.allclose(after.maps.sum((-2, -1)), torch.ones(2, batch))


@pytest.mark.parametrize("refine", [-1, 9])
def test_powers_outside_the_range_are_named(model, refine):
    with pytest.raises(ValueError, match=f"refine {refine} is not a whole number from 0 to 8"):
        observed(model, refine=refine)


def test_split_calls_give_the_same_maps_as_joined_ones(model, monkeypatch):
    patcher, joined = observed(model, refine=2)
    sample(patcher, 1)
    monkeypatch.setattr(model.model, "memory_required", lambda *args, **kwargs: 1e30)
    patcher, split = observed(model, refine=2)
    sample(patcher, 1)
    assert_same_maps(split.latest().maps, joined.latest().maps)


@pytest.mark.parametrize("calls", ["joined", "split"])
def test_each_area_is_refined_by_itself_before_they_are_put_together(model, monkeypatch, calls):
    import nodes

    if calls == "split":
        monkeypatch.setattr(model.model, "memory_required", lambda *args, **kwargs: 1e30)
    (left,) = nodes.ConditioningSetArea().append(conditioning(1), 96, 128, 0, 0, 1.0)
    (right,) = nodes.ConditioningSetArea().append(conditioning(1), 96, 128, 32, 0, 3.0)
    patcher, capture = observed(model, refine=1)
    sample(patcher, 1, positive=[*left, *right])
    crops = []
    for a, b in ((0, 12), (4, 16)):
        noted, matrices = noting(model)
        patcher, crop = observed(noted)
        sample(patcher, 1, start=noise()[..., a:b])
        layers = crop.runs.kept[0].layers.values()
        added = sum(F.interpolate(maps, (16, 12)) for maps in layers)
        crops.append(spread(added, matrices.mean("SD15", 0), 1))
    frame = torch.zeros(2, 1, 16, 16, dtype=torch.float64)
    frame[..., :4], frame[..., 12:] = crops[0][..., :4], crops[1][..., 8:]
    frame[..., 4:12] = 0.25 * crops[0][..., 4:] + 0.75 * crops[1][..., :8]
    assert_same_maps(capture.latest().maps, frame)


def test_every_reader_gets_refined_maps_and_single_layers_stay_as_they_were_read(model):
    noted, matrices = noting(model)
    patcher, plain = observed(noted)
    sample(patcher)
    matrices.seen.clear()
    patcher, capture = observed(noted, refine=1)
    samples = sample(patcher)
    before = [call.maps for call in plain.runs.kept[0].saliencies]
    steps = [normalise(spread(maps, matrices.mean("SD15", i), 1)) for i, maps in enumerate(before)]
    each = capture.saliency(samples, "all", "each").maps
    assert_same_maps(each, torch.cat(steps))
    assert_same_maps(capture.saliency(samples, "all", "mean").maps, torch.stack(steps).mean(0))
    assert_same_maps(capture.saliency(samples, "all", "last").maps, steps[-1])
    layers = capture.saliency(samples, "all", "mean", each_layer=True).maps
    assert torch.equal(layers, plain.saliency(samples, "all", "mean", each_layer=True).maps)


def layers_of_steps(model, steps: int) -> list[torch.Tensor]:
    """The sum of the layers' maps at each step, before it is normalised."""
    sums: list[torch.Tensor] = []
    patcher, capture = observed(model)

    def note(*_):
        run = capture.runs.current
        sums.append(sum(F.interpolate(maps, (16, 16)) for maps in run.layers.values()))

    sample(patcher, steps, callback=note)
    return [sums[0], *(b - a for a, b in itertools.pairwise(sums))]


def test_the_sum_over_steps_adds_refined_maps_before_they_are_normalised(model):
    noted, matrices = noting(model)
    sums = layers_of_steps(noted, 3)
    matrices.seen.clear()
    patcher, capture = observed(noted, refine=2)
    samples = sample(patcher, 3)
    expected = sum(spread(maps, matrices.mean("SD15", i), 2) for i, maps in enumerate(sums))
    assert_same_maps(capture.saliency(samples, "all", "sum").maps, expected)


@pytest.mark.parametrize(("calls", "how"), [("last call", "last"), ("cumulative", "sum")])
def test_masks_of_masked_latents_are_made_of_refined_maps(model, calls, how):
    """Nothing is replaced, so the maps before step 2 are those of a capture of the first two steps."""
    masking = AttentionMasking(SUBJECTS.with_role("subject"), Shaping("otsu"), calls=calls, refine=2)
    masked = model.clone()
    report = MaskedLatent(masking, noise(seed=4), "2", KEEP, KEEP).install(masked)
    made = sample(masked, 3)
    assert torch.equal(made, sample(model, 3))
    found = report.outputs(made)[1].maps
    runs = []
    for refine in (2, 0):
        patcher, capture = observed(model, refine=refine)

        def note(step, *_, capture=capture):
            if step == 1:
                run = capture.runs.current
                runs.append(run.total("nearest") if how == "sum" else run.saliencies[-1])

        sample(patcher, 3, callback=note)
    assert_same_maps(found, runs[0].maps[:1])
    assert not torch.allclose(found, runs[1].maps[:1], rtol=0.01)


def test_a_probe_refines(model):
    noted, matrices = noting(model)
    how = (conditioning(1), {"samples": noise(seed=6)}, SUBJECTS, 0.5, 0)
    before = probe(noted, *how)
    matrices.seen.clear()
    after = probe(noted, *how, refine=2)
    assert_same_maps(after.maps, spread(before.maps, matrices.mean("SD15", 0), 2))


def replaced(model):
    from comfy.ldm.modules.attention import attention_basic

    def replacement(q, k, v, extra_options):
        return attention_basic(q, k, v, extra_options["n_heads"])

    model = model.clone()
    model.set_model_attn1_replace(replacement, "output", 3)
    return model


def replaced_forward(x, **kwargs):
    return torch.zeros_like(x)


def module_replaced(model):
    model = model.clone()
    name = "diffusion_model.output_blocks.3.1.transformer_blocks.0.attn1.forward"
    model.add_object_patch(name, replaced_forward)
    return model


HERE = "of tests.host.attention.test_refinement"

CHANGED = {
    "attn1 replaced": (replaced, f"self-attention of layer output.3.0 is computed by replaced.replacement {HERE}"),
    "its module replaced": (
        module_replaced,
        f"self-attention of layer output.3.0 was not computed where it could be seen, but by replaced_forward {HERE}",
    ),
    "ToMe": (PATCHES["ToMe"], "expected, changed by TomePatchModel.execute.tomesd_m of comfy_extras.nodes_tomesd and "),
    "HyperTile": (
        PATCHES["HyperTile"],
        "expected, changed by HyperTile.execute.hypertile_in of comfy_extras.nodes_hyper",
    ),
}


@pytest.mark.parametrize("name", CHANGED)
def test_where_self_attention_cannot_be_read_refining_is_an_error_that_names_the_node(comfy, name):
    patch, message = CHANGED[name]
    network = random_unet()
    expected = sample(patch(network), 2)
    patcher, _ = observed(patch(network))
    assert torch.equal(sample(patcher, 2), expected)
    patcher, refined = observed(patch(network), refine=2)
    with pytest.raises(ValueError, match=r"maps cannot be refined: .*Set refine to 0") as raised:
        sample(patcher, 2)
    assert message in str(raised.value)
    assert refined.latest() is None


@pytest.mark.parametrize("name", ["PAG", "SAG", "another override", "another override at call time", "split calls"])
def test_beside_other_nodes_in_both_orders_the_picture_is_theirs_and_maps_are_refined(model, name):
    patch = PATCHES[name]
    expected = sample(patch(model), 2)
    front, first = observed(patch(model), refine=1)
    behind, second = observed(model, refine=1)
    assert torch.equal(sample(front, 2), expected)
    assert torch.equal(sample(patch(behind), 2), expected)
    plain, unrefined = observed(patch(model))
    sample(plain, 2)
    assert_same_maps(second.latest().maps, first.latest().maps)
    assert not torch.allclose(first.latest().maps, unrefined.latest().maps, rtol=0.01)


def tensors_of_layers() -> tuple[int, int]:
    """How many tensors of the finest layers' shape are alive: of the prompt's row alone, and of both rows."""
    gc.collect()
    shape = 256, unet_config("SD15")["model_channels"]
    alive = [tuple(each.shape) for each in gc.get_objects() if type(each) is torch.Tensor]
    return alive.count((1, *shape)), alive.count((2, *shape))


def test_nothing_is_kept_after_the_call(model):
    """While the last attention is computed, two layers' queries and keys of the prompt are more than without refining.

    Of the network's own tensors, which have both rows, nothing is kept; the host itself keeps what a patch of
    self-attention has seen until the end of the block.
    """
    found = {}
    for refine in (0, 3):
        during, after = [], []

        def last(out, options, during=during):
            if options["block"] == ("output", 3):
                during.append(tensors_of_layers())
            return out

        patched = model.clone()
        patched.set_model_attn2_output_patch(last)
        patcher, _ = observed(patched, refine=refine)
        sample(patcher, 2, callback=lambda *_, after=after: after.append(tensors_of_layers()))
        found[refine] = during, after
    assert found[3][0] == [(one + 4, both + 1) for one, both in found[0][0]]
    assert found[3][1] == found[0][1] == [(0, 0), (0, 0)]


def test_a_map_that_becomes_flat_is_named_once(comfy, caplog):
    """Queries of zeros attend to every place alike: one power leaves the mean everywhere."""
    network = random_unet()
    for name, value in network.model.diffusion_model.named_parameters():
        if name.endswith("attn1.to_q.weight") and name.startswith("output_blocks"):
            value.data.zero_()
    patcher, capture = observed(network, refine=3)
    with caplog.at_level(logging.WARNING, "explainable_latents"):
        sample(patcher, 2)
    said = [f"refine 3 stopped early for {word}: its map is the same everywhere" for word in ("dog", "beach")]
    assert [record.message for record in caplog.records] == said
    assert torch.allclose(capture.latest().maps * 256, torch.ones(2, 1, 16, 16), rtol=1e-4)


def test_chosen_layers_are_added_up_and_then_refined(model):
    noted, matrices = noting(model)
    patcher, plain = observed(noted, layers="8x8", resize="bilinear")
    sample(patcher, 1)
    matrices.seen.clear()
    patcher, refined = observed(noted, layers="8x8", resize="bilinear", refine=1)
    sample(patcher, 1)
    layers = list(plain.runs.kept[0].layers.values())
    expected = spread(aggregate(layers, (16, 16), "bilinear"), matrices.mean("SD15", 0), 1)
    assert_same_maps(refined.latest().maps, expected)


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ("output.3", ["output.3.0"]),
        ("last", ["output.3.0"]),
        ("16x16", ["input.1.0", "output.2.0", "output.3.0"]),
        ("input.1, output.2.0", ["input.1.0", "output.2.0"]),
    ],
)
def test_the_layers_that_refine_are_chosen_by_name_or_grid(model, wanted, names):
    noted, matrices = noting(model)
    how = (conditioning(1), {"samples": noise(seed=6)}, SUBJECTS, 0.5, 0)
    before = probe(noted, *how)
    matrices.seen.clear()
    after = probe(noted, *how, refine=2, refine_layers=wanted)
    assert_same_maps(after.maps, spread(before.maps, matrices.mean("SD15", 0, names), 2))


def test_layers_of_two_grids_refine_together(model):
    noted, matrices = noting(model, batch=3)
    how = (conditioning(1), {"samples": noise(3, (8, 12), seed=6)}, SUBJECTS, 0.5, 0)
    expected = probe(noted, *how).maps.double()
    matrices.seen.clear()
    after = probe(noted, *how, refine=2, refine_layers="output.3, middle")
    for _ in range(2):
        fine = spread(expected, matrices.seen["output.3.0"][0], 1)
        coarse = spread(F.interpolate(expected, size=(4, 6), mode="area"), matrices.seen["middle.0.0"][0], 1)
        expected = (fine + F.interpolate(coarse, size=(8, 12), mode="bilinear")) / 2
    assert_same_maps(after.maps, expected)


def test_unknown_layers_are_named_and_grids_that_a_latent_does_not_have(model):
    with pytest.raises(
        ValueError, match=r"no self-attention layer is called 'encoder'; choose auto, all, last, a grid"
    ):
        observed(model, refine=1, refine_layers="encoder")
    patcher, _ = observed(model, refine=1, refine_layers="32x32")
    with pytest.raises(ValueError, match=r"no self-attention layer has .*; this latent gives 16x16, 8x8"):
        sample(patcher, 1)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float16, 0.02), (torch.bfloat16, 0.15)])
def test_a_network_in_half_precision(comfy, dtype, close):
    """The probe's own rounding, of values of up to some multiples of the mean, is carried along by float64."""
    noted, matrices = noting(random_unet(dtype=dtype))
    how = (conditioning(1), {"samples": noise(seed=6)}, SUBJECTS, 0.5, 0)
    before = probe(noted, *how)
    matrices.seen.clear()
    after = probe(noted, *how, refine=2)
    assert_same_maps(after.maps, spread(before.maps, matrices.mean("SD15", 0), 2), close)


@pytest.mark.parametrize(
    ("polarity", "solver", "definition", "layer"),
    [
        ("absolute", "structured", "Abs-Grad-SAM", "last"),
        ("positive", "exact", "Abs-Grad-SAM", "output.3.0, output.2.0"),
        ("absolute", "structured", "aggregated", "last"),
    ],
)
def test_abs_grad_sam_is_refined_map_by_map(model, polarity, solver, definition, layer):
    noted, matrices = noting(model, batch=2)
    start = {"samples": noise(2, (6, 8), seed=6)}
    call, how = (conditioning(1), start, SUBJECTS, 0.5, 0), (polarity, solver, definition, layer)
    with torch.inference_mode():
        probe(noted, *call)
        before, after = (gradient_saliency(model, *call, *how, refine=refine) for refine in (0, 2))
    assert before.labels == after.labels
    by_channel = before.maps.unbind(2) if before.maps.ndim == 5 else (before.maps,)
    expected = torch.stack([spread(maps, matrices.mean("SD15", 0), 2) for maps in by_channel], 2)
    assert_same_maps(after.maps, expected.view_as(before.maps))
    assert not torch.allclose(before.maps, after.maps, rtol=0.01)


def test_masks_from_gradients_are_refined(model):
    """Nothing is replaced, so the maps of step 1 are those of the model call at the latent before it."""
    start, found = noise(1, (6, 8)), []
    noted, matrices = noting(model)
    with torch.inference_mode():
        sample(noted, 2, start=start)
        for refine in (0, 1):
            masking = GradientMasking(SUBJECTS.with_role("subject"), Shaping("otsu"), "together", refine=refine)
            masked = model.clone()
            report = MaskedLatent(masking, noise(1, (6, 8), seed=4), "1", KEEP, KEEP).install(masked)
            found.append(report.outputs(sample(masked, 2, start=start))[1].maps)
    matrix = matrices.mean("SD15", 1)
    channels = [spread(each, matrix, 1) for each in found[0].unbind(2)]
    assert_same_maps(found[1], torch.stack(channels, 2))

"""What is kept of each power of refining, against runs with that power, bit for bit."""

from __future__ import annotations

import pytest
import torch

from explainable_latents.nodes.core.maps.masks import Shaping
from explainable_latents.nodes.core.methods.masking import AttentionMasking, GradientMasking
from explainable_latents.nodes.host.attention.observer import observe
from explainable_latents.nodes.host.one_call import gradient_saliency, probe
from explainable_latents.nodes.host.sampling.masked_latent import MaskedLatent
from tests.host.families import transformers
from tests.host.families.test_transformers import SUBJECTS as SUBJECTS_OF_TRANSFORMERS
from tests.host.toy_sampling import KEEP
from tests.host.unets import SUBJECTS, conditioning, noise, random_unet, sample


@pytest.fixture(scope="module")
def model(comfy):
    return random_unet()


def observed(model, **options):
    """A patched clone and its capture."""
    patcher = model.clone()
    return patcher, observe(patcher, SUBJECTS, **options)


def bits(kept, alone, power: int) -> None:
    """What was kept of this power is what a run with it gives, bit for bit."""
    assert kept.labels == alone.labels
    assert alone.refined == power
    assert torch.equal(kept.at_power(power).maps, alone.maps)


@pytest.mark.parametrize("over", ["mean", "last", "each", "sum"])
@pytest.mark.parametrize(("kind", "grid", "batch"), [("SD15", (16, 16), 2), ("SDXL", (12, 16), 1)])
def test_every_power_that_a_capture_keeps_is_that_of_a_run_with_it(comfy, over, kind, grid, batch):
    network, start = random_unet(kind), noise(batch, grid)

    def read(refine):
        patcher, capture = observed(network, refine=refine, resize="bilinear")
        return capture.saliency(sample(patcher, 3, start=start), "all", over)

    kept = read(3)
    assert kept.powers == range(4)
    for power in range(4):
        bits(kept, read(power), power)
    assert kept.nbytes == 4 * kept.maps.nbytes


def test_single_layers_have_no_powers(model):
    patcher, capture = observed(model, refine=2)
    each = capture.saliency(sample(patcher, 1), "all", "mean", each_layer=True)
    assert each.powers == range(1)


@pytest.mark.parametrize("calls", ["joined", "split"])
def test_every_power_of_areas_is_that_of_a_run_with_it(model, monkeypatch, calls):
    import nodes

    if calls == "split":
        monkeypatch.setattr(model.model, "memory_required", lambda *args, **kwargs: 1e30)
    (left,) = nodes.ConditioningSetArea().append(conditioning(1), 96, 128, 0, 0, 1.0)
    (right,) = nodes.ConditioningSetArea().append(conditioning(1), 96, 128, 32, 0, 3.0)
    found = []
    for refine in (0, 1, 2):
        patcher, capture = observed(model, refine=refine)
        sample(patcher, 1, positive=[*left, *right])
        found.append(capture.latest())
    for power, alone in enumerate(found):
        bits(found[-1], alone, power)


def test_every_power_that_a_probe_keeps_is_that_of_one_with_it(model):
    how = (conditioning(1), {"samples": noise(3, (10, 14), seed=6)}, SUBJECTS, 0.5, 0)
    kept = probe(model, *how, refine=4)
    for power in range(5):
        bits(kept, probe(model, *how, refine=power), power)


@pytest.mark.parametrize("name", ["Flux.1", "Qwen-Image"])
def test_every_power_of_a_transformer_is_that_of_one_with_it(comfy, name):
    """Its places stand for 2x2 of the latent, of which this one is no multiple."""
    network, latent = transformers.small(name), {"samples": transformers.noise(name)[..., :7, :5]}
    how = (transformers.prompt(name), latent, SUBJECTS_OF_TRANSFORMERS, 0.5, 0)
    kept = probe(network, *how, refine=2)
    assert not torch.equal(kept.at_power(1).maps, kept.maps)
    for power in range(3):
        bits(kept, probe(network, *how, refine=power), power)


def test_every_power_of_a_map_that_becomes_flat_is_that_of_a_run_with_it(comfy):
    network = random_unet()
    for name, value in network.model.diffusion_model.named_parameters():
        if name.endswith("attn1.to_q.weight") and name.startswith("output_blocks"):
            value.data.zero_()
    how = (conditioning(1), {"samples": noise(seed=6)}, SUBJECTS, 0.5, 0)
    kept = probe(network, *how, refine=3)
    assert torch.equal(kept.at_power(1).maps, kept.at_power(3).maps)
    for power in range(4):
        bits(kept, probe(network, *how, refine=power), power)


@pytest.mark.parametrize(
    ("solver", "definition", "layer"),
    [("exact", "Abs-Grad-SAM", "output.3.0, output.2.0"), ("structured", "aggregated", "last")],
)
def test_every_power_of_abs_grad_sam_is_that_of_one_with_it(model, solver, definition, layer):
    how = (conditioning(1), {"samples": noise(2, (6, 8), seed=6)}, SUBJECTS, 0.5, 0)
    own = ("absolute", solver, definition, layer)
    with torch.inference_mode():
        found = [gradient_saliency(model, *how, *own, refine=refine) for refine in range(3)]
    for power, alone in enumerate(found):
        bits(found[-1], alone, power)


@pytest.mark.parametrize(
    "masking",
    [
        lambda refine: AttentionMasking(SUBJECTS, Shaping("otsu"), refine=refine),
        lambda refine: AttentionMasking(SUBJECTS, Shaping("otsu"), calls="cumulative", refine=refine),
        lambda refine: GradientMasking(SUBJECTS, Shaping("otsu"), "each", refine=refine),
    ],
    ids=["attention", "cumulative", "gradients"],
)
def test_every_power_in_the_report_of_masks_is_that_of_a_run_with_it(model, masking):
    """Nothing is replaced, so that masks change no later step."""
    start, found = noise(2, (6, 8)), []
    with torch.inference_mode():
        for refine in range(3):
            masked = model.clone()
            report = MaskedLatent(masking(refine), noise(2, (6, 8), seed=4), "1, 2", KEEP, KEEP).install(masked)
            found.append(report.outputs(sample(masked, 3, start=start))[1])
    for power, alone in enumerate(found):
        bits(found[-1], alone, power)
    assert report.runs.kept[0].size() > 3 * found[-1].maps.nbytes

"""Source and target as one batch: each is the picture of a run of its own, with every sampler, node and patch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from explainable_latents.nodes.core.maps.masks import Shaping
from explainable_latents.nodes.core.methods.masked_latent import Policy
from explainable_latents.nodes.core.methods.masking import AttentionMasking, GradientMasking, ImageMasking
from explainable_latents.nodes.host.attention.observer import observe
from explainable_latents.nodes.host.editing.local_blend import LocalBlend
from explainable_latents.nodes.host.editing.paths import NOISED
from explainable_latents.nodes.host.editing.twin_sampling import Twin
from explainable_latents.nodes.host.sampling.masked_latent import MaskedLatent
from tests.host.editing.twins import controlled
from tests.host.patches import PATCHES
from tests.host.unets import SUBJECTS, conditioning, noise, random_unet, sample

SOURCE = conditioning(5)
# A product of twice as many rows may round otherwise; latents here are of the size of 300.
CLOSE = {"rtol": 1e-4, "atol": 1e-2}


@pytest.fixture(scope="module")
def model(comfy):
    return random_unet()


def twin(model, source=SOURCE, **options):
    copy = model.clone()
    Twin(source, **options).install(copy)
    return copy


def states(model, key: str = "seen"):
    """A copy of the model that notes what the sampler shows to it: [(sigma, x)]."""
    from comfy.patcher_extension import WrappersMP

    seen, copy = [], model.clone()

    def note(executor, x, timestep, *args, **kwargs):
        seen.append((float(timestep[0]), x.clone()))
        return executor(x, timestep, *args, **kwargs)

    copy.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, key, note)
    return copy, seen


@pytest.mark.parametrize("sampler", ["euler", "ddim", "euler_ancestral", "dpmpp_2m_sde", "uni_pc"])
def test_source_and_target_are_runs_of_their_own_with_the_same_noise(model, sampler):
    """Also of samplers that draw noise while they run, by any generator."""
    both, seen = states(twin(model))
    alone, own = states(model)
    result = sample(both, sampler=sampler, batch=2)
    torch.testing.assert_close(result, sample(model, sampler=sampler, batch=2), **CLOSE)
    sample(alone, sampler=sampler, batch=2, positive=SOURCE)
    assert [sigma for sigma, _ in seen] == [sigma for sigma, _ in own]
    for (_, x), (_, expected) in zip(seen, own, strict=True):
        torch.testing.assert_close(x[:2], expected, **CLOSE)
    assert not torch.allclose(x[:2], x[2:], **CLOSE)


@pytest.mark.parametrize("kind", ["SD20", "SDXL"])
def test_other_unets_and_a_longer_source_prompt(comfy, kind):
    """SDXL also reads a pooled text. 77 and 154 tokens are repeated to 154."""
    model, source = random_unet(kind), conditioning(5, chunks=2)
    both, seen = states(twin(model, source))
    alone, own = states(model)
    torch.testing.assert_close(sample(both), sample(model), **CLOSE)
    sample(alone, positive=source)
    torch.testing.assert_close(seen[-1][1][:1], own[-1][1], **CLOSE)


def two(seed: int) -> list:
    """Two prompts: one for an area, one for a mask."""
    half = torch.zeros(1, 16, 16)
    half[..., 8:] = 1
    return [
        *conditioning(seed, area=(8, 16, 0, 0), strength=0.8),
        *conditioning(seed + 10, mask=half, mask_strength=0.9, set_area_to_bounds=False),
    ]


@pytest.mark.parametrize(
    ("name", "cfg"),
    [("area and mask", 4.0), ("noise mask", 1.0), ("split calls", 4.0), ("a batch of its own texts", 4.0)],
)
def test_what_the_users_prompt_and_latent_say_holds_for_both(model, name, cfg):
    how: dict = {"batch": 3, "grid": (16, 8) if name == "noise mask" else (16, 16), "cfg": cfg}
    patched, positive, source = model, conditioning(1), SOURCE
    if name == "area and mask":
        positive, source = two(1), [*SOURCE, *conditioning(6)]
    elif name == "noise mask":
        how["noise_mask"] = (torch.arange(8) < 5).float().expand(1, 1, 16, 8)
        how["start"] = noise(3, (16, 8))
    elif name == "split calls":
        patched = PATCHES["split calls"](model)
    else:
        texts = torch.cat([conditioning(seed)[0][0] for seed in (1, 2, 3)])
        positive = [[texts, conditioning(1)[0][1]]]
    both, seen = states(twin(patched, source))
    alone, own = states(patched)
    torch.testing.assert_close(
        sample(both, positive=positive, **how), sample(patched, positive=positive, **how), **CLOSE
    )
    theirs = (
        source
        if name != "area and mask"
        else [
            [context, {**options, **{k: v for k, v in mine.items() if k != "pooled_output"}}]
            for (context, options), (_, mine) in zip(source, positive, strict=True)
        ]
    )
    sample(alone, positive=theirs, **how)
    torch.testing.assert_close(seen[-1][1][:3], own[-1][1], **CLOSE)


@pytest.mark.parametrize("name", ["LoRA", "FreeU_V2", "PAG", "another override", "attn2 replaced", "attn2 patched"])
def test_beside_other_patches_in_both_orders(model, name):
    patch = PATCHES[name]
    expected = sample(patch(model))
    torch.testing.assert_close(sample(twin(patch(model))), expected, **CLOSE)
    torch.testing.assert_close(sample(patch(twin(model))), expected, **CLOSE)


def test_a_controlnet_of_the_users_prompt_acts_on_both(model):
    """With a picture for each of the batch: the source's are told apart like the target's."""
    both, seen = states(twin(model))
    alone, own = states(model)
    torch.testing.assert_close(
        sample(both, batch=2, **controlled(conditioning(1), conditioning(2))),
        sample(model, batch=2, **controlled(conditioning(1), conditioning(2))),
        **CLOSE,
    )
    sample(alone, batch=2, **controlled(SOURCE, conditioning(2)))
    torch.testing.assert_close(seen[-1][1][:2], own[-1][1], **CLOSE)


def test_a_negative_prompt_of_the_sources_own(model):
    other = conditioning(8)
    both, seen = states(twin(model, negative=other))
    alone, own = states(model)
    torch.testing.assert_close(sample(both), sample(model), **CLOSE)
    sample(alone, positive=SOURCE, negative=other)
    torch.testing.assert_close(seen[-1][1][:1], own[-1][1], **CLOSE)


def test_a_noised_reference_is_the_source_at_every_call(model):
    """In the model's own scale, with the noise that the target started from."""
    reference = noise(1, seed=9)
    both, seen = states(twin(model, path=NOISED, reference=reference), "last")
    torch.testing.assert_close(sample(both, batch=2), sample(model, batch=2), **CLOSE)
    expected = model.model.process_latent_in(reference)
    for sigma, x in seen[1:]:
        torch.testing.assert_close(x[:2], expected + sigma * noise(2), rtol=1e-4, atol=1e-4)


def test_callbacks_and_previews_see_the_target_alone(model):
    seen = []
    result = sample(twin(model), batch=2, callback=lambda step, x0, x, total: seen.append((step, x0.shape, x.shape)))
    assert seen == [(step, (2, 4, 16, 16), (2, 4, 16, 16)) for step in range(3)]
    assert result.shape == (2, 4, 16, 16)


def test_a_cancelled_run_leaves_nothing_behind(model):
    """The next run is that of a fresh model; the random numbers of PyTorch are its own again."""
    both = twin(model)

    def cancel(step, *_):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        sample(both, callback=cancel)
    assert torch.equal(sample(both), sample(twin(model)))
    drawn = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(drawn[0], drawn[1])


@pytest.mark.parametrize("behind", [True, False])
def test_captures_and_masked_latents_on_the_same_model_are_of_the_target(model, behind):
    """Wherever they stand: the same maps, latent, and report as without the twin."""
    half = torch.zeros(1, 16, 16)
    half[..., :8] = 1
    plan = MaskedLatent(ImageMasking(half), noise(1, seed=4), "1, 3", Policy("keep"), Policy("reference"))
    plain = model.clone()
    capture, report = observe(plain, SUBJECTS), plan.install(plain)
    expected = sample(plain, batch=2)
    both = model.clone()
    if behind:
        Twin(SOURCE).install(both)
    found, other = observe(both, SUBJECTS), plan.install(both)
    if not behind:
        Twin(SOURCE).install(both)
    result = sample(both, batch=2)
    torch.testing.assert_close(result, expected, **CLOSE)
    torch.testing.assert_close(
        found.saliency(result, "all", "mean").maps, capture.saliency(expected, "all", "mean").maps, rtol=1e-3, atol=1e-6
    )
    assert [m.step for m in other.manipulations(result)] == [m.step for m in report.manipulations(expected)] == [1, 3]


@pytest.mark.parametrize("share", [0.0, 1.0, 0.5])
def test_local_blend_keeps_the_source_outside_its_mask(model, share):
    """All inside is no blending at all, bit for bit; all outside is the source; half of each."""
    mask = torch.zeros(1, 16, 16)
    mask[..., : int(16 * share)] = 1
    both = twin(model, blend=LocalBlend(ImageMasking(mask), start=0.0))
    result = sample(both, batch=2)
    inside = int(16 * share)
    if share == 1:
        assert torch.equal(result, sample(twin(model), batch=2))
    source = sample(model, batch=2, positive=SOURCE)
    torch.testing.assert_close(result[..., inside:], source[..., inside:], **CLOSE)


def test_local_blend_with_attention_of_both_prompts_takes_the_union_of_their_masks(model):
    """Blending with both masks leaves no more of the source than blending with either."""
    masking = AttentionMasking(SUBJECTS.with_role("subject"), Shaping("of maximum", 0.5, flat_map="all in"))
    scene = replace(masking, subjects=SUBJECTS.with_role("scene"))
    source = sample(model, positive=SOURCE)
    same = {}
    for name, blend in (
        ("target", LocalBlend(masking, start=0.0)),
        ("source", LocalBlend(None, scene, start=0.0)),
        ("both", LocalBlend(masking, scene, start=0.0)),
    ):
        result = sample(twin(model, blend=blend))
        same[name] = torch.isclose(result, source, rtol=1e-3, atol=1e-2).all(1)[0]
    assert 0 < same["both"].sum() < 256
    # the last mask decides, and each run has attention of its own, so a few places may differ
    assert (same["both"] & ~(same["target"] & same["source"])).float().mean() < 0.1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda model: Twin([[None, {}]]), "holds no text"),
        (lambda model: Twin(SOURCE, path="other"), "source_path 'other' is not one of"),
        (lambda model: Twin(SOURCE, path=NOISED), "no reference is connected"),
        (lambda model: LocalBlend(None), "connect Mask from Attention"),
        (lambda model: LocalBlend(GradientMasking(SUBJECTS, Shaping())), "Abs-Grad-SAM would take a model call"),
        (lambda model: Twin(SOURCE).install(twin(model)), "has a Twin Sampling already"),
    ],
)
def test_mistakes_are_named_before_anything_runs(model, make, message):
    with pytest.raises(ValueError, match=message):
        make(model)


def test_samplers_with_steps_of_their_own_and_unpaired_prompts_are_refused(model):
    with pytest.raises(ValueError, match=r"dpm_adaptive.*chooses its own steps"):
        sample(twin(model), sampler="dpm_adaptive")
    both = twin(model, [*SOURCE, *conditioning(6)])
    with pytest.raises(ValueError, match="2 source prompts for 3 target prompts"):
        sample(both, positive=[*conditioning(1), *conditioning(2), *conditioning(3)])
    with pytest.raises(ValueError, match="the reference latent is 8 x 8"):
        sample(twin(model, path=NOISED, reference=noise(1, (8, 8))))


def test_a_guider_with_further_prompts_is_refused(model):
    import comfy.samplers
    from comfy_extras.nodes_custom_sampler import DualCFGGuider, RandomNoise, SamplerCustomAdvanced

    guider = DualCFGGuider.execute(twin(model), *(conditioning(seed) for seed in (1, 2, 3)), 4.0, 2.0, "regular")[0]
    euler, latent = comfy.samplers.sampler_object("euler"), {"samples": torch.zeros(1, 4, 16, 16)}
    with pytest.raises(ValueError, match="has the prompts middle, negative, positive"):
        SamplerCustomAdvanced.execute(RandomNoise.execute(0)[0], guider, euler, torch.tensor([2.0, 0.0]), latent)

"""Regional Attention in the host, against attention to all texts that is written down in float64."""

from __future__ import annotations

import importlib

import pytest
import torch

from explainable_latents.nodes.core.maps.masks import Shaping, shape_mask
from explainable_latents.nodes.core.methods.masked_latent import Policy
from explainable_latents.nodes.core.methods.masking import AttentionMasking, GradientMasking, ImageMasking
from explainable_latents.nodes.core.methods.prompt_to_prompt import PromptToPrompt, Window
from explainable_latents.nodes.core.words.alignment import Alignment
from explainable_latents.nodes.host.attention.observer import observe
from explainable_latents.nodes.host.editing.prompt_to_prompt import PromptToPromptEditor
from explainable_latents.nodes.host.same_prompt import Encoded
from explainable_latents.nodes.host.sampling.masked_latent import MaskedLatent
from tests.host.editing.positives import (
    GRID,
    assert_alike,
    by_head,
    cross_attention_of,
    half,
    masked,
    regional,
    scores,
)
from tests.host.editing.twins import SOURCE, STEPS, TARGET, WRITTEN, controlled, relative, twin
from tests.host.patches import PATCHES
from tests.host.regional_patches import Couple
from tests.host.unets import CONTEXT, SUBJECTS, conditioning, noise, random_unet, sample

OTHER = conditioning(5)


@pytest.fixture(scope="module")
def model(comfy):
    return random_unet()


def soft_masks(grid=GRID) -> tuple[torch.Tensor, torch.Tensor]:
    """Two that overlap, another for each of two pictures, and nothing in the last row."""
    generator = torch.Generator().manual_seed(1)
    masks = tuple(torch.rand(2, *grid, generator=generator) for _ in range(2))
    for mask in masks:
        mask[:, -1] = 0
    return masks


def written_down(model, texts, masks, base: float):
    """The model with cross-attention of explicit probabilities: all texts' keys one behind the other, and for each text
    a bias that leaves its own."""
    copy = model.clone()
    network = copy.model.diffusion_model

    def override(attention, q, k, v, heads, *args, transformer_options, **kwargs):
        if k.shape[1] != 77:
            return attention(q, k, v, heads, *args, transformer_options=transformer_options, **kwargs)
        layer = cross_attention_of(network, transformer_options)
        rows = len(q) // len(transformer_options["cond_or_uncond"])
        context = torch.cat([text.double().expand(rows, -1, -1) for text in texts], 1)
        covered = torch.stack(masks).double().sum(0)
        own = 1 - (1 - base) * covered.clamp(max=1)
        each = [(1 - base) * mask.double() / covered.clamp(min=1) for mask in masks]
        grid = tuple(transformer_options["activations_shape"][-2:])
        shares = [
            torch.nn.functional.adaptive_avg_pool2d(x, grid).flatten(1).unsqueeze(-1).expand(rows, -1, 1)
            for x in (own, *each)
        ]
        lengths = [77, *(text.shape[1] for text in texts)]

        out = []
        for j, kind in enumerate(transformer_options["cond_or_uncond"]):
            at = slice(j * rows, (j + 1) * rows)
            more = [context @ made.weight.double().T for made in (layer.to_k, layer.to_v)]
            keys, values = (torch.cat([x[at].double(), extra], 1) for x, extra in zip((k, v), more, strict=True))
            seen = scores(q[at], keys, heads)
            found = []
            for i in range(len(lengths)):
                bias = torch.full((sum(lengths),), -torch.inf, dtype=torch.float64)
                bias[sum(lengths[:i]) : sum(lengths[: i + 1])] = 0
                found.append(((seen + bias).softmax(-1) @ by_head(values, heads)).transpose(1, 2).flatten(2))
            mixed = sum(share * each for share, each in zip(shares, found, strict=True))
            out.append(mixed if kind == 0 else found[0])
        return torch.cat(out).to(q)

    copy.model_options["transformer_options"]["optimized_attention_override"] = override
    return copy


@pytest.mark.parametrize(
    ("kind", "base", "patch"),
    [("SD15", 0.0, None), ("SD20", 0.2, None), ("SDXL", 0.0, None), ("SD15", 0.2, "LoRA")],
)
def test_the_latent_is_that_of_attention_to_all_texts_written_down(model, kind, base, patch):
    """Two pictures of odd size, masks that overlap, one prompt twice as long as the others, and one strength of 0.6."""
    used = model if kind == "SD15" else random_unet(kind)
    used = used if patch is None else PATCHES[patch](used)
    masks, how = soft_masks(), {"steps": STEPS, "batch": 2, "grid": GRID}
    long, short = masked(5, masks[0], 2, mask_strength=0.6), masked(6, masks[1])
    result = sample(regional(used, long, short, base=base), **how)
    texts = [long[0][0], short[0][0]]
    expected = sample(written_down(used, texts, [0.6 * masks[0], masks[1]], base), **how)
    assert_alike(result, expected, sample(used, **how))


def test_masks_that_fill_the_picture_give_what_attention_couple_gives(model):
    """Which repeats rows: hard masks, both prompts of one length."""
    masks = [half(side=side) for side in ("right", "left")]
    couple = Couple(masks, [OTHER[0][0]]).install(model)
    result, expected = sample(regional(model, masked(5, masks[1]))), sample(couple)
    assert_alike(result, expected, sample(model))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("cfg", [4.0, 1.0])
def test_nothing_to_mix_is_the_plain_run_bit_for_bit(comfy, dtype, cfg):
    """Three pictures of odd size: no strength, an empty mask, all of it the base's, and outside its noise levels."""
    model, how = random_unet(dtype=dtype), {"batch": 3, "grid": GRID, "cfg": cfg}
    plain, full = sample(model, **how), torch.ones(1, *GRID)
    off = [
        regional(model, masked(5, full, mask_strength=0.0)),
        regional(model, masked(5, torch.zeros(1, *GRID))),
        regional(model, masked(5, full), base=1.0),
        regional(model, masked(5, full, start_percent=0.0, end_percent=0.0)),
        regional(model, []),
    ]
    assert all(torch.equal(sample(each, **how), plain) for each in off)
    # one region that covers everything, with the same prompt
    assert torch.equal(sample(regional(model, masked(1, full)), **how), plain)


@pytest.mark.parametrize("kind", ["SD15", "SDXL"])
def test_one_region_that_covers_everything_is_that_prompt_alone_bit_for_bit(comfy, kind):
    """The pooled text of SDXL stays that of the sampler's prompt."""
    model, how = random_unet(kind), {"batch": 2, "grid": GRID}
    alone = [[OTHER[0][0], TARGET[0][1]]]
    expected = sample(model, positive=alone, **how)
    assert torch.equal(sample(regional(model, OTHER, ratios="1"), **how), expected)
    assert torch.equal(sample(regional(model, masked(5, torch.ones(1, 64, 64))), **how), expected)
    assert not torch.equal(sample(model, **how), expected)


def test_every_positive_prompt_has_the_part_of_the_region_that_it_sees(model):
    """Two prompts with areas of their own: a region over the left one alone takes the place of the left one."""
    left, right = {"area": (16, 8, 0, 0)}, {"area": (16, 8, 0, 8)}
    both = [*conditioning(1, **left), *conditioning(3, **right)]
    expected = sample(model, positive=[*conditioning(5, **left), *conditioning(3, **right)])
    assert torch.equal(sample(regional(model, masked(5, half())), positive=both), expected)
    combined = [*conditioning(1), *conditioning(3)]
    alone = sample(model, positive=[*conditioning(5), *conditioning(5)])
    assert torch.equal(sample(regional(model, OTHER, ratios="1"), positive=combined), alone)
    assert not torch.equal(sample(model, positive=both), expected)


@pytest.mark.parametrize(
    "patch",
    [
        "LoRA",
        "FreeU_V2",
        "HyperTile",
        "PAG",
        "attn2 replaced",
        "attn2 replaced, through the host's attention",
        "another override",
        "another override at call time",
        "ControlNet",
    ],
)
def test_two_halves_with_one_prompt_are_that_prompt_beside_what_other_nodes_do(model, patch):
    """In either order of the nodes."""
    how = controlled(TARGET, conditioning(2)) if patch == "ControlNet" else {}
    alone = {**how, "positive": controlled(OTHER, conditioning(2))["positive"]} if how else {"positive": OTHER}
    put = PATCHES.get(patch, lambda used: used)
    halves, few = (masked(5, half()), masked(5, half(side="right"))), {"batch": 2, "steps": 2}
    expected, plain = sample(put(model), **few, **alone), sample(put(model), **few, **how)
    for used in (put(regional(model, *halves)), regional(put(model), *halves)):
        assert_alike(sample(used, **few, **how), expected, plain)


def test_places_by_masks_areas_and_ratios_are_the_same_places(model):
    masks, three = [half(), half(side="right")], conditioning(6)
    expected = sample(regional(model, masked(5, masks[0]), masked(6, masks[1])))
    areas = conditioning(5, area=(16, 8, 0, 0)), conditioning(6, area=("percentage", 1.0, 0.5, 0.0, 0.5))
    assert torch.equal(sample(regional(model, OTHER, three, ratios="1,1")), expected)
    assert torch.equal(sample(regional(model, *areas)), expected)
    assert torch.equal(sample(regional(model, masked(5, masks[0]), three, masking=ImageMasking(masks[1]))), expected)
    both = masked(5, torch.ones(1, 16, 16), area=(16, 8, 0, 0)), masked(6, masks[1])
    assert torch.equal(sample(regional(model, *both)), expected)


def test_a_later_node_lies_on_top(model):
    halves = [regional(model, masked(5, half())), regional(model, masked(5, torch.ones(1, 16, 16)))]
    covering, plain = sample(regional(model, masked(6, torch.ones(1, 16, 16)))), sample(model)
    for below in halves:
        assert_alike(sample(regional(below, masked(6, torch.ones(1, 16, 16)))), covering, plain)
    beside = regional(regional(model, masked(5, half())), masked(6, half(side="right")))
    together = sample(regional(model, masked(5, half()), masked(6, half(side="right"))))
    assert_alike(sample(beside), together, plain)


def test_a_region_by_a_word_is_where_the_call_before_looked_at_it(model):
    """In two steps: the first is the plain one, the second has the mask of the first one's attention."""
    masking = AttentionMasking(SUBJECTS.with_role("subject"), Shaping("mean"))
    watched, masks = model.clone(), []
    capture = observe(watched, masking.subjects)

    def see(step, *_):
        saliency = capture.latest()
        masks.append(shape_mask(saliency.maps, masking.shaping, saliency.labels, 1, saliency.spatial_scale))

    plain = sample(watched, steps=2, batch=3, callback=see)
    live = sample(regional(model, OTHER, masking=masking), steps=2, batch=3)
    assert 0.1 < float(masks[0].mean()) < 0.9
    fixed = masked(5, masks[0], start_percent=0.3)
    assert torch.equal(live, sample(regional(model, fixed), steps=2, batch=3))
    assert not torch.equal(live, plain)
    assert torch.equal(sample(regional(model, OTHER, masking=masking), steps=1), sample(model, steps=1))


def test_a_region_by_a_word_in_all_calls_so_far(model):
    """The masks are added up, so that from the third step on they are others."""
    calls = [
        AttentionMasking(SUBJECTS.with_role("subject"), Shaping("mean"), calls=calls)
        for calls in ("last call", "cumulative")
    ]
    for steps, same in ((2, True), (3, False)):
        last, added = (sample(regional(model, OTHER, masking=each), steps=steps) for each in calls)
        assert torch.equal(last, added) == same


@pytest.mark.parametrize("sampler", ["heun", "dpmpp_2m", "euler_ancestral", "uni_pc"])
def test_any_sampler(model, sampler):
    """Halves with one prompt are that prompt, whatever calls a sampler makes."""
    halves = regional(model, masked(5, half()), masked(5, half(side="right")))
    expected, plain = sample(model, positive=OTHER, sampler=sampler), sample(model, sampler=sampler)
    assert_alike(sample(halves, sampler=sampler), expected, plain)


def test_a_capture_and_a_masked_latent_on_the_same_model_in_any_order(model):
    """The capture shows the base prompt's words and changes nothing."""
    plan = MaskedLatent(ImageMasking(half()), noise(1, seed=4), "1, 3", Policy("keep"), Policy("reference"))
    region, first, last = masked(5, half()), model.clone(), regional(model, masked(5, half()))
    copy = model.clone()
    plan.install(copy)
    expected = sample(regional(copy, region))
    captures = [observe(first, SUBJECTS)]
    plan.install(first)
    plan.install(last)
    captures.append(observe(last, SUBJECTS))
    found = [sample(regional(first, region)), sample(last)]
    assert all(torch.equal(each, expected) for each in found)
    maps = [capture.saliency(each, "all", "sum").maps for capture, each in zip(captures, found, strict=True)]
    assert torch.equal(*maps)
    torch.testing.assert_close(maps[0].sum((-2, -1)), torch.ones(2, 1))


def test_the_first_layer_of_a_capture_reads_the_base_prompt_as_without_regions(model):
    found = []
    for used in (model.clone(), regional(model, masked(5, half()))):
        capture = observe(used, SUBJECTS, layers="input.1")
        sample(used, steps=1)
        found.append(capture.latest().maps)
    assert torch.equal(*found)


def test_a_twin_run_has_the_regions_in_source_and_target(model):
    """Prompt-to-Prompt edits what the base prompt draws, here nothing."""
    same = Alignment((77, 77), tuple((i, i, 1.0) for i in range(77)))
    method = PromptToPrompt(same, Window(0, 1), {}, {}, Window(0, 0.0))
    texts = [("old", Encoded((SOURCE[0][0],), {})), ("new", Encoded((TARGET[0][0],), {}))]
    editor, how = PromptToPromptEditor(method, texts, ""), {"batch": 2, "grid": GRID}
    masks = soft_masks()[0]
    partly, both, alone = regional(model, masked(6, masks)), [], []
    result = sample(twin(partly, note=both), **how)
    assert_alike(result, sample(partly, **how), sample(model, **how))
    sample(partly, positive=SOURCE, callback=lambda step, denoised, x, steps: alone.append(x.clone()), **how)
    assert all(relative(x[:2], y) < WRITTEN for x, y in zip(both, alone, strict=True))
    covered = regional(model, masked(6, torch.ones(1, *GRID)))
    assert torch.equal(sample(twin(covered, editor), **how), sample(twin(covered), **how))
    assert not torch.equal(sample(twin(partly, editor), **how), result)


def test_a_compiled_model_has_its_regions(model):
    compiling = importlib.import_module("comfy_extras.nodes_torch_compile").TorchCompileModel
    compiled = compiling.execute(model, "eager")[0]
    torch.compiler.reset()
    with torch.inference_mode():
        expected = sample(regional(model, masked(5, half())), cfg=1.0)
        assert torch.equal(sample(regional(compiled, masked(5, half())), cfg=1.0), expected)
    torch.compiler.reset()


@pytest.mark.parametrize(
    ("entries", "options", "message"),
    [
        (OTHER, {}, "region prompt 1 of 1 has no place: give it a mask"),
        ([*OTHER, *OTHER], {"ratios": "1,1,1"}, "into 3 parts, but 2 of the 2 region prompts"),
        ([*OTHER, *masked(6, half())], {"ratios": "1,1"}, "into 2 parts, but 1 of the 2"),
        ([*OTHER, *OTHER], {"masking": ImageMasking(half())}, "but 2 of the 2 region prompts have neither"),
        (OTHER, {"masking": ImageMasking(half()), "ratios": "1"}, "both masking and the ratios '1'"),
        (OTHER, {"masking": GradientMasking(SUBJECTS, Shaping())}, "would take a model call with gradients"),
        (OTHER, {"ratios": "1", "base": 1.5}, "base_share 1.5 is no share"),
        (masked(5, half(), mask_strength=-1.0), {}, "region prompt 1 has the strength -1.0"),
        (masked(5, half() * 3), {}, "a mask holds numbers from 0"),
        (masked(5, half(), control=object()), {}, "region prompt 1 has a ControlNet"),
        ([[None, {"mask": half()}]], {}, "region prompt 1 holds no text"),
    ],
)
def test_mistakes_are_named_before_anything_runs(model, entries, options, message):
    with pytest.raises(ValueError, match=message):
        regional(model, entries, **options)


def test_mistakes_that_only_a_run_can_show(model):
    narrow = [[torch.zeros(1, 77, CONTEXT // 2), {"mask": half()}]]
    with pytest.raises(ValueError, match="encoded in 32 numbers for each token, the sampler's in 64"):
        sample(regional(model, narrow))
    with pytest.raises(ValueError, match="2 masks for a batch of 3 latents"):
        sample(regional(model, masked(5, soft_masks()[0])), batch=3, grid=GRID)

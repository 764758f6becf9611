"""A third picture in a twin run: Cross-Image Attention against a run that is written down, call by call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from explainable_latents.nodes.core.maps.masks import Shaping
from explainable_latents.nodes.core.methods.appearance import Schedule
from explainable_latents.nodes.core.methods.cross_image_attention import CrossImageAttention
from explainable_latents.nodes.core.methods.masked_latent import Policy
from explainable_latents.nodes.core.methods.masking import AttentionMasking, GradientMasking, ImageMasking
from explainable_latents.nodes.core.methods.mutual_self_attention import MutualSelfAttention
from explainable_latents.nodes.core.methods.prompt_to_prompt import PromptToPrompt, Window
from explainable_latents.nodes.core.methods.trajectory import Trajectory
from explainable_latents.nodes.core.words.alignment import Alignment
from explainable_latents.nodes.host.attention.observer import observe
from explainable_latents.nodes.host.editing.appearance import AppearancePicture
from explainable_latents.nodes.host.editing.cross_image_attention import CrossImageAttentionEditor
from explainable_latents.nodes.host.editing.local_blend import LocalBlend
from explainable_latents.nodes.host.editing.mutual_self_attention import MutualSelfAttentionEditor
from explainable_latents.nodes.host.editing.paths import GENERATED, NOISED, RECORDED, Path
from explainable_latents.nodes.host.editing.prompt_to_prompt import PromptToPromptEditor
from explainable_latents.nodes.host.same_prompt import Encoded
from explainable_latents.nodes.host.sampling.masked_latent import MaskedLatent
from tests.host.editing.appearance_by_hand import ALWAYS, CFG, GRID, NEVER, OTHER, SCHEDULE, by_hand, taken_at
from tests.host.editing.twins import SOURCE, STEPS, TARGET, WRITTEN, controlled, relative, twin
from tests.host.patches import PATCHES
from tests.host.unets import SUBJECTS, conditioning, noise, random_unet, sample

METHOD = CrossImageAttention(SCHEDULE, 3.5, 1.67)
IDLE = replace(METHOD, schedule=NEVER)
CLOSE = {"rtol": 1e-4, "atol": 1e-2}  # latents here are of the size of 300


def editor(
    method: CrossImageAttention = METHOD, prompt: list = OTHER, kind: str = GENERATED, **how
) -> CrossImageAttentionEditor:
    masks = {name: how.pop(name) for name in ("target", "own") if name in how}
    layers = how.pop("layers", "auto")
    return CrossImageAttentionEditor(
        method, AppearancePicture(prompt, Path(kind, name="appearance_path", **how), **masks), layers
    )


@pytest.fixture(scope="module")
def model(comfy):
    return random_unet()


def written_attention(contrast: float, step: int | None) -> Callable:
    """Self-attention of rows [source, target, appearance] in float64; `step`: of the edited run, None for the plain."""

    def override(attention, q, k, v, heads, *args, transformer_options, **kwargs):
        if k.shape[1] != q.shape[1] or "block" not in transformer_options:
            return attention(q, k, v, heads, *args, transformer_options=transformer_options, **kwargs)
        picture = taken_at(transformer_options["block"], step)
        q, k, v = (x.double().unflatten(-1, (heads, -1)).transpose(1, 2).clone() for x in (q, k, v))
        source, target, appearance = (slice(i * len(q) // 3, (i + 1) * len(q) // 3) for i in range(3))
        if picture is not None:
            theirs = source if picture == "source" else appearance
            k[target], v[target] = k[theirs], v[theirs]
        p = (q @ k.transpose(2, 3) * q.shape[-1] ** -0.5).softmax(-1)
        if picture is not None:
            mean = p[target].mean(-1, keepdim=True)
            p[target] = ((p[target] - mean) * contrast + mean).clip(0, 1)
        return (p @ v).transpose(1, 2).flatten(-2).float()

    return override


@pytest.mark.parametrize(
    ("kind", "how", "guidance"),
    [
        ("SD15", {}, (3.5, 2.625, 1.75)),
        ("SD15", {"kind": NOISED, "reference": noise(1, GRID, 9)}, (3.5, 2.625, 1.75)),
        ("SD20", {}, (1.0, 1.0, 1.0)),
    ],
)
def test_the_latent_is_that_of_a_run_written_down(model, kind, how, guidance):
    """Two pictures of odd size, both prompts, contrast, structure, statistics."""
    used = model if kind == "SD15" else random_unet(kind)
    method = replace(METHOD, guidance=guidance[0])
    result = sample(twin(used, editor(method, **how)), batch=2, grid=GRID, cfg=CFG)
    expected = by_hand(
        used,
        lambda step: {"optimized_attention_override": written_attention(1.67, step)},
        guidance,
        how.get("reference"),
    )
    assert relative(result, expected) < WRITTEN
    # most of the latent is noise: the difference is small against what the editor changes, too
    plain = sample(twin(used), batch=2, grid=GRID, cfg=CFG)
    assert (result - expected).abs().max() < 0.02 * (plain - expected).abs().max()


@pytest.mark.parametrize(
    "off",
    [
        replace(METHOD, guidance=0.0, schedule=ALWAYS),
        replace(METHOD, schedule=Schedule(Window(0.5, 0.5), Window(1.0, 1.0), 5, Window(), 1.0)),
    ],
    ids=["guidance 0", "empty windows"],
)
def test_off_it_is_the_run_without_editor_bit_for_bit_and_nothing_is_made_for_it(model, off):
    rows: list = []
    how = {"batch": 2, "grid": GRID}
    assert torch.equal(sample(twin(model, editor(off), note=rows), **how), sample(twin(model), **how))
    assert {len(x) for x in rows} == {4}


def test_equal_prompts_without_contrast_give_the_source_bit_for_bit(model):
    """The appearance is the source's, and the target's path is theirs."""
    method, seen = CrossImageAttention(ALWAYS, 3.5, 1.0), []
    sample(twin(model, editor(method, SOURCE), note=seen), positive=SOURCE, batch=2)
    assert all(torch.equal(x[:2], x[rows : rows + 2]) for x in seen for rows in (2, 4))
    assert {len(x) for x in seen} == {8}


@pytest.mark.parametrize(("kind", "dtype"), [("SD15", torch.float32), ("SDXL", torch.bfloat16)], ids=str)
def test_source_and_appearance_keep_their_bits_whatever_is_done_to_the_target(comfy, kind, dtype):
    """Three pictures; blocks are source, target, appearance, target without."""
    model, plain, seen = random_unet(kind, dtype), [], []
    idle = sample(twin(model, editor(IDLE), note=plain), batch=3, grid=GRID)
    result = sample(twin(model, editor(), note=seen), batch=3, grid=GRID)
    assert result.isfinite().all()
    for a, b in zip(seen, plain, strict=True):
        assert torch.equal(a[:3], b[:3])
        assert torch.equal(a[6:9], b[6:9])
    assert relative(result, idle) > 1e-4
    if dtype == torch.float32:
        torch.testing.assert_close(idle, sample(model, batch=3, grid=GRID), **CLOSE)
        seen.clear()
        sample(twin(model, note=seen), batch=3, grid=GRID, positive=OTHER)
        torch.testing.assert_close(plain[-1][6:9], seen[-1][3:], **CLOSE)  # a run of its own, with the same noise


def test_a_recorded_appearance_is_its_path_at_every_call_and_a_noised_one_its_picture(model):
    """Whatever the sampler does to those rows; the statistics of the finished latent are the picture's own."""
    import comfy.samplers

    levels = comfy.samplers.calculate_sigmas(model.model.model_sampling, "normal", STEPS)
    path = Trajectory(tuple(levels.tolist()), tuple(noise(1, seed=i) for i in range(STEPS + 1)), True, "a test")
    seen: list = []
    result = sample(twin(model, editor(kind=RECORDED, trajectory=path), note=seen), batch=2)
    for x, state in zip(seen, path.states, strict=False):
        assert torch.equal(x[4:6], state.expand(2, -1, -1, -1))
    result = model.model.process_latent_in(result)
    for found, wanted in zip(torch.std_mean(result, (-2, -1)), torch.std_mean(path.picture, (-2, -1)), strict=True):
        torch.testing.assert_close(found, wanted.expand(2, -1), rtol=1e-4, atol=1e-4)
    reference = noise(2, seed=9)
    seen.clear()
    sample(twin(model, editor(kind=NOISED, reference=reference), note=seen), batch=2)
    for x, sigma in zip(seen, levels, strict=False):
        expected = model.model.process_latent_in(reference) + sigma * noise(2)
        torch.testing.assert_close(x[4:6], expected, rtol=1e-4, atol=1e-4)


def test_statistics_of_what_is_inside_masks_and_within_the_users_noise_mask(model):
    """Of either picture; outside the target's mask nothing changes. Attention is looked for in each picture."""
    off = replace(METHOD, guidance=0.0)
    left, top = (torch.zeros(1, 16, 16) for _ in range(2))
    left[..., :6], top[:, :5] = 1, 1
    reference = noise(1, seed=9)
    given = {"kind": NOISED, "reference": reference}
    made = editor(off, target=ImageMasking(left), own=ImageMasking(top), **given)
    seen, plain = [], []
    result = sample(twin(model, made, note=seen), batch=2)
    sample(twin(model, note=plain), batch=2)
    torch.testing.assert_close(seen[2][2:4, ..., 6:], plain[2][2:4, ..., 6:], **CLOSE)  # what enters the third step
    for found, wanted in zip(
        torch.std_mean(result[..., :6], (-2, -1)), torch.std_mean(reference[:, :, :5], (-2, -1)), strict=True
    ):
        torch.testing.assert_close(found, wanted.expand(2, -1), rtol=1e-3, atol=1e-3)
    free = (torch.arange(16) < 3).float().expand(1, 1, 16, 16)
    kept = sample(twin(model, made), batch=2, noise_mask=free)
    torch.testing.assert_close(kept[..., 3:], torch.zeros(2, 4, 16, 13), rtol=0, atol=1e-3)  # the user's own latent
    masking = AttentionMasking(SUBJECTS.with_role("subject"), Shaping("min-max", 0.4))
    found = sample(twin(model, editor(off, target=masking, own=masking)), batch=2)
    assert relative(found, sample(twin(model, editor(off)), batch=2)) > 1e-4


@pytest.mark.parametrize("sampler", ["euler_ancestral", "dpmpp_2m_sde", "uni_pc"])
def test_samplers_that_draw_noise_or_remember_steps(model, sampler):
    """All blocks have the noise of a run of their own."""
    idle = sample(twin(model, editor(IDLE)), sampler=sampler, batch=2)
    torch.testing.assert_close(idle, sample(model, sampler=sampler, batch=2), **CLOSE)
    assert relative(sample(twin(model, editor()), sampler=sampler, batch=2), idle) > 1e-4


def test_calls_for_one_conditioning_each_and_areas_with_a_controlnet(model):
    """Hosts with little memory evaluate positive and negative apart. An area is edited with its own rows."""
    how = {"batch": 2, "grid": GRID}
    whole = sample(twin(model, editor()), **how)
    torch.testing.assert_close(sample(twin(PATCHES["split calls"](model), editor()), **how), whole, **CLOSE)
    half = torch.zeros(1, 16, 16)
    half[..., 8:] = 1
    two = [*conditioning(1, area=(8, 16, 8, 0)), *conditioning(3, mask=half, set_area_to_bounds=False), *TARGET]
    how = {"batch": 2, **controlled(two, conditioning(2))}
    idle = sample(twin(model, editor(IDLE)), **how)
    torch.testing.assert_close(idle, sample(model, **how), **CLOSE)
    assert relative(sample(twin(model, editor()), **how), idle) > 1e-4


@pytest.mark.parametrize("name", ["LoRA", "FreeU_V2", "attn2 replaced", "another override"])
def test_beside_other_patches_in_both_orders(model, name):
    patch = PATCHES[name]
    expected = sample(twin(patch(model), editor()))
    torch.testing.assert_close(sample(patch(twin(model, editor()))), expected, **CLOSE)
    assert relative(expected, sample(twin(model, editor()))) > 1e-4


def prompt_to_prompt() -> PromptToPromptEditor:
    same = Alignment((77, 77), tuple((i, i, 1.0) for i in range(77)))
    texts = [("old", Encoded((SOURCE[0][0],), {})), ("new", Encoded((TARGET[0][0],), {}))]
    return PromptToPromptEditor(PromptToPrompt(same, Window(), {}, {}, Window(0, 0), 4), texts, "")


def test_what_another_editor_does_is_done_to_the_prediction_without_appearance_too(model):
    """So it is not led on. In the first layer of the first step the structure's keys are the target's own."""
    alone = sample(twin(model, prompt_to_prompt()), batch=2)
    first = CrossImageAttention(Schedule(Window(0, 0.34), Window(0, 0), 1, Window(), 1.0), 8.0, 1.0)
    nothing = editor(first, layers="input.1")
    torch.testing.assert_close(sample(twin(model, prompt_to_prompt(), nothing), batch=2), alone, **CLOSE)
    assert relative(sample(twin(model, prompt_to_prompt(), editor()), batch=2), alone) > 1e-4


def test_editors_of_the_same_layers_and_two_pictures_are_refused(model):
    texture = MutualSelfAttentionEditor(MutualSelfAttention(Window()))
    with pytest.raises(ValueError, match="MasaCtrl and Cross-Image Attention both edit self-attention"):
        sample(twin(model, texture, editor()))
    with pytest.raises(ValueError, match="each bring a picture that gives its appearance"):
        twin(model, editor(), editor())


def test_captures_a_masked_latent_and_local_blend_on_the_same_model_in_any_order(model):
    half = torch.zeros(1, 16, 16)
    half[..., :8] = 1
    plan = MaskedLatent(ImageMasking(half), noise(1, seed=4), "1, 3", Policy("keep"), Policy("reference"))
    copy, first = model.clone(), model.clone()
    plan.install(copy)
    expected = sample(twin(copy, editor()))
    captures = [observe(first, SUBJECTS)]
    plan.install(first)
    last = twin(model, editor())
    plan.install(last)
    captures.append(observe(last, SUBJECTS))
    assert torch.equal(sample(twin(first, editor())), expected)
    assert sample(last).isfinite().all()
    assert [capture.latest().maps.shape for capture in captures] == [(2, 1, 16, 16)] * 2
    blended = sample(twin(model, editor(), blend=LocalBlend(ImageMasking(half), start=0.0)), batch=2)
    source = sample(model, batch=2, positive=SOURCE)
    torch.testing.assert_close(blended[..., 8:], source[..., 8:], **CLOSE)


def test_attention_that_another_node_changed_is_left_alone_with_one_warning(model, caplog):
    with caplog.at_level("WARNING", "explainable_latents"):
        sample(twin(PATCHES["ToMe"](model), editor()), batch=2)
    told = [record.getMessage() for record in caplog.records if "leaves self-attention" in record.getMessage()]
    assert 1 <= len(told) == len(set(told)) <= 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: editor(layers="output.9"), "no self-attention layer is called 'output.9'"),
        (lambda: editor(kind=NOISED), "appearance_path is 'noised reference', but no reference is connected"),
        (lambda: editor(kind=RECORDED), "appearance_path is 'recorded', but no trajectory is connected"),
        (lambda: editor(kind="other"), "appearance_path 'other' is not one of"),
        (lambda: editor(prompt=[[None, {}]]), "the appearance prompt holds no text"),
        (lambda: editor(target=GradientMasking(SUBJECTS, Shaping())), "Abs-Grad-SAM would take a model call"),
    ],
)
def test_mistakes_are_named_before_anything_runs(model, make, message):
    with pytest.raises(ValueError, match=message):
        twin(model, make())


def test_pictures_of_another_size_and_more_prompts_than_one_for_all_are_refused(model):
    with pytest.raises(ValueError, match="the reference latent is 8 x 8"):
        sample(twin(model, editor(kind=NOISED, reference=noise(1, (8, 8)))))
    many = [*conditioning(1), *conditioning(3), *conditioning(4)]
    two = twin(model, editor(prompt=[*OTHER, *conditioning(8)]))
    with pytest.raises(ValueError, match="2 appearance prompts for 3 target prompts"):
        sample(two, positive=many)

"""Eye-for-an-Eye against a run whose features are exchanged one place after the other, before they are projected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from explainable_latents.nodes.core.maps.masks import Shaping
from explainable_latents.nodes.core.methods.appearance import AppearanceTransfer, Schedule
from explainable_latents.nodes.core.methods.cross_image_attention import CrossImageAttention
from explainable_latents.nodes.core.methods.masking import AttentionMasking, ImageMasking
from explainable_latents.nodes.core.methods.mutual_self_attention import MutualSelfAttention
from explainable_latents.nodes.core.methods.prompt_to_prompt import Window
from explainable_latents.nodes.host.editing.appearance import AppearancePicture
from explainable_latents.nodes.host.editing.cross_image_attention import CrossImageAttentionEditor
from explainable_latents.nodes.host.editing.eye_for_an_eye import EyeForAnEyeEditor
from explainable_latents.nodes.host.editing.mutual_self_attention import MutualSelfAttentionEditor
from explainable_latents.nodes.host.editing.paths import GENERATED, NOISED, Path
from tests.host.editing.appearance_by_hand import (
    ALWAYS,
    CFG,
    GRID,
    NEVER,
    OTHER,
    SCHEDULE,
    Masks,
    by_hand,
    taken_at,
)
from tests.host.editing.twins import SOURCE, WRITTEN, relative, twin
from tests.host.patches import PATCHES
from tests.host.unets import SUBJECTS, conditioning, noise, random_unet, sample

METHOD = AppearanceTransfer(SCHEDULE, 3.5)
IDLE = replace(METHOD, schedule=NEVER)
CLOSE = {"rtol": 1e-4, "atol": 1e-2}  # latents here are of the size of 300
LEFT, TOP = torch.zeros(GRID, dtype=torch.bool), torch.zeros(GRID, dtype=torch.bool)
LEFT[:, :5], TOP[:6] = True, True
WORDS = AttentionMasking(SUBJECTS.with_role("subject"), Shaping("min-max", 0.4))


def editor(
    method: AppearanceTransfer = METHOD, prompt: list = OTHER, kind: str = GENERATED, **how
) -> EyeForAnEyeEditor:
    masks = {name: how.pop(name) for name in ("target", "own") if name in how}
    layers = how.pop("layers", "auto")
    return EyeForAnEyeEditor(
        method, AppearancePicture(prompt, Path(kind, name="appearance_path", **how), **masks), layers
    )


def image(mask: torch.Tensor) -> ImageMasking:
    return ImageMasking(mask[None].float())


@pytest.fixture(scope="module")
def model(comfy):
    return random_unet()


def exchanged(step: int | None, masks: Masks) -> Callable:
    """An attn1 patch of rows [source, target, appearance]; `step`: of the edited run, None for the plain one."""

    def patch(n, context, value, options):
        picture = taken_at(options["block"], step)
        if picture is None:
            return n, context, value
        h, w = options["activations_shape"][-2:]
        # the nearest place of the mask, rounded down
        rows, columns = ([int(i * whole / size) for i in range(size)] for size, whole in zip((h, w), GRID, strict=True))
        inside, other = (
            (torch.ones(GRID, dtype=torch.bool) if masks is None else masks[i])[rows][:, columns].flatten()
            for i in range(2)
        )
        made, batch = n.clone(), len(n) // 3
        for row in range(batch):
            theirs = n[2 * batch + row].double()
            for place in inside.nonzero()[:, 0].tolist():
                own = n[batch + row, place].double()
                if picture == "source":
                    made[batch + row, place] = n[row, place]
                    continue
                cosine = (theirs @ own) / (theirs.norm(dim=1) * own.norm())
                made[batch + row, place] = n[2 * batch + row, int(cosine.where(other, -2).argmax())]
        return made, made, made

    return patch


@pytest.mark.parametrize(
    ("kind", "how", "guidance", "masks"),
    [
        ("SD15", {}, (3.5, 2.625, 1.75), None),
        ("SD15", {"kind": NOISED, "reference": noise(1, GRID, 9)}, (1.0, 1.0, 1.0), (LEFT, TOP)),
        ("SD20", {}, (1.0, 1.0, 1.0), None),
    ],
)
def test_the_latent_is_that_of_a_run_written_down(model, kind, how, guidance, masks):
    """Two pictures of odd size, both prompts, structure, statistics; with masks all of it inside of them alone."""
    used = model if kind == "SD15" else random_unet(kind)
    given = {} if masks is None else dict(zip(("target", "own"), map(image, masks), strict=True))
    method = replace(METHOD, guidance=guidance[0])
    result = sample(twin(used, editor(method, **how, **given)), batch=2, grid=GRID, cfg=CFG)
    expected = by_hand(
        used, lambda step: {"patches": {"attn1_patch": [exchanged(step, masks)]}}, guidance, how.get("reference"), masks
    )
    assert relative(result, expected) < WRITTEN
    # most of the latent is noise: the difference is small against what the editor changes, too
    plain = sample(twin(used), batch=2, grid=GRID, cfg=CFG)
    assert (result - expected).abs().max() < 0.02 * (plain - expected).abs().max()


@pytest.mark.parametrize(
    "off",
    [
        replace(METHOD, guidance=0.0, schedule=ALWAYS),
        replace(METHOD, schedule=Schedule(Window(0.5, 0.5), Window(0.5, 0.5), 5, Window(), 1.0)),
    ],
    ids=["guidance 0", "empty windows"],
)
def test_off_it_is_the_run_without_editor_bit_for_bit_and_nothing_is_made_for_it(model, off):
    rows: list = []
    how = {"batch": 2, "grid": GRID}
    # masks of attention are not looked for, either
    result = sample(twin(model, editor(off, target=WORDS, own=WORDS), note=rows), **how)
    assert torch.equal(result, sample(twin(model), **how))
    assert {len(x) for x in rows} == {4}


@pytest.mark.parametrize("schedule", [ALWAYS, replace(ALWAYS, every=2)], ids=["likeness", "structure, too"])
def test_equal_prompts_give_the_source_bit_for_bit(model, schedule):
    """The appearance is the source's, and the target's path is theirs: each place is most like itself."""
    seen: list = []
    sample(twin(model, editor(AppearanceTransfer(schedule, 3.5), SOURCE), note=seen), positive=SOURCE, batch=2)
    assert all(torch.equal(x[:2], x[rows : rows + 2]) for x in seen for rows in (2, 4))
    assert {len(x) for x in seen} == {8}


@pytest.mark.parametrize("empty", ["target", "own"])
def test_with_an_empty_mask_it_is_the_run_without_editor_bit_for_bit(model, empty):
    nowhere = {empty: ImageMasking(torch.zeros(1, 16, 16))}
    how = {"batch": 2, "grid": GRID}
    assert torch.equal(sample(twin(model, editor(**nowhere)), **how), sample(twin(model, editor(IDLE)), **how))


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


def test_masks_of_attention_are_known_from_the_call_before_whenever_statistics_begin(model):
    """In the first call every place takes from every place. Statistics ask for the mask after the third step alone."""
    states = []
    given = {"target": WORDS, "own": WORDS}
    for masks, start in (({}, 1.0), (given, 1.0), (given, 0.75)):
        seen: list = []
        method = replace(METHOD, schedule=replace(ALWAYS, statistics=start))
        sample(twin(model, editor(method, **masks), note=seen), steps=4, batch=2)
        states.append(seen)
    everywhere, inside, normalised = states
    assert torch.equal(everywhere[1], inside[1])
    assert relative(everywhere[2], inside[2]) > 1e-4
    assert torch.equal(inside[2], normalised[2])
    assert relative(inside[3], normalised[3]) > 1e-4


def test_an_area_sees_its_own_part_of_the_masks(model):
    """With masks of all it is the run without masks; with one of what lies outside the area, nothing happens in it."""
    how = {"batch": 2, "positive": conditioning(1, area=(8, 16, 8, 0)), "cfg": 1.0}
    everywhere, above = torch.ones(1, 16, 16), torch.zeros(1, 16, 16)
    above[:, :8] = 1
    method = replace(METHOD, schedule=ALWAYS)
    plain = sample(twin(model, editor(method)), **how)
    masks = {"target": ImageMasking(everywhere), "own": ImageMasking(everywhere)}
    assert torch.equal(sample(twin(model, editor(method, **masks)), **how), plain)
    idle = sample(twin(model, editor(IDLE)), **how)
    assert torch.equal(sample(twin(model, editor(method, target=ImageMasking(above))), **how), idle)
    assert relative(plain, idle) > 1e-4


def test_editors_of_the_same_layers_and_two_pictures_are_refused(model):
    texture = MutualSelfAttentionEditor(MutualSelfAttention(Window()))
    with pytest.raises(ValueError, match="MasaCtrl and Eye-for-an-Eye both edit self-attention"):
        sample(twin(model, texture, editor()))
    cross = CrossImageAttentionEditor(CrossImageAttention(SCHEDULE, 3.5, 1.67), AppearancePicture(OTHER, Path()))
    with pytest.raises(ValueError, match="Cross-Image Attention and Eye-for-an-Eye each bring a picture"):
        twin(model, cross, editor())


def test_attention_that_another_node_changed_is_left_alone_with_one_warning(model, caplog):
    with caplog.at_level("WARNING", "explainable_latents"):
        sample(twin(PATCHES["ToMe"](model), editor()), batch=2)
    told = [record.getMessage() for record in caplog.records if "leaves self-attention" in record.getMessage()]
    assert 1 <= len(told) == len(set(told)) <= 4
    assert all("Eye-for-an-Eye" in text for text in told)

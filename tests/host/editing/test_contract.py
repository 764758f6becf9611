"""What holds for every editing method, whatever else is on the model and whatever the sampler's prompts say.

That each makes what its paper says, beside a LoRA and a ControlNet too, is shown with the method's own tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from explainable_latents.nodes.core.methods.appearance import AppearanceTransfer, Schedule
from explainable_latents.nodes.core.methods.cross_image_attention import CrossImageAttention
from explainable_latents.nodes.core.methods.masked_latent import Policy
from explainable_latents.nodes.core.methods.masking import ImageMasking
from explainable_latents.nodes.core.methods.prompt_to_prompt import Window
from explainable_latents.nodes.host.attention.observer import observe
from explainable_latents.nodes.host.editing.appearance import AppearancePicture
from explainable_latents.nodes.host.editing.cross_image_attention import CrossImageAttentionEditor
from explainable_latents.nodes.host.editing.eye_for_an_eye import EyeForAnEyeEditor
from explainable_latents.nodes.host.editing.paths import Path
from explainable_latents.nodes.host.same_prompt import Encoded
from explainable_latents.nodes.host.sampling.masked_latent import MaskedLatent
from tests.host.editing.positives import ALONE, ALWAYS, PLACED, PROMPT, dense, half, masked, regional, structured
from tests.host.editing.self_attention import EDITORS, LATER
from tests.host.editing.twins import TARGET, controlled, relative, twin
from tests.host.patches import PATCHES
from tests.host.regional_patches import Couple, interleaved, left_half, negpip
from tests.host.unets import SUBJECTS, conditioning, noise, random_unet, sample

# Matrices of other sizes are added otherwise; latents here are of the size of 300.
CLOSE = {"rtol": 1e-4, "atol": 1e-2}
# Less than what each method changes here, relative to the largest number, and far more than rounding.
CHANGED = 1e-4


@dataclass(frozen=True)
class Method:
    """put: a copy of a model with the method. without: the model with all but what it does. twin: whether a source
    picture is sampled beside the target."""

    put: Callable[[Any], Any]
    without: Callable[[Any], Any] = lambda model: model
    twin: bool = False


def half_masks(model):
    """MasaCtrl with masks of halves, which also fit prompts with areas."""
    masks = (ImageMasking(half(side=side)) for side in ("left", "right"))
    return twin(model, replace(EDITORS["MasaCtrl"], method=LATER, target=next(masks), source=next(masks)))


def appearance(model, window: Window = Window(), alike: bool = False):  # noqa: B008  it is frozen
    """Cross-Image Attention, with guidance and contrast; alike: Eye-for-an-Eye, with a mask of half the picture."""
    schedule, picture = Schedule(window, window, 0, Window(), 1.0), AppearancePicture(conditioning(7), Path())
    if alike:
        picture = replace(picture, target=ImageMasking(half()))
        return twin(model, EyeForAnEyeEditor(AppearanceTransfer(schedule, 3.5), picture))
    return twin(model, CrossImageAttentionEditor(CrossImageAttention(schedule, 3.5, 1.67), picture))


NO_STEP = Window(0.6, 0.7)
METHODS = {
    "MasaCtrl": Method(half_masks, twin, True),
    "Plug-and-Play": Method(lambda model: twin(model, EDITORS["Plug-and-Play, features"]), twin, True),
    "Cross-Image Attention": Method(appearance, lambda model: appearance(model, NO_STEP), True),
    "Eye-for-an-Eye": Method(
        lambda model: appearance(model, alike=True), lambda model: appearance(model, NO_STEP, True), True
    ),
    "Regional Attention": Method(lambda model: regional(model, masked(5, half()), base=0.2)),
    "Place Phrases": Method(lambda model: dense(model, phrases=replace(PLACED, alone=ALONE))),
    "Structured Diffusion": Method(structured),
}
OF_A_TEXT = ["Place Phrases", "Structured Diffusion"]


@pytest.fixture(scope="module")
def model(comfy):
    return random_unet()


def run_of(method: Method, used, **how) -> tuple[Tensor, list[Tensor]]:
    """The latent of a run, and what the method may not change in it: the source's states, or what the network makes of
    the negative rows of the first step, whose input is the plain run's."""
    from comfy.patcher_extension import WrappersMP

    used, found, levels = used.clone(), [], []

    def states(executor, x, *args, **kwargs):
        found.append(x[: how["batch"]].clone())
        return executor(x, *args, **kwargs)

    def negative(executor, x, t, *args, **conds):
        out, kinds = executor(x, t, *args, **conds), args[3]["cond_or_uncond"]
        levels.append(float(t[0]))
        if levels[-1] == levels[0]:
            found.extend(rows for rows, kind in zip(out.chunk(len(kinds)), kinds, strict=True) if kind == 1)
        return out

    if method.twin:
        used.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "see", states)
    else:
        used.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "see", negative)
    return sample(used, steps=2, **how), found


@pytest.mark.parametrize("name", METHODS)
def test_areas_masks_several_prompts_and_a_controlnet(model, name):
    """A prompt for the lower part, one inside a mask, one everywhere; two pictures, each with a hint of its own."""
    method = METHODS[name]
    lower = torch.zeros(1, 16, 16)
    lower[:, 8:] = 1
    several = [*conditioning(1, area=(8, 16, 8, 0)), *conditioning(3, mask=lower, set_area_to_bounds=False), *TARGET]
    how = {"batch": 2, **controlled(several, conditioning(2))}
    (found, kept), (plain, expected) = (run_of(method, put(model), **how) for put in (method.put, method.without))
    assert found.isfinite().all()
    assert relative(found, plain) > CHANGED
    assert len(kept) == len(expected) > 1
    assert all(torch.equal(*each) for each in zip(kept, expected, strict=True))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_rows_of_others_keep_their_bits_in_joint_and_in_split_calls(comfy, name, dtype):
    method, model = METHODS[name], random_unet(dtype=dtype)
    for split in (lambda each: each, PATCHES["split calls"]):
        each = (run_of(method, split(put(model)), batch=3, grid=(15, 9)) for put in (method.put, method.without))
        (_, kept), (_, expected) = each
        assert len(kept) == len(expected) > 0
        assert all(torch.equal(*pair) for pair in zip(kept, expected, strict=True))


@pytest.mark.parametrize("name", METHODS)
def test_calls_for_one_conditioning_each_and_a_longer_negative_prompt(model, name):
    """Hosts with little memory evaluate positive and negative apart; beside a longer text the host repeats a prompt."""
    used, how = METHODS[name].put(model), {"batch": 2, "grid": (16, 12)}
    together = sample(used, **how)
    torch.testing.assert_close(sample(PATCHES["split calls"](used), **how), together, **CLOSE)
    longer = {**how, "negative": conditioning(2, 2)}
    joined, apart = sample(used, **longer), sample(PATCHES["split calls"](used), **longer)
    torch.testing.assert_close(joined, apart, **CLOSE)
    assert not torch.equal(joined, together)


@pytest.mark.parametrize("name", METHODS)
def test_three_pictures_are_three_runs_of_one(model, name):
    used, start = METHODS[name].put(model), noise(3)
    together = sample(used, start=start)
    alone = torch.cat([sample(used, start=start[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, **CLOSE)


@pytest.mark.parametrize("patch", ["LoRA", "FreeU_V2", "PAG", "attn2 replaced", "another override at call time"])
@pytest.mark.parametrize("name", METHODS)
def test_beside_what_other_nodes_do_in_either_order(model, name, patch):
    """ "attn2 replaced" is done in the manner of IPAdapter."""
    method, put = METHODS[name], PATCHES[patch]
    first, last = sample(put(method.put(model)), steps=2), sample(method.put(put(model)), steps=2)
    torch.testing.assert_close(first, last, **CLOSE)
    assert relative(first, sample(put(method.without(model)), steps=2)) > CHANGED


@pytest.mark.parametrize("name", METHODS)
def test_a_capture_and_a_masked_latent_on_the_same_model_in_any_order(model, name):
    method = METHODS[name]
    plan = MaskedLatent(ImageMasking(half()), noise(1, seed=4), "1, 3", Policy("keep"), Policy("reference"))
    copy, first, last = model.clone(), model.clone(), method.put(model)
    plan.install(copy)
    expected, captures = sample(method.put(copy)), [observe(first, SUBJECTS)]
    plan.install(first)
    plan.install(last)
    captures.append(observe(last, SUBJECTS))
    found = [sample(method.put(first)), sample(last)]
    assert all(torch.equal(each, expected) for each in found)
    maps = [capture.saliency(each, "all", "sum").maps for capture, each in zip(captures, found, strict=True)]
    assert torch.equal(*maps)
    assert maps[0].shape == (2, 1, 16, 16)


@pytest.mark.parametrize("name", METHODS)
def test_a_cancelled_run_leaves_nothing_behind(model, name):
    method = METHODS[name]
    plain, used = sample(model), method.put(model)

    def cancel(step, *_):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        sample(used, callback=cancel)
    assert torch.equal(sample(model), plain)
    assert torch.equal(sample(used), sample(method.put(model)))


@pytest.mark.parametrize("name", OF_A_TEXT)
def test_of_several_positive_prompts_only_this_one_is_edited(model, name):
    """Each has an area; the other one's half is the plain run's after one step."""
    both = [*conditioning(1, area=(16, 8, 0, 0)), *conditioning(3, area=(16, 8, 0, 8))]
    found, plain = (sample(used, steps=1, positive=both) for used in (METHODS[name].put(model), model))
    assert torch.equal(found[..., 8:], plain[..., 8:])
    assert not torch.equal(found[..., :8], plain[..., :8])


@pytest.mark.parametrize("name", OF_A_TEXT)
def test_another_prompt_at_the_sampler_is_an_error(model, name):
    with pytest.raises(ValueError, match=f"phrases of '{PROMPT}', but this is not what is sampled"):
        sample(METHODS[name].put(model), positive=conditioning(9))


def in_neg_pip_form(name: str, model):
    """The method whose texts an encoder of NegPip made."""
    own = Encoded((interleaved(TARGET)[0][0],), {})
    if name == "Regional Attention":
        return regional(model, [[interleaved(conditioning(5))[0][0], {"mask": half()}]])
    phrases = replace(PLACED, encoded=own)
    if name == "Place Phrases":
        return dense(model, replace(ALWAYS, own=0.0), phrases)
    return structured(model, encoded=own)


@pytest.mark.parametrize("patch", ["attn2 patched", "Attention Couple", "NegPip"])
@pytest.mark.parametrize("name", ["Regional Attention", *OF_A_TEXT])
def test_attention_to_a_text_that_another_node_changed_is_left_alone_with_a_warning(model, name, patch, caplog):
    """Another number of keys, rows that are repeated for regions, keys and values in turn."""
    how: dict = {"batch": 2}
    if patch == "NegPip":
        how |= {"positive": interleaved(TARGET), "negative": interleaved(conditioning(2))}
        put, edited = negpip, in_neg_pip_form(name, negpip(model))
    else:
        couple = Couple([left_half(), 1 - left_half()], [conditioning(6)[0][0]])
        put = couple.install if patch == "Attention Couple" else PATCHES[patch]
        cross_alone = dense(put(model), replace(ALWAYS, own=0.0))
        edited = cross_alone if name == "Place Phrases" else METHODS[name].put(put(model))
    plain = sample(put(model), **how)
    with caplog.at_level("WARNING", "explainable_latents"):
        found = sample(edited, **how)
    assert torch.equal(found, plain)
    told = [each.getMessage() for each in caplog.records if "leaves cross-attention" in each.getMessage()]
    assert 1 <= len(told) == len(set(told)) <= 3  # one for each size of a layer, where it says the size
    assert all(name in each for each in told)

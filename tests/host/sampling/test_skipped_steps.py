"""Guidance beside the host's EasyCache and LazyCache, which take an older prediction where a step changes little."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from explainable_latents.nodes.core.methods.attend_and_excite import AttendAndExcite
from explainable_latents.nodes.core.methods.guidance import Guidance
from explainable_latents.nodes.core.methods.self_guidance import SelfGuidance
from explainable_latents.nodes.host.sampling.word_guidance import WordGuidance
from tests.host.patches import extra_node
from tests.host.unets import SUBJECTS, random_unet, sample

STEPS, GRID = 8, (8, 8)
LOSSES = {
    "keep": AttendAndExcite(),
    "shape": SelfGuidance(frozenset({0}), x=0.2),
    "look": SelfGuidance(frozenset({0}), x=0.2, keep_appearance=1.0),
}
NEVER, OFTEN = 0.0, 3.0


@pytest.fixture(scope="module")
def model(comfy):
    return random_unet(seed=3)


def cached(name: str, threshold: float) -> Callable:
    """The stock node, with this threshold, from the first step on."""
    return extra_node("nodes_easycache", f"{name}Node", threshold, 0.0, 1.0, False)


def guided(model, loss: str, form: str):
    copy = model.clone()
    how = Guidance(1.0, "0-50%", "relative", 0.02, "constant", form)
    return copy, WordGuidance("Guide", LOSSES[loss], SUBJECTS, how).install(copy)


def both(model, cache: str, threshold: float, loss: str, form: str, cache_first: bool):
    if cache_first:
        return guided(cached(cache, threshold)(model), loss, form)
    copy, report = guided(model, loss, form)
    return cached(cache, threshold)(copy), report


def run(model) -> Tensor:
    with torch.inference_mode():
        return sample(model, STEPS, grid=GRID)


CASES = [
    (cache, loss, form, first)
    for cache in ("EasyCache", "LazyCache")
    for loss, form in (("keep", "state"), ("keep", "prediction"), ("shape", "state"), ("look", "prediction"))
    for first in (True, False)
]


@pytest.mark.parametrize(("cache", "loss", "form", "first"), CASES)
def test_a_cache_that_never_acts_changes_no_bit_of_a_guided_run(model, cache, loss, form, first):
    copy, report = both(model, cache, NEVER, loss, form, first)
    expected, of_expected = guided(model, loss, form)
    made, plain = run(copy), run(expected)
    assert torch.equal(made, plain)
    assert report.text(made) == of_expected.text(plain)


# There LazyCache answers in place of all that comes behind it, and nothing is predicted that could be changed.
UNSEEN = [("LazyCache", loss, "prediction", True) for loss in ("keep", "look")]


@pytest.mark.parametrize(("cache", "loss", "form", "first"), [case for case in CASES if case not in UNSEEN])
def test_where_it_acts_every_step_is_measured_all_the_same(model, cache, loss, form, first):
    copy, report = both(model, cache, OFTEN, loss, form, first)
    made = run(copy)
    assert made.isfinite().all()
    steps = report.steps(made)
    assert all(step.before is not None for step in steps)
    assert [step.step for step in steps] == list(range(STEPS // 2))
    assert not torch.equal(made, run(guided(model, loss, form)[0]))
    assert torch.equal(run(copy), made)


@pytest.mark.parametrize(("cache", "loss", "form", "first"), UNSEEN)
def test_steps_that_are_skipped_before_guidance_hears_of_them_are_in_its_report(model, cache, loss, form, first):
    copy, report = both(model, cache, OFTEN, loss, form, first)
    made = run(copy)
    steps = report.steps(made)
    assert [step.step for step in steps] == list(range(STEPS // 2))
    assert steps[0].before is not None
    assert steps[-1].before is None
    assert report.text(made).splitlines()[-1].startswith("step 3: sigma 2.")
    assert "LazyCache, for instance: connect it behind this node, or choose act_on state" in report.text(made)

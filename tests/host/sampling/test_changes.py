"""A change between steps that is not the masked latent, under samplers of every kind."""

from __future__ import annotations

import pytest
import torch

from explainable_latents.nodes.host.sampling.changes import Change, change_steps
from tests.host.unets import random_unet, sample

STEPS = 5


@pytest.fixture(scope="module")
def model(comfy):
    return random_unet()


class Recorded(Change):
    """Adds a number to the state, and notes in order what it is asked: ("call", last, more) and ("step", number)."""

    def __init__(self, steps: tuple[int, ...], amount: float, history: list) -> None:
        super().__init__(steps)
        self._amount = amount
        self._history = history

    def __call__(self, step, x, sigma, predict):
        assert x.shape == predict().shape
        self._history.append(("step", step))
        return x + self._amount

    def before_call(self, last, more):
        self._history.append(("call", last, more))

    def after_first_step(self):
        self._history.append(("first step",))


def changed(model, steps: tuple[int, ...], amount: float, sampler: str, runs: int = 1):
    """A run of `sampler` with so many equal changes installed, and what the last one of them was asked."""
    patcher = model.clone()
    history = []
    for i in range(runs):
        notes = history if i == runs - 1 else []
        change_steps(patcher, f"test {i}", lambda inputs, notes=notes: Recorded(steps, amount, notes))
    return sample(patcher, STEPS, grid=(8, 8), sampler=sampler), history


# One model call per step, two of them, one for a predictor and its corrector (restarted), a history of predictions.
SAMPLERS = ["euler", "heun", "dpm_2", "dpmpp_2s_ancestral", "uni_pc", "sa_solver", "dpmpp_2m"]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("steps", [(1, 2), (0, 3, 5)], ids=str)
def test_the_last_call_before_each_changed_step_is_announced_and_no_other(model, sampler, steps):
    """Calls that `predict` makes are no calls of the sampler. Before the finished latent several may be announced."""
    _, history = changed(model, steps, 0.0, sampler)
    made, calls = [], []
    for kind, *told in history:
        if kind == "call":
            calls.append(tuple(told))
        elif kind == "step":
            announced = [last for last, _ in calls]
            if told[0] == STEPS:
                assert announced[-1]
            else:
                assert announced == [False] * (len(calls) - 1) + [True] * bool(made or told[0])
            assert all(more for _, more in calls)
            made, calls = [*made, told[0]], []
    assert made == list(steps)
    assert set(calls) <= {(False, False)}
    assert history.count(("first step",)) == 1


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m"])
def test_a_change_of_nothing_is_the_stock_sampler_bit_for_bit(model, sampler):
    expected = sample(model.clone(), STEPS, grid=(8, 8), sampler=sampler)
    assert torch.equal(changed(model, (0, 2, 3), 0.0, sampler)[0], expected)
    assert torch.equal(changed(model, (), 1.0, sampler)[0], expected)
    assert not torch.equal(changed(model, (2,), 0.5, sampler)[0], expected)


@pytest.mark.parametrize("sampler", ["euler", "uni_pc"])
def test_changes_of_one_step_act_one_after_the_other(model, sampler):
    """Two halves are exact in float32 where they are added to a state of moderate size: twice 0.5 is 1."""
    once, _ = changed(model, (5,), 1.0, sampler)
    twice, _ = changed(model, (5,), 0.5, sampler, runs=2)
    torch.testing.assert_close(twice, once, atol=1e-6, rtol=0)
    assert not torch.allclose(twice, changed(model, (5,), 0.5, sampler)[0], atol=1e-2)

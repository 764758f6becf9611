"""The recorded path: its states at and between noise levels, and the schedules that are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from explainable_latents.nodes.core.methods.trajectory import Trajectory

LEVELS = (8.0, 4.0, 1.0, 0.0)
STATES = tuple(torch.full((2, 4, 3, 5), value) for value in (80.0, 50.0, 20.0, 10.0))
PATH = Trajectory(LEVELS, STATES, True, "the inversion in 3 steps")


def test_the_recorded_states_themselves_and_between_them_the_line():
    for level, state in zip(LEVELS, STATES, strict=True):
        assert PATH.at(level * (1 + 1e-6)) is state
    assert PATH.picture is STATES[-1]
    for sigma, value in ((6.0, 65.0), (2.5, 35.0), (0.1, 11.0)):
        torch.testing.assert_close(PATH.at(sigma), torch.full_like(STATES[0], value))


@pytest.mark.parametrize("sigmas", [LEVELS, (4.0, 1.0, 0.0), (8.0, 4.0), (1.0, 0.0)])
def test_the_whole_schedule_and_parts_of_it_are_the_inversions(sigmas):
    PATH.check_levels(sigmas)


@pytest.mark.parametrize(
    "sigmas", [(8.0, 1.0, 0.0), (8.1, 4.0, 1.0, 0.0), (4.0, 1.0, 0.5, 0.0), (8.0, 4.0, 1.0, 0.0, 0.0)]
)
def test_another_schedule_is_refused_with_both(sigmas):
    with pytest.raises(ValueError, match=r"samples the noise levels .* recorded 8, 4, 1, 0\. Give the sampler"):
        PATH.check_levels(sigmas)


def test_noise_levels_without_a_state_are_refused():
    with pytest.raises(ValueError, match="no state at the noise level 9"):
        PATH.at(9.0)
    with pytest.raises(ValueError, match=r"no state at the noise level 2\.5, only at those of the inversion"):
        replace(PATH, straight=False).at(2.5)
    assert replace(PATH, straight=False).at(4.0) is STATES[1]


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ((8.0, 4.0, 0.0), "3 noise levels, but 4 states"),
        ((8.0, 4.0, 4.0, 0.0), "fall to 0"),
        ((9, 8, 4, 1), "fall to 0"),
    ],
)
def test_a_path_that_contradicts_itself_is_refused(levels, message):
    with pytest.raises(ValueError, match=message):
        Trajectory(levels, STATES, True, "")

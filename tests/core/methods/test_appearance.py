"""When a picture takes over another one's appearance, and its statistics, against PyTorch's instance normalisation."""

from __future__ import annotations

import pytest
import torch

from explainable_latents.nodes.core.methods.appearance import APPEARANCE, STRUCTURE, Schedule, with_statistics
from explainable_latents.nodes.core.methods.prompt_to_prompt import Window

PUBLISHED = Schedule(Window(0.15, 1.0), Window(0.15, 1.0), 5, Window(0.0, 0.59), 0.3)


def states(seed: int, size: tuple[int, int] = (7, 5)) -> torch.Tensor:
    return 3 + 2 * torch.randn(3, 4, *size, generator=torch.Generator().manual_seed(seed))


def test_the_published_run_begins_at_step_10_of_68_and_takes_the_structure_each_5th_step_before_40():
    taken = [PUBLISHED.taken_from(step, 68, 1) for step in range(68)]
    assert taken[:10] == [None] * 10
    assert [step for step, picture in enumerate(taken) if picture == STRUCTURE] == [10, 15, 20, 25, 30, 35]
    assert taken.count(APPEARANCE) == 52
    assert PUBLISHED.normalised(68) == tuple(range(20, 69))


def test_coarse_layers_have_a_window_of_their_own_and_0_steps_or_a_share_of_1_are_never():
    schedule = Schedule(Window(0.0, 1.0), Window(0.0, 0.5), 0, Window(), 1.0)
    assert [schedule.taken_from(step, 4, 2) for step in range(4)] == [APPEARANCE, APPEARANCE, None, None]
    assert [schedule.taken_from(step, 4, 1) for step in range(4)] == [APPEARANCE] * 4
    assert schedule.normalised(4) == ()
    assert not schedule.is_empty
    assert Schedule(Window(0.5, 0.5), Window(1.0, 1.0), 5, Window(), 0.0).is_empty
    # the state that enters the first step is noise alone
    assert Schedule(Window(), Window(), 5, Window(), 0.0).normalised(3) == (1, 2, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [((-1, Window(), 0.3), "structure_every is -1"), ((5, Window(), 1.5), "0 <= start <= end <= 1")],
)
def test_mistakes_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        Schedule(Window(), Window(), *changes)


def test_statistics_are_those_of_instance_normalisation():
    state, appearance = states(1), states(2, (9, 4))
    normal = torch.nn.functional.instance_norm(state, eps=0.0)
    variance, mean = torch.var_mean(appearance, (-2, -1), keepdim=True)
    own = torch.var(state, (-2, -1), keepdim=True)
    # instance_norm divides by n, deviations of a sample by n - 1
    expected = normal * (torch.var(state, (-2, -1), correction=0, keepdim=True) / own * variance).sqrt() + mean
    torch.testing.assert_close(with_statistics(state, appearance), expected, rtol=1e-4, atol=1e-4)


def test_equal_statistics_change_a_state_by_rounding_alone():
    state = states(1)
    torch.testing.assert_close(with_statistics(state, state.flip(-1)), state, rtol=1e-5, atol=1e-5)


def test_inside_a_mask_the_state_has_the_statistics_of_the_others_inside_and_outside_its_bits():
    state, appearance = states(1), states(2)
    inside, other = (torch.rand(3, 1, 7, 5, generator=torch.Generator().manual_seed(seed)) > 0.5 for seed in (3, 4))
    changed = with_statistics(state, appearance, inside, other)
    assert torch.equal(changed.masked_fill(inside, 0), state.masked_fill(inside, 0))
    for b in range(3):
        for c in range(4):
            found, wanted = changed[b, c][inside[b, 0]], appearance[b, c][other[b, 0]]
            torch.testing.assert_close(found.mean(), wanted.mean(), rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(found.std(), wanted.std(), rtol=1e-4, atol=1e-4)


def test_a_picture_with_fewer_than_two_places_inside_stays_as_it_is():
    state, appearance = states(1), states(2)
    one = torch.zeros(3, 1, 7, 5, dtype=torch.bool)
    one[0] = True
    one[1, :, 2, 2] = True
    for masks in ((one, None), (None, one)):
        changed = with_statistics(state, appearance, *masks)
        assert torch.equal(changed[1:], state[1:])
        assert not torch.equal(changed[0], state[0])


def test_the_type_of_the_state_is_kept():
    state = states(1).bfloat16()
    assert with_statistics(state, states(2)).dtype == torch.bfloat16

"""The axes of a plot, by numbers read off by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from explainable_latents.nodes.core.maps.axes import Axis, Frame, step_axis, value_axis


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0.2, 0.9], [0, 0.5, 1]),
        ([0.0, 0.8], [0, 0.2, 0.4, 0.6, 0.8]),
        ([5.1, 5.9], [5.0, 5.2, 5.4, 5.6, 5.8, 6.0]),
        ([-3.0, 1.0], [-3, -2, -1, 0, 1]),
        ([0.0], [0, 0.5, 1]),
        ([4.0, 4.0], [2, 3, 4, 5, 6]),
        ([1e30, 3e30], [0, 1e30, 2e30, 3e30]),
    ],
)
def test_round_ticks_reach_all_values(values, ticks):
    axis = value_axis(values)
    assert axis.ticks == pytest.approx(ticks)
    assert (axis.low, axis.high) == (axis.ticks[0], axis.ticks[-1])


@given(st.lists(st.floats(-(2.0**127), 2.0**127, width=32), min_size=1, max_size=5))
def test_any_losses_that_a_model_can_have_lie_on_their_axis(values):
    axis = value_axis(values)
    assert 2 <= len(axis.ticks) <= 12
    assert all(-1e-6 <= axis.share(value) <= 1 + 1e-6 for value in values)


@pytest.mark.parametrize("broken", [[math.nan], [1.0, math.inf], []])
def test_what_is_no_number_is_refused(broken):
    with pytest.raises(ValueError, match="an axis needs finite values"):
        value_axis(broken)


@pytest.mark.parametrize(
    ("first", "last", "ticks"),
    [(3, 3, [3]), (0, 4, [0, 1, 2, 3, 4]), (0, 24, [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24]), (7, 999, None)],
)
def test_steps_have_whole_ticks_and_half_a_step_beside_them(first, last, ticks):
    axis = step_axis(first, last)
    assert (axis.low, axis.high) == (first - 0.5, last + 0.5)
    assert axis.ticks == tuple(ticks or range(100, 1000, 100))


def test_a_point_lies_where_its_shares_say():
    frame = Frame(10, 20, 110, 220, Axis(0, 4, ()), Axis(-1, 1, ()))
    assert frame.place(0, -1) == (10, 220)
    assert frame.place(1, 0.5) == (35, 70)

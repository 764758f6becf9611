"""Reading manipulate_at."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from explainable_latents.nodes.core.methods.schedule import check_steps, parse_steps


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("5, 18, 28", (5, 18, 28)),
        ("28,5 ,18,5", (5, 18, 28)),
        ("2-4", (2, 3, 4)),
        ("2 - 4, 3, 9", (2, 3, 4, 9)),
        ("10%", (3,)),
        ("15%, 50%, 80%", (5, 17, 28)),
        ("0%, 100%", (0, 35)),
        ("12.5 %", (4,)),
        ("35", (35,)),
        ("", ()),
        (" , ", ()),
    ],
)
def test_steps_ranges_and_shares_of_35_steps(text, steps):
    assert parse_steps(text, 35) == steps


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("36", "step 36 does not exist. This run makes 35 steps: 0 to 34"),
        ("30-40", "step 40 does not exist"),
        ("4-2", "range 4-2 runs backwards; write 2-4"),
        ("101%", "more than 100%"),
        ("five", "'five' is no step"),
        ("-3", "'-3' is no step"),
        ("3.5", "'3.5' is no step"),
        ("5; 18", "'5; 18' is no step"),
    ],
)
def test_mistakes_name_the_item_and_what_is_allowed(text, words):
    with pytest.raises(ValueError, match=words):
        parse_steps(text, 35)


def test_every_whole_share_of_100_steps_is_that_step():
    assert [parse_steps(f"{share}%", 100) for share in range(101)] == [(share,) for share in range(101)]


@pytest.mark.parametrize(
    ("text", "total", "offer"),
    [
        ("5, 18, 28", 20, "steps of a run of 35, write 2, 10, 16 here, or 14%, 51%, 80% for a run of any length"),
        ("2-4, 40", 20, r"steps of a run of 50, write 0-1, 16 here\.$"),
        ("2-40", 20, r"steps of a run of 50, write 0-16 here\.$"),
        ("5-999999999999", 20, r"steps of a run of 999999999999, write 0-20 here\.$"),
        ("3, 2000, 10%", 20, "steps of a run of 2000, write 0, 20 here, or 0%, 100% for a run of any length"),
    ],
)
def test_a_run_that_is_too_short_is_offered_the_same_steps_scaled_to_it(text, total, offer):
    with pytest.raises(ValueError, match=offer):
        parse_steps(text, total)


def test_what_can_be_read_is_known_before_the_run():
    check_steps("5, 18, 2800, 2-4, 10%")
    with pytest.raises(ValueError, match="'soon' is no step"):
        check_steps("5, soon")


@given(st.sets(st.integers(0, 60), max_size=12), st.integers(60, 200))
def test_any_set_of_steps_survives_writing_and_reading(steps, total):
    assert parse_steps(", ".join(map(str, sorted(steps, reverse=True))), total) == tuple(sorted(steps))


@given(st.text(max_size=40) | st.from_regex(r"[0-9 ,%.-]{0,20}", fullmatch=True))
def test_any_text_is_read_or_refused_with_a_value_error(text):
    steps = ()
    with contextlib.suppress(ValueError):
        steps = parse_steps(text, 50)
    assert all(0 <= step <= 50 for step in steps)

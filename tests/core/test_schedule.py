"""Reading manipulate_at."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from explainable_latents.nodes.core.schedule import parse_steps


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("5, 18, 28", (5, 18, 28)),
        ("28,5 ,18,5", (5, 18, 28)),
        ("2-4", (2, 3, 4)),
        ("2 - 4, 3, 9", (2, 3, 4, 9)),
        ("10%", (3,)),
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


@given(st.sets(st.integers(0, 60), max_size=12), st.integers(60, 200))
def test_any_set_of_steps_survives_writing_and_reading(steps, total):
    assert parse_steps(", ".join(map(str, sorted(steps, reverse=True))), total) == tuple(sorted(steps))


@given(st.text(max_size=40) | st.from_regex(r"[0-9 ,%.-]{0,20}", fullmatch=True))
def test_any_text_is_read_or_refused_with_a_value_error(text):
    steps = ()
    with contextlib.suppress(ValueError):
        steps = parse_steps(text, 50)
    assert all(0 <= step <= 50 for step in steps)

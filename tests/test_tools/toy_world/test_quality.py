"""The tables of the second world: what counts as neglect and as mixing, and what is asked for."""

from collections import Counter

import pytest
import torch

from tests.tools.toy_world.group_judge import Seen
from tests.tools.toy_world.pictures import SUBJECT_NAMES
from tests.tools.toy_world.quality_attention import pair_pictures
from tests.tools.toy_world.quality_groups import (
    Answer,
    Prompt,
    by_colour,
    by_subject,
    outcomes,
    pair_prompts,
    single_prompts,
)
from tests.tools.toy_world.table import percent, table

RED_DOG, BLUE_CAT = ("dog", "red"), ("cat", "blue")


def answer(prompt: Prompt, *seen: tuple) -> Answer:
    """What a judge sees in one picture after the other: (subject, colour) pairs."""
    found = [Seen({s: (c, torch.zeros(128, 128, dtype=torch.bool)) for s, c in each}, "beach") for each in seen]
    return Answer(prompt, torch.zeros(len(seen), 3, 128, 128), found)


ASKED = Prompt({"dog": "red", "cat": "blue"}, "beach")
ANSWER = answer(
    ASKED,
    (RED_DOG, BLUE_CAT),
    (RED_DOG,),
    (("dog", "blue"), ("cat", "red")),
    (RED_DOG, ("cat", "white"), ("bus", "red")),
    (("bus", "blue"),),
)


def test_a_prompt_says_the_colours_that_are_named():
    assert ASKED.text == "a red dog and a blue cat on the beach"
    assert (
        Prompt({"elephant": "", "airplane": "yellow"}, "runway").text
        == "an elephant and a yellow airplane on the runway"
    )


def test_a_subject_that_is_missing_is_neglect_and_a_colour_that_is_wrong_is_mixing():
    assert ANSWER.neglect() == pytest.approx(2 / 5)
    assert ANSWER.mixing() == pytest.approx(2 / 5)
    assert ANSWER.others() == pytest.approx(2 / 5)
    assert (ANSWER.appears("dog"), ANSWER.appears("cat")) == (pytest.approx(4 / 5), pytest.approx(3 / 5))
    assert ANSWER.coloured("dog") == [True, True, False, True]


def test_a_colour_that_was_not_asked_for_cannot_be_wrong():
    plain = answer(Prompt({"dog": "", "cat": ""}, "beach"), (RED_DOG, ("cat", "white")), (RED_DOG,))
    assert (plain.neglect(), plain.mixing()) == (pytest.approx(1 / 2), 0)


def test_the_tables_give_means_over_prompts_with_their_standard_errors():
    other = answer(ASKED, (RED_DOG, BLUE_CAT))
    assert percent([1.0, 0.0, 1.0, 0.0]) == "50 ± 29 %"  # deviation 0.577 of four values: divided by 2
    assert outcomes({"two": [ANSWER, other]}).splitlines()[-1] == (
        "| two | 6 | 60 ± 40 % | 20 ± 20 % | 20 ± 20 % | 20 ± 20 % |"
    )
    lines = by_subject({"two": [ANSWER, other]}).splitlines()
    assert lines[2 + SUBJECT_NAMES.index("dog")] == "| dog | 90 ± 10 % |"
    assert lines[2 + SUBJECT_NAMES.index("bus")] == "| bus | none |"
    assert "| red | 88 ± 12 % |" in by_colour({"two": [ANSWER, other]})
    assert table(("a", "b"), [(1, 2)]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_every_two_subjects_are_asked_for_in_both_orders_and_never_in_the_same_colour():
    for coloured in (False, True):
        prompts = pair_prompts(coloured)
        assert len({tuple(p.things) for p in prompts}) == len(prompts) == 42
        assert all(len(set(p.things.values())) == (2 if coloured else 1) for p in prompts)
        assert prompts == pair_prompts(coloured)
    assert set(Counter(subject for p in single_prompts(True) for subject in p.things).values()) == {7}


def test_pictures_of_two_are_held_out_and_name_both_subjects():
    shown = pair_pictures(6)
    assert all(picture.seed >= 1_000_000 for picture in shown)
    for picture in shown:
        first, second = picture.masks
        assert picture.prompt.index(first) < picture.prompt.index(second)
        assert not (picture.masks[first] & picture.masks[second]).any()

"""How often the words found are those that a person labelled: see `data/README.md`."""

from __future__ import annotations

from collections import Counter

import pytest

from .labelled import Label, blind, found, pasted, plain

# Of the plain prompts, in percent, what version 0.1.0 reached.
PLAIN = {
    ("seed", "tune"): 100,
    ("seed", "held-out"): 100,
    ("caption", "tune"): 100,
    ("caption", "held-out"): 92.7,
    ("caption", "fresh"): 85,
    ("tags", "tune"): 100,
    ("tags", "held-out"): 91.4,
    ("tags", "fresh"): 100,
    ("prose", "tune"): 96.6,
    ("prose", "held-out"): 96.6,
    ("prose", "fresh"): 80,
    ("edge", "tune"): 95,
    ("edge", "held-out"): 95,
}


def percent(wrong: list[str], rows: list[Label]) -> float:
    return 100 - 100 * len(wrong) / len(rows)


@pytest.mark.parametrize(("group", "split"), PLAIN)
def test_every_thing_and_the_scene_of_plain_prompts(group, split):
    rows = [row for row in plain() if (row.group, row.split) == (group, split)]
    wrong = []
    for row in rows:
        things, scenes = found(row.prompt, parser="rules", which="all things")
        if not (row.things_right(things) and row.scene_right(scenes)):
            wrong.append(row.prompt)
    assert len(rows) >= 10
    assert percent(wrong, rows) >= PLAIN[group, split], wrong


@pytest.mark.parametrize(("split", "count"), [("tuning", 100), ("held-out", 100), ("blind", 30)])
def test_main_subject_and_scene_of_prompts_as_people_paste_them(split, count):
    rows = [row for row in (*pasted(), *blind()) if row.split == split]
    not_exact, other_subject = [], []
    for row in rows:
        subjects, scenes = found(row.prompt, parser="rules")
        if not row.main_right(subjects):
            other_subject.append(row.prompt)
        if not (row.main_right(subjects) and row.scene_right(scenes)):
            not_exact.append(row.prompt)
    assert len(rows) == count
    assert percent(not_exact, rows) >= 80
    assert percent(other_subject, rows) >= 92


def test_the_lists_are_what_their_description_says():
    splits = Counter(row.split for row in plain())
    assert splits.total() == 400
    assert abs(splits["tune"] - splits["held-out"]) <= 10
    rows = pasted()
    assert len({row.prompt for row in rows}) == 200
    assert [row.split for row in rows] == ["tuning", "held-out"] * 100
    assert {group for group, _ in Counter((row.group, row.split) for row in rows)} == {
        "tag soup", "danbooru", "long prose", "weights", "syntax", "two subjects", "no subject", "no scene",
    }  # fmt: skip

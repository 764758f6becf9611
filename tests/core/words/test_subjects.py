"""What crosses nodes as EL_SUBJECTS."""

from __future__ import annotations

import pytest

from explainable_latents.nodes.core.words.subjects import Subject, Subjects, joined_text, shorten

DOG = Subject("dog", "subject", (2, 5), {"l": (2,), "g": (2,), "t5xxl": (1,)})
CAT = Subject("cat", "subject", (10, 13), {"l": (5,), "g": (5, 6)})
BEACH = Subject("beach", "scene", (21, 26), {"l": (8,)})
SUBJECTS = Subjects("a dog and a cat on a beach", (DOG, CAT, BEACH), "rules")


def test_roles_and_labels():
    assert SUBJECTS.labels == ("dog", "cat", "beach")
    assert SUBJECTS.with_role("subject").labels == ("dog", "cat")
    assert SUBJECTS.with_role("scene").items == (BEACH,)
    assert SUBJECTS.with_role("all") == SUBJECTS
    assert joined_text((DOG, CAT, BEACH, DOG), "subject") == "dog, cat"


def test_a_role_that_is_not_there_is_an_error_that_lists_what_is():
    with pytest.raises(ValueError, match=r"no scene; found: dog \(subject\), cat \(subject\).*override"):
        SUBJECTS.with_role("subject").with_role("scene")
    with pytest.raises(ValueError, match="no subject or scene; found: nothing"):
        Subjects("", (), "rules").with_role("all")


def test_context_positions_are_those_of_the_clip_encoders():
    assert SUBJECTS.positions() == ((2,), (5, 6), (8,))
    with pytest.raises(ValueError, match=r"\['t5xxl'\] only"):
        Subject("dog", "subject", (0, 3), {"t5xxl": (1,)}).positions()
    with pytest.raises(ValueError, match="no token"):
        Subject("dog", "subject", (0, 3), {"l": ()}).positions()


def test_shorten_keeps_both_ends_on_one_line():
    assert shorten("a\nb") == "a b"
    assert shorten("x" * 50 + "y" * 50, 20) == "x" * 10 + " … " + "y" * 10
    assert len(shorten("z" * 100_000)) < 100

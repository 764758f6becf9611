"""The picture generator: seeded, exact masks, colours that say nothing about the subject."""

from collections import Counter

import numpy as np
import pytest

from tests.tools.toy_world.cases import HELD_OUT, keep_the_context
from tests.tools.toy_world.pictures import (
    COLOUR_NAMES,
    SCENE_NAMES,
    SUBJECT_NAMES,
    Kind,
    caption,
    make_picture,
    random_kind,
    random_picture,
)


@pytest.mark.parametrize("subject", SUBJECT_NAMES)
@pytest.mark.parametrize("scene", SCENE_NAMES)
def test_every_kind_is_drawn_with_a_mask_of_useful_size(subject, scene):
    picture = make_picture(Kind(subject, scene, "red"), 5)
    assert picture.image.shape == (128, 128, 3)
    assert picture.image.dtype == np.uint8
    assert 0.08 < picture.mask.mean() < 0.35


def test_the_same_seed_gives_the_same_picture_and_another_another():
    first, again, other = random_picture(3), random_picture(3), random_picture(4)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.mask, again.mask)
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("subject", SUBJECT_NAMES)
def test_the_mask_is_exactly_where_the_subject_is(subject, monkeypatch):
    """Drawn with an empty figure, the same seed gives the bare scene.

    They differ where the mask says and nowhere else.
    """
    from PIL import Image

    from tests.tools.toy_world import pictures

    kind = Kind(subject, "cloud", "brown")
    picture = make_picture(kind, 11)
    monkeypatch.setattr(pictures, "draw_subject", lambda name, colour, pixels: Image.new("RGBA", (pixels, pixels)))
    bare = make_picture(kind, 11)
    change = np.abs(picture.image.astype(int) - bare.image.astype(int)).max(-1)
    assert (change[picture.mask] > 0).mean() > 0.97
    rim = change[~picture.mask] > 0  # antialiased edge pixels of less than half cover
    assert rim.mean() < 0.05


def test_colours_and_scenes_do_not_depend_on_the_subject():
    kinds = [random_kind(seed) for seed in range(7 * 7 * 6 * 20)]
    expected = len(kinds) / (7 * 6)
    for field in ("colour", "scene"):
        pairs = Counter((kind.subject, getattr(kind, field)) for kind in kinds)
        share = expected if field == "colour" else len(kinds) / 49
        # 140 or 120 expected per pair; five standard deviations of a count
        assert all(abs(count - share) < 5 * share**0.5 for count in pairs.values())


def test_captions_name_subject_and_scene_and_sometimes_the_colour():
    rng, kind = np.random.default_rng(0), Kind("dog", "beach", "red")
    captions = [caption(kind, rng) for _ in range(300)]
    assert all("dog" in c and "beach" in c for c in captions)
    assert 60 < sum("red dog" in c for c in captions) < 120


def test_the_fixed_cases_are_many_balanced_and_never_trained_on():
    cases = keep_the_context()
    assert len(cases) == 42
    assert all(case.subject != case.reference.subject and case.scene == case.reference.scene for case in cases)
    assert all(case.picture_seed >= HELD_OUT for case in cases)
    assert set(Counter(case.subject for case in cases).values()) == {6}
    assert set(Counter(case.reference.subject for case in cases).values()) == {6}
    assert len({case.reference.colour for case in cases}) == len(COLOUR_NAMES)

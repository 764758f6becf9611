"""The second world's generator: exact masks, boxes and landmarks, captions that can leave things out."""

from collections import Counter

import numpy as np
import pytest

from tests.tools.toy_world.groups import ALONE, COLOUR_NAMED, SIDE_NAMED, SIZE_NAMED, describe, make_group, random_group
from tests.tools.toy_world.pictures import COLOUR_NAMES, SUBJECT_NAMES, random_picture
from tests.tools.toy_world.subjects import LANDMARKS, draw_subject, landmark

SIZES = tuple(ALONE)
GROUPS = [random_group(seed) for seed in range(300)]
THINGS = [thing for group in GROUPS for thing in group.things]


def test_the_same_seed_gives_the_same_picture_and_another_another():
    first, again, other = random_group(3), random_group(3), random_group(4)
    assert np.array_equal(first.image, again.image)
    assert all(np.array_equal(a.mask, b.mask) for a, b in zip(first.things, again.things, strict=True))
    assert not np.array_equal(first.image, other.image)


def test_one_picture_in_four_is_of_the_first_world_and_half_of_them_show_two_subjects():
    counts = Counter(len(group.things) for group in GROUPS)
    first = sum(np.array_equal(random_group(seed).image, random_picture(seed).image) for seed in range(300))
    # five standard deviations of a count of 300
    assert abs(counts[2] - 150) < 45
    assert abs(first - 75) < 40
    assert all(len({thing.subject for thing in group.things}) == len(group.things) for group in GROUPS)


def test_a_box_holds_its_mask_and_touches_it_on_every_side():
    for thing in THINGS:
        left, top, right, bottom = thing.box
        inside = thing.mask[top:bottom, left:right]
        assert inside.sum() == thing.mask.sum()
        assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()  # noqa: PT018


def test_masks_of_a_pair_share_no_pixel_and_each_shows_most_of_its_subject():
    for group in (group for group in GROUPS if len(group.things) == 2):
        far, near = group.things
        assert not (far.mask & near.mask).any()
        assert {far.side, near.side} <= {"left", "right"}


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("subject", SUBJECT_NAMES)
def test_a_landmark_is_where_the_drawing_has_it_at_any_size(subject, mirrored):
    """Landmarks of a small and a mirrored drawing are those of a large one, found by the colours around them."""
    large = np.asarray(draw_subject(subject, (208, 50, 46), 160), float)
    other = np.asarray(draw_subject(subject, (208, 50, 46), 120, mirrored=mirrored), float)
    for point in LANDMARKS[subject]:
        here, there = (
            _around(large, landmark(subject, point, 160)),
            _around(other, landmark(subject, point, 120, mirrored)),
        )
        assert np.abs(here - there).mean() < 40, point


def _around(picture: np.ndarray, point: tuple[float, float]) -> np.ndarray:
    """Mean colour and coverage of the 3 x 3 pixels around a point."""
    x, y = (int(value) for value in point)
    return picture[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].mean((0, 1))


def test_landmarks_lie_on_what_is_visible():
    assert sum(len(thing.points) for thing in THINGS) > 3 * len(THINGS)
    for thing in THINGS:
        for x, y in thing.points.values():
            assert thing.mask[int(y), int(x)]


def test_the_side_is_that_of_the_middle_and_the_first_thing_of_a_given_pair_stands_left():
    group = make_group(("cat", "bus"), "desert", np.random.default_rng(8))
    by_name = {thing.subject: thing for thing in group.things}
    assert (by_name["cat"].side, by_name["bus"].side) == ("left", "right")
    assert by_name["cat"].box[0] < by_name["bus"].box[0]


def test_captions_name_every_thing_and_sometimes_its_colour_size_and_side():
    rng = np.random.default_rng(0)
    captions = [(group, describe(group.things, group.scene, rng)) for group in GROUPS for _ in range(3)]
    assert all(thing.subject in text for group, text in captions for thing in group.things)
    things = [(thing, text.split(thing.subject)) for group, text in captions for thing in group.things]
    pairs = [
        (t, (before.split(" and ")[-1], after.split(" and ")[0]))
        for t, (before, after) in things
        if " and " in before + after
    ]
    for share, words in ((COLOUR_NAMED, COLOUR_NAMES), (SIZE_NAMED, SIZES)):
        found = sum(any(word in before.split() for word in words) for _, (before, _) in pairs)
        assert abs(found / len(pairs) - share) < 0.08, words  # five standard deviations of a share of about 900
    sided = [(t, after) for t, (_, after) in pairs if "on the left" in after or "on the right" in after]
    assert abs(len(sided) / len(pairs) - SIDE_NAMED) < 0.08
    assert all(f"on the {thing.side}" in after for thing, after in sided)
    for thing, (before, _) in pairs:
        assert set(before.split()) & {*COLOUR_NAMES, *SIZES} <= {thing.colour, thing.size}


def test_the_order_of_a_caption_does_not_tell_the_places():
    rng = np.random.default_rng(1)
    group = make_group(("dog", "car"), "beach", rng)
    first = sum(
        text.index("dog") < text.index("car") for text in (describe(group.things, group.scene, rng) for _ in range(300))
    )
    assert 105 < first < 195  # five standard deviations around one half

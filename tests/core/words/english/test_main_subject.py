"""What a prompt is a picture of, among all that it names; and what names nothing at all."""

from __future__ import annotations

import pytest

from .labelled import found


@pytest.mark.parametrize(
    ("prompt", "subjects", "scenes"),
    [
        # the first thing, with what "and" joins to it
        ("a girl with a kite on a hill", ["girl"], ["hill"]),
        ("a dog and a cat play with a ball", ["dog", "cat"], []),
        ("a lemon, a lime and a knife on a table", ["lemon", "lime", "knife"], ["table"]),
        ("a man with a drum and a woman with a harp", ["man", "woman"], []),
        ("1girl, 1boy, umbrella, street", ["1girl", "1boy"], ["street"]),
        # a picture of a place, and who is in it
        ("a bedroom with a desk, a lamp, books", [], ["bedroom"]),
        ("interior of a cozy cabin, fireplace", [], ["cabin", "fireplace"]),
        ("snowy forest, a fox, moonlight", ["fox"], ["forest"]),
        ("abandoned mall, vines, broken glass, no people", [], ["mall"]),
        # what only looks like a thing
        ("photo of a fox, 85mm, f/2.8, 4k, hq, vignette, film grain, trending on artstation", ["fox"], []),
        ("a still life vibe, retro color scheme, polaroid", [], []),
        ("an otter, art by james gurney and frank frazetta", ["otter"], []),
        ("a dog without a leash, no people, no cars", ["dog"], []),
        ("a chair, left side, top view", ["chair"], []),
        ("an owl portrait, yellow eyes, black background", ["owl"], []),
        ("sneaker, side profile, product shot", ["sneaker"], []),
        ("castle, bats, full moon", ["castle"], []),
        # verbs that could be nouns
        ("teenagers skateboard down a steep street", ["teenagers"], ["street"]),
        ("two knights duel on a bridge", ["knights"], ["bridge"]),
        ("a cat rests and looks at a bird in a garden", ["cat"], ["garden"]),
        # wildcards may be anything
        ("photo of __celebrity__ eating pizza", [], []),
        ("a raccoon __wearing__ a crown", ["raccoon"], []),
        ("embedding:bad-hands-5, a violinist in a park", ["violinist"], ["park"]),
        ("embedding:my_cat in a garden", ["embedding:my_cat"], ["garden"]),
    ],
)
def test_main_subject_and_scene(prompt, subjects, scenes):
    assert found(prompt, parser="rules") == (subjects, scenes)


def test_all_things_are_there_on_demand():
    prompt = "a girl with a kite and a dog on a hill"
    assert found(prompt, parser="rules", which="all things") == (["girl", "kite", "dog"], ["hill"])


def test_an_unknown_choice_of_subjects_is_an_error():
    with pytest.raises(ValueError, match="which 'most' is not one of: main subject, all things"):
        found("a dog", which="most")

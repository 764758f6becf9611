"""The committed toys, as a stock ComfyUI loads them: what they draw and where their words look."""

import statistics

import pytest
import torch

from tests.tools.comfyui.paths import TOY_CHECKPOINT, TOY_TRANSFORMER, TOY_TWO
from tests.tools.thorough import THOROUGH
from tests.tools.toy_world.group_judge import judge_groups, load_group_judge
from tests.tools.toy_world.judge import judge_images, load_judge
from tests.tools.toy_world.loaded import Toy
from tests.tools.toy_world.quality_attention import overlaps, single_pictures

TOYS = {file.stem: file for file in (TOY_CHECKPOINT, TOY_TWO, TOY_TRANSFORMER)}
EULER = (3.0, "euler", "normal")


@pytest.fixture(scope="module", params=TOYS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def toy(comfy, name):
    return Toy(TOYS[name])


@THOROUGH  # half a minute for the three, of files that stay as they are
@torch.inference_mode()
def test_most_pictures_show_what_is_prompted(toy, name):
    pictures = torch.cat([toy.generate(f"{subject} on beach", range(2), *EULER) for subject in ("dog", "bus")])
    subjects, scenes, _ = judge_images(load_judge(), pictures)
    assert sum(a == b for a, b in zip(subjects, ("dog", "dog", "bus", "bus"), strict=True)) >= 3
    assert scenes.count("beach") >= 3


@torch.inference_mode()
def test_attention_to_a_word_is_where_its_subject_is(toy, name):
    """A map above its mean that lay anywhere would overlap a subject by 0.2."""
    found = overlaps(toy, single_pictures(12), levels=(0.5,))
    by_layer = {layer: statistics.mean(o.own for o in found if o.layer == layer) for layer in {o.layer for o in found}}
    assert max(by_layer.values()) > 0.4


@THOROUGH  # likewise
@torch.inference_mode()
def test_the_judge_of_groups_names_one_coloured_subject(comfy):
    pictures = Toy(TOY_TWO).generate("a red dog on the beach", range(3), *EULER)
    seen = judge_groups(load_group_judge(), pictures)
    assert sum({name: colour for name, (colour, _) in each.subjects.items()} == {"dog": "red"} for each in seen) >= 2
    assert all(each.scene == "beach" for each in seen)

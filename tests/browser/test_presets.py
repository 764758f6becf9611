"""Presets: choosing one writes the node's inputs, which alone are run and saved."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from playwright.sync_api import expect

from explainable_latents.nodes.core.maps.masks import Shaping, shape_mask
from tests.tools.browser.front import Front
from tests.tools.thorough import THOROUGH
from tests.tools.workflows.index import BY_GRAPH

MASK, GRADIENT, TO_MASK = "ELMaskFromAttention", "ELMaskFromGradient", "ELSaliencyToMask"
SAMPLER, PATCH = "ELMaskedLatentKSampler", "ELMaskedLatentModel"
KEEP, PLACE, SHAPE, DENSE = "ELKeepWords", "ELPlaceWords", "ELGuideShape", "ELDenseDiffusionModel"
ONE, TWO, PAPER = "Devaney experiment 1", "Devaney experiment 2", "Abs-Grad-SAM paper"
# Preset -> the shipped workflow that has its values, and the nodes in it.
PUBLISHED = {
    ONE: ("02_aggregated_attention", (MASK, SAMPLER)),
    TWO: ("03_scene_based", (MASK, PATCH)),
    PAPER: ("04_abs_grad_sam", (GRADIENT, SAMPLER)),
}


def values(front: Front, title: str) -> dict[str, Any]:
    """What would be run: the inputs of a node in API format that are no links."""
    (node,) = [node for node in front.prompt().values() if node["_meta"]["title"] == title]
    return {name: value for name, value in node["inputs"].items() if not isinstance(value, list)}


def add(front: Front, *classes: str) -> None:
    front.clear()
    for i, each in enumerate(classes):
        front.add(each, each, (100 + 450 * i, 80))


def test_a_published_preset_has_the_values_of_the_shipped_workflow(either_front: Front):
    front = either_front
    add(front, MASK, GRADIENT, SAMPLER, PATCH)
    for preset, (name, classes) in PUBLISHED.items():
        shipped = {node["class_type"]: node["inputs"] for node in BY_GRAPH[name].prompt.values()}
        for each in classes:
            for other in ("tight", "loose", preset):
                front.set(each, preset=other)
            expected = {
                k: v for k, v in shipped[each].items() if not isinstance(v, list) and k not in ("seed", "value")
            }
            found = values(front, each)
            assert {k: v for k, v in found.items() if k in expected} == expected
            if shipped[each].get("rule") != "mean":  # which does not use the value
                assert found.get("value") == shipped[each].get("value")
            assert "preset" not in found


def test_a_preset_is_named_for_as_long_as_the_inputs_have_its_values(either_front: Front):
    front = either_front
    add(front, MASK, SAMPLER, PATCH, TO_MASK)
    assert [front.value(each, "preset") for each in (MASK, SAMPLER, PATCH, TO_MASK)] == ["normal"] * 4
    front.set(MASK, preset=TWO)
    assert front.value(MASK, "preset") == TWO
    front.set(MASK, rule="otsu")
    assert front.value(MASK, "preset") == "own values"
    front.set(MASK, rule="mean", role="subject")
    assert front.value(MASK, "preset") == "normal"
    front.set(MASK, preset=ONE)  # the same values: the chosen name is shown
    front.set(PATCH, preset=PAPER)
    assert (front.value(MASK, "preset"), front.value(PATCH, "preset")) == (ONE, PAPER)
    front.set(PATCH, preset="own values")  # changes nothing
    assert front.value(PATCH, "preset") == PAPER
    saved = front.run("JSON.parse(JSON.stringify(app.graph.serialize()))")
    (widgets,) = [node["widgets_values"] for node in saved["nodes"] if node["type"] == PATCH]
    assert widgets == ["5, 18, 28", "keep", "reference", 680, 80]
    front.load(saved)
    assert (front.value(MASK, "preset"), front.value(PATCH, "preset")) == (ONE, PAPER)
    assert front.value(SAMPLER, "preset") == "normal"
    before = values(front, SAMPLER)
    front.set(SAMPLER, preset=PAPER)
    assert values(front, SAMPLER)["steps"] == 45
    front.run("app.extensionManager.command.execute('Comfy.Undo')")  # one undo takes all its values back
    front.wait(f"app.graph.nodes.find((node) => node.type === '{SAMPLER}')?.widgets[2]?.value === 35")
    assert values(front, SAMPLER) == before
    assert front.value(SAMPLER, "preset") == "normal"


def test_presets_of_guidance_are_the_papers(front: Front):
    """Each with all of its values, whatever was chosen before; two are in shipped workflows."""
    add(front, KEEP, PLACE)
    for each, preset, name in ((KEEP, "as published", "22_keep_words"), (PLACE, "layout guidance", "23_place_words")):
        (shipped,) = (n["inputs"] for n in BY_GRAPH[name].prompt.values() if n["class_type"] == each)
        expected = {k: v for k, v in shipped.items() if not isinstance(v, list)}
        assert front.value(each, "preset") == preset
        front.set(each, preset="gentle")
        assert values(front, each) != expected
        front.set(each, preset=preset)
        assert values(front, each) == expected
    same = {"strength": 1, "role": "all", "inside_weight": 1, "edge_weight": 1, "layers": "auto", "act_on": "auto"}
    front.set(PLACE, preset="LLM-grounded Diffusion")
    planned = {"steps": "0-60%", "loss": "top values", "unit": "ddim", "step_size": 5, "schedule": "constant"}
    often = {"repeats": "0: 4, 5: 3, 10: 2, 20: 1", "until": 5, "stop_for_good": True, "refinement": ""}
    assert values(front, PLACE) == {**same, **planned, **often, "outside_weight": 4}
    front.set(PLACE, preset="BoxDiff")
    planned = {"steps": "0-50%", "loss": "BoxDiff", "unit": "latent", "step_size": 20, "schedule": "falling"}
    often = {"repeats": "1", "until": 0, "stop_for_good": False, "refinement": "0: 0.05, 10: 0.5, 20: 0.8"}
    assert values(front, PLACE) == {**same, **planned, **often, "outside_weight": 1}


def test_presets_of_guide_shape_keep_what_is_asked_for(front: Front):
    add(front, SHAPE)
    assert front.value(SHAPE, "preset") == "normal"
    front.set(SHAPE, words="dog", x=0.25)
    asked = values(front, SHAPE)
    for preset, own in (("gentle", {"step_size": 0.03, "repeats": "1"}), ("keep the look", {"keep_appearance": 0.5})):
        front.set(SHAPE, preset=preset)
        assert values(front, SHAPE) == {**asked, **own}
    front.set(SHAPE, preset="normal")
    assert values(front, SHAPE) == asked


def test_tight_lies_inside_normal_and_normal_inside_loose(front: Front):
    add(front, MASK, GRADIENT, TO_MASK)
    maps = torch.rand(2, 3, 24, 16, generator=torch.Generator().manual_seed(2)) ** 3
    names = {field.name for field in dataclasses.fields(Shaping)} - {"combine"}
    for each in (MASK, GRADIENT, TO_MASK):
        masks = []
        for preset in ("tight", "normal", "loose"):
            front.set(each, preset=preset)
            found = {name: value for name, value in values(front, each).items() if name in names}
            masks.append(shape_mask(maps, Shaping(**found), ("dog", "beach")))
        tight, normal, loose = masks
        assert (tight <= normal).all()
        assert (normal <= loose).all()
        assert 0 < tight.mean() < normal.mean() < loose.mean() < 1


def test_a_preset_is_chosen_by_mouse(front: Front):
    add(front, MASK)
    node = front.page.locator("[data-node-id]")
    node.get_by_text("normal", exact=True).click()
    front.page.get_by_role("option", name="loose").click()
    front.wait("app.graph.nodes[0].widgets.find((widget) => widget.name === 'rule').value === 'mean × factor'")
    assert values(front, MASK)["value"] == 0.8
    expect(node.get_by_text("loose", exact=True)).to_be_visible()
    front.shot("presets")


@THOROUGH  # a page of its own
def test_presets_have_chinese_names_where_the_interface_is_chinese(open_front):
    front = open_front(settings={"Comfy.Locale": "zh"})
    add(front, SAMPLER)
    assert front.value(SAMPLER, "preset") == "标准"
    front.set(SAMPLER, preset="Devaney 实验 2")
    assert values(front, SAMPLER)["outside"] == "cached reference"
    front.shot("presets-zh")


def test_a_preset_leaves_linked_inputs_alone_and_a_callback_that_fails_leaves_the_name_right(front: Front):
    add(front, SAMPLER)
    front.add("PrimitiveInt", "Number", (700, 80))
    front.link("Number", 0, SAMPLER, "steps")
    front.set(SAMPLER, preset=PAPER)
    assert (front.value(SAMPLER, "steps"), front.value(SAMPLER, "denoise")) == (35, 0.9)
    assert front.value(SAMPLER, "preset") == "own values"
    add(front, PATCH)
    fails = """async (preset) => {
        const find = (name) => app.graph.nodes[0].widgets.find((widget) => widget.name === name);
        const { callback } = find("outside");
        find("outside").callback = () => { throw new Error("another pack's"); };
        let error;
        try { find("preset").callback(preset); } catch (each) { error = each.message; }
        find("outside").callback = callback;
        return error;
    }"""
    assert front.run(fails, ONE) == "another pack's"
    front.set(PATCH, preset="loose")
    front.set(PATCH, manipulate_at="1")
    assert front.value(PATCH, "preset") == "own values"


def test_presets_of_placed_phrases(front: Front):
    """A new node leaves places without a box alone; the authors' layouts cover everything."""
    add(front, DENSE)
    usual = {"cross_strength": 1, "self_strength": 0.3, "end": 0.3, "role": "all", "size_regularisation": 1}
    for preset, elsewhere, alone in (
        ("some things placed", "as it is", True),
        ("as published", "flattened", True),
        ("as published for SDXL", "flattened", False),
        ("some things placed", "as it is", True),
    ):
        front.set(DENSE, preset=preset)
        assert values(front, DENSE) == {**usual, "elsewhere": elsewhere, "phrases_alone": alone}
        assert front.value(DENSE, "preset") == preset

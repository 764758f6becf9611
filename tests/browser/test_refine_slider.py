"""The inspector's slider for refine: map and outline are those of a run with that power, and Apply writes it."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from playwright.sync_api import Locator, expect

from tests.browser.test_inspector import HEAT, opened
from tests.browser.test_mask_tuner import (
    OUTLINE,
    VALUE_IS,
    drawn_where,
    enclosed,
    graph,
    open_tuner,
    pixels,
    run,
    said,
    show_maps_of,
    steady,
    tune,
    tuner,
)
from tests.tools.browser.front import Front

REFINE_IS = VALUE_IS.replace("Mask", "Maps").replace('"value"', '"refine"')
SLOT_OF = """([title, type]) =>
    app.graph.nodes.find((node) => node.title === title).outputs.findIndex((output) => output.type === type)"""


def slider(panel: Locator) -> Locator:
    return tuner(panel).get_by_label("refine", exact=True)


def test_map_and_outline_are_those_of_a_run_with_less_and_apply_writes_it(either_front: Front):
    front = either_front
    graph(front)
    made = {}
    for power in (1, 3):
        front.set("Maps", refine=power)
        (mask,) = run(front)
        panel = opened(front)
        made[power] = mask, pixels(panel)
    assert not np.array_equal(made[1][0], made[3][0])
    assert np.array_equal(enclosed(open_tuner(front, panel)), made[3][0])
    assert drawn_where(made[3][1], pixels(panel), made[3][0])
    expect(slider(panel)).to_have_value("3")
    assert [slider(panel).get_attribute(name) for name in ("min", "max")] == ["0", "3"]
    expect(tuner(panel)).to_contain_text("These maps were refined up to 3 times")
    assert np.array_equal(enclosed(tune(front, panel, "refine", 1)), made[1][0])
    assert drawn_where(made[1][1], pixels(panel), made[1][0]), "the heat map is that of a run with refine 1"
    front.shot(f"refine-slider-{'nodes2' if front.vue else 'classic'}")
    tuned = enclosed(tune(front, panel, "threshold", 0.7))
    assert front.value("Maps", "refine") == 3, "nothing is written before Apply"
    steady(front)
    tuner(panel).get_by_role("button", name="Apply").click()
    expect(said(panel)).to_contain_text("Written to Mask #")
    expect(said(panel)).to_contain_text("Written to Maps #")
    assert [front.value("Maps", "refine"), front.value("Mask", "value")] == [1, 0.7]
    expect(slider(panel)).to_have_value("1")
    expect(tuner(panel).get_by_role("button", name="Apply")).to_be_disabled()
    front.press("Control+z")
    front.wait(VALUE_IS, 0.5)
    front.wait(REFINE_IS, 3)
    panel = opened(front)  # the graph is there again, and what was tuned is tuned again
    expect(slider(panel)).to_have_value("1")
    expect(tuner(panel).get_by_role("button", name="Apply")).to_be_enabled()
    front.press("Control+y")
    front.wait(VALUE_IS, 0.7)
    front.wait(REFINE_IS, 1)
    (mask,) = run(front)
    assert np.array_equal(mask, tuned)
    expect(slider(opened(front))).to_have_attribute("max", "1")


def test_closed_it_shows_the_maps_as_they_came(front: Front):
    graph(front)
    front.set("Maps", refine=2)
    run(front)
    panel = opened(front)
    before = pixels(panel)
    open_tuner(front, panel)
    tune(front, panel, "refine", 0)
    assert not np.array_equal(pixels(panel), before)
    panel.get_by_role("button", name="Tune the mask").click()
    expect(tuner(panel)).to_be_hidden()
    front.settle()
    assert np.array_equal(pixels(panel), before)


def test_more_than_the_run_had_takes_a_run(front: Front):
    graph(front)
    front.set("Maps", refine=2)
    run(front)
    panel = opened(front)
    open_tuner(front, panel)
    front.set("Maps", refine=4)
    steady(front)
    expect(said(panel)).to_contain_text("has refine 4, and these maps 2: run once to see it.")
    expect(slider(panel)).to_have_value("2")
    (mask,) = run(front)
    panel = opened(front)
    expect(slider(panel)).to_have_value("4")
    expect(said(panel)).to_contain_text(f"{100 * mask.mean():.1f} % inside")
    front.set("Maps", refine=0)
    run(front)
    expect(slider(panel)).to_be_disabled()
    expect(tuner(panel)).to_contain_text("self-attention, which is there only while the model runs")


def test_a_linked_refine_is_not_written_and_without_a_mask_node_refine_alone_is(front: Front):
    graph(front, filters=False)
    front.set("Maps", refine=2)
    run(front)
    panel = opened(front)
    front.run("app.graph.remove(app.graph.nodes.find(node => node.title === 'Mask'))")
    steady(front)
    open_tuner(front, panel)
    expect(said(panel)).to_contain_text("No mask node reads these maps, so only refine can be applied.")
    tune(front, panel, "refine", 1)
    tuner(panel).get_by_role("button", name="Apply").click()
    expect(said(panel)).to_contain_text("Written to Maps #")
    assert front.value("Maps", "refine") == 1
    front.add("PrimitiveInt", "Number", (600, 600))
    tune(front, panel, "refine", 0)
    front.link("Number", 0, "Maps", "refine")
    steady(front)
    tuner(panel).get_by_role("button", name="Apply").click()
    expect(said(panel)).to_contain_text("Not written: refine, as Maps #")
    assert front.value("Maps", "refine") == 1
    expect(slider(panel)).to_have_value("0")


# What comes before the node whose maps are shown: [type, output, input of the next one], the first one refines.
ORIGINS = {
    "capture": [
        ("ELCaptureAttention", 1, "attention"),
        ("ELAttentionSaliency", 0, "maps"),
        ("ELSmoothSaliency", 0, ""),
    ],
    "probe": [("ELProbeAttention", 0, "")],
    "gradients": [("ELGradientSaliency", 0, "")],
    "masking": [("ELMaskFromAttention", 0, "masking"), ("ELMaskedLatentKSampler", "EL_SALIENCY", "")],
    "report": [
        ("ELMaskFromGradient", 0, "masking"),
        ("ELMaskedLatentModel", "EL_REPORT", "report"),
        ("ELMaskedLatentReport", "EL_SALIENCY", ""),
    ],
}


@pytest.mark.parametrize("origin", ORIGINS)
def test_the_node_that_refines_is_found(front: Front, origin: str):
    """The maps are of another run with the same labels: what is written is seen, nothing is sampled."""
    graph(front)
    front.set("Maps", refine=2)
    run(front)
    file = front.run(f"app.graph.nodes.find(node => node.title === '{HEAT}').properties.el_inspector.file")
    front.clear()
    chain = [*ORIGINS[origin], (HEAT, 0, "")]
    for place, (node_class, _, _) in enumerate(chain):
        front.add("ELSaliencyOverlay" if node_class == HEAT else node_class, node_class, (20 + 400 * place, 60))
    for (source, output, name), (target, _, _) in itertools.pairwise(chain):
        slot = output
        if isinstance(output, str):
            slot = front.run(SLOT_OF, [source, output])
        front.link(source, slot, target, name or "saliency")
    refining = chain[0][0]
    front.set(refining, refine=2)
    front.look_at(HEAT)
    show_maps_of(front, file)
    panel = opened(front)
    with front.page.expect_request(OUTLINE) as asked:
        panel.get_by_role("button", name="Tune the mask").click()
    assert json.loads(asked.value.post_data)["refine"] == 2
    front.settle()
    tune(front, panel, "refine", 1)
    tuner(panel).get_by_role("button", name="Apply").click()
    expect(said(panel)).to_contain_text(f"Written to {refining} #")
    assert front.value(refining, "refine") == 1
    expect(slider(panel)).to_have_value("1")


@pytest.mark.parametrize("value", [1e300, -5, 1.5, "<b>", None])
def test_a_workflow_that_holds_anything_for_it_breaks_nothing(front: Front, value: object):
    graph(front)
    front.set("Maps", refine=2)
    run(front)
    opened(front)
    saved = front.run("JSON.parse(JSON.stringify(app.graph.serialize()))")
    for node in saved["nodes"]:
        if "el_inspector" in node["properties"]:
            node["properties"]["el_inspector"]["tuner"] = {"isOpen": True, "tuned": {"refine": value}}
    front.load(saved)
    panel = opened(front)
    expect(said(panel)).to_contain_text("% inside")
    shown = {1e300: "2", -5: "0", 1.5: "2"}.get(value, "2")
    expect(slider(panel)).to_have_value(shown)

"""What the pack's nodes look like beyond their panels: sockets, inputs that do nothing, the guide in the Help menu."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.tools.browser.front import Front
from tests.tools.comfyui.paths import ROOT

DISABLED = """title => Object.fromEntries(
    app.graph.nodes.find((node) => node.title === title).widgets.map((each) => [each.name, Boolean(each.disabled)])
)"""


HOSTS_OWN = "control_after_generate"  # the host's widget beside a seed, which the classic renderer greys by itself


def idle(front: Front, title: str) -> set[str]:
    """The inputs of ours that are greyed."""
    return {name for name, disabled in front.run(DISABLED, title).items() if disabled and name != HOSTS_OWN}


def test_inputs_that_do_nothing_are_grey(either_front: Front):
    front = either_front
    front.clear()
    front.add("ELMaskFromAttention", "Mask")
    front.add("ELMaskedLatentModel", "Patch", (500, 100))
    front.add("ELCaptureAttention", "Capture", (900, 100))
    front.add("ELFindPoints", "Find", (900, 600))
    later, filters = {"refine_layers", "part_count", "points"}, {"smooth_size", "dilate_size", "smooth_and_dilate"}
    assert idle(front, "Mask") == {"value", *filters, *later}
    front.set("Mask", refine=1, parts="largest")
    assert idle(front, "Mask") == {"value", *filters, "points"}
    front.set("Mask", parts="touching points")
    assert idle(front, "Mask") == {"value", *filters, "part_count"}
    front.set("Mask", refine=0, parts="all")
    assert idle(front, "Capture") == {"refine_layers", "reading"}
    front.set("Capture", refine=2, look_for="cat")
    assert idle(front, "Capture") == idle(front, "Find") == set()
    front.set("Mask", rule="log-mean", smooth_sigma=1.5)
    assert idle(front, "Mask") == {"dilate_size", *later}
    front.set("Mask", rule="otsu")
    assert idle(front, "Mask") == {"value", "dilate_size", *later}
    assert idle(front, "Patch") == {"inside_timestep", "outside_timestep"}
    front.set("Patch", inside="cached reference")
    assert idle(front, "Patch") == {"outside_timestep"}
    saved = front.run("JSON.parse(JSON.stringify(app.graph.serialize()))")
    front.load(saved)
    assert idle(front, "Patch") == {"outside_timestep"}
    assert idle(front, "Mask") == {"value", "dilate_size", *later}


def test_inputs_that_a_choice_or_a_link_makes_idle_are_grey(either_front: Front):
    front = either_front
    front.clear()
    front.add("LoadImage", "Picture", (0, 100))
    for i, kind in enumerate(("CaptureAttention", "AttentionSaliency", "GradientSaliency", "SegmentPicture")):
        front.add(f"EL{kind}", kind, (400 * i + 400, 100))
    for i, kind in enumerate(("FindPoints", "SaliencyOverlay", "FindRegions", "TwinSamplingModel")):
        front.add(f"EL{kind}", kind, (400 * i + 400, 800))
    assert "share" not in idle(front, "CaptureAttention")
    front.set("CaptureAttention", space="output")
    assert "share" in idle(front, "CaptureAttention")
    front.set("AttentionSaliency", each_layer=True)
    assert idle(front, "AttentionSaliency") == {"over_steps"}
    assert idle(front, "GradientSaliency") == {"refine_layers"}
    front.set("GradientSaliency", definition="aggregated")
    assert idle(front, "GradientSaliency") == {"refine_layers", "solver", "layer"}
    assert idle(front, "SegmentPicture") == {"seed"}
    front.set("SegmentPicture", add_noise=True)
    assert idle(front, "SegmentPicture") == idle(front, "FindPoints") == idle(front, "FindRegions") == set()
    front.set("FindPoints", points="[[1, 2]]")
    assert idle(front, "FindPoints") == {"count"}
    front.set("FindPoints", points="")
    assert idle(front, "SaliencyOverlay") == {"opacity"}
    front.link("Picture", 0, "SaliencyOverlay", "image")
    assert idle(front, "SaliencyOverlay") == set()
    assert idle(front, "TwinSamplingModel") == {"blend_after"}
    front.add("ELMaskFromAttention", "Mask", (0, 800))
    front.link("Mask", 0, "TwinSamplingModel", "masking")
    assert idle(front, "TwinSamplingModel") == set()
    front.add("ELTeachRegions", "Teach", (0, 1400))
    front.link("Teach", 0, "FindRegions", "classifier")
    assert idle(front, "FindRegions") == {"file"}


def test_each_of_our_sockets_has_its_own_colour(open_front: Callable[..., Front]):
    front = open_front(settings={"Comfy.ColorPalette": "light"})
    names = "SUBJECTS ATTENTION SALIENCY MASKING REPORT CLASSIFIER EDITOR TRAJECTORY LAYOUT"
    types = [f"EL_{name}" for name in names.split()]
    links = front.run("types => types.map((type) => app.canvas.constructor.link_type_colors[type])", types)
    slots = front.run("types => types.map((type) => app.canvas.default_connection_color_byType[type])", types)
    style = "getComputedStyle(document.documentElement)"
    vue = front.run(f"types => types.map((t) => {style}.getPropertyValue(`--color-datatype-${{t}}`))", types)
    assert len(set(links)) == len(types)
    assert links == slots == [colour.strip() for colour in vue]


@pytest.mark.parametrize(("language", "title", "close"), [("en", "Guide", "Close"), ("zh", "指南", "关闭")])
def test_the_guide_opens_in_the_app(open_front: Callable[..., Front], language: str, title: str, close: str):
    front = open_front(settings={"Comfy.Locale": language})
    front.run("app.extensionManager.command.execute('explainable_latents.guide')")
    guide = front.page.locator("dialog.el-guide")
    expect(guide.get_by_role("heading", level=1)).to_have_text(title)
    front.wait("[...document.querySelectorAll('dialog.el-guide img')].every((image) => image.naturalWidth > 0)")
    assert guide.locator("table").count() == 3
    front.shot(f"guide-{language}")
    guide.get_by_role("button", name=close).click()
    expect(guide).to_have_count(0)


def luminance(colour: str) -> float:
    """Relative luminance of "#rrggbb", as WCAG 2 defines it."""
    shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Contrast of two colours, 1 to 21."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [r"\n\.el-panel \{", r"\n\.dark-theme \.el-panel \{"], ids=["light", "dark"])
def test_text_on_panels_has_a_contrast_of_seven_in_both_themes(theme: str):
    css = (ROOT / "js" / "panel.css").read_text(encoding="utf-8")
    (rule,) = re.findall(theme + r"([^}]*)\}", css)
    colours = dict(re.findall(r"--el-(\w+): (#[0-9a-f]{6});", rule))
    for paper in ("paper", "button", "bar", "warn"):
        assert contrast(colours["ink"], colours[paper]) >= 7, paper
    assert contrast(colours["quiet"], colours["paper"]) >= 7
    assert contrast(colours["focus"], colours["paper"]) >= 3
    assert contrast("#ffffff", "#005a8f") >= 7  # a subject's chip
    assert contrast("#000000", "#f0b040") >= 7  # a scene's

"""Earlier stops in the panel of a run that waits, and the pictures of its steps under the sampler."""

from __future__ import annotations

from playwright.sync_api import Locator, expect

from tests.browser.test_pauses import answers, build, gone, panel, queue, report
from tests.tools.browser.front import Front
from tests.tools.thorough import THOROUGH


def at_end(front: Front) -> Locator:
    """The panel at the end of a run."""
    expect(front.page.get_by_role("button", name="At the end of the run")).to_be_visible()
    shown = front.page.locator(".el-pause-panel")
    expect(shown).to_have_attribute("aria-busy", "false")
    expect(shown.get_by_role("img").first).to_be_visible()
    return shown


def change(shown: Locator, cfg: str) -> None:
    """Go on with another guidance scale."""
    shown.get_by_label("guidance scale").fill(cfg)
    shown.get_by_role("button", name="Continue").click()


def test_the_user_goes_back_and_finishes_two_variants(either_front: Front):
    front = either_front
    build(front, pauses=True)
    front.set("Pause", pause_at="1, 3")
    run = queue(front)
    shown = panel(front, 1)
    expect(shown.get_by_role("list", name="Earlier stops")).to_have_count(0)
    change(shown, "9")
    shown = panel(front, 3)
    shown.get_by_role("button", name="Go back to before step 1; what came after it is dropped.").click()
    shown = panel(front, 1)
    shown.get_by_label("stop once more at the end").check()
    change(shown, "5")
    shown = panel(front, 3)
    expect(shown.get_by_label("stop once more at the end")).to_be_checked()
    shown.get_by_role("button", name="Continue").click()
    shown = at_end(front)
    expect(shown.get_by_text("If you do nothing, the run ends with what is finished")).to_be_visible()
    back = shown.get_by_role("button", name="Go back to before step 3; this variant is kept.")
    expect(back.locator("img")).to_be_visible()
    front.shot(f"pause-variants-{'nodes2' if front.vue else 'classic'}")
    back.click()
    shown = panel(front, 3)
    expect(shown.get_by_role("list", name="Finished variants").get_by_role("listitem")).to_have_count(1)
    change(shown, "2.5")
    shown = at_end(front)
    expect(shown.get_by_role("list", name="Finished variants").get_by_role("listitem")).to_have_count(2)
    shown.get_by_role("button", name="Finish").click()
    gone(front)
    first, second = {"step": 1, "values": {"cfg": 5}}, {"step": 3, "values": {"cfg": 2.5}}
    assert answers(report(front, run)) == [[first], [first, second]]


def test_the_pictures_of_pauses_and_masks_stand_in_one_strip_under_the_sampler(either_front: Front):
    front = either_front
    build(front)
    front.add("ELPauseSampling", "Pause", (1800, 600))
    for link in (("Patch", 0, "Pause", "model"), ("Pause", 0, "Sampler", "model")):
        front.link(*link)
    front.set("Pause", pause_at="1, 3")
    run = queue(front)
    strip = front.panel("Sampler", "live masks").get_by_role("listitem")
    panel(front, 1).get_by_role("button", name="Continue").click()
    panel(front, 2)
    expect(strip).to_contain_text(["1 · ⏸", "2 · ⏸"])
    expect(strip.last.locator("img")).to_have_count(1)
    panel(front, 2).get_by_role("button", name="Continue").click()
    panel(front, 3)
    expect(strip).to_contain_text(["1 · ⏸", "%", "3 · ⏸"])
    expect(strip.nth(1).locator("img")).to_have_count(3)  # what is predicted, the mask, its heat map
    panel(front, 3).get_by_role("button", name="Continue").click()
    gone(front)
    report(front, run)
    expect(strip).to_have_count(3)


@THOROUGH
def test_the_end_of_a_run_in_chinese(open_front):
    front = open_front(settings={"Comfy.Locale": "zh"})
    build(front, pauses=True)
    queue(front)
    expect(front.page.get_by_role("button", name="暂停于第 2/4 步")).to_be_visible()
    shown = front.page.locator(".el-pause-panel")
    shown.get_by_label("在末尾再停一次").check()
    shown.get_by_role("button", name="继续").click()
    expect(front.page.get_by_role("button", name="运行已到末尾")).to_be_visible()
    expect(shown.get_by_role("button", name="回到第 2 步之前；保留此变体。")).to_be_visible()
    shown.get_by_role("button", name="完成").click()
    gone(front)

"""The bar of the steps at which the latent is replaced: by mouse and keyboard, always the text of the input."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.tools.browser.front import Front, still_box

NODE = "Sampler"


def test_ticks_are_dragged_moved_added_and_removed(either_front: Front):
    front = either_front
    front.clear()
    front.add("ELMaskedLatentKSampler", NODE, (200, 60))
    panel = front.panel(NODE, "steps bar")
    ticks = panel.get_by_role("slider")
    expect(ticks).to_have_count(3)
    expect(ticks.nth(1)).to_have_attribute("aria-valuetext", "50 %, about step 17 of 35")
    bar = still_box(panel.locator(".el-steps"))
    tick = still_box(ticks.nth(1))
    front.page.mouse.move(tick["x"] + tick["width"] / 2, tick["y"] + tick["height"] / 2)
    front.page.mouse.down()
    front.page.mouse.move(bar["x"] + 0.6 * bar["width"], tick["y"], steps=4)
    assert front.value(NODE, "manipulate_at") == "15%, 50%, 80%"  # written when it is let go
    front.page.mouse.up()
    front.wait("app.graph.nodes[0].widgets.find((each) => each.name === 'manipulate_at').value === '15%, 60%, 80%'")
    ticks.nth(0).press("ArrowRight")
    ticks.nth(0).press("Shift+ArrowRight")
    ticks.nth(2).press("End")
    assert front.value(NODE, "manipulate_at") == "21%, 60%, 100%"
    ticks.nth(1).press("Delete")
    assert front.value(NODE, "manipulate_at") == "21%, 100%"
    panel.get_by_role("button", name="Add a step").press("Enter")
    assert front.value(NODE, "manipulate_at") == "21%, 100%, 61%"  # rounded up from the middle, 60.5
    assert front.run("app.graph.nodes.length") == 1  # Delete removed a tick, not the node
    front.shot(f"steps-bar-{'nodes2' if front.vue else 'classic'}")
    front.set(NODE, manipulate_at="5, 18-28")
    expect(ticks).to_have_count(3)
    ticks.nth(1).press("Home")
    assert front.value(NODE, "manipulate_at") == "5, 0-28"
    ticks.nth(1).press("End")  # not beyond the range's other end
    assert front.value(NODE, "manipulate_at") == "5, 28-28"
    ticks.nth(2).press("Delete")  # the whole range
    assert front.value(NODE, "manipulate_at") == "5"
    front.set(NODE, manipulate_at="<b>5</b>")
    expect(panel.get_by_role("status")).to_have_text("The steps cannot be read.")
    expect(ticks).to_have_count(0)
    assert front.value(NODE, "manipulate_at") == "<b>5</b>"


def test_a_removed_tick_hands_its_focus_on_and_a_click_leaves_the_text_as_it_is(either_front: Front):
    front = either_front
    front.clear()
    front.add("ELMaskedLatentKSampler", NODE, (200, 60))
    ticks = front.panel(NODE, "steps bar").get_by_role("slider")
    front.set(NODE, manipulate_at="5,18, 28")
    expect(ticks).to_have_count(3)
    ticks.nth(1).click()
    assert front.value(NODE, "manipulate_at") == "5,18, 28"
    front.run("app.canvas.selectItems(app.graph.nodes)")
    ticks.nth(1).focus()
    for left in ("5, 28", "5", "", ""):
        front.page.keyboard.press("Delete")
        assert front.value(NODE, "manipulate_at") == left
    assert front.run("app.graph.nodes.length") == 1


def test_where_the_number_of_steps_is_not_known_only_shares_have_a_place(front: Front):
    front.clear()
    front.add("ELMaskedLatentModel", NODE, (200, 60))
    panel = front.panel(NODE, "steps bar")
    expect(panel.get_by_role("slider")).to_have_count(3)
    expect(panel.get_by_role("slider").first).to_have_attribute("aria-valuetext", "15 %")
    front.set(NODE, manipulate_at="2, 40%")
    expect(panel.get_by_role("slider")).to_have_count(1)
    expect(panel.get_by_role("status")).to_contain_text("Step numbers have no place here")
    panel.get_by_role("slider").press("ArrowLeft")
    assert front.value(NODE, "manipulate_at") == "2, 39%"

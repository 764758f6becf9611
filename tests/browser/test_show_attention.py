"""Show Attention in the browser: from an empty graph to attention over a normal generation in three nodes."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.tools.browser.front import Front
from tests.tools.comfyui.paths import TOY_CHECKPOINT

NODE = "Attention"
HOSTILE = "a dog on the beach, <img src=x onerror=alert(1)>"


def from_an_empty_graph(front: Front) -> None:
    """What a user puts down to see attention: three nodes, five links."""
    front.clear()
    front.add("CheckpointLoaderSimple", "Checkpoint", (40, 60))
    front.add("EmptyLatentImage", "Size", (40, 300))
    front.add("ELShowAttention", NODE, (420, 60))
    for output, name in enumerate(("model", "clip", "vae")):
        front.link("Checkpoint", output, NODE, name)
    front.link("Size", 0, NODE, "latent_image")
    front.set("Checkpoint", ckpt_name=TOY_CHECKPOINT.name)
    front.set("Size", width=128, height=128)
    front.set(NODE, steps=4, text=HOSTILE)


def test_three_nodes_show_the_attention_of_a_normal_generation(either_front: Front):
    front = either_front
    from_an_empty_graph(front)
    assert front.run("app.graph.nodes.length") == 3
    chips = front.panel(NODE, "chips")
    expect(chips.get_by_role("button", name="dog: subject")).to_be_visible()  # before any run
    front.press_run()
    inspector = front.panel(NODE, "inspector")
    words = inspector.get_by_role("group").get_by_role("button")
    expect(words).to_have_count(2)
    expect(inspector.get_by_label("step")).to_have_attribute("aria-valuetext", "all steps")
    inspector.get_by_label("step").press("ArrowRight")
    expect(inspector.get_by_label("step")).to_have_attribute("aria-valuetext", "step 0")
    chips.get_by_role("button", name="beach: scene").press("Enter")
    assert "beach" in front.value(NODE, "override")
    front.look_at(NODE, 0.7)
    front.shot(f"show-attention-{'nodes2' if front.vue else 'classic'}")
    assert front.page.locator("img[src='x']").count() == 0


def test_both_panels_stay_on_their_node_after_an_undo(either_front: Front):
    front = either_front
    from_an_empty_graph(front)
    front.press_run()
    expect(front.panel(NODE, "inspector").get_by_role("group").get_by_role("button")).to_have_count(2)
    front.panel(NODE, "chips").get_by_role("button", name="beach: scene").press("Enter")
    front.run("app.extensionManager.command.execute('Comfy.Undo')")
    front.wait("""app.graph.nodes.find((node) => node.type === "ELShowAttention")
        ?.widgets.find((widget) => widget.name === "override").value === ''""")
    chips, inspector = (front.panel(NODE, name) for name in ("chips", "inspector"))
    expect(inspector.get_by_role("group").get_by_role("button")).to_have_count(2)
    inspector.get_by_role("button", name="beach").click()
    expect(inspector.get_by_role("button", name="beach")).to_have_attribute("aria-pressed", "true")
    chips.get_by_role("button", name="beach: scene").press("Enter")
    assert "beach" in front.value(NODE, "override")

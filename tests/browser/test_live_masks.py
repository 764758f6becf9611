"""Masks under a sampler while it runs: under this pack's sampler and under the stock one with a patched model."""

from __future__ import annotations

from PIL import Image
from playwright.sync_api import expect

from tests.tools.browser.front import Front
from tests.tools.browser.templates import CASE
from tests.tools.comfyui.client import ComfyClient
from tests.tools.comfyui.paths import TOY_CHECKPOINT

NODES = {
    "Checkpoint": ("CheckpointLoaderSimple", (0, 0)),
    "Picture": ("LoadImage", (0, 200)),
    "Reference": ("VAEEncode", (300, 0)),
    "Prompt": ("ELPromptWords", (300, 150)),
    "Negative": ("CLIPTextEncode", (300, 650)),
    "Mask": ("ELMaskFromAttention", (700, 0)),
    "Patch": ("ELMaskedLatentModel", (700, 400)),
    "Ours": ("ELMaskedLatentKSampler", (1100, 0)),
    "Stock": ("KSampler", (1500, 0)),
    "Decode": ("VAEDecode", (1900, 0)),
    "Decode stock": ("VAEDecode", (1900, 100)),
    "Result": ("PreviewImage", (1900, 200)),
    "Result stock": ("PreviewImage", (1900, 500)),
}
LINKS = (
    ("Checkpoint", 1, "Prompt", "clip"),
    ("Checkpoint", 1, "Negative", "clip"),
    ("Checkpoint", 2, "Reference", "vae"),
    ("Picture", 0, "Reference", "pixels"),
    ("Prompt", 1, "Mask", "subjects"),
    ("Checkpoint", 0, "Patch", "model"),
    ("Reference", 0, "Patch", "reference"),
    ("Mask", 0, "Patch", "masking"),
    ("Checkpoint", 0, "Ours", "model"),
    ("Mask", 0, "Ours", "masking"),
    ("Patch", 0, "Stock", "model"),
    *((("Prompt", 0, name, "positive")) for name in ("Ours", "Stock")),
    *((("Negative", 0, name, "negative")) for name in ("Ours", "Stock")),
    *((("Reference", 0, name, "latent_image")) for name in ("Ours", "Stock")),
    ("Ours", 0, "Decode", "samples"),
    ("Stock", 0, "Decode stock", "samples"),
    ("Checkpoint", 2, "Decode", "vae"),
    ("Checkpoint", 2, "Decode stock", "vae"),
    ("Decode", 0, "Result", "images"),
    ("Decode stock", 0, "Result stock", "images"),
)
# What the server says, word by word.
LISTEN = """() => {
    window.heard = [];
    window.listening = new AbortController(); // the page is shared
    app.api.socket.addEventListener("message", ({ data: message }) => {
        if (typeof message !== "string") return;
        const { type, data } = JSON.parse(message);
        if (type === "progress") window.heard.push(["progress", data.value]);
        if (type === "explainable_latents.step") {
            window.heard.push(["step", data.step, data.workflow === app.graph.id]);
        }
    }, window.listening);
}"""
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACw="
# What the server says at a step of the sampler with an execution id.
TELL = f"""([node, run, step, workflow]) => {{
    const shown = {{ node, run, workflow: workflow ?? app.graph.id, step, steps: 9, inside: 0 }};
    app.api.dispatchCustomEvent("explainable_latents.step", {{ ...shown, mask: "{PIXEL}", heat: null }});
}}"""
ID = "title => String(app.canvas.graph.nodes.find((each) => each.title === title).id)"
MOVE = """() => {
    app.canvas.emitBeforeChange();
    app.graph.nodes[0].pos = [620, 300];
    app.canvas.emitAfterChange();
}"""


def test_masks_stand_under_both_samplers_while_they_run(either_front: Front, client: ComfyClient):
    front = either_front
    front.clear()
    image = client.upload_image(Image.fromarray(CASE.picture().image), "live-masks.png")
    front.run("async () => { await app.refreshComboInNodes(); }")
    for title, (node_class, place) in NODES.items():
        front.add(node_class, title, place)
    for link in LINKS:
        front.link(*link)
    front.set("Checkpoint", ckpt_name=TOY_CHECKPOINT.name)
    front.set("Picture", image=image)
    front.set("Prompt", text=CASE.prompt)
    front.set("Patch", manipulate_at="2")
    front.set("Ours", steps=6, manipulate_at="1, 3")
    front.set("Stock", steps=4, denoise=0.7)
    front.look_at("Checkpoint", 0.5)  # all nodes: panels of those out of sight are hidden
    front.run(LISTEN)
    front.press_run()
    masks = {title: front.panel(title, "live masks").get_by_role("listitem") for title in ("Ours", "Stock")}
    expect(masks["Ours"]).to_have_count(2)
    expect(masks["Ours"].first).to_contain_text("1 · ")
    expect(masks["Stock"]).to_have_count(1)
    expect(masks["Stock"].locator("img")).to_have_count(2)  # the mask and the heat map
    size = "all => all.map((each) => [each.naturalWidth, each.naturalHeight])"
    front.becomes(lambda: masks["Ours"].locator("img").evaluate_all(size), [[16, 16]] * 4)
    heard = front.run("window.listening.abort(), window.heard")
    # the sampler went on after each mask was shown; of its progress only the last is sure to be told
    assert heard.index(["step", 1, True]) < heard.index(["step", 3, True]) < heard.index(["progress", 6])
    front.look_at("Ours", 0.7)
    front.shot(f"live-masks-{'nodes2' if front.vue else 'classic'}")
    front.set("Ours", manipulate_at="4")
    front.press_run()
    expect(masks["Ours"]).to_have_count(1)  # those of the run before are gone
    expect(masks["Ours"].first).to_contain_text("4 · ")
    front.run(TELL, [front.run(ID, "Ours"), "another", 0, "another"])  # whose node has the same number
    expect(masks["Ours"]).to_have_count(1)
    expect(masks["Ours"].first).to_contain_text("4 · ")
    saved = front.run("JSON.stringify(app.graph.serialize())")
    assert "data:image" not in saved


def test_masks_stay_after_an_undo_and_are_those_of_one_sampling(either_front: Front):
    front = either_front
    front.clear()
    front.add("KSampler", "Stock", (200, 60))
    front.run("window.dispatchEvent(new MouseEvent('mouseup'))")
    node = front.run(ID, "Stock")
    for step in (2, 5):
        front.run(TELL, [node, "first", step, None])
    expect(front.panel("Stock", "live masks").get_by_role("listitem")).to_have_count(2)
    front.run(MOVE)
    front.press("Control+z")
    front.wait("app.graph.nodes[0]?.pos[0] === 200")
    masks = front.panel("Stock", "live masks").get_by_role("listitem")
    expect(masks).to_have_count(2)
    expect(masks.last).to_contain_text("5 · ")
    front.run(TELL, [node, "first", 7, None])
    expect(masks).to_have_count(3)
    front.run(TELL, [node, "first", 2, None])  # the next latent of a list, in the same run
    expect(masks).to_have_count(1)
    front.run(TELL, [node, "second", 3, None])
    expect(masks).to_have_count(1)
    expect(masks).to_contain_text("3 · ")

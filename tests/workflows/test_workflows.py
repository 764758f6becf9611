"""The shipped workflows, queued on the real server."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from tests.tools.comfyui.client import Progress
from tests.tools.comfyui.errors import ComfyError
from tests.tools.toy_world.cases import keep_the_context, keep_the_subject
from tests.tools.toy_world.judge import judge_images, load_judge
from tests.tools.workflows.graphs import ROOT, Workflow
from tests.tools.workflows.index import TEMPLATES
from tests.tools.workflows.layout import WIDGETS, described_inputs, to_ui
from tests.tools.workflows.pages import NOTE_TITLES, PAGES
from tests.tools.workflows.pipelines import fill_case, fill_picture, measure, run_case

CASE = keep_the_context()[0]
# What makes a run long, and what it is where only its end matters.
SHORT = {"steps": 8, "manipulate_at": "2, 4", "width": 128, "height": 128}
CLIP_TOO = "28_classifier_guidance"  # needs a CLIP beside the checkpoint: test_classifier_guidance


@pytest.mark.parametrize("template", TEMPLATES, ids=str)
def test_the_ui_file_holds_the_same_graph_as_the_api_file(client, template):
    expected = {i: (n["class_type"], n["inputs"]) for i, n in template.prompt.items()}
    assert read_ui(template.page, client.object_info()) == expected


@pytest.mark.parametrize("template", TEMPLATES, ids=str)
def test_the_ui_file_is_laid_out_from_what_it_is_made_of(client, template):
    made = to_ui(template, PAGES[template.graph], client.object_info())
    assert json.loads(json.dumps(made)) == template.page, "run `make workflows`"


def read_ui(file: dict, info: dict) -> dict[str, tuple[str, dict]]:
    """The graph that a UI file holds, node id -> (class, inputs), as the browser would queue it."""
    links = {link[0]: link for link in file["links"]}
    graph = {}
    for node in file["nodes"]:
        if node["type"] == "MarkdownNote":
            continue
        linked = {e["name"]: links[e["link"]] for e in node["inputs"] if e["link"] is not None}
        values, inputs = iter(node["widgets_values"]), {}
        for input_name, kind, options in described_inputs(info[node["type"]]):
            # a widget that came later is left out by older files, and has its default then
            value = next(values, None) if kind in WIDGETS else None
            if input_name in linked:
                _, source, slot, target, place, _ = linked[input_name]
                assert (target, node["inputs"][place]["name"]) == (node["id"], input_name)
                inputs[input_name] = [str(source), slot]
            elif value is not None:
                inputs[input_name] = value
            for extra in ("control_after_generate", "image_upload"):
                if options.get(extra):
                    next(values)
        assert next(values, None) is None, f"{node['type']} has a widget value too many"
        graph[str(node["id"])] = node["type"], inputs
    return graph


@pytest.mark.parametrize("template", TEMPLATES, ids=str)
def test_nothing_overlaps_on_the_page(template):
    boxes = {(node["id"], node["type"]): (*node["pos"], *node["size"]) for node in template.page["nodes"]}
    for one, (x, y, w, h) in boxes.items():
        for other, (u, v, k, m) in boxes.items():
            apart = x + w <= u or u + k <= x or y + h + 30 <= v or v + m + 30 <= y  # 30: a node's title bar
            assert one == other or apart, f"{one} lies on {other}"


@pytest.mark.parametrize("template", TEMPLATES, ids=str)
def test_the_notes_are_in_both_languages_and_say_what_the_first_run_needs(template):
    english, chinese = template.notes
    assert english.startswith(f"## {template.title['en']}\n")
    assert chinese.startswith(f"## {template.title['zh']}\n")
    assert "**The first run** needs only" in english
    assert "**第一次运行**只需要" in chinese


@pytest.mark.parametrize("template", TEMPLATES, ids=str)
def test_every_title_has_a_translation(template):
    """A node without a title is called by its own name, which the host translates."""
    known = json.loads((ROOT / "js" / "titles.json").read_text(encoding="utf-8"))["zh"]
    titles = {each["title"] for each in (*template.page["nodes"], *template.page["groups"]) if "title" in each}
    assert titles - {*known, *NOTE_TITLES} == set()


@pytest.mark.parametrize("template", TEMPLATES, ids=str)
def test_missing_models_can_be_downloaded(template):
    """Every file that a loader names, into the folder that it looks into."""
    folders = {
        "CheckpointLoaderSimple": "checkpoints",
        "UNETLoader": "diffusion_models",
        "CLIPLoader": "text_encoders",
        "DualCLIPLoader": "text_encoders",
        "VAELoader": "vae",
    }
    loaders = [node for node in template.page["nodes"] if node["type"] in folders]
    assert len(loaders) >= (1 if template.checkpoint else 3)
    for loader in loaders:
        models = loader["properties"]["models"]
        files = [value for value in loader["widgets_values"] if value.endswith(".safetensors")]
        assert [model["name"] for model in models] == files
        for model in models:
            assert model["directory"] == folders[loader["type"]]
            assert re.fullmatch(rf"https://.*/{re.escape(model['name'])}(\?download=true)?", model["url"])


@pytest.mark.parametrize(
    "template", [each for each in TEMPLATES if each.checkpoint and each.graph != CLIP_TOO], ids=str
)
def test_the_first_run_needs_nothing_but_a_checkpoint(client, server, template):
    """With ComfyUI's own example picture, only smaller and with fewer steps, so that it is quick here."""
    side = 448 if template.graph == "08_find_in_another_picture" else 128  # its points are on the large picture
    picture = Image.open(server.host.tree / "input" / "example.png").resize((side, side), Image.Resampling.NEAREST)
    client.upload_image(picture, "example.png")
    graph = Workflow(template.prompt).fill("Checkpoint", ckpt_name="toy.safetensors").graph
    for node in graph.values():
        node["inputs"] |= {name: value for name, value in SHORT.items() if name in node["inputs"]}
    result = client.run(graph)
    shown = [node_id for node_id, node in graph.items() if node["class_type"] in ("PreviewImage", "SaveImage")]
    assert shown
    assert all(result.images(node_id) for node_id in shown)


def test_the_baseline_makes_a_picture_of_the_references_size(client):
    workflow = Workflow.shipped("01_baseline")
    steps: list[Progress] = []
    image = client.upload_image(_png(CASE.picture().image), "reference.png")
    result = client.run(fill_case(workflow, CASE, image, steps=7).graph, steps.append)
    (picture,) = result.images(workflow.node("Result"))
    assert picture.size == (128, 128)
    assert np.asarray(picture).std() > 10
    assert [s.value for s in steps if s.node_id == workflow.node("Sampler")][-1] == 7


@pytest.mark.parametrize("name", ["02_aggregated_attention", "10_refined_attention"])
def test_aggregated_attention_shows_result_masks_and_heat_maps(client, name):
    workflow = Workflow.shipped(name)
    result = run_case(client, workflow, CASE)
    (picture,) = result.images(workflow.node("Result"))
    masks = result.images(workflow.node("Masks"))
    assert picture.size == (128, 128)
    assert [mask.size for mask in masks] == [(128, 128)] * 3
    for mask in masks:
        inside = np.asarray(mask.convert("L")) / 255
        assert set(np.unique(inside)) == {0.0, 1.0}
        assert 0.02 < inside.mean() < 0.8
    assert len(result.images(workflow.node("What the words attend to"))) >= 1


def test_scene_based_shows_where_the_scene_is_and_keeps_the_subject(client):
    """The masks cover the scene, and the prompted scene appears around the reference's subject."""
    case = keep_the_subject()[4]
    workflow = Workflow.shipped("03_scene_based")
    result = run_case(client, workflow, case)
    (picture,) = result.images(workflow.node("Result"))
    measured = measure(load_judge(), case, picture)
    assert (measured.subject, measured.scene) == (True, True)
    subject = case.picture().mask
    for mask in result.images(workflow.node("Masks")):
        scene = np.asarray(mask.convert("L")) / 255
        assert set(np.unique(scene)) <= {0.0, 1.0}
        assert scene[~subject].mean() > 1.5 * scene[subject].mean()
    assert len(result.images(workflow.node("Masks"))) == 2
    assert result.text(workflow.node("What happened")).startswith("step 2: sigma ")


def test_abs_grad_sam_gives_each_latent_channel_its_own_mask(client):
    workflow = Workflow.shipped("04_abs_grad_sam")
    result = run_case(client, workflow, CASE)
    measured = measure(load_judge(), CASE, result.images(workflow.node("Result"))[0])
    assert (measured.subject, measured.scene) == (True, True)
    masks = [np.asarray(m.convert("L")) / 255 for m in result.images(workflow.node("Masks"))]
    assert len(masks) == 3
    for mask in masks:  # the mean of four channels' masks
        assert {round(4 * value, 1) for value in np.unique(mask)} <= {0.0, 1.0, 2.0, 3.0, 4.0}
    assert any(len(np.unique(mask)) > 2 for mask in masks)
    assert result.images(workflow.node("What the words act on"))


@pytest.mark.parametrize("name", ["06a_latent_noise_mask", "06b_conditioning_mask", "06c_mask_from_image"])
def test_a_first_pass_gives_a_mask_to_core_nodes(client, name):
    """The mask is where the prompted subject is drawn; outside of it 06a leaves the reference as it is."""
    workflow, plain = Workflow.shipped(name), Workflow.shipped("01_baseline")
    result = run_case(client, workflow, CASE)
    mask = np.asarray(result.images(workflow.node("Mask"))[0].convert("L")) / 255
    assert set(np.unique(mask)) == {0.0, 1.0}
    assert 0.1 < mask.mean() < 0.6
    (picture,) = result.images(workflow.node("Result"))
    measured = measure(load_judge(), CASE, picture)
    assert (measured.subject, measured.scene) == (True, True)
    if name == "06a_latent_noise_mask":
        (redrawn,) = run_case(client, plain, CASE).images(plain.node("Result"))
        far = ~ndimage.binary_dilation(mask > 0, iterations=16)  # decoding mixes neighbours
        kept, lost = (
            np.abs(np.asarray(each.convert("RGB"), float) - CASE.picture().image)[far].mean()
            for each in (picture, redrawn)
        )
        assert kept < 0.6 * lost


def test_a_picture_is_explained_where_its_subject_is(client):
    workflow = Workflow.shipped("05_explain_picture")
    image = client.upload_image(_png(CASE.picture().image), "reference.png")
    prompt = f"{CASE.reference.subject} on {CASE.scene}"
    filled = fill_picture(workflow, prompt, "Picture to explain", image).fill("Heat maps", opacity=1.0, colormap="grey")
    subject, scene, sky = (
        np.asarray(picture.convert("L").resize((128, 128))) / 255
        for picture in client.run(filled.graph).images(workflow.node("What the words attend to"))
    )
    inside, outside = subject[CASE.picture().mask].mean(), subject[~CASE.picture().mask].mean()
    assert inside > 1.5 * outside
    assert scene.shape == sky.shape == subject.shape


def test_a_subject_that_is_not_in_the_prompt_is_found(client):
    """The prompt names the scene alone; the picture's subject is looked for."""
    workflow = Workflow.shipped("05_explain_picture")
    image = client.upload_image(_png(CASE.picture().image), "reference.png")
    filled = fill_picture(workflow, CASE.scene, "Picture to explain", image).fill("Heat maps", opacity=1.0)
    filled = filled.fill("Heat maps", colormap="grey").fill("Look at the words", look_for=CASE.reference.subject)
    *_, found = client.run(filled.graph).images(workflow.node("What the words attend to"))
    subject = np.asarray(found.convert("L").resize((128, 128))) / 255
    assert subject[CASE.picture().mask].mean() > 1.5 * subject[~CASE.picture().mask].mean()


def test_the_workflow_with_all_steps_kept_is_the_baseline(client):
    """Keeping both sides, the whole pipeline through the server gives the baseline's pixels."""
    plain, ours = Workflow.shipped("01_baseline"), Workflow.shipped("02_aggregated_attention")
    expected = run_case(client, plain, CASE, steps=12).images(plain.node("Result"))[0]
    kept = run_case(client, ours.fill("Sampler", manipulate_at="2, 5", outside="keep"), CASE, steps=12)
    assert np.array_equal(np.asarray(kept.images(ours.node("Result"))[0]), np.asarray(expected))


@pytest.mark.parametrize(
    ("title", "inputs", "words"),
    [
        ("Sampler", {"manipulate_at": "99"}, "step 99 does not exist. This run makes 35 steps"),
        ("Sampler", {"sampler_name": "dpm_adaptive"}, "dpm_adaptive chooses its own steps"),
        ("Sampler", {"inside": "erase"}, "erase"),
        ("Where the subject is", {"smooth_size": 4, "smooth_sigma": 1.0}, "4 must be an odd number"),
        ("Where the subject is", {"layers": "attic"}, "attic"),
        ("Prompt", {"override": "zebra"}, "zebra"),
        ("Checkpoint", {"ckpt_name": "none.safetensors"}, "none.safetensors"),
    ],
)
def test_mistakes_reach_the_user_and_the_server_lives_on(client, title, inputs, words):
    workflow = Workflow.shipped("02_aggregated_attention")
    image = client.upload_image(_png(CASE.picture().image), "reference.png")
    filled = fill_case(workflow, CASE, image).fill(title, **inputs)
    with pytest.raises(ComfyError, match=words):
        client.run(filled.graph)
    assert client.stats()["system"]


def test_a_generation_shows_its_own_attention(client):
    """The picture is that of the stock nodes; the subject's map is where a judge network finds the subject in it."""
    workflow = Workflow.shipped("11_show_attention")
    filled = workflow.fill("Checkpoint", ckpt_name="toy.safetensors").fill("Empty latent", width=128, height=128)
    title = "Prompt, sampler and attention"
    graph = filled.fill(title, text=CASE.prompt, seed=CASE.seed).graph
    graph["numbers"] = {"class_type": "TestNumbers", "inputs": {"saliency": [workflow.node(title), 2]}}
    result = client.run(graph)
    (picture,) = result.images(workflow.node("Result"))
    given = graph[workflow.node(title)]["inputs"]
    prompts = {
        name: {"class_type": "CLIPTextEncode", "inputs": {"clip": given["clip"], "text": text}}
        for name, text in (("positive", given["text"]), ("negative", given["negative"]))
    }
    settings = ("model", "seed", "steps", "cfg", "sampler_name", "scheduler", "denoise", "latent_image")
    sampler = {name: given[name] for name in settings} | {name: [name, 0] for name in prompts}
    stock = {
        **{node_id: graph[node_id] for node_id in (given["model"][0], given["latent_image"][0])},
        **prompts,
        "sampler": {"class_type": "KSampler", "inputs": sampler},
        "decode": {"class_type": "VAEDecode", "inputs": {"samples": ["sampler", 0], "vae": given["vae"]}},
        "result": {"class_type": "PreviewImage", "inputs": {"images": ["decode", 0]}},
    }
    (expected,) = client.run(stock).images("result")
    assert picture.convert("RGB").tobytes() == expected.convert("RGB").tobytes()
    pixels = torch.from_numpy(np.asarray(picture.convert("RGB")).copy()).permute(2, 0, 1)[None].float() / 255
    _, _, found = judge_images(load_judge(), pixels)
    values = torch.tensor(json.loads(result.text("numbers"))[CASE.subject.split()[-1]]).view(1, 1, 16, 16)
    map_of_subject = torch.nn.functional.interpolate(values, size=(128, 128))[0, 0]
    assert map_of_subject[found[0]].mean() > 1.5 * map_of_subject[~found[0]].mean()


def test_a_picture_is_cut_into_regions_of_which_one_is_its_subject(client):
    """The node lists the masks; every pixel is in one of them, and the one with the subject's name is the subject."""
    workflow = Workflow.shipped("07_segment_picture")
    image = client.upload_image(_png(CASE.picture().image), "reference.png")
    subject = CASE.reference.subject
    filled = fill_picture(workflow, f"{subject} on {CASE.reference.scene}", "Picture to segment", image)
    result = client.run(filled.graph)
    masks = [np.asarray(mask.convert("L")) > 127 for mask in result.images(workflow.node("Masks"))]
    lines = result.text(workflow.node("Cut into regions")).splitlines()
    assert [line.partition(":")[0] for line in lines] == [f"mask {i}" for i in range(len(masks))]
    assert (np.sum(masks, axis=0) == 1).all()
    (picture,) = result.images(workflow.node("Regions"))
    assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) == len(masks)
    named = np.any([mask for mask, line in zip(masks, lines, strict=True) if f": {subject}," in line], axis=0)
    truth = CASE.picture().mask
    assert (named & truth).sum() / (named | truth).sum() > 0.6


def _png(pixels: np.ndarray) -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()

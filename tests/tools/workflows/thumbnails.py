"""Make the gallery pictures from real runs: `python -m tests.tools.workflows.thumbnails` (`make thumbnails`).

Also the sheet of all pipelines that the README shows.
"""

from __future__ import annotations

from PIL import Image, ImageOps

from ..comfyui.client import ComfyClient, Result
from ..comfyui.command import run_main
from ..comfyui.paths import toy_checkpoint
from ..comfyui.server import ComfyServer
from ..contact_sheet import contact_sheet
from ..demo import CASES
from ..toy_world.cases import keep_the_subject
from .drawing import drawn
from .graphs import ROOT, Workflow
from .index import BY_GRAPH
from .pipelines import (
    FORGOTTEN,
    IN_THE_MIDDLE,
    SWAPPED,
    TO_THE_RIGHT,
    TOY_PHRASES,
    TOY_REGIONS,
    fill_box,
    fill_edit,
    fill_guide_shape,
    fill_inversion,
    fill_keep_words,
    fill_layout,
    fill_look,
    fill_masactrl,
    fill_phrases,
    fill_picture,
    fill_place_phrases,
    fill_place_words,
    fill_regions,
    run_case,
    sampler_settings,
)
from .two_cars import CARS, fill_cars, fill_teaching

SIDE, QUALITY = 128, 22
CASE = CASES[1]
# Workflow -> the pictures that follow the reference, from left to right: title of the node, which of its pictures.
SHOWN: dict[str, tuple[tuple[str, int], ...]] = {
    "01_baseline": (("Result", 0),),
    "02_aggregated_attention": (("What the words attend to", -1), ("Masks", -1), ("Result", 0)),
    "03_scene_based": (("What the words attend to", -1), ("Masks", -1), ("Result", 0)),
    "04_abs_grad_sam": (("What the words act on", -1), ("Masks", -1), ("Result", 0)),
    "05_explain_picture": tuple(("What the words attend to", which) for which in range(3)),
    "06a_latent_noise_mask": (("Mask", 0), ("Result", 0)),
    "06b_conditioning_mask": (("Mask", 0), ("Result", 0)),
    "06c_mask_from_image": (("Mask", 0), ("Result", 0)),
    "07_segment_picture": (("Regions", 0), ("Masks", 0), ("Masks", 1)),
    "10_refined_attention": (("What the words attend to", -1), ("Masks", -1), ("Result", 0)),
    "26_pause_and_paint": (("Result", 0),),
}
# Workflows that look at a picture, and the title of the node that loads it; the others draw.
LOOKING = {"05_explain_picture": "Picture to explain", "07_segment_picture": "Picture to segment"}
FIND, TEACH = "08_find_in_another_picture", "09_teach_regions"
SHOW = "11_show_attention"
EDIT, TEXTURE, LAYOUT, PARTS = "12_prompt_to_prompt", "18_masactrl", "19_plug_and_play", "20_regional_prompts"
KEEP, PLACE = "22_keep_words", "23_place_words"
LOOKS = "21_cross_image_attention", "30_eye_for_an_eye"
MOVE = "27_guide_shape"
BOX, PHRASES, DENSE = "24_drawn_boxes", "25_structured_diffusion", "29_place_phrases"
INVERT = "16a_inversion", "16b_edit_friendly", "17_diffedit"
# No model of these is small enough to make a picture here: their graphs are shown.
GRAPHS = "13_flux", "14_qwen_image", "15_z_image", "28_classifier_guidance"
# The subject is to be kept here, another scene drawn.
OTHER_SCENE = keep_the_subject()[4]
PIPELINES = {
    "baseline": "01_baseline",
    "aggregated attention": "02_aggregated_attention",
    "Abs-Grad-SAM": "04_abs_grad_sam",
    "scene-based": "03_scene_based",
}
STRENGTH = 0.7  # the same for all on the sheet; the paper's own for Abs-Grad-SAM is 0.9


def strip(pictures: list[Image.Image]) -> Image.Image:
    """The pictures enlarged, two on a row; of three the last is as high as the others together."""
    rows, three = (len(pictures) + 1) // 2, len(pictures) == 3
    page = Image.new("RGB", ((3 if three else 2) * SIDE, rows * SIDE))
    for i, picture in enumerate(pictures):
        column, row, size = (1, 0, 2) if three and i == 2 else (0, i, 1) if three else (i % 2, i // 2, 1)
        enlarged = picture.convert("RGB").resize((size * SIDE, size * SIDE), Image.Resampling.LANCZOS)
        page.paste(enlarged, (column * SIDE, row * SIDE))
    return page


def look(client: ComfyClient, workflow: Workflow, title: str) -> Result:
    """Run a workflow that looks at a picture on the case's reference."""
    kind = CASE.reference
    image = client.upload_image(Image.fromarray(CASE.picture().image), "looked-at.png")
    return client.run(fill_picture(workflow, f"{kind.subject} on {kind.scene}", title, image).graph)


def thumbnail(client: ComfyClient, name: str) -> Image.Image:
    """One workflow's gallery picture."""
    workflow, case = Workflow.shipped(name), OTHER_SCENE if name == "03_scene_based" else CASE
    looking = name in LOOKING
    result = look(client, workflow, LOOKING[name]) if looking else run_case(client, workflow, case)
    made = [result.images(workflow.node(title))[which] for title, which in SHOWN[name]]
    return strip([Image.fromarray(case.picture().image), *made])


def found_elsewhere(client: ComfyClient) -> Image.Image:
    """The workflow that looks in another picture: both pictures with their points, below them the mask it found."""
    workflow = Workflow.shipped(FIND)
    result = client.run(fill_cars(client, workflow).graph)
    (mask,) = result.images(workflow.node("Mask in picture B"))
    page = strip([Image.fromarray(picture.image) for picture in (*CARS, CARS[1])] + [mask])
    sheet = result.images(workflow.node("Both pictures"))[0].convert("RGB").resize((2 * SIDE, SIDE))
    page.paste(sheet, (0, 0))
    return page


def taught(client: ComfyClient) -> Image.Image:
    """The workflow that teaches: the picture and its mask, and below the picture to search and what is found."""
    workflow = Workflow.shipped(TEACH)
    result = client.run(fill_teaching(client, workflow).graph)
    mask = Image.fromarray(CARS[0].mask)
    pictures = [Image.fromarray(CARS[0].image), mask, Image.fromarray(CARS[1].image)]
    return strip([*pictures, result.images(workflow.node("What was found"))[0]])


def shown(client: ComfyClient) -> Image.Image:
    """The workflow that shows attention: the picture, and the maps that the node itself shows."""
    workflow = Workflow.shipped(SHOW).fill("Checkpoint", ckpt_name=toy_checkpoint().name)
    workflow = workflow.fill("Empty latent", width=128, height=128)
    result = client.run(workflow.fill("Prompt, sampler and attention", text=CASE.prompt, seed=CASE.seed).graph)
    maps = result.images(workflow.node("Prompt, sampler and attention"))[0].convert("RGB")
    maps = ImageOps.contain(maps, (2 * SIDE, 2 * SIDE))
    picture = result.images(workflow.node("Result"))[0].convert("RGB")
    picture = picture.resize((2 * SIDE - maps.height,) * 2, Image.Resampling.LANCZOS)
    page = Image.new("RGB", (2 * SIDE, 2 * SIDE))
    page.paste(picture, ((page.width - picture.width) // 2, 0))
    page.paste(maps, (0, picture.height))
    return page


def edited(client: ComfyClient) -> Image.Image:
    """The workflow that edits: the source's picture and the result."""
    workflow = fill_edit(Workflow.shipped(EDIT), CASE.reference.subject, CASE.subject, CASE.scene)
    result = client.run(workflow.graph)
    return strip([result.images(workflow.node(title))[0] for title in ("Source picture", "Result")])


def inverted(client: ComfyClient, name: str) -> Image.Image:
    """A workflow that edits a given picture: the picture and the result."""
    kind, picture = CASE.reference, Image.fromarray(CASE.picture().image)
    image = client.upload_image(picture, "to-edit.png")
    workflow = fill_inversion(Workflow.shipped(name), image, f"{kind.subject} on {kind.scene}", CASE.prompt)
    return strip([picture, client.run(workflow.graph).images(workflow.node("Result"))[0]])


def made_of_the_source(client: ComfyClient) -> Image.Image:
    """The workflow of MasaCtrl: the source's picture and the result."""
    workflow = fill_masactrl(Workflow.shipped(TEXTURE), CASES[0])
    result = client.run(workflow.graph)
    return strip([result.images(workflow.node(title))[0] for title in ("Source picture", "Result")])


def in_its_layout(client: ComfyClient) -> Image.Image:
    """The workflow of Plug-and-Play: the picture that gives the layout, and the result."""
    picture = Image.fromarray(OTHER_SCENE.picture().image)
    image = client.upload_image(picture, "layout.png")
    workflow = fill_layout(Workflow.shipped(LAYOUT), OTHER_SCENE, image)
    return strip([picture, client.run(workflow.graph).images(workflow.node("Result"))[0]])


def in_parts(client: ComfyClient) -> Image.Image:
    """The workflow of regions: two scenes side by side, and another subject where the word is."""
    workflow = fill_regions(Workflow.shipped(PARTS), *TOY_REGIONS)
    result = client.run(workflow.graph)
    return strip([result.images(workflow.node(title))[0] for title in ("Result", "Result by a word")])


def in_a_box(client: ComfyClient) -> Image.Image:
    """The workflow of a drawn box: the box, and the picture."""
    workflow = fill_box(Workflow.shipped(BOX), TOY_REGIONS[0], TOY_REGIONS[1])
    workflow = workflow.fill("Where it is", text="dog: right half").fill("A prompt for the box", base_share=0.0)
    preview = {"class_type": "PreviewImage", "inputs": {"images": [workflow.node("Where it is"), 2]}}
    result = client.run({**workflow.graph, "box": preview})
    return strip([result.images(each)[0] for each in ("box", workflow.node("Result"))])


def in_its_look(client: ComfyClient, name: str) -> Image.Image:
    """A workflow of appearance: the pictures with the structure and the appearance, and the result."""
    pictures = [Image.fromarray(picture.image) for picture in CARS]
    images = [client.upload_image(picture, f"look-{i}.png") for i, picture in enumerate(pictures)]
    workflow = fill_look(Workflow.shipped(name), "a photo of a car", *images)
    return strip([*pictures, client.run(workflow.graph).images(workflow.node("Result"))[0]])


def both_kept(client: ComfyClient) -> Image.Image:
    """The workflow that keeps words: the picture without guidance, and with it."""
    workflow = fill_keep_words(Workflow.shipped(KEEP), seed=FORGOTTEN)
    runs = (client.run(each.graph) for each in (workflow.fill("Keep both", strength=0.0), workflow))
    return strip([run.images(workflow.node("Result"))[0] for run in runs])


def in_their_places(client: ComfyClient) -> Image.Image:
    """The workflow that places words: the picture without guidance, and with it."""
    workflow = fill_place_words(Workflow.shipped(PLACE), seed=TO_THE_RIGHT)
    runs = (client.run(each.graph) for each in (workflow.fill("Each in its place", strength=0.0), workflow))
    return strip([run.images(workflow.node("Result"))[0] for run in runs])


def moved(client: ComfyClient) -> Image.Image:
    """The workflow that moves a word: the picture without guidance, and with it."""
    workflow = fill_guide_shape(Workflow.shipped(MOVE), seed=IN_THE_MIDDLE, steps=20).fill("Move the cat", x=-0.3)
    runs = (client.run(each.graph) for each in (workflow.fill("Move the cat", strength=0.0), workflow))
    return strip([run.images(workflow.node("Result"))[0] for run in runs])


def phrases_alone(client: ComfyClient) -> Image.Image:
    """The workflow of Structured Diffusion: the picture without phrases, and with them."""
    workflow = fill_phrases(Workflow.shipped(PHRASES), *TOY_PHRASES)
    plain = {"class_type": "PreviewImage", "inputs": {"images": [workflow.node("Decode without phrases"), 0]}}
    result = client.run({**workflow.graph, "plain": plain})
    return strip([result.images(node)[0] for node in ("plain", workflow.node("Result"))])


def phrases_placed(client: ComfyClient) -> Image.Image:
    """The workflow that places phrases: the picture without places, and with them."""
    workflow = fill_place_phrases(Workflow.shipped(DENSE), seed=SWAPPED)
    plain = {"class_type": "PreviewImage", "inputs": {"images": [workflow.node("Decode without places"), 0]}}
    result = client.run({**workflow.graph, "plain": plain})
    return strip([result.images(node)[0] for node in ("plain", workflow.node("Result"))])


def side_by_side(client: ComfyClient) -> Image.Image:
    """All pipelines on the same references: two whose surroundings are to be kept, two whose subject is."""
    rows = []
    for case in (CASES[0], CASES[1], OTHER_SCENE, keep_the_subject()[8]):
        pictures = [Image.fromarray(case.picture().image)]
        for name in PIPELINES.values():
            workflow = Workflow.shipped(name)
            result = run_case(client, workflow, case, **sampler_settings(STRENGTH))
            pictures.append(result.images(workflow.node("Result"))[0])
        rows.append((f"{case.reference.subject} on {case.reference.scene}, prompt: {case.prompt}", pictures))
    return contact_sheet(("reference", *PIPELINES), rows)


def save(picture: Image.Image, name: str) -> None:
    """Save a template's gallery picture beside its file."""
    picture.save(ROOT / "workflows" / f"{BY_GRAPH[name].file}.jpg", quality=QUALITY, optimize=True, progressive=True)


def main() -> None:
    """Write the gallery picture of every template, and the sheet of all pipelines."""
    with ComfyServer() as server, ComfyClient(server) as client:
        for name in SHOWN:
            save(thumbnail(client, name), name)
        save(found_elsewhere(client), FIND)
        save(taught(client), TEACH)
        save(shown(client), SHOW)
        save(edited(client), EDIT)
        for name in INVERT:
            save(inverted(client, name), name)
        for name in GRAPHS:
            save(drawn(BY_GRAPH[name].page), name)
        save(made_of_the_source(client), TEXTURE)
        save(in_its_layout(client), LAYOUT)
        save(in_parts(client), PARTS)
        for name in LOOKS:
            save(in_its_look(client, name), name)
        save(both_kept(client), KEEP)
        save(in_their_places(client), PLACE)
        save(moved(client), MOVE)
        save(in_a_box(client), BOX)
        save(phrases_alone(client), PHRASES)
        save(phrases_placed(client), DENSE)
        side_by_side(client).save(ROOT / "js" / "docs" / "images" / "pipelines.webp", quality=75, method=6)


if __name__ == "__main__":
    run_main(main)

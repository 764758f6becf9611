"""Make the README's sheet of all editing methods: `python -m tests.tools.workflows.editing_sheet` (`make thumbnails`).

Each row begins with the picture that is edited, or with the plain one, and shows what the shipped workflows make of it
on the toy checkpoints, with their own settings.
"""

from __future__ import annotations

from PIL import Image

from ..comfyui.client import ComfyClient
from ..comfyui.command import run_main
from ..comfyui.server import ComfyServer
from ..contact_sheet import captioned_rows
from ..demo import CASES
from ..toy_world.cases import keep_the_subject
from .graphs import ROOT, Workflow
from .pipelines import (
    SWAPPED,
    TOY_GROUP,
    TOY_PHRASES,
    TOY_REGIONS,
    fill_case,
    fill_edit,
    fill_inversion,
    fill_layout,
    fill_look,
    fill_masactrl,
    fill_phrases,
    fill_place_phrases,
    fill_regions,
    sampler_settings,
)
from .two_cars import CARS, upload_cars

SHEET = ROOT / "js" / "docs" / "images" / "editing.webp"
CELL, QUALITY, STRENGTH = 120, 60, 0.7
CASE, OTHER_SCENE = CASES[0], keep_the_subject()[4]
BEFORE = f"{CASE.reference.subject} on {CASE.reference.scene}"
# What is above a picture, and the picture.
Cell = tuple[str, Image.Image]


def result(client: ComfyClient, workflow: Workflow, *titles: str) -> list[Image.Image]:
    """The pictures that the nodes with these titles show or save, `Result` if none are given."""
    made = client.run(workflow.graph)
    return [made.images(workflow.node(title))[0] for title in titles or ("Result",)]


def without(workflow: Workflow, title: str, *inputs: str) -> Workflow:
    """The workflow in which these inputs of a node are not connected."""
    copy = Workflow(workflow.graph)
    for name in inputs:
        del copy.graph[copy.node(title)]["inputs"][name]
    return copy


def previewed(client: ComfyClient, workflow: Workflow, decoder: str) -> list[Image.Image]:
    """What a workflow decodes without showing it by itself, and its result."""
    shown = {"class_type": "PreviewImage", "inputs": {"images": [workflow.node(decoder), 0]}}
    made = client.run({**workflow.graph, "shown": shown})
    return [made.images(node)[0] for node in ("shown", workflow.node("Result"))]


def drawn(client: ComfyClient) -> tuple[str, list[Cell]]:
    """A picture that the model drew: another subject, the rest as it is."""
    kind = CASE.reference
    edit = fill_edit(Workflow.shipped("12_prompt_to_prompt"), kind.subject, CASE.subject, CASE.scene)
    blended, source = result(client, edit, "Result", "Source picture")
    (edited,) = result(client, without(edit, "Source and target together", "masking", "source_masking"))
    (texture,) = result(client, fill_masactrl(Workflow.shipped("18_masactrl"), CASE))
    image = client.upload_image(source, "drawn.png")
    (plain,) = result(client, fill_case(Workflow.shipped("01_baseline"), CASE, image, **sampler_settings(STRENGTH)))
    cells = [("source", source), ("image-to-image", plain), ("Prompt-to-Prompt", edited)]
    cells += [("with LocalBlend", blended), ("MasaCtrl", texture)]
    return f"drawn by the model: {BEFORE}. Prompt: {CASE.prompt}", cells


def given(client: ComfyClient) -> tuple[str, list[Cell]]:
    """The same with a picture that the model did not draw."""
    picture = Image.fromarray(CASE.picture().image)
    image = client.upload_image(picture, "given.png")
    plain = fill_case(Workflow.shipped("01_baseline"), CASE, image, **sampler_settings(STRENGTH))
    cells = [("picture", picture), ("image-to-image", *result(client, plain))]
    for heading, name in (
        ("inverted,\nPrompt-to-Prompt", "16a_inversion"),
        ("edit-friendly\ninversion", "16b_edit_friendly"),
        ("DiffEdit", "17_diffedit"),
    ):
        cells.append((heading, *result(client, fill_inversion(Workflow.shipped(name), image, BEFORE, CASE.prompt))))
    return f"a given picture: {BEFORE}. Prompt: {CASE.prompt}", cells


def layout(client: ComfyClient) -> tuple[str, list[Cell]]:
    """A given picture: another scene, the shapes as they are."""
    case, picture = OTHER_SCENE, Image.fromarray(OTHER_SCENE.picture().image)
    image = client.upload_image(picture, "layout.png")
    plain = fill_case(Workflow.shipped("01_baseline"), case, image, **sampler_settings(STRENGTH))
    kept = fill_layout(Workflow.shipped("19_plug_and_play"), case, image)
    cells = [("picture", picture), ("image-to-image", *result(client, plain)), ("Plug-and-Play", *result(client, kept))]
    return f"a given picture: {case.reference.subject} on {case.reference.scene}. Prompt: {case.prompt}", cells


def look(client: ComfyClient) -> tuple[str, list[Cell]]:
    """Two given pictures: the structure of one, the look of the other; with exact masks of the cars, too."""
    images = upload_cars(client)
    cells = [(name, Image.fromarray(car.image)) for name, car in zip(("structure", "appearance"), CARS, strict=True)]
    for heading, name in (
        ("Cross-Image\nAttention", "21_cross_image_attention"),
        ("Eye-for-an-Eye", "30_eye_for_an_eye"),
    ):
        workflow = fill_look(Workflow.shipped(name), "a photo of a car", *images)
        cells.append((heading, *result(client, workflow)))
    graph = workflow.graph
    for socket, loader in (
        ("masking", "Picture with the structure"),
        ("appearance_masking", "Picture with the appearance"),
    ):
        graph[socket] = {
            "class_type": "ELMaskFromImage",
            "inputs": {"mask": [workflow.node(loader), 1]},
            "_meta": {"title": socket},
        }
        graph[workflow.node("What is taken over")]["inputs"][socket] = [socket, 0]
    cells.append(("Eye-for-an-Eye,\nexact masks", *result(client, workflow)))
    return "two given pictures. Prompt: a photo of a car", cells


def regions(client: ComfyClient) -> tuple[str, list[Cell]]:
    """Prompts for parts of the picture."""
    workflow = fill_regions(Workflow.shipped("20_regional_prompts"), *TOY_REGIONS)
    halves, at_the_word = result(client, workflow, "Result", "Result by a word")
    plain, _ = previewed(client, workflow, "Decode without regions")
    base, left, right, word = TOY_REGIONS
    cells = [("the prompt alone", plain), ("Regional Attention,\nhalves", halves)]
    cells.append(("Regional Attention,\na word", at_the_word))
    return f"{base}; halves: {left}, {right}; dog: {word.split()[0]}", cells


def phrases(client: ComfyClient) -> tuple[str, list[Cell]]:
    """Things with colours of their own."""
    plain, told = previewed(
        client, fill_phrases(Workflow.shipped("25_structured_diffusion"), *TOY_PHRASES), "Decode without phrases"
    )
    return TOY_PHRASES[0], [("the prompt alone", plain), ("Structured\nDiffusion", told)]


def places(client: ComfyClient) -> tuple[str, list[Cell]]:
    """Things in places of their own."""
    plain, placed = previewed(
        client, fill_place_phrases(Workflow.shipped("29_place_phrases"), seed=SWAPPED), "Decode without places"
    )
    cells = [("the prompt alone", plain), ("Place Phrases", placed)]
    return f"{TOY_GROUP}; the cat left", cells


def main() -> None:
    """Write the sheet."""
    with ComfyServer() as server, ComfyClient(server) as client:
        rows = [make(client) for make in (drawn, given, look, layout, phrases, regions, places)]
    captioned_rows(rows, CELL).save(SHEET, quality=QUALITY, method=6)


if __name__ == "__main__":
    run_main(main)

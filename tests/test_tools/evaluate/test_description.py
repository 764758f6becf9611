"""Descriptions: what they expand to; everything wrong is told, with its field or file, before anything runs."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.tools.evaluate.description import READY, Overrides, read_description
from tests.tools.evaluate.jobs import all_jobs
from tests.tools.workflows.graphs import API


def picture(path: Path, width: int = 64, height: int = 48, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def mask(path: Path, width: int = 64, height: int = 48, value: int = 255) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((height, width), np.uint8)
    pixels[10:30, 20:40] = value
    Image.fromarray(pixels).save(path)
    return path


def files_of(**entry: object) -> dict:
    return {"categories": {"animal": {"scenes": ["beach", "forest"], "pictures": [{"files": "animal/*", **entry}]}}}


def problems(file: Path, **overrides: object) -> str:
    with pytest.raises(ValueError, match="nothing was queued") as caught:
        read_description(str(file), Overrides(**overrides))
    return str(caught.value)


def test_every_picture_subject_and_scene_is_a_case(tmp_path, describe):
    for i, name in enumerate(("b.png", "a.jpg", "c.png")):
        picture(tmp_path / "animal" / name, seed=i)
        mask(tmp_path / "masks" / f"{Path(name).stem}.png")
    entry = files_of(
        subjects=["dog", "cat"], masks="masks/{stem}.png", count=2, keep="subject", prompt="a {subject} at {scene}"
    )
    found = read_description(str(describe(**entry)), Overrides(seeds=(1, 2)))
    assert [case.name for case in found.cases] == [
        f"animal-{scene}-{subject}-{stem}"
        for stem in "ab"
        for subject in ("dog", "cat")
        for scene in ("beach", "forest")
    ]
    assert found.cases[1].prompt == "a dog at forest"
    assert {case.keep for case in found.cases} == {"subject"}
    assert found.cases[0].source.load().mask.sum() == 20 * 20
    jobs = all_jobs(found)
    assert len({job.key for job in jobs}) == len({job.path for job in jobs}) == len(jobs) == 16


def test_the_nearest_field_counts(tmp_path, describe):
    picture(tmp_path / "animal" / "a.png")
    categories = {
        "animal": {"scenes": "beach", "pictures": [{"files": "animal/*", "scenes": "city"}, {"files": "animal/*"}]}
    }
    found = read_description(str(describe(categories=categories, scenes="desert")), Overrides())
    assert [case.scene for case in found.cases] == ["city", "beach"]
    assert [case.subject for case in found.cases] == ["animal", "animal"]


def test_pictures_are_scaled_and_cropped_with_their_masks(tmp_path, describe):
    picture(tmp_path / "animal" / "a.png", 64, 48)
    mask(tmp_path / "masks" / "a.png")
    found = read_description(str(describe(**files_of(masks="masks/{stem}.png"), size=32)), Overrides())
    reference = found.cases[0].source.load()
    assert reference.image.shape == (32, 32, 3)
    rows, columns = np.nonzero(reference.mask)
    assert (rows.min(), rows.max() + 1) == (7, 20)  # 10 to 30 of 48, times 2/3
    assert (columns.min(), columns.max() + 1) == (8, 21)  # 20 to 40 of 64, minus a border of 8, times 2/3


def test_the_command_line_counts_more_than_the_description(tmp_path, describe):
    picture(tmp_path / "elsewhere" / "animal" / "a.png")
    overrides = Overrides(
        data=tmp_path / "elsewhere",
        checkpoint="other.safetensors",
        seeds=(7,),
        methods={"ours": "02_aggregated_attention"},
        only=("ours",),
        limit=1,
    )
    found = read_description(str(describe(**files_of())), overrides)
    assert (found.checkpoint, found.seeds, [m.name for m in found.methods]) == ("other.safetensors", (7,), ["ours"])
    assert len(found.cases) == 2


def test_a_title_does_not_matter_to_the_key_but_a_setting_does(describe):
    graph = json.loads((API / "01_baseline.json").read_text())
    keys = []
    for cfg, title in ((8.0, "Decode"), (8.0, "Another"), (7.0, "Decode")):
        for node in graph.values():
            if node["class_type"] == "VAEDecode":
                node["_meta"]["title"] = title
        (describe().parent / "mine.json").write_text(json.dumps(graph))
        methods = {"mine": {"workflow": "mine.json", "set": {"Sampler.cfg": cfg}}}
        keys.append(all_jobs(read_description(str(describe(methods=methods)), Overrides()))[0].key)
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize("name", ["coco", "places365"])
def test_ready_descriptions_say_that_they_need_pictures(name):
    told = problems(Path(name), checkpoint="x.safetensors")
    assert "matches 0 files" in told
    assert "say where the pictures are with --data" in told


@pytest.mark.parametrize("name", ["coco", "places365"])
def test_ready_descriptions_expand_to_the_documents_sets(name, tmp_path):
    content = yaml.safe_load((READY / f"{name}.yaml").read_text())
    number = 0
    for category in content["categories"].values():
        for entry in category["pictures"]:
            for _ in range(entry.get("count", category.get("count", content.get("count", 1)))):
                number += 1
                file = picture(tmp_path / entry["files"].replace("*", f"{number:03}"), seed=number)
                for masks in (m for m in (entry.get("masks", content.get("masks")),) if m):
                    mask(tmp_path / masks.format(stem=file.stem, folder=file.parent.name, category=""))
    found = read_description(name, Overrides(data=tmp_path, checkpoint="x.safetensors"))
    scenes = {}
    for case in found.cases:
        scenes.setdefault(case.category, {}).setdefault(case.scene, []).append(case)
    assert set(scenes) == {"airplane", "automobile", "animal"}
    if name == "coco":  # document 000: 10 references per category, 70 pictures per model
        assert len(found.cases) == 70
        assert {category: set(found) for category, found in scenes.items()} == {
            "airplane": {"cloud", "runway"},
            "automobile": {"city", "highway"},
            "animal": {"beach", "forest", "desert"},
        }
        assert {len(cases) for of_category in scenes.values() for cases in of_category.values()} == {10}


def test_the_toy_description_needs_nothing():
    found = read_description("toy_world", Overrides())
    assert len(found.cases) == 21
    for case in found.cases:
        assert case.source.kind.scene == case.scene
        assert case.source.kind.subject != case.subject


def test_all_problems_are_told_at_once(tmp_path, describe):
    picture(tmp_path / "animal" / "good.png")
    (tmp_path / "animal" / "broken.png").write_bytes((tmp_path / "animal" / "good.png").read_bytes()[:900])
    (tmp_path / "animal" / "text.jpg").write_text("not a picture")
    picture(tmp_path / "animal" / "odd.png", 61, 48)
    told = problems(
        describe(**files_of(), methods={"a": "nowhere.json"}, prompts="x", seeds="many", features="gone", clip="gone")
    )
    assert told.startswith("8 problems, nothing was queued")
    for words in (
        "prompts: unknown field; known are",
        "seeds: must be a whole number or a list of them, got 'many'",
        f"methods.a.workflow: {tmp_path / 'nowhere.json'} does not exist; shipped are 01_baseline",
        f"features: {tmp_path / 'gone'} does not exist",
        f"clip: {tmp_path / 'gone'} is not a folder with a CLIP model",
        f"categories.animal: {tmp_path / 'animal/broken.png'} cannot be read as a picture",
        f"categories.animal: {tmp_path / 'animal/text.jpg'} cannot be read as a picture",
        f"categories.animal: {tmp_path / 'animal/odd.png'} is 61×48: sides must be multiples of 8",
    ):
        assert words in told


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: None, "a.png does not exist"),
        (lambda folder: mask(folder / "a.png", 32, 32), "a.png is 32×32, its picture {animal} is 64×48"),
        (lambda folder: mask(folder / "a.png", value=0), "a.png is empty where the picture is used"),
        (lambda folder: (folder / "a.png").write_text("no"), "a.png cannot be read as a picture"),
    ],
)
def test_masks_that_do_not_fit(tmp_path, describe, make, words):
    image = picture(tmp_path / "animal" / "a.png")
    (tmp_path / "masks").mkdir()
    make(tmp_path / "masks")
    assert words.format(animal=image) in problems(describe(**files_of(masks="masks/{stem}.png")))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"categories": {}}, "categories: no pictures"),
        ({"categories": {"animal": {"pictures": []}}}, "categories.animal.pictures: must be a list of entries"),
        ({"categories": {"animal": {"pictures": [{"files": "a"}]}}}, "categories.animal.pictures[0]: no scenes"),
        (files_of(), "matches 0 files; say where the pictures are with --data"),
        (files_of(count=3), "matches 0 files, 3 are needed"),
        (files_of(draw={}), "categories.animal.pictures[0]: give either files"),
        (files_of(prompt="{subjct} on {scene}"), "{subjct} on {scene}' cannot be filled in (KeyError('subjct'))"),
        (files_of(masks="{name}.png"), "'{name}.png' cannot be filled in (KeyError('name')); there is {stem}"),
        (files_of(keep="all"), "keep: must be one of surroundings, subject, got 'all'"),
        (files_of(scenes=[1]), "scenes: must be a text or a list of texts, got [1]"),
        (files_of(real="nothing/*"), "real: {folder}/nothing/* matches no files"),
        ({"size": 100}, "size: must be one side or width and height, multiples of 8, got 100"),
        ({"layer": 100}, "layer: 100 is not one of 64, 192, 768, 2048"),
        ({"checkpoint": None}, "checkpoint: missing"),
        ({"methods": {}}, "methods: none"),
        ({"methods": {"a b": "01_baseline", "a-b": "01_baseline"}}, "methods: two methods would share the folder a-b"),
    ],
)
def test_each_problem_names_its_field(tmp_path, describe, changes, words):
    if "{subjct}" in words or "{name}" in words or "{folder}" in words:
        picture(tmp_path / "animal" / "a.png")
    expected = words.replace("{folder}", str(tmp_path))
    assert expected in problems(describe(**changes))


def test_a_drawn_picture_of_something_unknown(describe):
    entry = {"draw": {"subject": "zebra", "scene": "beach", "colour": "red", "seed": 1}, "scenes": "beach"}
    told = problems(describe(categories={"animal": {"pictures": [entry]}}))
    assert "categories.animal.pictures[0].draw: subject 'zebra' is not one of dog, cat" in told


def test_two_cases_of_one_name(tmp_path, describe):
    picture(tmp_path / "animal" / "a.png")
    picture(tmp_path / "animal" / "a.jpg")
    assert "two cases are called animal-beach-animal-a" in problems(describe(**files_of()))


def test_a_file_that_is_no_description(tmp_path):
    broken = tmp_path / "broken.yaml"
    broken.write_text("name: [")
    with pytest.raises(ValueError, match=r"broken\.yaml is not a YAML file: (.|\n)*line 1"):
        read_description(str(broken), Overrides())
    with pytest.raises(ValueError, match="neither a description file nor one of the ready ones: coco, places"):
        read_description("nowhere", Overrides())
    broken.write_text("just text")
    assert "the description: must be a mapping of fields" in problems(broken)


class TestWorkflows:
    """Workflow files whose slots are not there."""

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (
                lambda g: g["2"]["_meta"].update(title="Other"),
                "has 0 nodes called 'Reference picture' for slot 'picture'",
            ),
            (lambda g: g["5"]["_meta"].update(title="Prompt"), "has 2 nodes called 'Prompt' for slot 'prompt'"),
            (lambda g: g["7"]["inputs"].pop("seed"), "has no input 'seed' for slot 'seed': model"),
            (lambda g: g["7"]["inputs"].update(seed=["9", 0]), "Sampler.seed in {file} is linked to another node"),
            (lambda g: g["9"]["_meta"].update(title="Other"), "has 0 nodes called 'Result'; its nodes are called"),
            (lambda g: [node.pop("_meta") for node in g.values()], "its nodes are called CLIPTextEncode, Checkpoint"),
            (lambda g: g.update(nodes=[]), "is in the format of the browser: export it with *Export (API)*"),
            (lambda g: g.update(extra=3), "is not a workflow in API format"),
        ],
    )
    def test_slots(self, describe, tmp_path, change, words):
        graph = json.loads((API / "01_baseline.json").read_text())
        change(graph)
        file = tmp_path / "mine.json"
        file.write_text(json.dumps(graph))
        told = problems(describe(methods={"mine": "mine.json"}))
        assert "methods.mine." in told
        assert words.replace("{file}", str(file)) in told

    def test_a_file_that_is_not_json(self, describe, tmp_path):
        (tmp_path / "mine.json").write_text("{")
        assert "mine.json is not a JSON file" in problems(describe(methods={"mine": "mine.json"}))

    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"set": {"Sampler.stepz": 3}}, "methods.m.set.Sampler.stepz: 'Sampler' in"),
            ({"set": {"Samplr.steps": 3}}, "methods.m.set.Samplr.steps: "),
            ({"set": {"Sampler": 3}}, "'Sampler' must be written as node title.input"),
            ({"slots": {"sed": "Sampler.seed"}}, "methods.m.slots.sed: unknown field; known are checkpoint"),
            ({"slots": {"masks": "Maskz"}}, "has 0 nodes called 'Maskz'"),
            ({"mask_shows": "dog"}, "methods.m.mask_shows: must be one of subject, scene"),
            ({"workflow": None}, "methods.m.workflow: missing"),
        ],
    )
    def test_fields(self, describe, fields, words):
        assert words in problems(describe(methods={"m": {"workflow": "01_baseline", **fields}}))

    def test_other_slots_than_the_usual_ones(self, describe, tmp_path):
        shutil.copy(API / "01_baseline.json", tmp_path / "mine.json")
        slots = {"prompt": "Negative prompt.text", "result": "Result"}
        methods = {"mine": {"workflow": "mine.json", "slots": slots, "set": {"Sampler.cfg": 5.5}}}
        job = all_jobs(read_description(str(describe(methods=methods)), Overrides()))[0]
        values = {node["_meta"]["title"]: node["inputs"] for node in job.graph.values()}
        assert values["Negative prompt"]["text"] == "dog on beach"
        assert values["Sampler"]["cfg"] == 5.5
        assert values["Checkpoint"]["ckpt_name"] == "toy.safetensors"
        assert values["Reference picture"]["image"] == job.image_name

"""The command itself on a real ComfyUI server: run, resume, and what is missing made again."""

import json
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from tests.tools.evaluate.__main__ import main
from tests.tools.toy_world.pictures import Kind, make_picture

from .running import NOWHERE, evaluate, pixels, runs_of, table


def test_a_whole_evaluation(finished):
    _, out, done = finished
    assert "small: 4 cases × 1 seed × 2 methods" in done.stdout
    assert "| metric |  | baseline | aggregated attention |" in done.stdout
    assert "100%" in done.stderr  # the progress bar
    for title in ("FID ↓", "KID ↓", "IS ↑", "SSIM ↑", "PSNR (dB) ↑", "mask IoU, reference ↑", "seconds ↓"):
        assert f"| {title} |" in done.stdout
    pictures = pixels(out)
    assert len(pictures) == 4 + 4 * (1 + 2)  # results, and a mask of each manipulated step
    assert all(picture.shape[:2] == (128, 128) for picture in pictures.values())
    results = json.loads((out / "results.json").read_text())
    assert results["complete"]
    assert len(results["pictures"]) == 8
    assert {len(p["files"]) for p in results["pictures"]} == {1, 3}
    assert len((out / "results.csv").read_text().splitlines()) == 9
    with Image.open(out / "contact_sheet.png") as sheet:
        assert sheet.width > 4 * 160  # reference, two methods, one column of masks


def test_pictures_can_be_made_again_from_their_metadata(finished, server):
    """What the picture says is the graph that ComfyUI ran: queued again it gives the same pixels."""
    from tests.tools.comfyui.client import ComfyClient

    _, out, _ = finished
    file = next((out / "runs" / "aggregated-attention").glob("first-beach*5.png"))
    with Image.open(file) as picture:
        graph, settings = json.loads(picture.text["prompt"]), json.loads(picture.text["evaluation"])
        expected = np.asarray(picture)
    assert settings["method"] == "aggregated attention"
    (sampler,) = [i for i, node in graph.items() if node["class_type"] == "ELMaskedLatentKSampler"]
    (result,) = [i for i, node in graph.items() if node["class_type"] == "SaveImage"]
    assert graph[sampler]["inputs"]["seed"] == settings["seed"] == 5
    with ComfyClient(server) as client:
        again = np.asarray(client.run(graph).images(result)[0])
    assert np.array_equal(again, expected)


def test_resuming_what_is_finished_does_nothing_and_prints_the_same(finished, server):
    file, out, first = finished
    before, changed = runs_of(server), {f: f.stat().st_mtime_ns for f in (out / "runs").rglob("*")}
    second = evaluate(file, "--server", NOWHERE, "--out", out, "--resume")
    assert second.returncode == 0, second.stderr
    assert second.stdout == first.stdout
    assert runs_of(server) == before
    assert {f: f.stat().st_mtime_ns for f in (out / "runs").rglob("*")} == changed


def test_what_is_there_is_not_overwritten_unasked(finished, server, monkeypatch):
    file, out, _ = finished
    monkeypatch.setattr(sys, "argv", ["evaluate", str(file), "--server", server.url, "--out", str(out)])
    with pytest.raises(ValueError, match=r"holds results already: go on with them \(--resume\)"):
        main()


def test_only_what_is_missing_is_made(finished, server, tmp_path):
    file, out, _ = finished
    shutil.copytree(out, tmp_path / "out")
    lost = sorted((tmp_path / "out" / "runs").rglob("*-5.png"))[::4]
    for path in lost:
        path.unlink()
    before = runs_of(server)
    done = evaluate(file, "--server", server.url, "--out", tmp_path / "out", "--resume")
    assert done.returncode == 0, done.stderr
    assert runs_of(server) == before + len(lost) == before + 2
    assert table(tmp_path / "out") == table(out)


def test_pictures_and_masks_from_files(describe, server, tmp_path):
    """As users have them: another size, an odd one, a camera's orientation; a further method from the command line."""
    drawn = make_picture(Kind("dog", "beach", "brown"), 1_000_400)
    photo, mask = (Image.fromarray(x).resize((201, 134)) for x in (drawn.image, drawn.mask))
    (tmp_path / "masks").mkdir()
    turned = Image.Exif()
    turned[0x0112] = 6  # shown a quarter turn clockwise
    photo.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "dog.jpg", exif=turned)
    mask.save(tmp_path / "masks" / "dog.png")
    entry = {"files": "*.jpg", "masks": "masks/{stem}.png", "scenes": "forest", "subjects": "dog"}
    file = describe(categories={"animal": {"pictures": [entry]}}, size=[128, 96], keep="subject", features=None)
    arguments = ["--server", server.url, "--method", "ours=02_aggregated_attention", "--only", "ours"]
    done = evaluate(file, *arguments, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "No feature network: FID, KID and IS are left out." in done.stdout
    assert "| PSNR, kept part (dB) ↑ | mean |" in done.stdout
    assert "| mask IoU, reference ↑ | mean | 0." in done.stdout
    (result,) = (tmp_path / "out" / "runs" / "ours").glob("*-5.png")
    assert Image.open(result).size == (128, 96)

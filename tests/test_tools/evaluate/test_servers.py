"""The command itself on real ComfyUI servers: run, resume, stop, one server of two killed, and what a user is told."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import requests
import yaml
from PIL import Image

from tests.tools.comfyui.server import ComfyServer
from tests.tools.evaluate.__main__ import main
from tests.tools.evaluate.description import Overrides, read_description
from tests.tools.evaluate.fleet import Ended, Fleet, Gone
from tests.tools.evaluate.jobs import all_jobs
from tests.tools.evaluate.networks import load_networks
from tests.tools.evaluate.report import write_report
from tests.tools.evaluate.store import Store
from tests.tools.evaluate.workers import Failed, Lost, Made, ServerWorker, Stopped
from tests.tools.foreground import foreground
from tests.tools.toy_world.pictures import Kind, make_picture
from tests.tools.workflows.graphs import API, ROOT

from .conftest import AGGREGATED, BASELINE, close_gate, gated, new_server, toy_description

HELD = "elephant on city"  # the prompt of the second case
PATIENCE = 300.0
NOWHERE = "http://127.0.0.1:9"


def command(*arguments: object) -> list[str]:
    return foreground("-m", "tests.tools.evaluate", *map(str, arguments))


def evaluate(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE, check=False)


def runs_of(server: ComfyServer) -> int:
    return len(requests.get(f"{server.url}/history", timeout=60).json())


def pixels(out: Path) -> dict[str, np.ndarray]:
    return {str(f.relative_to(out)): np.asarray(Image.open(f)) for f in sorted((out / "runs").rglob("*.png"))}


def table(out: Path) -> list[str]:
    """Every line of the table but the seconds."""
    kept, skip = [], False
    for line in (out / "table.md").read_text().splitlines():
        skip = "| seconds" in line or (skip and line.startswith("|  | median"))
        if not skip:
            kept.append(line)
    return kept


@pytest.fixture(scope="module")
def finished(server, tmp_path_factory):
    """A whole evaluation by one server: its description, its folder and what it said."""
    folder = tmp_path_factory.mktemp("finished")
    file = folder / "description.yaml"
    methods = {"baseline": gated(folder, BASELINE), "aggregated attention": gated(folder, AGGREGATED)}
    file.write_text(yaml.safe_dump(toy_description(methods=methods, real="drawn"), sort_keys=False))
    done = evaluate(file, "--server", server.url, "--out", folder / "out")
    assert done.returncode == 0, done.stderr
    return file, folder / "out", done


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


def wait_until_running(server: ComfyServer) -> None:
    """A run has begun on this server."""
    end = time.monotonic() + PATIENCE
    while not requests.get(f"{server.url}/queue", timeout=60).json()["queue_running"]:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_one_of_two_servers_is_killed(finished, tmp_path):
    """In the middle of a run. The same pictures and table as by one server; none is lost, none is there twice."""
    file, out, _ = finished
    evaluation = read_description(str(file), Overrides())
    store = Store(tmp_path / "out", evaluation)
    store.prepare(resume=False, restart=False)
    jobs, has_begun = all_jobs(evaluation), threading.Event()
    with new_server() as one, new_server() as two:
        close_gate(two, "*")

        class Dying(ServerWorker):
            def run(self, order, stop):
                has_begun.set()
                return super().run(order, stop)

        class Living(ServerWorker):
            def run(self, order, stop):
                assert has_begun.wait(PATIENCE)
                return super().run(order, stop)

        def kill():
            assert has_begun.wait(PATIENCE)
            wait_until_running(two)
            os.kill(two.pid, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        events = []
        for event in Fleet([Living(one, PATIENCE), Dying(two, PATIENCE)]).run(jobs):
            events.append(event)
            if isinstance(event, Ended):
                store.save(event.job, event.outcome)
        killer.join()
    gone = [event for event in events if isinstance(event, Gone)]
    assert [event.name for event in gone] == [two.url]
    assert "killed by SIGKILL" in gone[0].reason
    assert sorted(e.job.key for e in events if isinstance(e, Ended)) == sorted(job.key for job in jobs)
    write_report(store, evaluation, jobs, load_networks("toy", 2048, None))
    assert table(tmp_path / "out") == table(out)
    ours, theirs = pixels(tmp_path / "out"), pixels(out)
    assert list(ours) == list(theirs)
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def start_until_second_case(file: Path, server: ComfyServer, out: Path) -> subprocess.Popen[str]:
    """The command in the middle of the second case: two pictures are finished, one is held by the gate."""
    close_gate(server, HELD)
    process = subprocess.Popen(
        command(file, "--server", server.url, "--out", out),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )
    end = time.monotonic() + PATIENCE
    while len(list((out / "runs").rglob("*.json"))) < 2:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.05)
    wait_until_running(server)
    return process


def finish(file: Path, server: ComfyServer, out: Path) -> None:
    """Resume: only the six pictures that are missing are made."""
    before = runs_of(server)
    done = evaluate(file, "--server", server.url, "--out", out, "--resume")
    assert done.returncode == 0, done.stderr
    assert runs_of(server) == before + 6


def test_every_server_is_killed_and_the_rest_made_later(finished, tmp_path, server):
    file, out, _ = finished
    with new_server() as mine:
        process = start_until_second_case(file, mine, tmp_path / "out")
        os.kill(mine.pid, signal.SIGKILL)
        said, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert f"lost {mine.url}, others take over its work: no connection to ComfyUI at {mine.url}" in told
    assert "6 pictures are missing (every server is gone): run it again with --resume" in told
    assert "**Not complete**: 2 of 8 pictures are finished" in said
    finish(file, server, tmp_path / "out")
    assert table(tmp_path / "out") == table(out)


def test_ctrl_c_leaves_a_partial_result_that_can_be_finished(finished, tmp_path):
    file, out, _ = finished
    with new_server() as mine:
        process = start_until_second_case(file, mine, tmp_path / "out")
        process.send_signal(signal.SIGINT)
        said, told = process.communicate(timeout=PATIENCE)
        assert process.returncode == 130, told
        assert "6 pictures are missing (interrupted): run it again with --resume" in told
        assert "**Not complete**: 2 of 8 pictures are finished" in said
        assert "| SSIM ↑ | mean |" in said
        assert not json.loads((tmp_path / "out" / "results.json").read_text())["complete"]
        assert (tmp_path / "out" / "contact_sheet.png").is_file()
        queue = requests.get(f"{mine.url}/queue", timeout=60).json()
        assert not queue["queue_running"] + queue["queue_pending"]  # the run that was held has been cancelled
        close_gate(mine, "nothing")
        finish(file, mine, tmp_path / "out")
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


class TestMistakes:
    """Told before anything is queued."""

    @pytest.fixture(autouse=True)
    def nothing_runs(self, server):
        before = runs_of(server)
        yield
        assert runs_of(server) == before

    @pytest.fixture
    def refused(self, monkeypatch):
        """Run the command in this process, which spares its imports, and return what it says."""

        def run(*arguments: object) -> str:
            monkeypatch.setattr(sys, "argv", ["evaluate", *map(str, arguments)])
            with pytest.raises(ValueError, match=r"problem|evaluate-ray|neither") as caught:
                main()
            return str(caught.value)

        return run

    def test_the_command_ends_with_one_sentence_and_code_1(self, tmp_path):
        done = evaluate(tmp_path / "nowhere.yaml")
        assert done.returncode == 1
        assert done.stderr.startswith(f"error: {tmp_path / 'nowhere.yaml'} is neither a description file nor")

    def test_a_server_that_is_not_there(self, describe, server, tmp_path, refused):
        told = refused(describe(), "--server", server.url, "--server", NOWHERE, "--out", tmp_path / "out")
        assert f"1 problem, nothing was queued:\n  --server {NOWHERE}: no connection to ComfyUI at {NOWHERE}" in told

    def test_an_address_that_is_none(self, describe, tmp_path, refused):
        told = refused(describe(), "--server", "localhost:8188", "--out", tmp_path / "out")
        assert "--server: 'localhost:8188' must begin with http:// or https://" in told

    def test_a_checkpoint_that_the_server_lacks(self, describe, server, tmp_path, refused):
        told = refused(describe(), "--server", server.url, "--checkpoint", "sd.safetensors", "--out", tmp_path / "out")
        assert f"server {server.url}: 'baseline': Checkpoint.ckpt_name 'sd.safetensors' is not there; " in told
        assert "toy.safetensors" in told

    def test_a_node_and_a_choice_that_the_server_lacks(self, describe, server, tmp_path, refused):
        graph = json.loads((API / "01_baseline.json").read_text())
        graph["8"]["class_type"] = "NoSuchNode"
        (tmp_path / "mine.json").write_text(json.dumps(graph))
        methods = {"mine": "mine.json", "other": {**BASELINE, "set": {"Sampler.sampler_name": "runge"}}}
        told = refused(describe(methods=methods), "--server", server.url, "--out", tmp_path / "out")
        assert "2 problems" in told
        assert f"server {server.url}: has no node NoSuchNode, which 'mine' needs" in told
        assert "'other': Sampler.sampler_name 'runge' is not there; there is euler" in told

    def test_a_workflow_without_the_slot(self, describe, server, tmp_path, refused):
        methods = {"mine": {**BASELINE, "slots": {"picture": "Picture.image"}}}
        told = refused(describe(methods=methods), "--server", server.url, "--out", tmp_path / "out")
        assert "methods.mine.slots.picture: " in told
        assert "01_baseline.json has 0 nodes called 'Picture' for slot 'picture'; its nodes are called" in told

    def test_a_feature_network_that_is_none(self, describe, server, tmp_path, refused):
        (tmp_path / "network.pt").write_text("no")
        told = refused(
            describe(), "--server", server.url, "--features", tmp_path / "network.pt", "--out", tmp_path / "out"
        )
        assert "network.pt is neither a TorchScript feature network nor torch-fidelity's Inception weights" in told

    def test_a_method_without_a_file(self, describe, tmp_path, refused):
        assert "--method: 'mine' must be NAME=WORKFLOW" in refused(describe(), "--method", "mine")

    def test_ray_that_is_not_installed(self, describe, server, tmp_path, refused, monkeypatch):
        monkeypatch.setitem(sys.modules, "ray", None)
        told = refused(describe(), "--server", server.url, "--ray", "--out", tmp_path / "out")
        assert "--ray needs the package ray: use `make evaluate-ray`" in told

    def test_checking_alone(self, describe, server, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(
            sys,
            "argv",
            ["evaluate", str(describe()), "--server", server.url, "--check", "--out", str(tmp_path / "out")],
        )
        assert main() == 0
        assert capsys.readouterr().out == "small: everything is there for 4 pictures\n"
        assert not (tmp_path / "out").exists()


class TestWorker:
    """How one run ends."""

    @pytest.fixture
    def worker(self, server):
        worker = ServerWorker(server, PATIENCE)
        yield worker
        worker.close()

    def order(self, describe, **changes):
        return all_jobs(read_description(str(describe(**changes)), Overrides()))[0].order()

    def test_a_node_that_fails(self, describe, worker):
        methods = {"ours": {**AGGREGATED, "set": {"Sampler.steps": 4, "Sampler.manipulate_at": "99"}}}
        outcome = worker.run(self.order(describe, methods=methods), threading.Event())
        assert isinstance(outcome, Failed)
        assert "step 99 does not exist" in outcome.reason

    def test_a_result_of_another_size(self, describe, worker, tmp_path):
        graph = json.loads((API / "01_baseline.json").read_text())
        scaled = {"image": ["8", 0], "upscale_method": "area", "width": 96, "height": 64, "crop": "disabled"}
        graph["20"] = {"class_type": "ImageScale", "inputs": scaled, "_meta": {"title": "Scale"}}
        graph["9"]["inputs"]["images"] = ["20", 0]
        (tmp_path / "mine.json").write_text(json.dumps(graph))
        methods = {"mine": {"workflow": "mine.json", "set": {"Sampler.steps": 2}}}
        outcome = worker.run(self.order(describe, methods=methods), threading.Event())
        assert outcome == Failed("the result is 96×64, its reference 128×128: they cannot be compared")

    def test_a_run_that_takes_too_long_is_cancelled(self, describe, server):
        worker = ServerWorker(server, 0.2)
        methods = {"slow": {**BASELINE, "set": {"Sampler.steps": 5000}}}
        outcome = worker.run(self.order(describe, methods=methods), threading.Event())
        assert outcome == Failed("the run took too long and was cancelled (0.2 s)")
        assert not requests.get(f"{server.url}/queue", timeout=60).json()["queue_running"]

    def test_a_stop_cancels_the_run(self, describe, server, worker):
        stop, order = (
            threading.Event(),
            self.order(describe, methods={"slow": {**BASELINE, "set": {"Sampler.steps": 5000}}}),
        )

        def when_running():
            wait_until_running(server)
            stop.set()

        thread = threading.Thread(target=when_running)
        thread.start()
        with pytest.raises(Stopped):
            worker.run(order, stop)
        thread.join()
        assert not requests.get(f"{server.url}/queue", timeout=60).json()["queue_running"]

    def test_a_server_that_is_gone(self, describe):
        worker = ServerWorker(NOWHERE, PATIENCE)
        outcome = worker.run(self.order(describe), threading.Event())
        assert isinstance(outcome, Lost)
        assert f"no connection to ComfyUI at {NOWHERE}" in outcome.reason

    def test_what_it_made(self, describe, worker):
        made = worker.run(self.order(describe, methods={"ours": AGGREGATED}), threading.Event())
        assert isinstance(made, Made)
        assert len(made.masks) == 2
        assert made.comfyui.count(".") == 2
        assert made.seconds > 0

"""What a user of the command is told on real servers, and how a run on one ends."""

import json
import sys
import threading

import pytest
import requests

from tests.tools.evaluate.__main__ import main
from tests.tools.evaluate.description import Overrides, read_description
from tests.tools.evaluate.jobs import all_jobs
from tests.tools.evaluate.workers import Failed, Lost, Made, ServerWorker, Stopped
from tests.tools.workflows.graphs import API

from .conftest import AGGREGATED, BASELINE
from .running import NOWHERE, PATIENCE, evaluate, runs_of, wait_until_running


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

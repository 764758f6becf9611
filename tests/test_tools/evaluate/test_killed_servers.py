"""The command when servers are killed or it is stopped: nothing is lost, and the rest can be made later."""

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import requests

from tests.tools.comfyui.server import ComfyServer
from tests.tools.evaluate.description import Overrides, read_description
from tests.tools.evaluate.fleet import Ended, Fleet, Gone
from tests.tools.evaluate.jobs import all_jobs
from tests.tools.evaluate.networks import load_networks
from tests.tools.evaluate.report import write_report
from tests.tools.evaluate.store import Store
from tests.tools.evaluate.workers import ServerWorker
from tests.tools.workflows.graphs import ROOT

from .conftest import close_gate, new_server
from .running import PATIENCE, command, evaluate, pixels, runs_of, table, wait_until_running

HELD = "elephant on city"  # the prompt of the second case


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

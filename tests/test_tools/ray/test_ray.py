"""Ray drives servers on other machines; here all of them are on this one. Run by `make test-ray`, which sets Ray up."""

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import ray
import yaml
from PIL import Image

from tests.test_tools.evaluate.conftest import AGGREGATED, BASELINE, toy_description
from tests.tools.comfyui.errors import HostError
from tests.tools.comfyui.server import ComfyServer
from tests.tools.evaluate.description import Overrides, read_description
from tests.tools.evaluate.fleet import Ended, Fleet, Gone
from tests.tools.evaluate.jobs import all_jobs
from tests.tools.evaluate.ray_workers import ray_workers
from tests.tools.evaluate.store import Store
from tests.tools.evaluate.workers import Failed, Made, ServerWorker, Stopped

PATIENCE = 300.0
NOWHERE = "http://127.0.0.1:9"
LONG = {**BASELINE, "set": {"Sampler.steps": 5000}}


def describe(folder: Path, methods: dict):
    file = folder / "description.yaml"
    file.write_text(yaml.safe_dump(toy_description(methods=methods)))
    return read_description(str(file), Overrides())


@pytest.fixture(scope="module")
def cluster():
    """Two workers on Ray, each with a server that it starts."""
    workers = ray_workers(None, [None, None], "--cpu", PATIENCE)
    yield workers
    for worker in workers:
        worker.close()
    ray.shutdown()


@pytest.fixture(scope="module")
def one():
    """A server that has nothing to do with Ray."""
    with ComfyServer() as running:
        yield running


def made_by(workers, evaluation, out: Path):
    store, jobs, events = Store(out, evaluation), all_jobs(evaluation), []
    store.prepare(resume=False, restart=False)
    for event in Fleet(workers).run(jobs):
        events.append(event)
        if isinstance(event, Ended):
            store.save(event.job, event.outcome)
    pictures = {str(f.relative_to(out)): np.asarray(Image.open(f)) for f in sorted((out / "runs").rglob("*.png"))}
    return events, pictures


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def wait_until_dead(pid: int) -> None:
    end = time.monotonic() + PATIENCE
    while alive(pid):
        assert time.monotonic() < end, f"process {pid} lives on"
        time.sleep(0.1)


def test_outcomes_come_back_in_words(tmp_path, cluster):
    fails = {**AGGREGATED, "set": {"Sampler.steps": 4, "Sampler.manipulate_at": "99"}}
    order = all_jobs(describe(tmp_path, {"fails": fails}))[0].order()
    outcome = cluster[0].run(order, threading.Event())
    assert isinstance(outcome, Failed)
    assert "step 99 does not exist" in outcome.reason
    assert "KSampler" in cluster[0].object_info()


def test_a_killed_worker_loses_no_picture(cluster, one, tmp_path):
    """Its actor dies in the middle of a job; the other one makes the rest, and every picture is as by one server."""
    evaluation = describe(tmp_path, {"baseline": BASELINE, "aggregated attention": AGGREGATED})
    actor, server = cluster[1].pids()
    begun = threading.Event()

    class Dying:
        name = cluster[1].name

        def run(self, order, stop):
            begun.set()
            os.kill(actor, signal.SIGKILL)
            return cluster[1].run(order, stop)

    class Living:
        name = cluster[0].name

        def run(self, order, stop):
            assert begun.wait(PATIENCE)
            return cluster[0].run(order, stop)

    events, pictures = made_by([Living(), Dying()], evaluation, tmp_path / "ray")
    assert [event.name for event in events if isinstance(event, Gone)] == [cluster[1].name]
    keys = [event.job.key for event in events if isinstance(event, Ended)]
    assert sorted(keys) == sorted(job.key for job in all_jobs(evaluation))
    wait_until_dead(server)  # a server does not outlive its actor
    _, expected = made_by([ServerWorker(one, PATIENCE)], evaluation, tmp_path / "one")
    assert list(pictures) == list(expected)
    assert all(np.array_equal(pictures[name], expected[name]) for name in expected)


def test_stopping_ends_the_run_and_its_server(tmp_path, cluster):
    order = all_jobs(describe(tmp_path, {"slow": LONG}))[0].order()
    actor, server = cluster[0].pids()
    stop = threading.Event()
    threading.Timer(1.0, stop.set).start()
    with pytest.raises(Stopped):
        cluster[0].run(order, stop)
    wait_until_dead(actor)
    wait_until_dead(server)


def test_servers_that_run_already(tmp_path, one):
    (worker,) = ray_workers(None, [one.url], "--cpu", PATIENCE)
    job = all_jobs(describe(tmp_path, {"aggregated attention": AGGREGATED}))[0]
    made = worker.run(job.order(), threading.Event())
    worker.close()
    assert isinstance(made, Made)
    assert made.server == one.url
    assert len(made.masks) == 2
    assert one.pid is not None


def test_a_server_that_is_not_there():
    (worker,) = ray_workers(None, [NOWHERE], "--cpu", PATIENCE)
    with pytest.raises(HostError, match=f"no connection to ComfyUI at {NOWHERE}"):
        worker.object_info()
    worker.close()

"""The folder of results: what counts as finished, and what every picture says about itself."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from tests.tools.evaluate.description import Overrides, read_description
from tests.tools.evaluate.jobs import all_jobs
from tests.tools.evaluate.store import Store, unfinished
from tests.tools.evaluate.workers import Made

from .conftest import AGGREGATED


def png(seed: int, mode: str = "RGB", ending: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, format=ending)
    return buffer.getvalue()


MADE = Made(png(1), (png(2), png(3)), 1.25, "http://one", "0.30.0")


@pytest.fixture
def store_and_jobs(describe, tmp_path):
    evaluation = read_description(str(describe(methods={"aggregated attention": AGGREGATED})), Overrides())
    store = Store(tmp_path / "out", evaluation)
    store.prepare(resume=False, restart=False)
    return store, all_jobs(evaluation)


def test_what_is_saved_is_finished_and_the_same(store_and_jobs):
    store, jobs = store_and_jobs
    assert unfinished(store, jobs) == jobs
    assert store.save(jobs[0], MADE) == store.record(jobs[0])
    assert unfinished(store, jobs) == jobs[1:]
    record = store.record(jobs[0])
    assert np.array_equal(np.asarray(store.result(record)), np.asarray(Image.open(io.BytesIO(MADE.result))))
    assert [mask.shape for mask in store.masks(record)] == [(16, 24)] * 2
    assert (record.seconds, record.server, record.comfyui) == (1.25, "http://one", "0.30.0")


def test_pictures_carry_workflow_and_settings(store_and_jobs):
    store, jobs = store_and_jobs
    for job, made in ((jobs[0], MADE), (jobs[1], Made(png(1, ending="WEBP"), (), 1.0, "http://one", "0.30.0"))):
        for name in store.save(job, made).files:
            with Image.open(store.out / "runs" / name) as picture:
                told = picture.text
            assert picture.format == "PNG"
            assert json.loads(told["prompt"]) == job.graph
            settings = json.loads(told["evaluation"])
            assert settings["method"] == "aggregated attention"
            assert settings["prompt"] == job.case.prompt
            assert (settings["seed"], settings["checkpoint"]) == (5, "toy.safetensors")
            assert (settings["key"], settings["comfyui"]) == (job.key, "0.30.0")


@pytest.mark.parametrize("ending", [".png", ".mask-1.png", ".json"])
@pytest.mark.parametrize("damage", ["remove", "cut"])
def test_damaged_files_are_not_finished(store_and_jobs, ending, damage):
    store, jobs = store_and_jobs
    store.save(jobs[0], MADE)
    path = store.path(jobs[0])
    file = path.with_name(path.stem + ending)
    data = file.read_bytes()
    file.unlink()
    if damage == "cut":
        file.write_bytes(data[:-20])
    assert unfinished(store, jobs) == jobs


def test_another_setting_is_another_job(store_and_jobs, describe):
    store, jobs = store_and_jobs
    store.save(jobs[0], MADE)
    methods = {"aggregated attention": {**AGGREGATED, "set": {"Sampler.cfg": 3.0}}}
    changed = all_jobs(read_description(str(describe(methods=methods)), Overrides()))
    assert changed[0].path == jobs[0].path
    assert unfinished(store, changed) == changed


def test_results_are_neither_mixed_nor_deleted_unasked(store_and_jobs):
    store, jobs = store_and_jobs
    store.save(jobs[0], MADE)
    with pytest.raises(ValueError, match=r"holds results already: go on with them \(--resume\), make all anew"):
        store.prepare(resume=False, restart=False)
    store.prepare(resume=True, restart=False)
    assert unfinished(store, jobs) == jobs[1:]
    store.prepare(resume=False, restart=True)
    assert unfinished(store, jobs) == jobs

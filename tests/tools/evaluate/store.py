"""The folder of an evaluation: pictures with their settings inside, and a record of each finished job.

A job is finished when its record is there, has the job's key and fits its files; records are written last and whole.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..comfyui.command import whole_file
from .description import Evaluation
from .jobs import Job
from .workers import Made

RUNS = "runs"


@dataclass(frozen=True)
class Record:
    """A finished job; `files` are its result and masks, relative to the folder of runs, with their sha256."""

    key: str
    files: dict[str, str]
    seconds: float
    server: str
    comfyui: str


class Store:
    """Reads and writes the folder `out`."""

    def __init__(self, out: Path, evaluation: Evaluation) -> None:
        self.out, self._evaluation = out, evaluation
        self._runs = out / RUNS

    def prepare(self, resume: bool, restart: bool) -> None:
        """Make the folder; ValueError when it holds results and nobody said what to do with them."""
        if restart and self._runs.exists():
            shutil.rmtree(self._runs)
        if not resume and any(self._runs.rglob("*.json")):
            raise ValueError(
                f"{self.out} holds results already: go on with them (--resume), make all anew (--restart), or choose "
                "another folder (--out)"
            )
        self._runs.mkdir(parents=True, exist_ok=True)

    def record(self, job: Job) -> Record | None:
        """The record of a job; None when it is not finished, or its files are not those that were written."""
        try:
            record = Record(**json.loads(self._file(job, ".json").read_text(encoding="utf-8")))
            whole = all(_sha256((self._runs / name).read_bytes()) == digest for name, digest in record.files.items())
        except (OSError, ValueError, TypeError):
            return None
        return record if whole and record.key == job.key else None

    def save(self, job: Job, made: Made) -> Record:
        """Write the files of a job, each with workflow and settings in its metadata, and then its record."""
        files = {}
        for data, ending in [(made.result, ".png"), *((m, f".mask-{i}.png") for i, m in enumerate(made.masks))]:
            file = self._file(job, ending)
            png = self._described(data, job, made)
            with whole_file(file) as part:
                part.write_bytes(png)
            files[str(file.relative_to(self._runs))] = _sha256(png)
        record = Record(job.key, files, made.seconds, made.server, made.comfyui)
        with whole_file(self._file(job, ".json")) as part:
            part.write_text(json.dumps(asdict(record), indent=1), encoding="utf-8")
        return record

    def result(self, record: Record) -> Image.Image:
        """The result of a finished job."""
        return _read(self._runs / next(iter(record.files))).convert("RGB")

    def masks(self, record: Record) -> list[np.ndarray]:
        """The masks of a finished job, bool [H,W] each."""
        pictures = [_read(self._runs / name) for name in list(record.files)[1:]]
        return [np.asarray(picture.convert("L")) > 127 for picture in pictures]

    def path(self, job: Job) -> Path:
        """The file with the result of a job."""
        return self._file(job, ".png")

    def _file(self, job: Job, ending: str) -> Path:
        return self._runs / job.path.with_name(job.path.name + ending)

    def _described(self, data: bytes, job: Job, made: Made) -> bytes:
        """A picture as PNG with the graph, as ComfyUI writes and reads it, and the settings of the evaluation."""
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()
        info = PngInfo()
        kept = {name: text for name, text in getattr(picture, "text", {}).items() if name != "evaluation"}
        for name, text in {"prompt": json.dumps(job.graph), **kept, "evaluation": self._settings(job, made)}.items():
            info.add_text(name, text)
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG", pnginfo=info)
        return buffer.getvalue()

    def _settings(self, job: Job, made: Made) -> str:
        case = job.case
        settings = {
            "evaluation": self._evaluation.name,
            "method": job.method.name,
            "category": case.category,
            "scene": case.scene,
            "subject": case.subject,
            "picture": case.source.name,
            "picture_sha256": self._evaluation.digests[case.source],
            "prompt": case.prompt,
            "seed": job.seed,
            "checkpoint": self._evaluation.checkpoint,
            "comfyui": made.comfyui,
            "server": made.server,
            "seconds": made.seconds,
            "key": job.key,
        }
        return json.dumps(settings)


def unfinished(store: Store, jobs: Sequence[Job]) -> list[Job]:
    """The jobs that have to be run."""
    return [job for job in jobs if store.record(job) is None]


def _read(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        picture.load()
    return picture


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

"""Writes what an evaluation found: table.md, results.csv, results.json and contact_sheet.png."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from ..comfyui.command import whole_file
from ..contact_sheet import contact_sheet
from .description import Evaluation
from .jobs import Job
from .measures import Measured, Outcome, measure_all
from .networks import Networks
from .store import RUNS, Record, Store
from .tables import (
    OF_PICTURES,
    OF_SETS,
    Summary,
    comparable,
    csv_text,
    json_values,
    markdown,
    overview,
    plain,
    summaries,
)

SHEET_ROWS = 21


def write_report(store: Store, evaluation: Evaluation, jobs: Sequence[Job], networks: Networks) -> str:
    """Measure every finished job, write the files and return the table of all pictures with what it is about."""
    records = {job.key: record for job in jobs if (record := store.record(job)) is not None}
    finished = [job for job in jobs if job.key in records]

    def load(job: Job) -> Outcome:
        record = records[job.key]
        return Outcome(store.result(record), store.masks(record), record.seconds)

    measured = measure_all(tqdm(finished, desc="measuring", unit="picture", leave=False), load, networks)
    methods = [method.name for method in evaluation.methods]
    compared = comparable(measured, methods)
    found = summaries(compared, methods)
    about = _about(evaluation, networks, len(jobs), len(finished), len(compared))
    text = f"{about}\n\n{overview(found, methods)}" if compared else about
    legend = _legend(found)
    _write(store.out / "table.md", f"# {about}\n\n{markdown(found, methods)}\n\n{legend}\n" if compared else about)
    _write(store.out / "results.csv", csv_text(measured, {k: _file(r) for k, r in records.items()}))
    _write(
        store.out / "results.json", _json(evaluation, networks, len(jobs) == len(finished), found, measured, records)
    )
    _write_sheet(store, methods, compared, records)
    return text


def _about(evaluation: Evaluation, networks: Networks, jobs: int, finished: int, compared: int) -> str:
    rounds = f"{len(evaluation.seeds)} seed{'s' if len(evaluation.seeds) > 1 else ''}"
    lines = [
        f"{evaluation.name}: {len(evaluation.cases)} cases × {rounds} × {len(evaluation.methods)} methods",
        f"Checkpoint {evaluation.checkpoint}. {networks.about}",
    ]
    if finished < jobs:
        lines.append(
            f"**Not complete**: {finished} of {jobs} pictures are finished; compared are the {compared} whose case "
            "and seed every method has finished."
        )
    return "\n\n".join(lines)


def _legend(found: Sequence[Summary]) -> str:
    present = {name for summary in found for name in summary.values}
    lines = [f"- {m.title}: {m.about}." for m in (*OF_SETS, *OF_PICTURES) if m.name in present]
    return "\n".join(["## What the numbers are", "", *lines])


def _json(
    evaluation: Evaluation,
    networks: Networks,
    complete: bool,
    found: Sequence[Summary],
    measured: Sequence[Measured],
    records: dict[str, Record],
) -> str:
    pictures = [
        {
            "method": m.job.method.name,
            **{name: getattr(m.job.case, name) for name in ("category", "scene", "subject", "prompt", "keep")},
            "picture": m.job.case.source.name,
            "seed": m.job.seed,
            "files": list(records[m.job.key].files),
            "server": records[m.job.key].server,
            "comfyui": records[m.job.key].comfyui,
            "values": {name: plain(value) for name, value in m.values.items()},
        }
        for m in measured
    ]
    content = {
        "name": evaluation.name,
        "complete": complete,
        "checkpoint": evaluation.checkpoint,
        "seeds": evaluation.seeds,
        "networks": networks.about,
        "methods": {method.name: method.workflow.graph for method in evaluation.methods},
        "groups": json_values(found),
        "pictures": pictures,
    }
    return json.dumps(content, indent=1, allow_nan=False)


def _write_sheet(
    store: Store, methods: Sequence[str], compared: Sequence[Measured], records: dict[str, Record]
) -> None:
    """References, results and last masks of up to `SHEET_ROWS` cases, spread over all of them."""
    rows: dict[tuple[str, int], dict[str, Measured]] = {}
    for m in compared:
        rows.setdefault((m.job.case.name, m.job.seed), {})[m.job.method.name] = m
    step = -(-len(rows) // SHEET_ROWS) or 1
    chosen = list(rows.values())[::step]
    if not chosen:
        return
    masking = {name for name in methods if store.masks(records[chosen[0][name].job.key])}
    lines = []
    for row in chosen:
        job = next(iter(row.values())).job
        pictures = [Image.fromarray(job.case.source.load().image)]
        for name in methods:
            record = records[row[name].job.key]
            pictures.append(store.result(record))
            masks = store.masks(record)
            if name in masking:
                pictures.append(Image.fromarray(masks[-1]) if masks else Image.new("L", pictures[0].size))
        lines.append((f"{job.case.prompt} ({job.case.category}, {job.case.source.name}, seed {job.seed})", pictures))
    headings = ["reference"]
    for name in methods:
        headings += [name, "its last mask"] if name in masking else [name]
    with whole_file(store.out / "contact_sheet.png") as part:
        contact_sheet(headings, lines).save(part)


def _file(record: Record) -> str:
    return f"{RUNS}/{next(iter(record.files))}"


def _write(path: Path, text: str) -> None:
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")

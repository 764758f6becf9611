"""Compare the pipelines on the toy world: `python -m tests.benchmarks.pipelines` (`make bench-pipelines`).

Two tasks of 42 cases each. Keep the context: a reference picture `A on S`, the prompt `B on S`; how much of the
surroundings is kept, and whether the judge sees B. Keep the subject: a reference `A on S`, the prompt `A on T`; how
much of A is kept, and whether the judge sees T. A method is good when it keeps more than plain image-to-image that
follows the prompt as often: its point has to lie above the curve that the baseline draws over its strengths.

With --toy transformer the first task alone, on the toy of the Qwen-Image class, beside that model's own curve.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..tools.comfyui.client import ComfyClient
from ..tools.comfyui.command import run_main
from ..tools.comfyui.paths import TOY_TRANSFORMER
from ..tools.toy_world.cases import Case, keep_the_context, keep_the_subject
from ..tools.toy_world.judge import load_judge
from ..tools.workflows.graphs import Workflow
from ..tools.workflows.pipelines import Measured, measure, on_servers, run_case, sampler_settings


@dataclass(frozen=True)
class Method:
    """A shipped workflow, with other inputs where it is not run as published: title -> inputs."""

    name: str
    workflow: str
    strengths: tuple[float, ...] = (0.7, 0.8, 0.9)
    inputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, hash=False)

    def graph(self) -> Workflow:
        """The workflow with these inputs."""
        workflow = Workflow.shipped(self.workflow)
        for title, inputs in self.inputs.items():
            workflow = workflow.fill(title, **inputs)
        return workflow


@dataclass(frozen=True)
class Task:
    """What is kept, how well (names of `Measured`), what the prompt asks for, and the methods that are made for it."""

    name: str
    cases: Callable[[], list[Case]]
    kept: str
    followed: str
    methods: tuple[Method, ...]


BASELINE = Method("baseline", "01_baseline", (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0))
# What the published scene-based settings lack: replaced at steps 2 and 4 only, the subject is drawn over again later.
LATER = {
    "Where the scene is": {"rule": "mean"},
    "Keep the subject": {"manipulate_at": "5, 18, 28", "outside": "reference"},
}
# Masks refined by self-attention, in the place of the published ones.
REFINED = {"refine": 1, "rule": "otsu"}
UNFILTERED = {"smooth_sigma": 0.0, "dilate_iterations": 0}
TASKS = (
    Task(
        "keep the context",
        keep_the_context,
        "context",
        "subject",
        (
            Method("aggregated attention", "02_aggregated_attention"),
            Method(
                "aggregated attention, refined", "02_aggregated_attention", inputs={"Where the subject is": REFINED}
            ),
            Method("Abs-Grad-SAM", "04_abs_grad_sam"),
            Method(
                "Abs-Grad-SAM, refined, not dilated",
                "04_abs_grad_sam",
                inputs={"What the subject depends on": REFINED | UNFILTERED},
            ),
        ),
    ),
    Task(
        "keep the subject",
        keep_the_subject,
        "subject",
        "scene",
        (
            Method("scene-based", "03_scene_based"),
            Method("scene-based, mean, reference at 5, 18, 28", "03_scene_based", inputs=LATER),
            Method(
                "scene-based, refined, reference at 5, 18, 28",
                "03_scene_based",
                inputs=LATER | {"Where the scene is": REFINED},
            ),
        ),
    ),
)


@dataclass(frozen=True)
class Toy:
    """A toy checkpoint, the tasks that are measured on it, and inputs of its sampler where they are not as published.

    checkpoint: None for the first one.
    """

    tasks: tuple[Task, ...]
    checkpoint: Path | None = None
    sampler: Mapping[str, float | str] = field(default_factory=dict, hash=False)


TRANSFORMER_TASK = Task(
    "keep the context",
    keep_the_context,
    "context",
    "subject",
    (
        Method("aggregated attention, all layers", "02_aggregated_attention"),
        Method(
            "aggregated attention, usual layers, refined",
            "02_aggregated_attention",
            inputs={"Where the subject is": REFINED | {"layers": "auto"}},
        ),
    ),
)
TOYS = {
    "unet": Toy(TASKS),
    # A flow model: no ancestral noise of its own, and the guidance at which its model card measures it.
    "transformer": Toy(
        (TRANSFORMER_TASK,), TOY_TRANSFORMER, {"sampler_name": "euler", "scheduler": "simple", "cfg": 3.0}
    ),
}

Results = dict[tuple[str, str, float], list[Measured]]  # task, method, strength


def median(results: list[Measured], name: str) -> float:
    """The median of one number of `Measured`."""
    return statistics.median(getattr(m, name) for m in results)


def share(results: list[Measured], name: str) -> float:
    """How often one truth value of `Measured` holds."""
    return statistics.mean(getattr(m, name) for m in results)


def table(task: Task, found: Results) -> str:
    """The task's results as a Markdown table."""
    lines = [
        f"| {task.name} | strength | {task.kept} PSNR | {task.kept} SSIM | prompted subject | prompted scene | lead |",
        "|---|---|---|---|---|---|---|",
    ]
    for (_, method, strength), results in (item for item in found.items() if item[0][0] == task.name):
        psnr, ssim = (median(results, f"{task.kept}_{kind}") for kind in ("psnr", "ssim"))
        subject, scene = share(results, "subject"), share(results, "scene")
        lead = "" if method == BASELINE.name else f"{lead_over_baseline(task, found, method, strength):+.1f} dB"
        lines.append(f"| {method} | {strength} | {psnr:.1f} dB | {ssim:.2f} | {subject:.0%} | {scene:.0%} | {lead} |")
    return "\n".join(lines)


def lead_over_baseline(task: Task, found: Results, method: str, strength: float) -> float:
    """How many dB more a method keeps than the best baseline, on its curve, that follows the prompt as often.

    The curve joins the baseline's points by straight lines; a baseline that follows the prompt more often is also one
    that follows it as often. Where none does, it is compared with the one that follows it most often, so that the lead
    over one that did would be larger still.
    """
    followed = share(found[task.name, method, strength], task.followed)
    points = [
        (share(results, task.followed), median(results, f"{task.kept}_psnr"))
        for (name, other, _), results in found.items()
        if (name, other) == (task.name, BASELINE.name)
    ]
    reached = [psnr for share_, psnr in points if share_ >= followed]
    for (share0, psnr0), (share1, psnr1) in pairwise(points):
        if min(share0, share1) < followed < max(share0, share1):
            reached.append(float(np.interp(followed, *zip(*sorted([(share0, psnr0), (share1, psnr1)]), strict=True))))
    most = max(points)[1]
    return median(found[task.name, method, strength], f"{task.kept}_psnr") - max(reached, default=most)


def jobs_of(tasks: Sequence[Task], count: int) -> list[tuple[Task, Method, float, Case]]:
    """Every task, case, method and strength."""
    return [
        (task, method, strength, case)
        for task in tasks
        for case in task.cases()[:count]
        for method in (BASELINE, *task.methods)
        for strength in method.strengths
    ]


def main() -> int:
    """Run all cases and print the tables; 1 when a task has no method that is ahead at every strength."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", choices=TOYS, default="unet", help="which toy checkpoint")
    parser.add_argument("--cases", type=int, default=42, help="only the first so many cases of each task")
    parser.add_argument("--servers", type=int, default=os.cpu_count(), help="ComfyUI servers at once")
    parser.add_argument("--out", type=Path, help="write every single measurement to this JSON file")
    args = parser.parse_args()
    toy = TOYS[args.toy]
    judge, jobs = load_judge(), jobs_of(toy.tasks, args.cases)

    def work(client: ComfyClient, job: tuple[Task, Method, float, Case]) -> Measured:
        _, method, strength, case = job
        workflow = method.graph()
        result = run_case(client, workflow, case, toy.checkpoint, **sampler_settings(strength), **toy.sampler)
        return measure(judge, case, result.images(workflow.node("Result"))[0])

    found: Results = defaultdict(list)
    records = []
    for job, measured in zip(jobs, tqdm(on_servers(args.servers, work, jobs), total=len(jobs)), strict=True):
        task, method, strength, case = job
        found[task.name, method.name, strength].append(measured)
        point = {"task": task.name, "method": method.name, "strength": strength, "case": case.name, "seed": case.seed}
        records.append(point | vars(measured))
    if args.out:
        args.out.write_text(json.dumps(records, indent=1))
    print("\nMedians over the cases; lead: more kept than by the best baseline that follows the prompt as often.")
    for task in toy.tasks:
        print(f"\n{table(task, found)}")
    return verdict(toy.tasks, found)


def verdict(tasks: Sequence[Task], found: Results) -> int:
    """Print which points are not above the baseline's curve; 0 when every task has a method that always is."""
    without = []
    for task in tasks:
        behind = {
            method.name: [s for s in method.strengths if lead_over_baseline(task, found, method.name, s) <= 0]
            for method in task.methods
        }
        for name, strengths in behind.items():
            if strengths:
                print(f"\nNOT above the baseline's curve, {task.name}: {name} at {', '.join(map(str, strengths))}")
        if all(behind.values()):
            without.append(task.name)
    return int(bool(without))


if __name__ == "__main__":
    run_main(main)

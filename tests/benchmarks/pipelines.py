"""Compare the pipelines on the toy world: `python -m tests.benchmarks.pipelines` (`make bench-pipelines`).

42 cases: a reference picture `A on S`, the prompt `B on S`. Printed per method and strength: the median PSNR
against the reference outside both subjects (how much of the surroundings is kept), and how often the judge sees the
prompted subject and scene.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections import defaultdict
from pathlib import Path

from tqdm import tqdm

from ..comfyui.client import ComfyClient
from ..comfyui.command import run_main
from ..toy_world.cases import Case, keep_the_context
from ..toy_world.judge import load_judge
from ..workflows.graphs import Workflow
from ..workflows.pipelines import Measured, measure, on_servers, run_case, sampler_settings

BASELINE = "baseline", "01_baseline"
AGGREGATED = "aggregated attention", "02_aggregated_attention"
STRENGTHS = {BASELINE: (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0), AGGREGATED: (0.7, 0.8, 0.9)}
NEEDED_DB = 2.0


def row(method: str, strength: float, results: list[Measured]) -> str:
    """One line of the table."""
    psnr = [m.psnr for m in results]
    subject, scene = (statistics.mean(getattr(m, name) for m in results) for name in ("subject", "scene"))
    low, middle, high = statistics.quantiles(psnr, n=4)
    return f"| {method} | {strength} | {middle:.1f} | {low:.1f} – {high:.1f} | {subject:.0%} | {scene:.0%} |"


def main() -> int:
    """Run all cases and print the table; 1 when aggregated attention is not ahead as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=42, help="only the first so many cases")
    parser.add_argument("--servers", type=int, default=os.cpu_count(), help="ComfyUI servers at once")
    parser.add_argument("--out", type=Path, help="write every single measurement to this JSON file")
    args = parser.parse_args()
    judge, cases = load_judge(), keep_the_context()[: args.cases]
    workflows = {method: Workflow.shipped(method[1]) for method in STRENGTHS}
    jobs = [(method, s, case) for case in cases for method, strengths in STRENGTHS.items() for s in strengths]

    def work(client: ComfyClient, job: tuple) -> Measured:
        method, strength, case = job
        result = run_case(client, workflows[method], case, **sampler_settings(strength))
        return measure(judge, case, result.images(workflows[method].node("Result"))[0])

    found: dict[tuple, list[Measured]] = defaultdict(list)
    records = []
    for job, measured in zip(jobs, tqdm(on_servers(args.servers, work, jobs), total=len(jobs)), strict=True):
        method, strength, case = job
        found[method, strength].append(measured)
        records.append(_record(method[0], strength, case, measured))
    print(f"\n{len(cases)} cases; PSNR outside both subjects: median and quartiles over the cases, in dB\n")
    print("| method | strength | PSNR | quartiles | prompted subject | prompted scene |\n|---|---|---|---|---|---|")
    for (method, strength), results in sorted(found.items()):
        print(row(method[0], strength, results))
    if args.out:
        args.out.write_text(json.dumps(records, indent=1))
    return _verdict(found)


def _record(method: str, strength: float, case: Case, measured: Measured) -> dict:
    return {"method": method, "strength": strength, "case": case.name, "seed": case.seed, **vars(measured)}


def _verdict(found: dict[tuple, list[Measured]]) -> int:
    """Print the lead of aggregated attention at equal strength; 0 when it is as large as it should be everywhere."""
    worst = 0
    for strength in STRENGTHS[AGGREGATED]:
        ours, base = found[AGGREGATED, strength], found[BASELINE, strength]
        lead = statistics.median(m.psnr for m in ours) - statistics.median(m.psnr for m in base)
        lost = sum(m.subject for m in base) - sum(m.subject for m in ours)
        passed = lead >= NEEDED_DB and lost <= 0
        judgement = "as expected" if passed else "TOO LITTLE"
        print(f"strength {strength}: {lead:+.1f} dB, {lost} prompted subjects lost: {judgement}")
        worst |= not passed
    return int(worst)


if __name__ == "__main__":
    run_main(main)

"""Make the pictures of the pack's main job on a real ComfyUI server: `make demo`.

For a handful of references and prompts: the baseline, the aggregated-attention result, what each subject word attends
to and the mask of each manipulated step, on one contact sheet, with a small table of measured numbers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from .comfyui.client import ComfyClient
from .comfyui.command import run_main, whole_file
from .comfyui.paths import ROOT, toy_checkpoint
from .comfyui.server import ComfyServer
from .contact_sheet import contact_sheet
from .toy_world.cases import HELD_OUT, Case
from .toy_world.judge import Judge, load_judge
from .toy_world.pictures import Kind
from .workflows.graphs import Workflow
from .workflows.pipelines import Measured, measure, run_case

CASES = (
    Case(Kind("cat", "beach", "white"), HELD_OUT + 101, "dog", "beach", 51828),
    Case(Kind("bus", "city", "red"), HELD_OUT + 102, "elephant", "city", 51829),
    Case(Kind("dog", "highway", "brown"), HELD_OUT + 103, "car", "highway", 51830),
    Case(Kind("car", "desert", "blue"), HELD_OUT + 104, "horse", "desert", 51831),
    Case(Kind("elephant", "cloud", "gray"), HELD_OUT + 105, "airplane", "cloud", 51832),
)
BASELINE, AGGREGATED = (Workflow.shipped(name) for name in ("01_baseline", "02_aggregated_attention"))
STEPS = (5, 18, 28)
COLUMNS = ("reference", "baseline", "aggregated attention", "heat map, step 28", *(f"mask, step {s}" for s in STEPS))


def run(client: ComfyClient, judge: Judge, case: Case) -> tuple[list[Image.Image], tuple[Measured, Measured]]:
    """Run both pipelines on a case: the pictures of its row, and what baseline and aggregated attention measure."""
    plain = run_case(client, BASELINE, case).images(BASELINE.node("Result"))[0]
    made = run_case(client, AGGREGATED, case)
    ours = made.images(AGGREGATED.node("Result"))[0]
    heat = made.images(AGGREGATED.node("What the words attend to"))[-1]
    masks = made.images(AGGREGATED.node("Masks"))
    pictures = [Image.fromarray(case.picture().image), plain, ours, heat, *masks]
    return pictures, (measure(judge, case, plain), measure(judge, case, ours))


def table(measured: list[tuple[Measured, Measured]]) -> str:
    """The measurements as a Markdown table."""
    lines = ["| case | baseline | aggregated attention | lead | prompted subject seen |", "|---|---|---|---|---|"]
    for case, (plain, ours) in zip(CASES, measured, strict=True):
        seen = f"{_yes(plain.subject)} / {_yes(ours.subject)}"
        base, kept = plain.context_psnr, ours.context_psnr
        lines.append(f"| {case.name} | {base:.1f} dB | {kept:.1f} dB | {kept - base:+.1f} dB | {seen} |")
    return "\n".join(lines)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def main() -> None:
    """Make the contact sheet and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "output" / "demo", help="folder for the contact sheet")
    parser.add_argument("--port", type=int, help="port of the server (default: a free one)")
    args = parser.parse_args()
    sheet = args.out / "contact_sheet.png"
    toy_checkpoint()
    args.out.mkdir(parents=True, exist_ok=True)
    sheet.unlink(missing_ok=True)  # what lies there afterwards is of this run
    judge, rows, measured = load_judge(), [], []
    with ComfyServer(port=args.port) as server, ComfyClient(server) as client:
        for case in tqdm(CASES, desc="cases"):
            pictures, numbers = run(client, judge, case)
            rows.append((f"{case.reference.subject} on {case.scene}, prompt: {case.prompt}", pictures))
            measured.append(numbers)
    with whole_file(sheet) as part:
        contact_sheet(COLUMNS, rows).save(part)
    print("\nPSNR against the reference outside both subjects (more: its surroundings are kept better):\n")
    print(table(measured))
    print(f"\ncontact sheet: {sheet}")


if __name__ == "__main__":
    run_main(main)

"""Measure the toy checkpoints in a real ComfyUI: `python -m tests.tools.toy_world.quality` (`make toy-quality`).

Prints the tables of the model cards: the judges on held-out pictures, the autoencoder, what the stock KSampler draws,
and the attention of subject words against the true masks on noised held-out pictures, for every checkpoint that is
there. Writes all generated pictures as grids.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from ..comfyui.command import run_main
from ..comfyui.inprocess import load_comfyui
from ..comfyui.pack import alias_pack
from ..comfyui.paths import ROOT, TOY_CHECKPOINT, TOY_TRANSFORMER, TOY_TWO
from ..contact_sheet import contact_sheet
from .cases import HELD_OUT
from .group_judge import load_group_judge
from .judge import held_out_quality, judge_images, load_judge
from .loaded import Toy
from .pictures import SCENE_NAMES, SUBJECT_NAMES, random_picture
from .quality_attention import LEVELS, Overlap, mean_overlap, overlaps, pair_pictures, single_pictures
from .quality_groups import (
    Answer,
    answers,
    by_colour,
    by_subject,
    judge_quality,
    outcomes,
    pair_prompts,
    single_prompts,
)
from .table import table

PARTS = ("judge", "autoencoder", "attention", "generation")
PICTURES = 200  # for every row of a table of attention


def autoencoder_psnr(toy: Toy, count: int = 200) -> float:
    """Mean PSNR in dB of encoding and decoding held-out pictures."""
    values = []
    for seed in range(HELD_OUT, HELD_OUT + count):
        image = torch.from_numpy(random_picture(seed).image.copy()).float()[None] / 255
        error = ((toy.vae.decode(toy.vae.encode(image)) - image) ** 2).mean().item()
        values.append(-10 * np.log10(error))
    return statistics.mean(values)


def generation_quality(
    toy: Toy, cfg: float, sampler: str, scheduler: str, grid: Path, seeds: int = 4
) -> dict[str, float]:
    """How often the judge sees the prompted subject and scene over 49 prompts; writes the pictures as a grid."""
    judge, rows, right = load_judge(), [], {"subject": [], "scene": []}
    for scene in tqdm(SCENE_NAMES):
        row = []
        for subject in SUBJECT_NAMES:
            start = 1000 * len(rows) + 100 * len(row)
            images = toy.generate(f"{subject} on {scene}", range(start, start + seeds), cfg, sampler, scheduler)
            named, placed, _ = judge_images(judge, images)
            right["subject"] += [n == subject for n in named]
            right["scene"] += [p == scene for p in placed]
            row.append(images)
        rows.append(torch.cat(row))
    tiles = torch.cat([torch.cat(list(row), 2) for row in rows], 1)
    grid.parent.mkdir(parents=True, exist_ok=True)
    _picture(tiles).save(grid)
    return {k: statistics.mean(v) for k, v in right.items()}


def first_world(toy: Toy, parts: set[str], out: Path, name: str, schedulers: Sequence[tuple[float, str, str]]) -> None:
    """Print a checkpoint's tables on the first world's pictures and prompts."""
    if "attention" in parts:
        found = overlaps(toy, single_pictures(PICTURES))
        print(f"\nIoU of the subject word's attention with its mask, {PICTURES} pictures of the first world\n")
        print(attention_table(found, {"IoU": lambda **wanted: mean_overlap(found, **wanted)}))
    if "generation" in parts:
        for cfg, sampler, scheduler in schedulers:
            quality = generation_quality(toy, cfg, sampler, scheduler, out / f"{name}_{sampler}_cfg{cfg:g}.png")
            print(f"cfg {cfg}, {sampler}: " + ", ".join(f"prompted {k} {v:.1%}" for k, v in quality.items()))


def attention_table(found: Sequence[Overlap], columns: dict[str, Callable[..., str]]) -> str:
    """A table: layers, then each of `columns` at every noise level."""
    headings = ["layers", *(f"{name}, t = {level}" for level in LEVELS for name in columns)]
    layers = dict.fromkeys(overlap.layer for overlap in found)
    rows = [[a, *(cell(layer=a, level=level) for level in LEVELS for cell in columns.values())] for a in layers]
    return table(headings, rows)


def measure_first(parts: set[str], out: Path, checkpoint: Path) -> None:
    """Print the tables of the first checkpoint."""
    toy = Toy(checkpoint)
    if "judge" in parts:
        print({k: f"{v:.1%}" for k, v in held_out_quality(load_judge()).items()})
    if "autoencoder" in parts:
        print(f"autoencoder: {autoencoder_psnr(toy):.1f} dB")
    first_world(toy, parts, out, "first", ((3.0, "euler", "normal"), (8.0, "ddpm", "ddim_uniform")))


def measure_two(parts: set[str], out: Path, checkpoint: Path) -> None:
    """Print the tables of the second world's checkpoint; the first world's under it come first."""
    toy, judge = Toy(checkpoint), load_group_judge(checkpoint.with_name("group_judge.safetensors"))
    first_world(toy, parts, out, "two", ((3.0, "euler", "normal"), (8.0, "ddpm", "ddim_uniform")))
    if "judge" in parts:
        print({k: f"{v:.1%}" for k, v in judge_quality(judge).items()})
    if "attention" in parts:
        found = overlaps(toy, pair_pictures(PICTURES))
        print(f"\nIoU of a word's attention with its own and the other subject's mask, {PICTURES} pictures of two\n")
        columns = {
            which: lambda which=which, **wanted: mean_overlap(found, which, **wanted) for which in ("own", "other")
        }
        print(attention_table(found, columns))
        print("\nThe same by subject, all layers\n")
        rows = [
            [s, *(mean_overlap(found, which, layer="all", level=t, word=s) for t in LEVELS for which in columns)]
            for s in SUBJECT_NAMES
        ]
        print(table(["subject", *(f"{which}, t = {t}" for t in LEVELS for which in columns)], rows))
    if "generation" in parts:
        answered = {
            "one subject": answers(toy, judge, single_prompts(coloured=False), 4, 2_000_000),
            "one, coloured": answers(toy, judge, single_prompts(coloured=True), 4, 2_010_000),
            "two subjects": answers(toy, judge, pair_prompts(coloured=False), 6, 2_020_000),
            "two, coloured": answers(toy, judge, pair_prompts(coloured=True), 6, 2_030_000),
        }
        print_answers(answered, out, "two")


def measure_transformer(parts: set[str], out: Path, checkpoint: Path) -> None:
    """Print the tables of the transformer."""
    toy = Toy(checkpoint)
    first_world(toy, parts, out, "transformer", ((3.0, "euler", "simple"),))


def print_answers(answered: dict[str, list[Answer]], out: Path, name: str) -> None:
    """Print what a checkpoint drew for each kind of prompts, and write the pictures, a row for every prompt."""
    for write in (outcomes, by_subject, by_colour):
        print(f"\n{write(answered)}")
    for kind, each in answered.items():
        rows = [(answer.prompt.text, [_picture(picture) for picture in answer.pictures]) for answer in each]
        file = out / f"{name}_{kind.replace(', ', '_').replace(' ', '_')}.png"
        contact_sheet([""] * len(each[0].pictures), rows, 128).save(file)


def _picture(tensor: torch.Tensor) -> Image.Image:
    return Image.fromarray((tensor.permute(1, 2, 0) * 255).byte().numpy())


MEASURES = {"first": measure_first, "two": measure_two, "transformer": measure_transformer}
FILES = {"first": TOY_CHECKPOINT.name, "two": TOY_TWO.name, "transformer": TOY_TRANSFORMER.name}


@torch.inference_mode()  # as the host runs its nodes: the pictures must not keep how they were made
def main() -> None:
    """Print every number."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "output" / "toy", help="folder for the grids")
    parser.add_argument("--folder", type=Path, default=TOY_CHECKPOINT.parent, help="folder of the checkpoints")
    parser.add_argument("--of", nargs="+", choices=MEASURES, help="checkpoints (default: all that are there)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts of the tables")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    load_comfyui()
    alias_pack()
    for name in args.of or [name for name, file in FILES.items() if (args.folder / file).is_file()]:
        print(f"\n== {name}")
        MEASURES[name](set(args.only), args.out, args.folder / FILES[name])


if __name__ == "__main__":
    run_main(main)

"""Measure what the model sees: `python -m tests.benchmarks.perception` (`make bench-perception`)."""

from __future__ import annotations

import argparse
import importlib
import json
from dataclasses import asdict
from pathlib import Path

import torch

from ...tools.comfyui.command import run_main
from ...tools.comfyui.inprocess import load_comfyui
from ...tools.comfyui.pack import alias_pack
from .methods import METHODS
from .tables import markdown


def main() -> None:
    """Run the methods and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, help="only the first so many of the 200 held-out pictures")
    parser.add_argument("--only", nargs="+", choices=METHODS, default=METHODS, metavar="METHOD", help="only these")
    parser.add_argument("--out", type=Path, help="write every number to this JSON file")
    args = parser.parse_args()
    load_comfyui()
    alias_pack()
    from .world import PICTURES, World

    count = PICTURES if args.pictures is None else args.pictures
    rows = []
    with torch.inference_mode():  # as the host runs its nodes
        world = World(count)
        for name in args.only:
            rows += importlib.import_module(f".methods.{name}", __package__).rows(world)
    if args.out:
        args.out.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    print(f"\n{count} held-out pictures, mean ± standard error\n\n{markdown(rows)}")


if __name__ == "__main__":
    run_main(main)

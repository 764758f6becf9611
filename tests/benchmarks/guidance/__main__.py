"""Measure guidance on prompts with two subjects: `python -m tests.benchmarks.guidance` (`make bench-guidance`).

Each picture is drawn plain and with each variant from the same noise. Of 84 prompts: how often both subjects are there,
a colour is right, a subject is in the half of the picture that is asked for, and how its box fits; what it costs in
likeness to the plain picture elsewhere and in time. In brackets is where 95 % of the differences from the plain run lie
when the prompts are drawn again, each with the pictures of all its seeds.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from tqdm import tqdm

from ...tools.comfyui.command import run_main, whole_file
from .asked import all_asked, batches
from .tables import kept, read, report
from .variants import ORDER, PLAIN, VARIANTS
from .worker import begin, visit


def main() -> None:
    """Draw what is missing, keep every batch's numbers, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=84, help="the first so many; 0 only prints the table of --out")
    parser.add_argument("--seeds", type=int, default=1, help="pictures of each prompt, from noises of their own")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="beside the plain run")
    parser.add_argument("--out", type=Path, help="a JSON file that keeps the numbers; a run goes on with it")
    parser.add_argument("--pictures", type=Path, help="a folder that keeps the pictures")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    parser.add_argument("--costs", type=int, metavar="TURNS", help="only time and memory of the variants, in turns")
    args = parser.parse_args()
    if args.costs:
        print(begin().costs(all_asked()[0], args.costs))
        return
    found = read(args.out.read_text()) if args.out and args.out.is_file() else {}
    missing = [
        (numbers, name)
        for group in ORDER
        for numbers in batches(all_asked(args.seeds), args.prompts)
        for name in group
        if name in (PLAIN, *args.variants) and not all(name in found.get(i, {}) for i in numbers)
    ]
    pool = ProcessPoolExecutor(args.jobs, get_context("spawn"))
    try:
        runs = {pool.submit(visit, *each): each[1] for each in missing}
        for done in tqdm(as_completed(runs), total=len(runs)):
            for i, (outcome, picture) in done.result().items():
                found.setdefault(i, {})[runs[done]] = outcome
                if args.pictures:
                    args.pictures.mkdir(parents=True, exist_ok=True)
                    picture.save(args.pictures / f"{i:03d} {runs[done]}.png")
            if args.out:
                with whole_file(args.out) as part:
                    part.write_text(kept(found))
    finally:
        pool.shutdown(cancel_futures=True)
    print(report(found))


if __name__ == "__main__":
    run_main(main)

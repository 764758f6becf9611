"""Run methods on a set of pictures in ComfyUI and compare what comes out: `make evaluate`.

Reads a description (pictures, masks, prompts, categories, scenes, methods, seeds, checkpoint), checks everything,
queues every picture on one or more ComfyUI servers and writes to the output folder: table.md, results.csv,
results.json, contact_sheet.png and runs/ with every picture, its masks and its settings.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from ..comfyui.command import INTERRUPTED, run_main
from ..comfyui.errors import HostError
from ..comfyui.pack import alias_pack
from ..comfyui.paths import ROOT
from ..comfyui.server import ComfyServer
from .description import READY, TOY, Evaluation, Overrides, read_description, slug
from .fleet import Ended, Failures, Fleet, Gone
from .jobs import Job, all_jobs
from .networks import load_networks
from .problems import Problems
from .store import Store, unfinished
from .workers import Failed, ServerWorker, Worker

DEFAULT = "toy_world"
MOST_SERVERS = 4  # that are started without being asked: each needs about 1 GB of memory


def main() -> int:
    """Check, run, measure, write; 1 when pictures are missing, 130 after Ctrl-C."""
    args = _arguments()
    alias_pack()
    evaluation = read_description(args.description, _overrides(args))
    from .report import write_report

    networks = load_networks(evaluation.features, evaluation.layer, evaluation.clip)
    store = Store(args.out or ROOT / "output" / "evaluate" / slug(evaluation.name), evaluation)
    jobs = all_jobs(evaluation)
    if not args.check:
        store.prepare(args.resume, args.restart)
    todo = jobs if args.check else unfinished(store, jobs)
    code = 0
    if todo:
        with contextlib.ExitStack() as stack:
            workers = _workers(args, stack)
            _check_servers(workers, evaluation)
            if not args.check:
                code = _run(Fleet(workers), jobs, todo, store)
    if args.check:
        print(f"{evaluation.name}: everything is there for {len(jobs)} pictures")
        return 0
    print(write_report(store, evaluation, jobs, networks))
    print(f"\neverything else: {store.out}")
    return code


def _run(fleet: Fleet, jobs: Sequence[Job], todo: Sequence[Job], store: Store) -> int:
    """Run the jobs, keep what is made as soon as it is, and say on stderr what went wrong."""
    failures, failed, made = Failures(), [], 0
    bar = tqdm(total=len(jobs), initial=len(jobs) - len(todo), unit="picture", desc="pictures")

    def keep(ended: Ended) -> None:
        nonlocal made
        if isinstance(ended.outcome, Failed):
            failed.append(ended)
            bar.write(f"failed: {ended.job.path}: {ended.outcome.reason}", file=sys.stderr)
        else:
            store.save(ended.job, ended.outcome)
            made += 1
            bar.update()
        failures.note(ended)

    interrupted = False
    try:
        with bar, contextlib.closing(fleet.run(todo)) as events:
            for event in events:
                if isinstance(event, Gone):
                    bar.write(f"lost {event.name}, others take over its work: {event.reason}", file=sys.stderr)
                else:
                    keep(event)
    except KeyboardInterrupt:
        interrupted = True
    for ended in fleet.leftover():
        keep(ended)
    missing = len(todo) - made
    if missing:
        why = "interrupted" if interrupted else f"{len(failed)} failed" if failed else "every server is gone"
        print(f"{missing} pictures are missing ({why}): run it again with --resume to make them", file=sys.stderr)
    return INTERRUPTED if interrupted else int(missing > 0)


def _workers(args: argparse.Namespace, stack: contextlib.ExitStack) -> list[Worker]:
    """Workers on the servers that were named, or on servers that are started for the time of `stack`."""
    device = "" if args.gpu else "--cpu"
    count = args.start or (1 if args.gpu else min(os.cpu_count() or 1, MOST_SERVERS))
    if args.ray is not None:
        from .ray_workers import ray_workers

        workers = ray_workers(args.ray or None, args.server or [None] * count, device, args.timeout)
    else:
        servers = args.server or [stack.enter_context(ComfyServer(device=device)) for _ in range(count)]
        workers = [ServerWorker(server, args.timeout) for server in servers]
    for worker in workers:
        stack.callback(worker.close)
    return workers


def _check_servers(workers: Sequence[Worker], evaluation: Evaluation) -> None:
    """ValueError when a server does not answer or lacks a node, the checkpoint or another choice of a workflow."""
    problems = Problems()
    for worker in workers:
        try:
            info = worker.object_info()
        except (HostError, OSError) as error:  # requests' errors are OSErrors
            problems.add(f"--server {worker.name}", str(error).splitlines()[0])
            continue
        for method in evaluation.methods:
            for what in method.server_problems(info, evaluation.checkpoint):
                problems.add(f"server {worker.name}", what)
    problems.stop_if_any()


def _overrides(args: argparse.Namespace) -> Overrides:
    problems = Problems()
    methods = {}
    for text in args.method:
        name, found, workflow = text.partition("=")
        if not found or not name or not workflow:
            problems.add("--method", f"{text!r} must be NAME=WORKFLOW")
        methods[name] = workflow
    for url in args.server:
        if not url.startswith(("http://", "https://")):
            problems.add("--server", f"{url!r} must begin with http:// or https://")
    problems.stop_if_any()
    return Overrides(
        data=args.data and args.data.absolute(),
        checkpoint=args.checkpoint,
        seeds=tuple(args.seeds),
        features=args.features,
        layer=args.layer,
        clip=args.clip,
        methods=methods,
        only=tuple(args.only),
        limit=args.limit,
    )


def _arguments() -> argparse.Namespace:
    ready = ", ".join(sorted(path.stem for path in READY.glob("*.yaml")))
    parser = argparse.ArgumentParser(
        prog="python -m tests.tools.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="With make: make evaluate ARGS='coco --data ~/coco --checkpoint v1-5-pruned-emaonly-fp16.safetensors'. "
        "The fields of a\ndescription are listed in tests/tools/evaluate/README.md.",
    )
    add = parser.add_argument
    add("description", nargs="?", default=DEFAULT, help=f"a YAML file, or one of {ready} (default: {DEFAULT})")
    add("--out", type=Path, help="folder for the results (default: output/evaluate/NAME)")
    kept = parser.add_mutually_exclusive_group()
    kept.add_argument("--resume", action="store_true", help="make only what is not finished yet")
    kept.add_argument("--restart", action="store_true", help="delete the pictures of earlier runs and make all anew")
    add("--check", action="store_true", help="only check that everything is there; queue nothing")
    what = parser.add_argument_group("what is run (instead of what the description says)")
    what.add_argument("--data", type=Path, help="folder of the pictures")
    what.add_argument("--checkpoint", help="as ComfyUI's loader shows it")
    what.add_argument("--seeds", type=int, nargs="+", default=[], help="one run of everything for each")
    what.add_argument(
        "--method", action="append", default=[], metavar="NAME=WORKFLOW", help="a further method: API file"
    )
    what.add_argument("--only", nargs="+", default=[], metavar="NAME", help="only these methods")
    what.add_argument("--limit", type=int, metavar="N", help="only the first N cases of each scene, for a quick look")
    where = parser.add_argument_group("where it runs")
    where.add_argument(
        "--server", action="append", default=[], metavar="URL", help="a running ComfyUI; again for several at once"
    )
    where.add_argument("--start", type=int, metavar="N", help="start N servers (default: one per CPU core, at most 4)")
    where.add_argument("--gpu", action="store_true", help="let the servers that are started choose their device")
    where.add_argument(
        "--ray", nargs="?", const="", metavar="ADDRESS", help="run on a Ray cluster (none: on this machine); see README"
    )
    where.add_argument("--timeout", type=float, default=1800.0, metavar="SECONDS", help="for one picture (1800)")
    networks = parser.add_argument_group("networks that look at the pictures (files of yours, nothing is downloaded)")
    networks.add_argument("--features", metavar="FILE", help=f"for FID, KID and IS: Inception weights, or {TOY}")
    networks.add_argument("--layer", type=int, help="Inception's layer: 64, 192, 768 or 2048")
    networks.add_argument(
        "--clip", type=Path, metavar="FOLDER", help="CLIP in transformers' format, for the CLIP score"
    )
    return parser.parse_args()


if __name__ == "__main__":
    run_main(main)

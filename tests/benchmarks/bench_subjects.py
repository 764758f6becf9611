"""What Parse Subjects costs and how often it is right, by rules and with spaCy's smallest model.

The costs of a 75-token prompt after warm-up, and of the host's start with and without the pack.

`python -m tests.benchmarks.bench_subjects` (part of `make bench`); exits 1 when a limit is missed.
"""

from __future__ import annotations

import importlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ..tools.comfyui.inprocess import load_comfyui
from ..tools.comfyui.pack import alias_pack
from ..tools.comfyui.paths import ROOT

PROMPT = (
    "a highly detailed photo of a small white dog with a red collar and a fluffy orange cat, playing with a blue ball "
    "on the wet sand of a wide tropical beach, while two children in yellow raincoats watch from an old wooden boat, "
    "palm trees and green hills in the background, dramatic clouds over the calm sea, soft golden light, sharp focus, "
    "very high quality, film grain"
)
PARSE_LIMIT_MS = 10.0
START_LIMIT_MS = 150.0
# What the host does when it loads a custom node: run the package and ask it for its nodes.
START = """
import asyncio, importlib.util, sys, time
from tests.tools.comfyui.inprocess import load_comfyui
load_comfyui()
import nodes, server  # the host has these loaded before any custom node
began = time.perf_counter(), time.process_time()
root = sys.argv[1]
spec = importlib.util.spec_from_file_location("the_pack", root + "/__init__.py", submodule_search_locations=[root])
pack = importlib.util.module_from_spec(spec)
sys.modules["the_pack"] = pack
spec.loader.exec_module(pack)
extension = asyncio.run(pack.comfy_entrypoint())
found = asyncio.run(extension.get_node_list())
for node in found:
    node.GET_SCHEMA()
print("cost", time.perf_counter() - began[0], time.process_time() - began[1], len(found))
"""


def median_ms(action: Callable[[], object], runs: int = 30) -> tuple[float, float]:
    """Return the median wall and CPU time of one call, in ms."""
    wall, cpu = [], []
    for _ in range(runs):
        began = time.perf_counter(), time.process_time()
        action()
        wall.append(time.perf_counter() - began[0])
        cpu.append(time.process_time() - began[1])
    return statistics.median(wall) * 1e3, statistics.median(cpu) * 1e3


def start_cost_ms() -> tuple[float, float, int]:
    """Return the median wall and CPU time that loading the pack adds to the host's start, in ms, and its nodes."""
    runs = []
    for _ in range(3):
        command = [sys.executable, "-c", START, str(ROOT)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, env=environment)
        line = next(line for line in done.stdout.splitlines() if line.startswith("cost"))
        runs.append([float(number) for number in line.split()[1:]])
    wall, cpu, count = (statistics.median(values) for values in zip(*runs, strict=True))
    return wall * 1e3, cpu * 1e3, int(count)


def accuracy() -> list[tuple[str, ...]]:
    """Return list, parser, prompts, and the percentages: main subject, main subject and scene, all things and scene.

    What is the main subject is only labelled in the prompts as people paste them.
    """
    labelled = importlib.import_module("tests.core.words.english.labelled")
    rows = []
    for parser in ("rules", "auto", "spacy"):
        for name, labels in (("plain", labelled.plain()), ("pasted", labelled.pasted())):
            for split in dict.fromkeys(label.split for label in labels):
                counts = [0, 0, 0]
                part = [label for label in labels if label.split == split]
                for label in part:
                    main, scenes = labelled.found(label.prompt, parser=parser)
                    things, _ = labelled.found(label.prompt, parser=parser, which="all things")
                    counts[0] += label.main_right(main)
                    counts[1] += label.main_right(main) and label.scene_right(scenes)
                    counts[2] += label.things_right(things) and label.scene_right(scenes)
                shown = [f"{100 * count / len(part):.0f}" for count in counts]
                if name == "plain":
                    shown[:2] = "–", "–"
                rows.append((f"{name}, {split}", parser, str(len(part)), *shown))
    return rows


def main() -> None:
    """Print the tables; exit 1 when a limit is missed."""
    load_comfyui()
    alias_pack()
    sd = importlib.import_module("comfy.sd")
    parse = importlib.import_module("explainable_latents.nodes.core.words.parsing").parse
    tokenize = importlib.import_module("explainable_latents.nodes.host.tokens").tokenize
    clip = sd.CLIP(no_init=True)
    clip.tokenizer, clip.tokenizer_options = importlib.import_module("comfy.sd1_clip").SD1Tokenizer(), {}
    tokens = tokenize(clip, PROMPT)
    began = time.perf_counter()
    subjects = parse(PROMPT, tokens, parser="rules")
    first = (time.perf_counter() - began) * 1e3
    rows = {
        "tokens": median_ms(lambda: tokenize(clip, PROMPT)),
        "language (rules) and alignment": median_ms(lambda: parse(PROMPT, tokens, parser="rules")),
    }
    total = tuple(map(sum, zip(*rows.values(), strict=True)))
    print(f"prompt of {len(tokens['l'])} tokens: {', '.join(subjects.labels)}")
    print("| step | wall, ms | CPU, ms |\n|---|---|---|")
    for name, (wall, cpu) in {**rows, "together": total}.items():
        print(f"| {name} | {wall:.1f} | {cpu:.1f} |")
    print(f"| first prompt (imports spaCy, loads word lists) | {first:.0f} | |")
    wall, cpu, count = start_cost_ms()
    print(f"| host start, {count} nodes | {wall:.0f} | {cpu:.0f} |")
    with tempfile.TemporaryDirectory() as folder:
        importlib.import_module("tests.core.words.english.spacy_model").install_model(Path(folder))
        sys.path.insert(0, folder)
        print("| prompts | parser | number | main subject, % | and scene, % | all things and scene, % |")
        print("|---|---|---|---|---|---|")
        for row in accuracy():
            print(f"| {' | '.join(row)} |")
        sys.path.remove(folder)
    # The limits are on CPU time, which a busy machine does not stretch.
    if total[1] > PARSE_LIMIT_MS or cpu > START_LIMIT_MS:
        sys.exit(f"too slow: limits are {PARSE_LIMIT_MS:.0f} ms for a prompt and {START_LIMIT_MS:.0f} ms for the start")


if __name__ == "__main__":
    main()

"""Run the workflows of an older version on that version and on this one: `make same-pictures`.

Every latent, mask, picture and saliency map that a node of the older version's shipped workflows gives is made twice,
side by side on this machine (stored ones would depend on the processor), and compared bit for bit. Then the same is
done with today's workflow of that name, where there is one: outputs of the nodes that are in both are compared.

One thing may differ: the sheets that heat maps are laid out on, with their legends. Version 0.2.0 puts the maps of a
step into a row of their own and thins out steps where there are too many. The maps themselves are compared.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import load

from ..comfyui.client import ComfyClient, File, Graph
from ..comfyui.command import run_main
from ..comfyui.paths import ROOT, toy_checkpoint
from ..comfyui.server import ComfyServer
from ..toy_world.cases import keep_the_context, keep_the_subject
from .graphs import API, Workflow

OLD = "ec2a0fd"  # 0.1.0
KINDS = ("LATENT", "MASK", "IMAGE", "EL_SALIENCY")
SHEETS = {("ELSaliencyOverlay", "sheet"), ("ELGradientSaliency", "preview")}
SHEET_NOTE = "laid out differently, as is meant"
MAY_BE_NONE = {("ELMaskedLatentKSampler", "saliency"), ("ELMaskedLatentReport", "saliency")}
EXACT_NUMBERS = Path(__file__).with_name("exact_numbers.py")
CASES = (keep_the_context()[0], keep_the_subject()[0])


@contextlib.contextmanager
def checkout(revision: str) -> Iterator[Path]:
    """The repository at a `revision`, in a folder that is removed again. ValueError when git does not have it."""
    with tempfile.TemporaryDirectory(prefix="explainable-latents-") as name:
        archive = Path(name) / "archive.tar"
        command = ["git", "-C", str(ROOT), "archive", "--output", str(archive), revision]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ValueError(f"there is no revision {revision!r} here: {done.stderr.strip()} (a shallow clone?)")
        folder = Path(name) / "pack"
        folder.mkdir()
        subprocess.run(["tar", "-xf", str(archive), "-C", str(folder)], check=True)
        yield folder


def filled(graph: Graph, info: dict, picture: str, prompt: str) -> tuple[Graph, dict[str, tuple[str, bool]]]:
    """The workflow with toy checkpoint, `picture` and `prompt`; a node behind every output of `KINDS` saves it.

    Saliency of a sampler is left out where the workflow does not use it: where its mask was given there is none, and
    asking is an error.
    info: the server's description of its nodes. Returns the graph and, for each node that saves, the title of what it
    saves and whether that is one of the `SHEETS`.
    """
    nodes = Workflow(graph).graph
    for node in nodes.values():
        values = {
            "CheckpointLoaderSimple": {"ckpt_name": toy_checkpoint().name},
            "LoadImage": {"image": picture},
            "PrimitiveStringMultiline": {"value": prompt},
            "ELPromptWords": {"text": prompt},
        }
        node["inputs"] |= values.get(node["class_type"], {})
    used = {tuple(value) for node in nodes.values() for value in node["inputs"].values() if isinstance(value, list)}
    saved = {}
    for i, node in list(nodes.items()):
        described = info[node["class_type"]]
        for slot, (kind, name) in enumerate(zip(described["output"], described["output_name"], strict=True)):
            asked = (node["class_type"], name) not in MAY_BE_NONE or (i, slot) in used
            if kind in KINDS and asked:
                numbers, key, source = f"numbers {i}.{slot}", f"saved {i}.{slot}", [i, slot]
                if kind != "LATENT":
                    nodes[numbers] = {"class_type": "TestExactNumbers", "inputs": {"value": source}}
                    source = [numbers, 0]
                nodes[key] = {"class_type": "SaveLatent", "inputs": {"samples": source, "filename_prefix": "same"}}
                saved[key] = f"{node['_meta']['title']}: {name}", (node["class_type"], name) in SHEETS
    return nodes, saved


def with_settings(graph: Graph, old: Graph, info: dict) -> Graph:
    """Today's workflow, with inputs that its nodes did not have in the old one at their defaults."""
    nodes = Workflow(graph).graph
    before = {(node["class_type"], node["_meta"]["title"]): node["inputs"] for node in old.values()}
    for node in nodes.values():
        had = before.get((node["class_type"], node["_meta"]["title"]), node["inputs"])
        inputs = info[node["class_type"]]["input"]
        described = {**inputs.get("required", {}), **inputs.get("optional", {})}
        for name, value in node["inputs"].items():
            if name not in had and not isinstance(value, list):
                node["inputs"][name] = described[name][1]["default"]
    return nodes


def difference(old: File, new: File) -> float:
    """Largest difference between two saved latents; infinite when their sizes differ, NaN where one is."""
    one, other = (load(file.data)["latent_tensor"].astype(np.float64) for file in (old, new))
    if one.shape != other.shape:
        return float("inf")
    return float(np.abs(one - other).max(initial=0.0))


def verdict(worst: float, sheet: bool) -> str:
    """What is said of an output whose largest difference this is."""
    if worst == 0:
        return "the same"
    return SHEET_NOTE if sheet else f"DIFFER by {worst:g}"


def main() -> int:
    """Print a row per output; 1 when any differs, but for sheets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", default=OLD, help="the older version, a git revision (default: %(default)s, 0.1.0)")
    args = parser.parse_args()
    count = different = 0
    with contextlib.ExitStack() as stack:
        old_pack = stack.enter_context(checkout(args.old))
        servers = [stack.enter_context(ComfyServer(pack=p, custom_nodes=[EXACT_NUMBERS])) for p in (old_pack, ROOT)]
        clients = [stack.enter_context(ComfyClient(server)) for server in servers]
        infos = [client.object_info() for client in clients]
        print(f"| workflow of {args.old} | output | old and new | today's workflow |\n|---|---|---|---|")
        for path in sorted((old_pack / "workflows" / "api").glob("*.json")):
            case = CASES[path.stem == "03_scene_based"]
            picture = Image.fromarray(case.picture().image)
            shipped = json.loads(path.read_text(encoding="utf-8"))
            graph, saved = filled(shipped, infos[0], "reference.png", case.prompt)
            results = []
            for client in clients:
                client.upload_image(picture, "reference.png")
                results.append(client.run(graph))
            today, kept = {}, {}
            if (file := API / path.name).is_file():
                twin = with_settings(json.loads(file.read_text(encoding="utf-8")), shipped, infos[1])
                graph, kept = filled(twin, infos[1], "reference.png", case.prompt)
                today = clients[1].run(graph).files
            for key, (title, sheet) in saved.items():
                old, new = (result.files[key][0] for result in results)
                worst = [difference(old, new)]
                if kept.get(key, ("",))[0] == title:
                    worst.append(difference(old, today[key][0]))
                count += len(worst)
                different += sum(each != 0 and not sheet for each in worst)
                told = [verdict(each, sheet) for each in worst]
                print(f"| {path.stem} | {title} | {' | '.join([*told, 'not in it'][:2])} |", flush=True)
    print(f"\n{count} outputs, {different} of them differ")
    return int(different > 0)


if __name__ == "__main__":
    run_main(main)

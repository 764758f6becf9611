"""Run the workflows of an older version on that version and on this one: `make same-pictures`.

Every latent and every picture of every shipped workflow of the older version is made twice, side by side on this
machine (stored pictures would depend on the processor), and compared bit for bit.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import load

from ..comfyui.client import ComfyClient, File, Graph, Result
from ..comfyui.command import run_main
from ..comfyui.paths import ROOT, toy_checkpoint
from ..comfyui.server import ComfyServer
from ..toy_world.cases import keep_the_context, keep_the_subject
from .graphs import Workflow

OLD = "ec2a0fd"  # 0.1.0
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


def filled(graph: Graph, info: dict, picture: str, prompt: str) -> tuple[Graph, dict[str, str]]:
    """The workflow with toy checkpoint, `picture` and `prompt`, and a node behind every latent that saves it.

    info: the server's description of its nodes. Returns the graph and the title of every node in it.
    """
    nodes = Workflow(graph).graph
    for node in nodes.values():
        values = {
            "CheckpointLoaderSimple": {"ckpt_name": toy_checkpoint().name},
            "LoadImage": {"image": picture},
            "PrimitiveStringMultiline": {"value": prompt},
        }
        node["inputs"] |= values.get(node["class_type"], {})
    titles = {i: node["_meta"]["title"] for i, node in nodes.items()}
    for i, node in list(nodes.items()):
        for slot, kind in enumerate(info[node["class_type"]]["output"]):
            if kind == "LATENT":
                key = f"latent {i}.{slot}"
                nodes[key] = {"class_type": "SaveLatent", "inputs": {"samples": [i, slot], "filename_prefix": "same"}}
                titles[key] = f"{titles[i]}, latent"
    return nodes, titles


def numeric(result: Result) -> dict[str, list[File]]:
    """The latents and pictures of every node that made some."""
    kept = {node: [f for f in files if f.kind in ("latents", "images")] for node, files in result.files.items()}
    return {node: files for node, files in kept.items() if files}


def difference(old: File, new: File) -> float:
    """Largest difference between two saved latents or pictures (0 to 255); infinite when their sizes differ."""
    one, other = _numbers(old), _numbers(new)
    if one.shape != other.shape:
        return float("inf")
    return float(np.abs(one - other).max())


def _numbers(file: File) -> np.ndarray:
    if file.kind == "latents":
        return load(file.data)["latent_tensor"].astype(np.float64)
    return np.asarray(Image.open(io.BytesIO(file.data)).convert("RGB"), dtype=np.float64)


def main() -> int:
    """Print a row per latent and picture; 1 when any differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", default=OLD, help="the older version, a git revision (default: %(default)s, 0.1.0)")
    args = parser.parse_args()
    different = 0
    with contextlib.ExitStack() as stack:
        old_pack = stack.enter_context(checkout(args.old))
        servers = [stack.enter_context(ComfyServer(pack=pack)) for pack in (old_pack, ROOT)]
        clients = [stack.enter_context(ComfyClient(server)) for server in servers]
        info = clients[0].object_info()
        print(f"| workflow of {args.old} | node | old and new |\n|---|---|---|")
        for path in sorted((old_pack / "workflows" / "api").glob("*.json")):
            case = CASES[path.stem == "03_scene_based"]
            picture = Image.fromarray(case.picture().image)
            shipped = json.loads(path.read_text(encoding="utf-8"))
            graph, titles = filled(shipped, info, "reference.png", case.prompt)
            results = []
            for client in clients:
                client.upload_image(picture, "reference.png")
                results.append(client.run(graph))
            old, new = (numeric(result) for result in results)
            for node in sorted(old.keys() | new.keys()):
                pairs = zip(old.get(node, ()), new.get(node, ()), strict=True)
                worst = max(difference(*pair) for pair in pairs)
                different += worst > 0
                print(f"| {path.stem} | {titles[node]} | {'the same' if worst == 0 else f'differ by {worst:g}'} |")
    return int(different > 0)


if __name__ == "__main__":
    run_main(main)

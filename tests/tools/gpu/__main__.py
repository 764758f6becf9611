"""Check and measure the pack on an NVIDIA GPU: `make gpu`.

A UNet of SD 1.5's size with random weights. Checked: the picture with capture on and off, bit for bit, for each
attention that is installed, each precision, offloaded weights and a compiled model; and the solvers of Abs-Grad-SAM
against each other. Measured: time and memory of each use. One table, which is also saved as output/gpu.json; exits 1
when a check fails. ComfyUI runs in this process, so its dynamic VRAM, which its server starts, is not in use.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path

import torch

from ..comfyui.command import run_main, whole_file
from ..comfyui.inprocess import load_comfyui
from ..comfyui.pack import alias_pack
from ..comfyui.paths import ROOT
from .rows import Row, Settings, table

NONE = "there is no NVIDIA GPU here that PyTorch can use: nothing was checked or measured"


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.tools.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--allow-none", action="store_true", help="exit 0 on a machine without a GPU")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: to try this program itself")
    parser.add_argument("--channels", type=int, default=320, help="of the network; 320 is SD 1.5's")
    parser.add_argument("--side", type=int, default=64, help="of the latent; 64 is a picture of 512x512")
    parser.add_argument("--steps", type=int, default=20, help="of a measured run")
    parser.add_argument("--turns", type=int, default=3, help="measured runs of each kind, beside a first one")
    parser.add_argument("--compiler", default="inductor", help="backend of torch.compile")
    parser.add_argument("--out", type=Path, default=ROOT / "output" / "gpu.json", help="where the numbers go")
    return parser.parse_args()


def described(device: torch.device) -> dict[str, str]:
    """What it ran on."""
    import comfyui_version

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU (a try of the program, no GPU)"
    return {"device": name, "torch": torch.__version__, "comfyui": comfyui_version.__version__}


def save(path: Path, about: dict, settings: Settings, rows: Sequence[Row]) -> None:
    """Write all numbers as JSON."""
    asked = {key: str(value) if key == "device" else value for key, value in asdict(settings).items()}
    with whole_file(path) as part:
        part.write_text(json.dumps({**about, "settings": asked, "rows": [asdict(row) for row in rows]}, indent=1))


def main() -> int:
    """Check, measure, print and save; 1 when a check failed, or without a GPU unless that is allowed."""
    args = options()
    if args.device == "cuda" and not torch.cuda.is_available():
        print(NONE)
        return 0 if args.allow_none else 1
    alias_pack()
    load_comfyui(device="--cpu" if args.device == "cpu" else "")
    from .checks import CHECKS
    from .measures import measurements

    device = torch.device(args.device, 0) if args.device == "cuda" else torch.device("cpu")
    settings = Settings(device, args.channels, args.side, args.steps, args.turns, args.compiler)
    about = described(device)
    print(", ".join(f"{name} {value}" for name, value in about.items()), flush=True)
    rows = []
    for row in chain(*(check(settings) for check in CHECKS), measurements(settings)):
        print(row.text(), flush=True)
        rows.append(row)
    save(args.out, about, settings, rows)
    print(f"\n{about['device']}, {args.side * 8}x{args.side * 8}, {args.steps} steps\n\n{table(rows)}\n\n{args.out}")
    return int(any(row.failed for row in rows))


if __name__ == "__main__":
    run_main(main)

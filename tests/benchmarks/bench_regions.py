"""What cutting a picture into regions costs: `python -m tests.benchmarks.bench_regions` (part of `make bench`).

A UNet of full SD 1.5 size with random weights looks at one 512x512 picture: a plain model call, one whose
self-attention is read in all layers, and then what follows the call. A random network attends to everything alike, so
the last is measured on attention that is made up: 4096 places of 20 kinds, cut into as many regions, also tidied with
k-means, and cut into one region for each of 256 anchors, which is the most there can be. Seconds are those that one
core computed, which other programs' load hardly changes; two cores take less.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from collections.abc import Callable

import torch

from ..tools.comfyui.command import run_main
from ..tools.comfyui.inprocess import load_comfyui
from ..tools.comfyui.pack import alias_pack
from .bench_attention import full_size_model
from .turns import MIB, Meter

SIDE, PICTURE = 64, (512, 512)
MOST_SECONDS = 5.0
KINDS, ANCHORS = 20, 16
# What is measured after the call: its name, threshold, k-means, and how many regions that makes.
CUTS = (
    ("20 regions", 0.9, False, KINDS),
    ("20 regions, k-means", 0.9, True, KINDS),
    ("256 regions", 0.0, False, ANCHORS**2),
)


def attention_of_kinds(generator: torch.Generator) -> torch.Tensor:
    """Attention of places to each other [N,N]: a map of `KINDS` parts, each place looks at its own part, with noise."""
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    places = torch.stack([y.flatten(), x.flatten()], 1).float()
    centres = SIDE * torch.rand(KINDS, 2, generator=generator)
    part = torch.cdist(places, centres).argmin(1)
    same = (part.unsqueeze(1) == part).float()
    return torch.softmax(4 * same + 0.5 * torch.randn(SIDE**2, SIDE**2, generator=generator), dim=-1)


def nothing(done: int, total: int) -> None:
    """Progress that nobody watches."""


def main() -> int:
    """Measure, print the table, and return 1 when what follows the model call takes longer than it may."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU; one gives the steadiest numbers")
    args = parser.parse_args()
    device = torch.device(args.device)
    alias_pack()
    load_comfyui(device="--cpu" if args.device == "cpu" else "")
    torch.set_num_threads(args.threads)
    from explainable_latents.nodes.core.maps.regions import regions_of
    from explainable_latents.nodes.core.methods.diffseg import segment
    from explainable_latents.nodes.host.attention.place_reader import PlaceProbe
    from explainable_latents.nodes.host.one_call import call_once

    generator = torch.Generator().manual_seed(1)
    model = full_size_model(device, torch.float32 if args.device == "cpu" else torch.float16)
    positive = [[torch.randn(1, 77, 768, generator=generator), {}]]
    latent = {"samples": torch.randn(1, 4, SIDE, SIDE, generator=generator)}
    made_up = attention_of_kinds(generator).to(device)

    def after(attention: torch.Tensor, threshold: float, k_means: bool) -> torch.Tensor:
        return regions_of(segment(attention, (SIDE, SIDE), PICTURE, threshold, ANCHORS, k_means, nothing)).masks()

    taken: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def note(name: str, work: Callable[[], object]) -> object:
        with Meter(device) as meter:
            result = work()
        taken[name].append((meter.seconds, meter.memory / MIB))
        return result

    with torch.inference_mode():
        call_once(model.clone(), positive, latent, 0.3, 0, clean=True)  # loads what the first call loads
        for _ in range(args.turns):
            note("model call", lambda: call_once(model.clone(), positive, latent, 0.3, 0, clean=True))
            patcher = model.clone()
            look = PlaceProbe(patcher).look

            def call(patcher: object = patcher) -> None:
                call_once(patcher, positive, latent, 0.3, 0, clean=True)

            note("model call, its self-attention read", lambda look=look, call=call: look(call, nothing))
            for name, threshold, k_means, count in CUTS:
                masks = note(f"after the call: {name}", lambda how=(threshold, k_means): after(made_up, *how))
                if len(masks) != count:
                    print(f"FAILED: {len(masks)} regions instead of {count}")
                    return 1
    print(f"SD 1.5 size, 512x512, {device}, {args.threads} threads, median of {args.turns} turns")
    print("| what | seconds | most memory |\n|---|---|---|")
    for name, costs in taken.items():
        seconds, memory = (statistics.median(each) for each in zip(*costs, strict=True))
        print(f"| {name} | {seconds:.2f} | {memory:+.0f} MiB |")
    most = max(statistics.median(s for s, _ in costs) for name, costs in taken.items() if name.startswith("after"))
    good = most <= MOST_SECONDS
    print(f"after the call {most:.2f} s (at most {MOST_SECONDS:.0f}): {'ok' if good else 'FAILED'}")
    return 0 if good else 1


if __name__ == "__main__":
    run_main(main)

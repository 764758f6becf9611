"""What a whole masked-latent run costs: `python -m tests.benchmarks.bench_masked_latent` (`make bench`).

A UNet of full SD 1.5 size with random weights samples one 512x512 latent with classifier-free guidance: by the stock
KSampler, with masks from attention, and with masks from Abs-Grad-SAM. Runs are short, and what a manipulated step
costs is measured in steps of the stock sampler; the published run manipulates 3 of 50. The variants take turns, so that
a busy machine slows all of them alike; compared are the runs of one turn.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch

from ..tools.comfyui.command import run_main
from ..tools.comfyui.inprocess import load_comfyui
from ..tools.comfyui.pack import alias_pack
from .bench_attention import full_size_model
from .turns import Meter

STEPS, MANIPULATED = 50, 3
MOST_TIME = {"aggregated attention": 1.05, "Abs-Grad-SAM": 1.10}


def maskings() -> dict[str, Any]:
    """Name -> masking, as the nodes describe it by default."""
    from explainable_latents.nodes.core.maps.masks import Shaping
    from explainable_latents.nodes.core.methods.masking import AttentionMasking, GradientMasking
    from explainable_latents.nodes.core.words.subjects import Subject, Subjects

    subjects = Subjects("a dog on the beach", (Subject("dog", "subject", (2, 5), {"l": (2,)}),), "rules")
    paper = Shaping("mean + k·std", 0.5, "union", smooth_sigma=6.0, dilate_iterations=3)
    return {
        "aggregated attention": AttentionMasking(subjects, Shaping()),
        "Abs-Grad-SAM": GradientMasking(subjects, paper),
    }


def runner(steps: int, side: int = 64) -> Callable[[Any], torch.Tensor]:
    """The host's own KSampler node: ddpm, guidance 8, a latent of `side` x `side`."""
    import nodes

    generator = torch.Generator().manual_seed(1)
    positive, negative = (torch.randn(1, 77, 768, generator=generator) for _ in range(2))
    start = {"samples": torch.randn(1, 4, side, side, generator=generator)}

    def run(model: Any) -> torch.Tensor:
        conditionings = ([[positive, {}]], [[negative, {}]])
        return nodes.common_ksampler(model, 1, steps, 8.0, "ddpm", "ddim_uniform", *conditionings, start)[0]["samples"]

    return run


def main() -> int:
    """Measure, print the table, and return 1 when a whole run costs more than it may."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--manipulate-at", default="1, 2", help="steps that are manipulated in these runs")
    parser.add_argument("--turns", type=int, default=3, help="runs of each variant")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU; one gives the steadiest numbers")
    args = parser.parse_args()
    device = torch.device(args.device)
    alias_pack()
    load_comfyui(device="--cpu" if args.device == "cpu" else "")
    torch.set_num_threads(args.threads)
    from explainable_latents.nodes.core.methods.masked_latent import Policy, parse_steps
    from explainable_latents.nodes.host.sampling.masked_latent import MaskedLatent

    model = full_size_model(device, torch.float32 if args.device == "cpu" else torch.float16)
    run, reference = runner(args.steps), torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(2))
    count = len(parse_steps(args.manipulate_at, args.steps))
    extra: dict[str, list[float]] = {name: [] for name in MOST_TIME}
    print(
        f"SD 1.5 size, 512x512, {count} of {args.steps} steps manipulated, {device}, {args.threads} threads", flush=True
    )
    run(model.clone())
    for turn in range(args.turns):
        with Meter(device) as stock:
            run(model.clone())
        for name, masking in maskings().items():
            patched = model.clone()
            plan = MaskedLatent(masking, reference, args.manipulate_at, Policy("keep"), Policy("reference"))
            report = plan.install(patched)
            with Meter(device) as meter:
                result = run(patched)
            if len(report.manipulations(result)) != count or not result.isfinite().all():
                print(f"FAILED: {name} did not manipulate {count} steps")
                return 1
            extra[name].append((meter.seconds - stock.seconds) / count / (stock.seconds / args.steps))
            print(f"  turn {turn + 1}: stock {stock.seconds:.1f} s, {name} {meter.seconds:.1f} s", flush=True)
    print(f"| masks from | one manipulated step costs | run of {STEPS} steps, {MANIPULATED} manipulated | at most |")
    print("|---|---|---|---|")
    good = True
    for name, costs in extra.items():
        cost = statistics.median(costs)
        whole = 1 + MANIPULATED * cost / STEPS
        good &= whole <= MOST_TIME[name]
        print(f"| {name} | {cost:+.2f} stock steps | {whole:.3f}x the stock run | {MOST_TIME[name]:.2f}x |")
    print("ok" if good else "FAILED")
    return 0 if good else 1


if __name__ == "__main__":
    run_main(main)

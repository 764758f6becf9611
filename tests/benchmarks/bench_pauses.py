"""What pauses cost a run that nobody waits for: `python -m tests.benchmarks.bench_pauses` (`make bench`).

A small random network samples latents of 16 x 16 with a ready-made mask at four of its steps: as it is; with Paint Mask
While Sampling and Pause Sampling, headless, which may cost 50 ms more; and in two variants with recorded answers, which
should cost two runs. Then what is computed for the message of one pause, of latents of 128 x 128. Timed by the
processor's own clock, in turns: what else the machine does has no part in it.
"""

from __future__ import annotations

import argparse
import json
import statistics

import torch

from ..tools.comfyui.command import run_main
from ..tools.comfyui.inprocess import load_comfyui
from ..tools.comfyui.pack import alias_pack
from .turns import Meter

STEPS, SIDE, SHOWN = 12, 16, 128
AT = "1-11"
MOST_MORE = 0.05  # seconds


def main() -> int:
    """Measure, print, and return 1 when the run that nobody waits for takes too long."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=9, help="runs of each kind")
    turns = parser.parse_args().turns
    alias_pack()
    load_comfyui(device="--cpu")
    torch.set_num_threads(1)
    from explainable_latents.nodes.core.methods.masked_latent import Policy
    from explainable_latents.nodes.core.methods.masking import EACH, ImageMasking, PaintedMasking
    from explainable_latents.nodes.host.sampling.masked_latent import MaskedLatent
    from explainable_latents.nodes.host.sampling.pause_content import masks_shown, pictures_and_maps
    from explainable_latents.nodes.host.sampling.pausing import PausePlan
    from tests.host.unets import noise, random_unet, sample

    model = random_unet()
    given = ImageMasking((torch.arange(SIDE * SIDE).reshape(1, SIDE, SIDE) % 7 / 6).float())

    def patched(masking: object, answers: str | None) -> object:
        clone = model.clone()
        MaskedLatent(masking, noise(1, (SIDE, SIDE), 1), "1, 4, 7, 10", Policy("keep"), Policy("reference")).install(
            clone
        )
        if answers is not None:
            PausePlan(AT, 600, "continue", answers).install(clone)
        return clone

    painted = PaintedMasking(given, EACH)
    two = json.dumps([[], [{"step": 1, "values": {"cfg": 4.5}}]])
    kinds = {
        "plain": patched(given, None),
        "both nodes": patched(painted, ""),
        "two variants": patched(given, two),
    }

    def run(patcher: object) -> torch.Tensor:
        with torch.inference_mode():
            return sample(patcher, STEPS, grid=(SIDE, SIDE))

    if not torch.equal(run(kinds["plain"]), run(kinds["both nodes"])):
        print("FAILED: a run that nobody waits for differs from the plain one")
        return 1
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for turn in range(turns):
        for name in list(kinds)[:: 1 if turn % 2 else -1]:
            with Meter(torch.device("cpu")) as meter:
                run(kinds[name])
            seconds[name].append(meter.seconds)
    pairs = list(zip(*seconds.values(), strict=True))
    more = statistics.median(both - plain for plain, both, _ in pairs)
    ratio = statistics.median(variants / plain for plain, _, variants in pairs)
    print(f"{SIDE}x{SIDE} latents, {STEPS} steps, {turns} turns: plain {statistics.median(seconds['plain']):.3f} s")
    print(f"both nodes, nobody there, 11 stops and 4 masks: {1000 * more:+.1f} ms (at most {1000 * MOST_MORE:.0f})")
    print(f"two variants: {ratio:.2f} times the plain run")
    for batch in (1, 4):
        with Meter(torch.device("cpu")) as meter:
            masks = masks_shown(torch.randint(0, 256, (batch, SHOWN, SHOWN), dtype=torch.uint8))
            shown = pictures_and_maps(model.model.latent_format, noise(batch, (SHOWN, SHOWN)), None)
        size = sum(map(len, masks + shown["pictures"]))
        print(f"the message of one pause, batch {batch}: {1000 * meter.seconds:.1f} ms, {size / 1000:.0f} kB")
    return 0 if more <= MOST_MORE else 1


if __name__ == "__main__":
    run_main(main)

"""What a guided step costs beside a plain one: `python -m tests.benchmarks.bench_guidance_cost`.

A random network of SD 1.5's or SDXL's shape samples a square picture without guidance, with Keep Words and with Place
Words (one measurement in a step), and with Place Phrases, which needs none, in turns, and the steps are timed by the
processor's own clock, so that what else the machine does has no part in it. Prints the ratios, and the memory that the
guided runs took beside the plain one against what the host was asked for. `--repeat`: as on a device without enough
memory, where blocks are run a second time. Smaller pictures with `--side`; a narrower network with `--channels`. SDXL
in bfloat16 takes 8 GB.
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import nullcontext

import torch

from ..tools.comfyui.inprocess import load_comfyui
from ..tools.comfyui.pack import alias_pack

# Shapes as the host describes them; of the text only 64 numbers a token, as everywhere in the tests.
SHAPES = {
    "SD15": {
        "num_res_blocks": [2, 2, 2, 2],
        "channel_mult": [1, 2, 4, 4],
        "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
        "transformer_depth_middle": 1,
    },
    "SDXL": {
        "num_res_blocks": [2, 2, 2],
        "channel_mult": [1, 2, 4],
        "transformer_depth": [0, 0, 2, 2, 10, 10],
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
        "transformer_depth_middle": 10,
        "num_head_channels": 64,
    },
}
PHRASES = "Place Phrases"


def with_phrases(model: object, places: object) -> object:
    """The model with Place Phrases at every step, for the prompt of the samples."""
    from explainable_latents.nodes.core.methods.dense_diffusion import DenseDiffusion
    from explainable_latents.nodes.core.methods.prompt_to_prompt import Window
    from explainable_latents.nodes.host.editing.dense_diffusion import install_dense_diffusion
    from explainable_latents.nodes.host.editing.placed_phrases import PlacedPhrases
    from explainable_latents.nodes.host.same_prompt import Encoded
    from tests.host.unets import conditioning

    patched, encoded = model.clone(), Encoded((conditioning(1)[0][0],), {})
    phrases = PlacedPhrases("", encoded, ("dog", "beach"), ((3,), (6, 7)), places)
    install_dense_diffusion(patched, phrases, DenseDiffusion(window=Window(0, 1)))
    return patched


def main() -> None:
    """Measure, and print one line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=SHAPES, default="SD15")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="of weights and numbers")
    parser.add_argument("--repeat", action="store_true", help="as where no memory is free: blocks are run again")
    parser.add_argument("--side", type=int, default=512, help="pixels along each side")
    parser.add_argument("--channels", type=int, default=320, help="of the network's first level; 320 in SD 1.5")
    parser.add_argument("--turns", type=int, default=3, help="pairs of steps that are timed")
    options = parser.parse_args()
    load_comfyui()
    alias_pack()

    from explainable_latents.nodes.core.layout import Box
    from explainable_latents.nodes.core.methods.attend_and_excite import AttendAndExcite
    from explainable_latents.nodes.core.methods.box_losses import BoxLoss
    from explainable_latents.nodes.core.methods.guidance import Guidance
    from explainable_latents.nodes.core.methods.word_places import Boxes
    from explainable_latents.nodes.host.autograd.latent_gradient import LatentGradient
    from explainable_latents.nodes.host.sampling.word_guidance import WordGuidance
    from tests.host.memory import MostBytes, nothing_free
    from tests.host.unets import SUBJECTS, random_unet, sample

    shape = {"model_channels": options.channels, **SHAPES[options.network]}
    model = random_unet(options.network, getattr(torch, options.dtype), **shape)
    grid = options.side // 8, options.side // 8
    places = Boxes(((Box("dog", 0, 0, 0.5, 1),), (Box("beach", 0.5, 0, 1, 1),)))
    losses = {"Keep Words": AttendAndExcite(), "Place Words": BoxLoss(places)}
    how = Guidance(step_size=1e-3, steps="0-100%")
    patched, reports = {"plain": model}, {}
    for name, loss in losses.items():
        patched[name] = model.clone()
        reports[name] = WordGuidance(name, loss, SUBJECTS, how).install(patched[name])

    patched[PHRASES] = with_phrases(model, places)

    def once(patcher) -> torch.Tensor:
        with torch.inference_mode(), nothing_free() if options.repeat else nullcontext():
            return sample(patcher, 1, cfg=7.5, grid=grid)

    times, made = {name: [] for name in patched}, {}
    for _ in range(options.turns):
        for name, patcher in patched.items():
            began = time.process_time()
            made[name] = once(patcher)
            times[name].append(time.process_time() - began)
    seconds = {name: statistics.median(each) for name, each in times.items()}
    peaks = {}
    for name, patcher in patched.items():
        with MostBytes() as seen:  # it takes time itself
            once(patcher)
        peaks[name] = seen.most / 2**20
    plain = seconds["plain"]
    print(
        f"{PHRASES}: {seconds[PHRASES]:.2f} s, {seconds[PHRASES] / plain:.2f} times; {peaks[PHRASES]:.0f} MB of tensors"
    )
    for name, loss in losses.items():
        print(f"{name}: {reports[name].text(made[name]).splitlines()[0]}")
        print(f"  plain step {plain:.2f} s, guided step {seconds[name]:.2f} s: {seconds[name] / plain:.2f} times")
        gradient = LatentGradient(model.clone(), "benchmark", SUBJECTS, loss)
        asked = gradient.bytes_needed(model, 1, grid, room=-1.0 if options.repeat else float("inf")) / 2**20
        print(
            f"  peak memory of tensors: plain {peaks['plain']:.0f} MB, guided {peaks[name]:.0f} MB; asked for beside "
            f"the plain call {asked:.0f} MB"
        )


if __name__ == "__main__":
    main()

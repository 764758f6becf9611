"""What an edited run costs: `python -m tests.benchmarks.bench_editing` (`make bench`).

A UNet of full SD 1.5 size with random weights samples one 512x512 latent with classifier-free guidance: by the stock
KSampler, with a source picture beside it (Twin Sampling), and with Prompt-to-Prompt of every word at every step, once
with all probabilities from the source and once with some of the target's own, which takes a second attention; with
MasaCtrl, plain and with masks of half the picture, and with Plug-and-Play, all of them at every step. Twice the stock
time is the least: there are two pictures; with Cross-Image Attention three, or four with its guidance, and its contrast
writes probabilities down, so that it has no limit here; with Eye-for-an-Eye three, and the search for what is alike.
Without a twin, Regional Attention gives both halves prompts of their own. A run of three times the steps shows that
memory does not grow with them. The variants take turns, so that a busy machine slows all of them alike; compared are
the runs of one turn.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import torch

from ..tools.comfyui.command import run_main
from ..tools.comfyui.inprocess import load_comfyui
from ..tools.comfyui.pack import alias_pack
from .bench_attention import full_size_model
from .bench_masked_latent import runner
from .turns import MIB, Meter

MOST_TIME, MOST_GROWTH = 2.1, 16 * MIB
TWIN, SWAPPED, MIXED = "twin without editor", "words exchanged", "words exchanged and added"
TEXTURE, TEXTURE_INSIDE = "MasaCtrl", "MasaCtrl with masks"
LAYOUT, REGIONS = "Plug-and-Play", "two regions, without a twin"
LOOK, LOOK_GUIDED, LOOK_PUBLISHED = (
    f"Cross-Image Attention{more}" for more in ("", " with guidance", " with guidance and contrast")
)
ALIKE = "Eye-for-an-Eye"
# How many, of those with more than two.
PICTURES = {LOOK: 3, LOOK_GUIDED: 4, ALIKE: 3}


def twins(model: Any) -> dict[str, Any]:
    """Name -> a copy of the model with a twin, of random prompts of 77 tokens."""
    from explainable_latents.nodes.core.methods.appearance import AppearanceTransfer, Schedule
    from explainable_latents.nodes.core.methods.cross_image_attention import CrossImageAttention
    from explainable_latents.nodes.core.methods.masking import ImageMasking
    from explainable_latents.nodes.core.methods.mutual_self_attention import MutualSelfAttention
    from explainable_latents.nodes.core.methods.plug_and_play import PlugAndPlay
    from explainable_latents.nodes.core.methods.prompt_to_prompt import PromptToPrompt, Window
    from explainable_latents.nodes.core.words.alignment import Alignment
    from explainable_latents.nodes.host.editing.appearance import AppearancePicture
    from explainable_latents.nodes.host.editing.cross_image_attention import CrossImageAttentionEditor
    from explainable_latents.nodes.host.editing.eye_for_an_eye import EyeForAnEyeEditor
    from explainable_latents.nodes.host.editing.mutual_self_attention import MutualSelfAttentionEditor
    from explainable_latents.nodes.host.editing.paths import Path
    from explainable_latents.nodes.host.editing.plug_and_play import PlugAndPlayEditor
    from explainable_latents.nodes.host.editing.prompt_to_prompt import PromptToPromptEditor
    from explainable_latents.nodes.host.editing.twin_sampling import Twin
    from explainable_latents.nodes.host.same_prompt import Encoded

    # `runner` draws the sampler's positive prompt from this seed
    target = torch.randn(1, 77, 768, generator=torch.Generator().manual_seed(1))
    source = torch.randn(1, 77, 768, generator=torch.Generator().manual_seed(5))
    shares = tuple((i, i, 1.0) for i in range(77) if i != 2)
    alignments = {
        SWAPPED: Alignment((77, 77), (*shares, (3, 2, 1.0))),
        MIXED: Alignment((77, 77), shares, frozenset({2})),
    }
    half = torch.zeros(1, 8, 8)
    half[..., :4] = 1
    masks = ImageMasking(half), ImageMasking(half.flip(-1))
    always, found = MutualSelfAttention(Window()), {}
    schedule, picture = Schedule(Window(), Window(), 0, Window(), 1.0), AppearancePicture([[source, {}]], Path())
    others = {
        TEXTURE: MutualSelfAttentionEditor(always),
        TEXTURE_INSIDE: MutualSelfAttentionEditor(always, "auto", *masks),
        LAYOUT: PlugAndPlayEditor(PlugAndPlay(Window(), Window())),
        ALIKE: EyeForAnEyeEditor(AppearanceTransfer(schedule, 1.0), picture),
    }
    for name, contrast, guidance in ((LOOK, 1.0, 1.0), (LOOK_GUIDED, 1.0, 3.5), (LOOK_PUBLISHED, 1.67, 3.5)):
        others[name] = CrossImageAttentionEditor(CrossImageAttention(schedule, guidance, contrast), picture)
    for name in (TWIN, SWAPPED, MIXED, *others):
        editors = [others[name]] if name in others else []
        if name in alignments:
            method = PromptToPrompt(alignments[name], Window(), {}, {}, Window(), 4)
            prompts = [(each, Encoded((context,), {})) for each, context in (("old", source), ("new", target))]
            editors.append(PromptToPromptEditor(method, prompts, ""))
        found[name] = model.clone()
        Twin([[source, {}]], editors).install(found[name])
    return found


def regions(model: Any) -> dict[str, Any]:
    """Name -> a copy of the model whose halves have random prompts of 77 tokens."""
    from explainable_latents.nodes.host.editing.regional_attention import install_regions

    texts = torch.randn(2, 1, 77, 768, generator=torch.Generator().manual_seed(5))
    patched = model.clone()
    install_regions(patched, [[text, {}] for text in texts], "1,1")
    return {REGIONS: patched}


def main() -> int:
    """Measure, print the table, and return 1 when a run costs more than it may."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3, help="runs of each variant")
    parser.add_argument("--only", nargs="+", help="names of variants, without the run of three times the steps")
    parser.add_argument("--side", type=int, default=64, help="of the latent")
    parser.add_argument("--channels", type=int, default=320, help="fewer than SD 1.5's make a quick try")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU; one gives the steadiest numbers")
    args = parser.parse_args()
    device = torch.device(args.device)
    alias_pack()
    load_comfyui(device="--cpu" if args.device == "cpu" else "")
    torch.set_num_threads(args.threads)
    dtype = torch.float32 if args.device == "cpu" else torch.float16
    model = full_size_model(device, dtype, channels=args.channels)
    variants, run = twins(model) | regions(model), runner(args.steps, args.side)
    if args.only:
        variants = {name: variants[name] for name in args.only}
    ratios: dict[str, list[float]] = {name: [] for name in variants}
    run(model.clone())
    for turn in range(args.turns):
        with Meter(device) as stock:
            run(model.clone())
        for name, patched in variants.items():
            with Meter(device) as meter:
                run(patched)
            ratios[name].append(meter.seconds / stock.seconds)
            print(f"  turn {turn + 1}: stock {stock.seconds:.1f} s, {name} {meter.seconds:.1f} s", flush=True)
    memory = []
    for steps in () if args.only else (args.steps, 3 * args.steps):
        with Meter(device) as meter:
            runner(steps, args.side)(variants[MIXED])
        memory.append(meter.memory)
    print("| run | of the stock run's time | at most |\n|---|---|---|")
    medians = {name: statistics.median(each) for name, each in ratios.items()}
    most = {name: PICTURES.get(name, 2) * MOST_TIME / 2 for name in medians if name not in (LOOK_PUBLISHED, ALIKE)}
    for name, ratio in medians.items():
        print(f"| {name} | {ratio:.2f}x | {f'{most[name]:.2f}x' if name in most else '-'} |")
    good = all(ratio <= most.get(name, ratio) for name, ratio in medians.items())
    if memory:
        print(f"{memory[0] / MIB:.0f} MiB for {args.steps} steps, {memory[1] / MIB:.0f} MiB for {3 * args.steps}")
        good &= memory[1] - memory[0] <= MOST_GROWTH
    print("ok" if good else "FAILED")
    return 0 if good else 1


if __name__ == "__main__":
    run_main(main)

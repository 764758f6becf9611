"""What Prompt-to-Prompt does to colours, on the second toy world: `make bench-colours`.

A subject on a scene is drawn, then the prompt gets a colour word: with the colour in the prompt alone, from the same
noise, and by Prompt-to-Prompt (refine). The same is done with the colour word weighed. For each: how often the judge
network names the colour, how far the subject's mean colour is from it (CIE Lab, ΔE), and how much of the source picture
stays: IoU of the subject's masks in both, and PSNR outside of both. In brackets is the standard error over the prompts.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor
from tqdm import tqdm

from ..tools.comfyui.command import run_main
from ..tools.comfyui.inprocess import load_comfyui
from ..tools.comfyui.pack import alias_pack
from ..tools.comfyui.paths import TOY_TWO
from ..tools.toy_world.group_judge import Seen, judge_groups, load_group_judge
from ..tools.toy_world.pictures import PALETTE
from ..tools.toy_world.quality_groups import Prompt, single_prompts
from ..tools.toy_world.table import estimate, percent, table

STEPS, CFG, FIRST_SEED = 25, 3.0, 2_050_000
SOURCE, PROMPT, REFINED = "without the colour", "the colour in the prompt", "Prompt-to-Prompt"
WEIGHTS = 0.0, 2.0, 4.0
HEADINGS = "colour named", "ΔE from it", "IoU of the subject with the source's", "PSNR outside"
Found = dict[str, list[tuple[float, ...]]]


def edited(toy: Any, before: str, after: str, weights: str = "") -> Any:
    """The toy model with the pack's nodes: Prompt-to-Prompt with the defaults, in the layers that the toy has."""
    from explainable_latents.nodes.editing import ELPromptToPrompt, ELTwinSamplingModel

    from .guidance.sampled import defaults

    asked = {"clip": toy.clip, "source_text": before, "target_text": after, "weights": weights, "self_coarser": 2}
    (editors, *_) = ELPromptToPrompt.execute(**{**defaults(ELPromptToPrompt), **asked}).result
    twin = {"model": toy.model, "source": toy.encode(before), "editors": editors}
    return ELTwinSamplingModel.execute(**{**defaults(ELTwinSamplingModel), **twin}).result[0]


def pictures(toy: Any, model: Any, text: str, seeds: range) -> Tensor:
    """[N,3,128,128] in [0,1], one for each seed."""
    import comfy.sample

    empty = torch.zeros(1, 4, 16, 16)
    noise = torch.cat([comfy.sample.prepare_noise(empty, seed) for seed in seeds])
    how = STEPS, CFG, "euler", "normal", toy.encode(text), toy.encode(""), torch.zeros_like(noise)
    latents = comfy.sample.sample(model, noise, *how, disable_pbar=True, seed=seeds[0])
    return toy.vae.decode(latents).permute(0, 3, 1, 2).clamp(0, 1)


def variants(toy: Any, prompt: Prompt) -> Iterator[tuple[str, Any, str]]:
    """Name, model and prompt of every run; the source is the first."""
    ((subject, colour),) = prompt.things.items()
    before = Prompt({subject: ""}, prompt.scene).text
    yield SOURCE, toy.model, before
    yield PROMPT, toy.model, prompt.text
    yield REFINED, edited(toy, before, prompt.text), prompt.text
    for weight in WEIGHTS:
        yield colour_word(weight), edited(toy, prompt.text, prompt.text, f"{colour}: {weight:g}"), prompt.text


def colour_word(weight: float) -> str:
    """The name of a run whose colour word has a weight."""
    return f"the colour word × {weight:g}"


def measured(prompt: Prompt, own: Seen, source: Seen, picture: np.ndarray, other: np.ndarray) -> tuple[float, ...]:
    """The values of HEADINGS for a picture, uint8 [H,W,3], where the judge sees the subject in it and in the source."""
    ((subject, colour),) = prompt.things.items()
    (named, mask), (_, before) = own.subjects[subject], source.subjects[subject]
    mask, before = mask.numpy(), before.numpy()
    mean = rgb2lab(picture[mask].mean(0) / 255)
    outside = ~(mask | before)
    with np.errstate(divide="ignore"):  # the source is the same as itself
        kept = peak_signal_noise_ratio(other[outside], picture[outside], data_range=255)
    return (
        float(named == colour),
        float(deltaE_ciede2000(mean, rgb2lab(np.array(PALETTE[colour]) / 255))),
        float((mask & before).sum() / (mask | before).sum()),
        float(kept),
    )


def report(found: Found, missing: dict[str, list[float]]) -> str:
    """The table: means over prompts with their standard errors."""
    rows = []
    for name, prompts in found.items():
        columns = list(zip(*prompts, strict=True))
        kept = ["–", "–"] if name == SOURCE else [estimate(columns[2]), estimate(columns[3], 1) + " dB"]
        rows.append((name, percent(missing[name]), percent(columns[0]), estimate(columns[1], 1), *kept))
    return table(("", "subject lost", *HEADINGS), rows)


def main() -> None:
    """Draw, judge and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=49, help="only so many, from all subjects and scenes")
    parser.add_argument("--seeds", type=int, default=2, help="pictures of each prompt")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    alias_pack()
    load_comfyui()
    torch.set_num_threads(args.threads)
    from ..tools.toy_world.loaded import Toy

    toy, judge = Toy(TOY_TWO), load_group_judge()
    prompts = single_prompts(True)
    # 8 and 49 have no common divisor: neighbours differ in subject and scene
    chosen = [prompts[8 * i % len(prompts)] for i in range(min(args.prompts, len(prompts)))]
    found: Found = defaultdict(list)
    missing: dict[str, list[float]] = defaultdict(list)
    for number, prompt in enumerate(tqdm(chosen)):
        seeds = range(FIRST_SEED + number * args.seeds, FIRST_SEED + (number + 1) * args.seeds)
        (subject,) = prompt.things
        source: tuple[list[Seen], np.ndarray] | None = None
        with torch.inference_mode():
            for name, model, text in variants(toy, prompt):
                drawn = pictures(toy, model, text, seeds)
                seen = judge_groups(judge, drawn)
                pixels = (255 * drawn.permute(0, 2, 3, 1)).round().byte().numpy()
                source = source or (seen, pixels)
                both = [i for i in range(len(seeds)) if all(subject in each[i].subjects for each in (seen, source[0]))]
                missing[name].append(1 - statistics.mean(subject in each.subjects for each in seen))
                if both:
                    values = [measured(prompt, seen[i], source[0][i], pixels[i], source[1][i]) for i in both]
                    found[name].append(tuple(map(statistics.mean, zip(*values, strict=True))))
    print(f"\n{len(chosen)} prompts, {args.seeds} noises each, {STEPS} steps\n\n{report(found, missing)}")


if __name__ == "__main__":
    run_main(main)

"""Which saliency finds the subject? IoU with the true mask on the toy world, per noise level and threshold.

`python -m tests.benchmarks.bench_saliency_masks` (part of `make bench`); about 2 minutes on one core. Held-out pictures
are noised to a level, the subject's word is the prompt's, and every map goes through the same thresholds. Attention is
read from all layers (as aggregated attention is published) and from the last one alone, which is the layer that the
gradients are taken by; `--layers output.0.0` adds gradients by an earlier one. Maps of latent channels are averaged, as
attention has none; the aggregated definition of the gradients has all layers and one map. Attention of all layers is
also shown refined by self-attention.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from tqdm import tqdm

from ..tools.comfyui.inprocess import load_comfyui
from ..tools.comfyui.pack import alias_pack
from ..tools.toy_world.pictures import Picture, random_picture
from ..tools.toy_world.quality import HELD_OUT, Toy

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
RANDOM = "random map"
REFINED = (1, 2, 4, 8)


def saliencies(toy: Toy, picture: Picture, level: float, seed: int, layers: Sequence[str]) -> dict[str, torch.Tensor]:
    """Every method's map [1,1,h,w] of the picture's subject; Abs-Grad-SAM by these layers too, by the exact solver."""
    from explainable_latents.nodes.core.words.parsing import parse
    from explainable_latents.nodes.host.one_call import gradient_saliency, probe
    from explainable_latents.nodes.host.tokens import tokenize

    prompt = f"{picture.kind.subject} on {picture.kind.scene}"
    subjects = parse(prompt, tokenize(toy.clip, prompt), picture.kind.subject).with_role("subject")
    latent = {"samples": toy.vae.encode(torch.from_numpy(picture.image.copy()).float()[None] / 255)}
    asked = (toy.model, toy.encode(prompt), latent, subjects, level, seed)
    attention = {f"attention, {layers}": probe(*asked, layers=layers).maps for layers in ("all", "last")}
    attention |= {f"attention, all, refine {n}": probe(*asked, refine=n).maps for n in REFINED}
    gradients = {
        name: gradient_saliency(*asked, polarity, "structured").maps.mean(2)
        for name, polarity in (("Grad-SAM", "positive"), ("Abs-Grad-SAM", "absolute"))
    }
    for layer in layers:
        exact = gradient_saliency(*asked, "absolute", "exact", layer=layer)
        gradients[f"Abs-Grad-SAM, {layer}"] = exact.maps.mean(2)
    gradients["aggregated gradients"] = gradient_saliency(*asked, "absolute", "structured", "aggregated").maps
    noise = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(seed))
    return attention | gradients | {RANDOM: noise}


def main() -> None:
    """Measure and print the table, with the winners."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100, help="pictures")
    parser.add_argument("--levels", nargs="*", type=float, default=LEVELS, help="noise levels")
    parser.add_argument(
        "--layers", nargs="*", default=[], help="Abs-Grad-SAM by these layers too, some 5 s for each map"
    )
    asked = parser.parse_args()
    count = asked.count
    load_comfyui()
    alias_pack()
    from explainable_latents.nodes.core.maps.masks import Shaping, shape_mask

    rules = {
        "mean": Shaping("mean"),
        "mean + 0.5 std": Shaping("mean + k·std", 0.5),
        "otsu": Shaping("otsu"),
        "as published": Shaping("mean + k·std", 0.5, smooth_sigma=6.0, dilate_iterations=3),
    }
    toy, found = Toy(), defaultdict(list)
    with torch.inference_mode():
        for seed in tqdm(range(HELD_OUT, HELD_OUT + count)):
            picture = random_picture(seed)
            for level in asked.levels:
                for method, maps in saliencies(toy, picture, level, seed, asked.layers).items():
                    for rule, shaping in rules.items():
                        mask = shape_mask(maps, shaping, (method,))[0].bool()
                        mask = mask.repeat_interleave(8, 0).repeat_interleave(8, 1).numpy()
                        iou = (mask & picture.mask).sum() / (mask | picture.mask).sum()
                        found[level, rule, method].append(iou)
    print(
        f"\nIoU with the subject, mean over {count} held-out pictures (standard error); best of a level and rule in **"
    )
    print("as published: smoothing 6 (3x3), dilation 3x3 three times, mean + 0.5 std")
    methods = list(dict.fromkeys(method for _, _, method in found))
    wins: Counter[str] = Counter()
    print(f"\n| noise level | method | {' | '.join(rules)} |\n|---|---|{'---|' * len(rules)}")
    for level in asked.levels:
        best = {rule: max(methods, key=lambda m, r=rule: np.mean(found[level, r, m])) for rule in rules}
        wins.update(best.values())
        for method in methods:
            cells = [cell(found[level, rule, method], best[rule] == method) for rule in rules]
            print(f"| {level} | {method} | {' | '.join(cells)} |")
    print(f"\nbest most often: {', '.join(f'{m} ({n} of {wins.total()})' for m, n in wins.most_common())}")


def cell(values: list[float], best: bool) -> str:
    """Mean and standard error of the mean."""
    text = f"{np.mean(values):.2f} ({np.std(values) / len(values) ** 0.5:.2f})"
    return f"**{text}**" if best else text


if __name__ == "__main__":
    main()

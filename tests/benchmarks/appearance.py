"""Cross-Image Attention and Eye-for-an-Eye on the toy world: `make bench-appearance`.

42 cases (`--cases` takes fewer) of two pictures of the same kind of thing, in different scenes and colours: R gives
the structure, A the appearance. The result is sampled as the templates do it, from R at a strength of 0.68, by one
prompt for all. Measured are how far the mean colour inside of the thing is from A's (CIE Lab, as `R` itself is far, and
as it would be if nothing were taken), how much of R's mask a judge network finds again in the result (IoU), and how far
the surroundings are from R's in colour. A method works if it halves the distance at an IoU of 0.7 or more.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from typing import Any

import numpy as np
import torch
from skimage.color import rgb2lab
from tqdm import tqdm

from ..tools.comfyui.command import run_main
from ..tools.comfyui.inprocess import load_comfyui
from ..tools.comfyui.pack import alias_pack
from ..tools.toy_world.cases import keep_the_context
from ..tools.toy_world.judge import judge_images, load_judge
from ..tools.toy_world.pictures import COLOUR_NAMES, SCENE_NAMES, Kind, Picture, make_picture
from .editing import Editing
from .regional_prompts import where_the_word_is

STEPS, STRENGTH = 68, 0.68
PLAIN = "nothing taken over"
METHODS = (
    "Cross-Image Attention",
    "Cross-Image Attention, masks",
    "Eye-for-an-Eye",
    "Eye-for-an-Eye, masks",
    "Eye-for-an-Eye, where the word is",
    "Eye-for-an-Eye, masks, no statistics",
)


def pairs() -> list[tuple[Picture, Picture, int]]:
    """R and A, and the sampler's seed, of each case."""
    found = []
    for case in keep_the_context():
        kind = case.reference
        scene, colour = SCENE_NAMES.index(kind.scene), COLOUR_NAMES.index(kind.colour)
        other = Kind(kind.subject, SCENE_NAMES[(scene + 3) % 7], COLOUR_NAMES[(colour + 2) % 6])
        found.append((case.picture(), make_picture(other, case.picture_seed + 500), case.seed))
    return found


def editor(toy: Editing, method: str, text: str, look: torch.Tensor, masks: list[np.ndarray]) -> Any:
    """The editor with the published values. masks: of R and A, which a masked one is given."""
    from explainable_latents.nodes.core.methods.appearance import AppearanceTransfer, Schedule
    from explainable_latents.nodes.core.methods.cross_image_attention import CrossImageAttention
    from explainable_latents.nodes.core.methods.masking import ImageMasking
    from explainable_latents.nodes.core.methods.prompt_to_prompt import Window
    from explainable_latents.nodes.host.editing.appearance import AppearancePicture
    from explainable_latents.nodes.host.editing.cross_image_attention import CrossImageAttentionEditor
    from explainable_latents.nodes.host.editing.eye_for_an_eye import EyeForAnEyeEditor
    from explainable_latents.nodes.host.editing.paths import NOISED, Path

    window, structure, crossing = Window(0.15, 1), Window(0, 0.59), method.startswith("Cross")
    statistics_from = 1.0 if "no statistics" in method else 0.3 if crossing else 0.74
    schedule = Schedule(window, window, 5, structure, statistics_from)
    given = [ImageMasking(torch.from_numpy(mask)[None].float()) for mask in masks] if "masks" in method else ()
    given = [where_the_word_is(toy, text)] * 2 if "word" in method else given
    picture = AppearancePicture(toy.encode(text), Path(NOISED, look), *given)
    if crossing:
        return CrossImageAttentionEditor(CrossImageAttention(schedule, 3.5, 1.67), picture)
    return EyeForAnEyeEditor(AppearanceTransfer(schedule, 1.0), picture)


def transferred(toy: Editing, method: str, pictures: tuple[Picture, Picture], seed: int) -> np.ndarray:
    """The result uint8 [128,128,3] of one method on R and A."""
    import nodes

    from explainable_latents.nodes.host.editing.paths import NOISED
    from explainable_latents.nodes.host.editing.twin_sampling import Twin

    text = f"a photo of a {pictures[0].kind.subject}"
    prompt = toy.encode(text)
    start, look = (toy.vae.encode(torch.from_numpy(each.image.copy())[None].float() / 255) for each in pictures)
    model = toy.model.clone()
    editors = [] if method == PLAIN else [editor(toy, method, text, look, [each.mask for each in pictures])]
    Twin(prompt, editors, NOISED, start).install(model)
    how = (STEPS, 1.0, "euler", "normal", prompt, toy.encode(""), {"samples": start})
    made = nodes.common_ksampler(model, seed, *how, denoise=STRENGTH)[0]["samples"]
    return np.asarray(toy.picture(made))


def colour(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The mean colour inside of a mask, CIE Lab [3]."""
    return rgb2lab(image)[mask].mean(0)


def measured(judge: Any, result: np.ndarray, pictures: tuple[Picture, Picture]) -> dict[str, float]:
    """Distance of the thing's colour to A's, IoU of its mask with R's, distance of the surroundings' colours to R's."""
    structure, look = pictures
    seen = judge_images(judge, torch.from_numpy(result.copy()).permute(2, 0, 1)[None].float() / 255)[2][0].numpy()
    found = colour(result, seen) if seen.any() else colour(result, structure.mask)
    outside = rgb2lab(result) - rgb2lab(structure.image)
    return {
        "to A": float(np.linalg.norm(found - colour(look.image, look.mask))),
        "IoU with R": float((seen & structure.mask).sum() / (seen | structure.mask).sum()),
        "surroundings": float(np.linalg.norm(outside[~structure.mask], axis=-1).mean()),
    }


def main() -> int:
    """Run the cases and print the table; 1 if no method halves the distance at an IoU of 0.7."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=42, help="only so many cases, from all scenes")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    alias_pack()
    load_comfyui()
    torch.set_num_threads(args.threads)
    judge, toy, found = load_judge(), Editing(), defaultdict(list)
    cases = pairs()
    for structure, look, seed in tqdm(cases[:: max(1, len(cases) // args.cases)][: args.cases]):
        pictures = structure, look
        found["R itself"].append(measured(judge, structure.image, pictures))
        for method in (PLAIN, *METHODS):
            found[method].append(measured(judge, transferred(toy, method, pictures, seed), pictures))
    return report(found)


def report(found: dict[str, list[dict[str, float]]]) -> int:
    """Print the means with their standard errors."""
    names = list(next(iter(found.values()))[0])
    print(f"\n| {len(found[PLAIN])} cases | " + " | ".join(names) + " | nearer to A than plain |")
    print("|---" * (len(names) + 2) + "|")
    works = False
    for method, results in found.items():
        columns, means = [], {}
        for name in names:
            values = [each[name] for each in results]
            means[name] = statistics.mean(values)
            error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
            columns.append(f"{means[name]:.2f} ± {error:.2f}")
        nearer = sum(each["to A"] < plain["to A"] for each, plain in zip(results, found[PLAIN], strict=True))
        print(f"| {method} | " + " | ".join(columns) + f" | {nearer} |")
        plain = statistics.mean(each["to A"] for each in found[PLAIN])
        works |= method in METHODS and means["to A"] < plain / 2 and means["IoU with R"] >= 0.7
    return int(not works)


if __name__ == "__main__":
    run_main(main)

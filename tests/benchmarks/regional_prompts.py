"""What Regional Attention does on the 42 cases `B on S` of the toy world: `make bench-regional-prompts`.

Sides: the subject `B` is prompted in the left or the right half alone, and elsewhere the scene `S`; whether the place
where a judge network sees it goes with the side (the toy draws subjects near the middle: between a third and two thirds
of the width), and how often it sees `B` and `S`. By a word: the base prompt is `A on S`, and where the picture looks at
`A` the prompt is `B on S`; how often the judge sees `B`, and how much is kept of the picture of `A on S` outside both
subjects. Beside it the run with the prompt `B on S` from the same noise, which nothing holds to that picture.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections import defaultdict
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from ..tools.comfyui.command import run_main
from ..tools.comfyui.inprocess import load_comfyui
from ..tools.comfyui.pack import alias_pack
from ..tools.toy_world.cases import Case, keep_the_context
from ..tools.toy_world.judge import judge_images, load_judge
from ..tools.workflows.pipelines import Measured, measure
from .editing import Editing, drawn_by_the_model

PLAIN, BY_WORD = "the prompt B on S", "B on S where A is"
SIDES = {"left": slice(0, 8), "right": slice(8, 16)}


def with_region(toy: Editing, text: str, mask: torch.Tensor | None = None, masking: Any = None) -> Any:
    """The toy model with a region for a prompt."""
    from explainable_latents.nodes.host.editing.regional_attention import install_regions

    model, placed = toy.model.clone(), {} if mask is None else {"mask": mask}
    install_regions(model, [[context, {**options, **placed}] for context, options in toy.encode(text)], masking=masking)
    return model


def where_the_word_is(toy: Editing, text: str) -> Any:
    """A masking by the subject of a prompt, as in the template."""
    from explainable_latents.nodes.core.maps.masks import Shaping
    from explainable_latents.nodes.core.methods.masking import CUMULATIVE, AttentionMasking
    from explainable_latents.nodes.core.words.parsing import parse
    from explainable_latents.nodes.host.tokens import tokenize

    subjects = parse(text, tokenize(toy.clip, text), "").with_role("subject")
    return AttentionMasking(
        subjects, Shaping("otsu", dilate_iterations=1, flat_map="all in"), calls=CUMULATIVE, refine=1
    )


def main() -> int:
    """Run the cases and print both tables; 1 when the side has no effect, or nothing is kept by the word's region."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=42, help="only so many cases, from all scenes")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    alias_pack()
    load_comfyui()
    torch.set_num_threads(args.threads)
    judge, toy, empty = load_judge(), Editing(), torch.zeros(1, 4, 16, 16)
    measured: dict[str, list[Measured]] = defaultdict(list)
    places: list[tuple[float, float]] = []
    seen: list[tuple[bool, bool]] = []

    def drawn(model: Any, prompt: str, case: Case) -> Image.Image:
        return toy.picture(toy.sample(model, prompt, case.seed, empty, 1.0, True))

    cases = keep_the_context()
    for case in tqdm(cases[:: max(1, len(cases) // args.cases)][: args.cases]):
        before = f"{case.reference.subject} on {case.reference.scene}"
        source = drawn_by_the_model(judge, drawn(toy.model, before, case), case)
        by_word = with_region(toy, case.prompt, masking=where_the_word_is(toy, before))
        for name, made in ((PLAIN, drawn(toy.model, case.prompt, case)), (BY_WORD, drawn(by_word, before, case))):
            measured[name].append(measure(judge, case, made, source))
        for number, columns in enumerate(SIDES.values()):
            mask = torch.zeros(1, 16, 16)
            mask[..., columns] = 1
            pixels = np.asarray(drawn(with_region(toy, case.prompt, mask), case.scene, case))
            (subject,), (scene,), found = judge_images(
                judge, torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 255
            )
            seen.append((subject == case.subject, scene == case.scene))
            if bool(found.any()):
                places.append((number, float(found[0].nonzero()[:, 1].float().mean()) / 128))
    side, place = np.array(places).T
    correlation = float(np.corrcoef(side, place)[0, 1])
    print("\n| subject prompted | middle of the subject, share of the width | pictures |\n|---|---|---|")
    for number, name in enumerate(SIDES):
        print(f"| {name} | {place[side == number].mean():.3f} | {int((side == number).sum())} |")
    subjects, scenes = (100 * statistics.mean(each) for each in zip(*seen, strict=True))
    print(f"correlation {correlation:.2f}; subject seen in {subjects:.0f} %, scene in {scenes:.0f} %")
    print("\n| from the same noise | kept outside the subjects | B seen | S seen |\n|---|---|---|---|")
    for name, results in measured.items():
        kept = [each.context_psnr for each in results]
        error = statistics.stdev(kept) / math.sqrt(len(kept))
        shares = (100 * statistics.mean(getattr(each, what) for each in results) for what in ("subject", "scene"))
        print(
            f"| {name} | {statistics.mean(kept):.1f} ± {error:.1f} dB | "
            + " | ".join(f"{x:.0f} %" for x in shares)
            + " |"
        )
    lead = [a.context_psnr - b.context_psnr for a, b in zip(measured[BY_WORD], measured[PLAIN], strict=True)]
    error = statistics.stdev(lead) / math.sqrt(len(lead))
    print(f"lead {statistics.mean(lead):+.1f} dB, standard error {error:.1f} dB")
    return int(not (correlation > 0 and statistics.mean(lead) > error))


if __name__ == "__main__":
    run_main(main)

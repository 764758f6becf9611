"""Compare editing by attention with plain image-to-image on the toy world: `make bench-editing`.

Two tasks of the same 42 cases, `A on S` becomes `B on S`; what is kept is measured outside both subjects, and whether a
judge network sees B. In the first the picture that is edited is drawn by the model itself from the prompt `A on S`; in
the second it is a reference that the model has not seen. In a third task of 42 cases `A on S`, drawn by the model,
becomes `A on T`; how much is kept of the subject, and whether the judge sees T: for MasaCtrl and Plug-and-Play. A
method is good when it keeps more than plain image-to-image of the same picture that follows the prompt as often: its
point has to lie above the curve that the baseline draws over its strengths. Everything runs in one process, by the
nodes themselves.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ..tools.comfyui.command import run_main, whole_file
from ..tools.comfyui.inprocess import load_comfyui
from ..tools.comfyui.pack import alias_pack
from ..tools.toy_world.cases import Case, keep_the_context, keep_the_subject
from ..tools.toy_world.judge import judge_images, load_judge
from ..tools.toy_world.loaded import Toy
from ..tools.toy_world.pictures import Picture
from ..tools.workflows.pipelines import measure, sampler_settings
from .inversions import edits
from .pipelines import BASELINE, Results, Task, lead_over_baseline, table

DRAWN = Task("drawn picture", keep_the_context, "context", "subject", ())
GIVEN = Task("given picture", keep_the_context, "context", "subject", ())
MOVED = Task("another scene", keep_the_subject, "subject", "scene", ())
STRENGTHS = (0.5, 0.7, 0.9)
TASKS = DRAWN, GIVEN, MOVED
# Of the drawn pictures: the settings of the authors' notebooks, but for the guidance that the toy was made for.
STEPS, GUIDANCE = 50, 3.0
# Name -> cross_end, self_end, and whether LocalBlend keeps what is outside the masks.
METHODS = {
    "Prompt-to-Prompt 0.8, 0.4": (0.8, 0.4, False),
    "Prompt-to-Prompt 0.8, 0.4, LocalBlend": (0.8, 0.4, True),
}
# Name -> MasaCtrl's first step as a share and its layers, and whether it has masks; or Plug-and-Play's two windows.
MASACTRL = {
    "MasaCtrl 0.08": (0.08, "auto", False),
    "MasaCtrl 0.08, finest layers": (0.08, "output.2, output.3", False),
    "MasaCtrl 0.08, masks": (0.08, "auto", True),
}
PLUG_AND_PLAY = {"Plug-and-Play 0.5, 0.8": (0.5, 0.8), "Plug-and-Play 0.3, 0.5": (0.3, 0.5)}


class Editing(Toy):
    """The toy checkpoint and the host's own nodes."""

    def sample(self, model: Any, prompt: str, seed: int, start: Tensor, denoise: float, drawn: bool) -> Tensor:
        """KSampler from a latent."""
        import nodes

        steps = sampler_settings(denoise)["steps"]
        how = ("euler", "normal") if drawn else ("ddpm", "ddim_uniform")
        guidance = GUIDANCE if drawn else 8.0
        texts = self.encode(prompt), self.encode("")
        made = nodes.common_ksampler(model, seed, steps, guidance, *how, *texts, {"samples": start}, denoise=denoise)
        return made[0]["samples"]

    def edited(self, method: str, before: str, after: str, reference: Tensor | None) -> Any:
        """The model with a method's editor. reference: the latent of a given picture."""
        from explainable_latents.nodes.core.maps.masks import Shaping
        from explainable_latents.nodes.core.methods.masking import CUMULATIVE, AttentionMasking
        from explainable_latents.nodes.core.methods.prompt_to_prompt import Window
        from explainable_latents.nodes.core.words.parsing import parse
        from explainable_latents.nodes.host.editing.local_blend import LocalBlend
        from explainable_latents.nodes.host.editing.paths import GENERATED, NOISED
        from explainable_latents.nodes.host.editing.prompt_to_prompt import prompt_to_prompt
        from explainable_latents.nodes.host.editing.twin_sampling import Twin
        from explainable_latents.nodes.host.tokens import tokenize

        cross, own, blends = METHODS[method]
        # the toy's coarse layers have half the latent's grid
        editor = prompt_to_prompt(self.clip, before, after, "auto", Window(0, cross), Window(0, own), 2, "", "")
        shaping = Shaping("otsu", dilate_iterations=1, flat_map="all in")
        target, source = (
            AttentionMasking(
                parse(text, tokenize(self.clip, text), "").with_role("subject"), shaping, calls=CUMULATIVE, refine=1
            )
            for text in (after, before)
        )
        model = self.model.clone()
        path = GENERATED if reference is None else NOISED
        blend = LocalBlend(target, source) if blends else None
        Twin(self.encode(before), [editor], path, reference, blend=blend).install(model)
        return model

    def moved(self, method: str, before: str, after: str) -> Any:
        """The model with MasaCtrl or Plug-and-Play. The masks are the paper's, of the toy's coarse layers."""
        from explainable_latents.nodes.core.maps.masks import Shaping
        from explainable_latents.nodes.core.methods.masking import AttentionMasking
        from explainable_latents.nodes.core.methods.mutual_self_attention import MutualSelfAttention
        from explainable_latents.nodes.core.methods.plug_and_play import PlugAndPlay
        from explainable_latents.nodes.core.methods.prompt_to_prompt import Window
        from explainable_latents.nodes.core.words.parsing import parse
        from explainable_latents.nodes.host.editing.mutual_self_attention import MutualSelfAttentionEditor
        from explainable_latents.nodes.host.editing.plug_and_play import PlugAndPlayEditor
        from explainable_latents.nodes.host.editing.twin_sampling import Twin
        from explainable_latents.nodes.host.tokens import tokenize

        if method in PLUG_AND_PLAY:
            editor = PlugAndPlayEditor(PlugAndPlay(*(Window(0, end) for end in PLUG_AND_PLAY[method])))
        else:
            start, layers, masked = MASACTRL[method]
            shaping = Shaping("min-max", 0.1, flat_map="all in")
            masks = [
                AttentionMasking(parse(text, tokenize(self.clip, text), "").with_role("subject"), shaping, layers="8x8")
                for text in (after, before)
                if masked
            ]
            editor = MutualSelfAttentionEditor(MutualSelfAttention(Window(start, 1)), layers, *masks)
        model = self.model.clone()
        Twin(self.encode(before), [editor]).install(model)
        return model

    def picture(self, latent: Tensor) -> Image.Image:
        """VAE Decode."""
        pixels = self.vae.decode(latent)[0].clamp(0, 1)
        return Image.fromarray((pixels * 255).round().byte().numpy())


def drawn_by_the_model(judge: Any, picture: Image.Image, case: Case) -> Picture:
    """The source's picture with the mask that the judge sees."""
    pixels = np.asarray(picture)
    _, _, found = judge_images(judge, torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255)
    return replace(case.picture(), image=pixels, mask=found[0].numpy())


@torch.inference_mode()  # as the host runs its nodes; without it an inversion would keep all that autograd could need
def main() -> int:
    """Run all cases and print the tables; 1 when no method is ahead of the baseline in a task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=42, help="only so many cases, from all scenes")
    parser.add_argument("--tasks", nargs="*", default=[task.name for task in TASKS])
    parser.add_argument("--out", type=Path, help="keep every single measurement in this JSON file")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    alias_pack()
    load_comfyui()
    torch.set_num_threads(args.threads)
    judge, toy, found = load_judge(), Editing(), defaultdict(list)
    tasks = [task for task in TASKS if task.name in args.tasks]
    for task in tasks:
        cases = task.cases()
        for case in tqdm(cases[:: max(1, len(cases) // args.cases)][: args.cases], desc=task.name):
            before, after = f"{case.reference.subject} on {case.reference.scene}", case.prompt
            drawn = task is not GIVEN
            if drawn:
                empty = torch.zeros(1, 4, 16, 16)
                latent = toy.sample(toy.model, before, case.seed, empty, 1.0, drawn)
                reference = drawn_by_the_model(judge, toy.picture(latent), case)
            else:
                reference = case.picture()
                latent = toy.vae.encode(torch.from_numpy(reference.image)[None].float() / 255)
            runs = [(BASELINE.name, strength, toy.model, latent) for strength in STRENGTHS]
            if task is MOVED:
                runs += [(name, 1.0, toy.moved(name, before, after), empty) for name in (*MASACTRL, *PLUG_AND_PLAY)]
            for name in METHODS if task is not MOVED else ():
                if drawn:
                    runs.append((name, 1.0, toy.edited(name, before, after, None), empty))
                else:
                    model = toy.edited(name, before, after, latent)
                    runs += [(name, strength, model, latent) for strength in STRENGTHS[1:]]
            for name, strength, model, start in runs:
                seed = case.seed if name != BASELINE.name or not drawn else case.seed + 1
                made = toy.picture(toy.sample(model, after, seed, start, strength, drawn))
                found[task.name, name, strength].append(measure(judge, case, made, reference))
            for name, strength, made in () if drawn else edits(toy, before, after, latent, case.seed):
                found[task.name, name, strength].append(measure(judge, case, toy.picture(made), reference))
            if args.out:
                keys = [(*key, vars(each)) for key, results in found.items() for each in results]
                with whole_file(args.out) as part:
                    part.write_text(json.dumps(keys, indent=1))
    return report(found, tasks)


def report(found: Results, tasks: list[Task]) -> int:
    """Print the tables and each method's lead with its standard error over the cases."""
    ahead = True
    for task in tasks:
        print(f"\n{table(task, found)}\n")
        leads = []
        for (name, method, strength), results in found.items():
            if name == task.name and method != BASELINE.name:
                lead = lead_over_baseline(task, found, method, strength)
                values = [getattr(each, f"{task.kept}_psnr") for each in results]
                error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("inf")
                print(f"{method} at {strength}: lead {lead:+.1f} dB, standard error {error:.1f} dB")
                leads.append(lead > error)
        ahead &= any(leads)
    return int(not ahead)


if __name__ == "__main__":
    run_main(main)

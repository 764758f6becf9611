"""How well pictures come back from their noise, by each inversion: `make bench-inversion`.

Six references of the toy world (`--pictures` takes up to 42) that the model has not seen are inverted with their own
prompts and sampled back, by the functions of the pack's nodes, all in one batch. The table also says how large the
noise is that was found, as a share of the first noise level (of noise 1), and its largest number; with `--edit` what
becomes of it with the prompt of another subject, by the stock Euler and by the inversion's own sampler: how often a
judge sees that subject, and the PSNR outside of both.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ..tools.comfyui.command import run_main
from ..tools.comfyui.inprocess import load_comfyui
from ..tools.comfyui.pack import alias_pack
from ..tools.contact_sheet import contact_sheet
from ..tools.toy_world.cases import Case, keep_the_context
from ..tools.toy_world.judge import load_judge
from ..tools.workflows.pipelines import measure
from .editing import GUIDANCE, Editing

ITERATIONS = 5
DDIM, SOLVED, FRIENDLY, BELM = METHODS = "DDIM", f"{ITERATIONS} iterations", "edit-friendly", "O-BELM"


@dataclass(frozen=True)
class Trip:
    """What an inversion found. noise: at the first level. back: the latents that come back. edit: with other prompts,
    by the inversion's own sampler; None for the stock Euler."""

    noise: Tensor
    back: Tensor
    edit: Callable[[], Tensor] | None = None


class Trips:
    """So many pictures of all scenes, their prompts, and those of the edit."""

    def __init__(self, count: int) -> None:
        self.toy = toy = Editing()
        cases = keep_the_context()
        self.cases: list[Case] = cases[:: len(cases) // count][:count]
        self.given = torch.stack([torch.from_numpy(case.picture().image.copy()) for case in self.cases]).float() / 255
        self.latent = {"samples": toy.vae.encode(self.given)}
        self.old = self._texts([f"{case.reference.subject} on {case.reference.scene}" for case in self.cases])
        self.new, self.negative = self._texts([case.prompt for case in self.cases]), toy.encode("")

    def _texts(self, prompts: list[str]) -> list:
        each = [self.toy.encode(prompt)[0] for prompt in prompts]
        return [[torch.cat([text for text, _ in each]), each[0][1]]]

    def pictures(self, samples: Tensor) -> Tensor:
        """VAE Decode."""
        return self.toy.vae.decode(samples).float().clamp(0, 1)

    def psnr(self, samples: Tensor) -> float:
        """Of the decoded latents, beside the pictures; mean, in decibels."""
        from explainable_latents.nodes.core.maps.measures import compare

        return compare(self.pictures(samples), self.given).mean_psnr

    def trip(self, method: str, sigmas: Tensor, cfg: float) -> Trip:
        """There and back along the noise levels."""
        from explainable_latents.nodes.core.methods.inversion import EULER, HIGHER, TWO_STEPS
        from explainable_latents.nodes.host.editing.edit_friendly import invert_edit_friendly
        from explainable_latents.nodes.host.editing.own_run import Guided
        from explainable_latents.nodes.host.editing.two_steps import invert_by

        guided = Guided(self.toy.model, self.old, self.negative, cfg)
        if method == FRIENDLY:
            found, sampler = invert_edit_friendly(guided, self.latent, sigmas, 0.0, 1)
        else:
            rule, iterations = TWO_STEPS if method == BELM else EULER, ITERATIONS if method == SOLVED else 0
            found, sampler = invert_by(rule, guided, self.latent, sigmas, iterations, HIGHER, True, None)
        edit = (lambda: self._sampled(sigmas, sampler)) if method in (FRIENDLY, BELM) else None
        return Trip(found.path.states[0], found.round_trip["samples"], edit)

    def from_noise(self, trip: Trip, sigmas: Tensor) -> Tensor:
        """The stock Euler from the noise that was found, with the prompts of the edit."""
        import comfy.samplers

        return self._sampled(sigmas, comfy.samplers.sampler_object("euler"), trip.noise)

    def _sampled(self, sigmas: Tensor, sampler, noise: Tensor | None = None) -> Tensor:
        import comfy.sample

        if noise is None:
            start = self.latent["samples"]
        else:
            sampling = self.toy.model.get_model_object("model_sampling")
            start = self.toy.model.model.process_latent_out(sampling.inverse_noise_scaling(sigmas[:1], noise))
        how = GUIDANCE, sampler, sigmas, self.new, self.negative, start
        return comfy.sample.sample_custom(self.toy.model, torch.zeros_like(start), *how, disable_pbar=True, seed=0)

    def edited(self, judge, samples: Tensor) -> tuple[str, list[Image.Image]]:
        """How an edit went, and its pictures."""
        pixels = [Image.fromarray((each * 255).round().byte().numpy()) for each in self.pictures(samples)]
        found = [measure(judge, case, each) for case, each in zip(self.cases, pixels, strict=True)]
        kept = sum(each.context_psnr for each in found) / len(found)
        return f"{sum(each.subject for each in found)}/{len(found)}, {kept:.1f} dB", pixels


@torch.inference_mode()
def main() -> int:
    """Print the table; 1 when the exact rule misses what the autoencoder allows by 0.1 dB."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="*", default=[10, 25, 50])
    parser.add_argument("--guidance", type=float, nargs="*", default=[1.0, 3.0])
    parser.add_argument("--schedulers", nargs="*", default=["normal"])
    parser.add_argument("--methods", nargs="*", default=METHODS)
    parser.add_argument("--pictures", type=int, default=6)
    parser.add_argument("--edit", action="store_true", help="also draw the other subject from the noise")
    parser.add_argument("--sheet", type=Path, help="write the edits' pictures to this file")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    alias_pack()
    load_comfyui()
    torch.set_num_threads(args.threads)
    from explainable_latents.nodes.host.editing.own_run import schedule

    judge, trips, rows, good = load_judge(), Trips(args.pictures), [], True
    ceiling = trips.psnr(trips.latent["samples"])
    print(f"the autoencoder alone: {ceiling:.2f} dB\n", flush=True)
    print("| method | scheduler | guidance | steps | PSNR | latent off by | deviation of the noise | largest | edits |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for scheduler in args.schedulers:
        for cfg in args.guidance:
            for method in args.methods:
                for steps in args.steps:
                    sigmas = schedule(trips.toy.model, steps, scheduler, 1.0, None)
                    trip, latent = trips.trip(method, sigmas, cfg), trips.latent["samples"]
                    psnr, noise = trips.psnr(trip.back), trip.noise / sigmas[0]
                    off = float((trip.back - latent).flatten(1).norm(dim=1).div(latent.flatten(1).norm(dim=1)).mean())
                    good &= method != BELM or abs(psnr - ceiling) < 0.1
                    edits = []
                    made = {"euler": trips.from_noise(trip, sigmas)} if args.edit and method != FRIENDLY else {}
                    if args.edit and trip.edit is not None:
                        made["own"] = trip.edit()
                    for name, samples in made.items():
                        text, pixels = trips.edited(judge, samples)
                        edits.append(f"{name} {text}")
                        rows.append((f"{method}, {scheduler}, cfg {cfg:g}, {steps} steps, {edits[-1]}", pixels))
                    print(
                        f"| {method} | {scheduler} | {cfg:g} | {steps} | {psnr:.2f} dB | {off:.2e} "
                        f"| {float(noise.std()):.3f} | {float(noise.abs().max()):.2f} | {'; '.join(edits)} |",
                        flush=True,
                    )
    if args.sheet:
        contact_sheet([case.subject for case in trips.cases], rows).save(args.sheet)
    return 0 if good else 1


if __name__ == "__main__":
    run_main(main)

"""Measure the toy checkpoint in a real ComfyUI: `python -m tests.tools.toy_world.quality` (`make toy-quality`).

Prints the numbers of the model card: the judge on held-out pictures, the autoencoder, 49 prompts × 4 seeds with the
stock KSampler, and the attention of the subject word against the true mask on noised held-out pictures. Writes all
generated pictures as one grid.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from ..comfyui.command import run_main
from ..comfyui.inprocess import load_comfyui
from ..comfyui.pack import alias_pack
from ..comfyui.paths import ROOT, toy_checkpoint
from .judge import held_out_quality, judge_images, load_judge
from .pictures import SCENE_NAMES, SUBJECT_NAMES, random_picture

HELD_OUT = 1_000_000
TIMESTEPS = (250, 500, 750)


class Toy:
    """The checkpoint as a stock ComfyUI loads it."""

    def __init__(self) -> None:
        import comfy.sd

        from . import comfyui_toy_model  # noqa: F401  registers the model

        self.model, self.clip, self.vae, _ = comfy.sd.load_checkpoint_guess_config(str(toy_checkpoint()))

    def encode(self, text: str) -> Any:
        """Conditioning of a prompt."""
        return self.clip.encode_from_tokens_scheduled(self.clip.tokenize(text))

    def generate(self, prompt: str, seeds: range, cfg: float, sampler: str, scheduler: str) -> torch.Tensor:
        """One 128×128 picture per seed after 50 steps from pure noise, [N,3,128,128] in [0,1].

        Each equals a batch of one.
        """
        import nodes

        pictures = []
        for seed in seeds:
            settings = (seed, 50, cfg, sampler, scheduler, self.encode(prompt), self.encode(""))
            (latent,) = nodes.common_ksampler(self.model, *settings, {"samples": torch.zeros(1, 4, 16, 16)})
            pictures.append(self.vae.decode(latent["samples"]).permute(0, 3, 1, 2))
        return torch.cat(pictures).clamp(0, 1)


def autoencoder_psnr(toy: Toy, count: int = 200) -> float:
    """Mean PSNR in dB of encoding and decoding held-out pictures."""
    values = []
    for seed in range(HELD_OUT, HELD_OUT + count):
        image = torch.from_numpy(random_picture(seed).image.copy()).float()[None] / 255
        error = ((toy.vae.decode(toy.vae.encode(image)) - image) ** 2).mean().item()
        values.append(-10 * np.log10(error))
    return statistics.mean(values)


def attention_iou(toy: Toy, timestep: int, layers: str, count: int = 200) -> float:
    """Mean IoU of (subject word's attention > its mean) with the true mask, held-out pictures noised to `timestep`."""
    import comfy.sample
    import comfy.samplers

    from explainable_latents.nodes.core.words.parsing import parse
    from explainable_latents.nodes.host.attention.observer import observe
    from explainable_latents.nodes.host.tokens import tokenize

    sigma = float(toy.model.get_model_object("model_sampling").sigma(torch.tensor(float(timestep))))
    values = []
    for seed in range(HELD_OUT, HELD_OUT + count):
        picture = random_picture(seed)
        prompt = f"{picture.kind.subject} on {picture.kind.scene}"
        image = torch.from_numpy(picture.image.copy()).float()[None] / 255
        latent = toy.vae.encode(image)
        patched = toy.model.clone()
        capture = observe(patched, parse(prompt, tokenize(toy.clip, prompt), picture.kind.subject), layers=layers)
        comfy.sample.sample_custom(
            patched,
            comfy.sample.prepare_noise(latent, seed),
            1.0,
            comfy.samplers.sampler_object("euler"),
            torch.tensor([sigma, 0.0]),
            toy.encode(prompt),
            toy.encode(""),
            latent,
            disable_pbar=True,
        )
        heat = capture.latest().maps[0, 0]
        mask = (heat > heat.mean()).repeat_interleave(8, 0).repeat_interleave(8, 1).numpy()
        values.append((mask & picture.mask).sum() / (mask | picture.mask).sum())
    return statistics.mean(values)


def generation_quality(
    toy: Toy, cfg: float, sampler: str, scheduler: str, grid: Path, seeds: int = 4
) -> dict[str, float]:
    """How often the judge sees the prompted subject and scene over 49 prompts; writes the pictures as a grid."""
    judge, rows, right = load_judge(), [], {"subject": [], "scene": []}
    for scene in tqdm(SCENE_NAMES):
        row = []
        for subject in SUBJECT_NAMES:
            start = 1000 * len(rows) + 100 * len(row)
            images = toy.generate(f"{subject} on {scene}", range(start, start + seeds), cfg, sampler, scheduler)
            named, placed, _ = judge_images(judge, images)
            right["subject"] += [n == subject for n in named]
            right["scene"] += [p == scene for p in placed]
            row.append(images)
        rows.append(torch.cat(row))
    tiles = torch.cat([torch.cat(list(row), 2) for row in rows], 1)
    grid.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((tiles.permute(1, 2, 0) * 255).byte().numpy()).save(grid)
    return {k: statistics.mean(v) for k, v in right.items()}


@torch.inference_mode()  # as the host runs its nodes: the pictures must not keep how they were made
def main() -> None:
    """Print every number."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "output" / "toy", help="folder for the grids")
    parser.add_argument("--only", choices=("judge", "autoencoder", "attention", "generation"), help="one part")
    args = parser.parse_args()
    load_comfyui()
    alias_pack()
    toy = Toy()
    wanted = {args.only} if args.only else {"judge", "autoencoder", "attention", "generation"}
    if "judge" in wanted:
        print({k: f"{v:.1%}" for k, v in held_out_quality(load_judge()).items()})
    if "autoencoder" in wanted:
        print(f"autoencoder: {autoencoder_psnr(toy):.1f} dB")
    if "attention" in wanted:
        for timestep, layers in itertools.product(TIMESTEPS, ("all", "16x16", "8x8")):
            print(f"attention, t = {timestep}, layers {layers}: IoU {attention_iou(toy, timestep, layers):.2f}")
    if "generation" in wanted:
        for cfg, sampler, scheduler in ((3.0, "euler", "normal"), (8.0, "ddpm", "ddim_uniform")):
            quality = generation_quality(toy, cfg, sampler, scheduler, args.out / f"grid_{sampler}_cfg{cfg:g}.png")
            print(f"cfg {cfg}, {sampler}: " + ", ".join(f"prompted {k} {v:.1%}" for k, v in quality.items()))


if __name__ == "__main__":
    run_main(main)

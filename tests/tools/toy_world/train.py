"""Train the toy checkpoint from nothing: `python -m tests.tools.toy_world.train` (`make toy`).

Five stages, each with fixed seeds and step counts; a finished stage is kept in the work folder and not run again:
`autoencoder` (TAESD on random crops), `latents` (the data set, encoded once), `diffusion` (UNet and text encoder
together), `judge` (the network that measures results) and `export` (one fp16 safetensors file in the layout that
ComfyUI loads). Runs on a CUDA device when there is one, otherwise on the CPU (about 80 minutes on two cores).
"""

import argparse
import logging
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..comfyui.command import run_main
from ..comfyui.inprocess import load_comfyui
from ..comfyui.install import Host
from ..comfyui.paths import HOME
from . import pictures
from .diffusion import Plan as DiffusionPlan
from .diffusion import finished_or_so_far, reporter, schedule, staged, train_diffusion
from .export import save_checkpoint
from .judge import train_judge
from .modules import TextEncoder, make_autoencoder, make_unet
from .objectives import NoisePrediction
from .precision import mixed
from .vocabulary import Vocabulary, first_world

log = logging.getLogger("toy_world")
HERE = Path(__file__).parent
HELD_OUT = 1_000_000  # seeds from here on are never trained on


@dataclass(frozen=True)
class Plan:
    """How much of everything; the defaults made the committed checkpoint."""

    pictures: int = 20_000
    autoencoder_steps: int = 4_000
    autoencoder_batch: int = 16
    crop: int = 64
    judge_steps: int = 800


DIFFUSION = DiffusionPlan(steps=6_800, batch=32, learning_rate=8e-4)


def drawn(draw: Callable[[int], Any], seeds: range) -> list:
    """Return what `draw` makes of each of `seeds`, on all cores."""
    with multiprocessing.get_context("fork").Pool(os.cpu_count()) as pool:
        return pool.map(draw, seeds, chunksize=50)


def as_tensor(images: list[np.ndarray]) -> Tensor:
    """Return pictures uint8 [128,128,3] as one tensor [N,3,128,128]."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def _image(seed: int) -> np.ndarray:
    return pictures.random_picture(seed).image


def random_crops(images: Tensor, batch: int, side: int, generator: torch.Generator) -> Tensor:
    """Return `batch` random square crops of `images`, float32 in [0,1], [B,3,side,side]."""
    picks = torch.randint(len(images), (batch,), generator=generator).tolist()
    corners = torch.randint(images.shape[-1] - side + 1, (batch, 2), generator=generator).tolist()
    crops = [images[i, :, y : y + side, x : x + side] for i, (y, x) in zip(picks, corners, strict=True)]
    return torch.stack(crops).float() / 255


def train_autoencoder(plan: Plan, images: Tensor, device: torch.device) -> nn.Module:
    """Train TAESD on random crops: squared and absolute error, latents held near zero mean and unit deviation."""
    torch.manual_seed(1)
    generator = torch.Generator().manual_seed(2)
    vae = make_autoencoder(device).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(vae.parameters(), 1.5e-3, weight_decay=1e-4, fused=True)
    lr = torch.optim.lr_scheduler.LambdaLR(optimiser, partial(schedule, steps=plan.autoencoder_steps))
    report = reporter("autoencoder", plan.autoencoder_steps)
    next(report)
    for _ in range(plan.autoencoder_steps):
        real = random_crops(images, plan.autoencoder_batch, plan.crop, generator).to(device)
        with mixed(device):
            latent = vae.taesd_encoder(real.contiguous(memory_format=torch.channels_last)).float()
            noisy = latent + 0.05 * torch.randn_like(latent)
            decoded = vae.taesd_decoder(noisy).float()
        spread = (latent.mean((0, 2, 3)) ** 2 + (latent.std((0, 2, 3)) - 1) ** 2).mean()
        loss = F.mse_loss(decoded, real) + 0.1 * F.l1_loss(decoded, real) + 0.003 * spread
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        lr.step()
        report.send(F.mse_loss(decoded.detach(), real).item())
    return vae


@torch.no_grad()
def encode(vae: nn.Module, images: Tensor, device: torch.device) -> Tensor:
    """Return the raw encoder output for uint8 images, float32 [N,4,16,16]."""
    parts = []
    for chunk in images.split(32):
        batch = (chunk.to(device).float() / 255).contiguous(memory_format=torch.channels_last)
        with mixed(device):
            parts.append(vae.taesd_encoder(batch).float().cpu())
    return torch.cat(parts)


def set_latent_scale(vae: nn.Module, latents: Tensor) -> None:
    """Store the scale and shift that give ComfyUI's SD latents (times 0.18215) zero mean and unit deviation."""
    scale = 0.18215 * latents.std()
    vae.vae_scale.data = scale
    vae.vae_shift.data = -latents.mean() / scale


def begin(description: str, stages: Path) -> tuple[argparse.Namespace, torch.device, Host]:
    """Read the command line (`work`: folder of finished stages, `out`), and make log, device and ComfyUI ready."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=stages, help="folder of finished stages")
    parser.add_argument("--out", type=Path, default=HERE, help="folder for the checkpoint and the judge")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads")
    parser.add_argument("--so-far", action="store_true", help="train nothing: write what the last snapshot has")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    args.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    log.info("training on %s, stages in %s", device, args.work)
    return args, device, load_comfyui(device="--cpu" if device.type == "cpu" else "")


def main() -> None:
    """Run every stage that is not finished and write `toy.safetensors` and `judge.safetensors`."""
    args, device, host = begin(__doc__, HOME / "toy")
    plan, vocabulary = Plan(), Vocabulary(host.tree, first_world())
    images = None if (args.work / "latents.pt").exists() else as_tensor(drawn(_image, range(plan.pictures)))

    vae = make_autoencoder(device).to(memory_format=torch.channels_last)
    vae.load_state_dict(
        staged(args.work / "autoencoder.pt", lambda: train_autoencoder(plan, images, device).state_dict())
    )
    latents = staged(args.work / "latents.pt", lambda: {"latents": encode(vae, images, device)})["latents"]
    vae.requires_grad_(False)
    set_latent_scale(vae, latents)
    scaled = 0.18215 * (latents / vae.vae_scale.cpu() + vae.vae_shift.cpu())

    def diffusion(plan: DiffusionPlan) -> dict:
        torch.manual_seed(3)
        unet, text = make_unet(device).train(), TextEncoder(vocabulary.rows).to(device).train()
        shown = [pictures.random_kind(seed) for seed in range(len(scaled))]

        def caption(i: int, rng: np.random.Generator) -> str:
            return pictures.caption(shown[i], rng)

        objective = NoisePrediction(unet)
        train_diffusion(plan, scaled, caption, vocabulary, objective, text, args.work / "snapshot.pt")
        return {"unet": unet.state_dict(), "text": text.state_dict()}

    parts = finished_or_so_far(args.so_far, args.work / "diffusion.pt", DIFFUSION, diffusion)
    kept = args.work / "judge_snapshot.pt"
    judge = staged(args.work / "judge.pt", lambda: train_judge(plan.judge_steps, vae, device, kept).state_dict())
    save_checkpoint(args.out, parts["unet"], parts["text"], vae.state_dict(), judge, vocabulary)


if __name__ == "__main__":
    run_main(main)

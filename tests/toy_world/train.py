"""Train the toy checkpoint from nothing: `python -m tests.toy_world.train` (`make toy`).

Five stages, each with fixed seeds and step counts; a finished stage is kept in the work folder and not run again:
`autoencoder` (TAESD on random crops), `latents` (the data set, encoded once), `diffusion` (UNet and text encoder
together), `judge` (the network that measures results) and `export` (one fp16 safetensors file in the layout that
ComfyUI loads). Runs on a CUDA device when there is one, otherwise on the CPU (about 80 minutes on two cores).
"""

import argparse
import logging
import multiprocessing
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..comfyui.command import run_main
from ..comfyui.inprocess import load_comfyui
from ..comfyui.paths import HOME
from . import pictures
from .export import save_checkpoint
from .judge import train_judge
from .modules import TextEncoder, make_autoencoder, make_unet, plain_attention
from .vocabulary import Vocabulary

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
    diffusion_steps: int = 6_800
    diffusion_batch: int = 32
    learning_rate: float = 8e-4
    judge_steps: int = 800


def pixels(seeds: range) -> Tensor:
    """Return the pictures of `seeds` as uint8 [N,3,128,128]."""
    with multiprocessing.get_context("fork").Pool(os.cpu_count()) as pool:
        images = pool.map(_image, seeds, chunksize=50)
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def _image(seed: int) -> np.ndarray:
    return pictures.random_picture(seed).image


def schedule(step: int, steps: int, warmup: int = 200) -> float:
    """Linear warm-up, then a cosine down to one hundredth of the peak learning rate."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * (step - warmup) / max(steps - warmup, 1)))


def reporter(name: str, steps: int) -> Iterator[None]:
    """Log the mean loss and the time left every 100 steps; send it one loss per step."""
    start, losses = time.monotonic(), []
    for step in range(1, steps + 1):
        losses.append((yield))
        if step % 100 == 0 or step == steps:
            spent = time.monotonic() - start
            left = spent / step * (steps - step) / 60
            log.info("%s %d/%d loss %.5f, %.0f s, %.1f min left", name, step, steps, np.mean(losses), spent, left)
            losses.clear()
    yield


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
        with torch.autocast(device.type, torch.bfloat16):
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
        with torch.autocast(device.type, torch.bfloat16):
            parts.append(vae.taesd_encoder(batch).float().cpu())
    return torch.cat(parts)


def set_latent_scale(vae: nn.Module, latents: Tensor) -> None:
    """Store the scale and shift that give ComfyUI's SD latents (times 0.18215) zero mean and unit deviation."""
    scale = 0.18215 * latents.std()
    vae.vae_scale.data = scale
    vae.vae_shift.data = -latents.mean() / scale


def alphas_cumprod() -> Tensor:
    """Return ᾱ_t of Stable Diffusion 1.x for its 1000 timesteps (scaled-linear β from 0.00085 to 0.012)."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0).float()


class Average:
    """Exponential moving average of parameters, with a short memory at the start."""

    def __init__(self, parameters: list[nn.Parameter], decay: float = 0.9995):
        self.live, self.decay, self.count = parameters, decay, 0
        self.values = [p.detach().clone() for p in parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Take one step towards the live parameters."""
        self.count += 1
        weight = 1 - min(self.decay, (1 + self.count) / (10 + self.count))
        torch._foreach_lerp_(self.values, [p.detach() for p in self.live], weight)

    @torch.no_grad()
    def apply(self) -> None:
        """Copy the average into the live parameters."""
        for p, value in zip(self.live, self.values, strict=True):
            p.copy_(value)


def train_diffusion(plan: Plan, latents: Tensor, vocabulary: Vocabulary, device: torch.device, snapshot: Path):
    """Train UNet and text encoder: ε-prediction, min-SNR weights (γ = 5), one prompt in ten empty, EMA.

    The text encoder's end-of-text vector is blanked in three samples of ten, so that the words themselves have to carry
    what they mean (nothing about attention is supervised). `snapshot` receives averaged weights every 1,000 steps.
    """
    torch.manual_seed(3)
    rng = np.random.default_rng(4)
    unet, text = make_unet(device).train(), TextEncoder(vocabulary.rows).to(device).train()
    parameters = [*unet.parameters(), *text.parameters()]
    average = Average(parameters)
    optimiser = torch.optim.AdamW(parameters, plan.learning_rate, weight_decay=1e-2, betas=(0.9, 0.99), fused=True)
    lr = torch.optim.lr_scheduler.LambdaLR(optimiser, partial(schedule, steps=plan.diffusion_steps))
    shown = [pictures.random_kind(seed) for seed in range(len(latents))]
    alphas = alphas_cumprod().to(device)
    options = {"optimized_attention_override": plain_attention} if device.type == "cpu" else {}
    report = reporter("diffusion", plan.diffusion_steps)
    next(report)
    for step in range(plan.diffusion_steps):
        picks = rng.integers(len(latents), size=plan.diffusion_batch)
        captions = [pictures.caption(shown[i], rng) if rng.random() > 0.1 else "" for i in picks]
        rows, keep, end = (x.to(device) for x in vocabulary.encode(captions))
        x0 = latents[torch.from_numpy(picks)].to(device)
        t = torch.randint(1000, (len(picks),), device=device)
        noise, a = torch.randn_like(x0), alphas[t].view(-1, 1, 1, 1)
        with torch.autocast(device.type, torch.bfloat16):
            context = text(rows, keep & ~(end & (torch.rand(len(picks), 1, device=device) < 0.3)))
            predicted = unet(a.sqrt() * x0 + (1 - a).sqrt() * noise, t.float(), context, transformer_options=options)
        snr = alphas[t] / (1 - alphas[t])
        loss = ((predicted.float() - noise) ** 2).mean((1, 2, 3)) * snr.clamp(max=5) / snr
        optimiser.zero_grad(set_to_none=True)
        loss.mean().backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        lr.step()
        average.update()
        report.send(loss.mean().item())
        if (step + 1) % 1000 == 0:
            torch.save({"values": average.values, "step": step + 1}, snapshot)
    average.apply()
    return unet, text


def staged(path: Path, make) -> dict:
    """Return the state saved at `path`, making and saving it first if it is not there."""
    if not path.exists():
        state = make()
        partial_file = path.with_suffix(".part")
        torch.save(state, partial_file)
        partial_file.replace(path)
    return torch.load(path, weights_only=True)


def main() -> None:
    """Run every stage that is not finished and write `toy.safetensors` and `judge.safetensors`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=HOME / "toy", help="folder of finished stages")
    parser.add_argument("--out", type=Path, default=HERE, help="folder for the checkpoint and the judge")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    args.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    host = load_comfyui(device="--cpu" if device.type == "cpu" else "")
    plan, vocabulary = Plan(), Vocabulary(host.tree)
    log.info("training on %s, stages in %s", device, args.work)
    images = None if (args.work / "latents.pt").exists() else pixels(range(plan.pictures))

    vae = make_autoencoder(device).to(memory_format=torch.channels_last)
    vae.load_state_dict(
        staged(args.work / "autoencoder.pt", lambda: train_autoencoder(plan, images, device).state_dict())
    )
    latents = staged(args.work / "latents.pt", lambda: {"latents": encode(vae, images, device)})["latents"]
    vae.requires_grad_(False)
    set_latent_scale(vae, latents)
    scaled = 0.18215 * (latents / vae.vae_scale.cpu() + vae.vae_shift.cpu())

    def diffusion() -> dict:
        unet, text = train_diffusion(plan, scaled, vocabulary, device, args.work / "snapshot.pt")
        return {"unet": unet.state_dict(), "text": text.state_dict()}

    parts = staged(args.work / "diffusion.pt", diffusion)
    judge = staged(args.work / "judge.pt", lambda: train_judge(plan.judge_steps, vae, device).state_dict())
    save_checkpoint(args.out, parts["unet"], parts["text"], vae.state_dict(), judge, vocabulary)


if __name__ == "__main__":
    run_main(main)

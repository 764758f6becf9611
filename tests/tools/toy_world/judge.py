"""The judge: one small network that names subject and scene of a 128×128 picture and segments the subject."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import pictures
from .precision import mixed
from .snapshots import Snapshot

log = logging.getLogger("toy_world")

NetworkT = TypeVar("NetworkT", bound=nn.Module)


class Verdict(NamedTuple):
    """Logits over `SUBJECT_NAMES` [B,7] and `SCENE_NAMES` [B,7], the subject's mask logits [B,128,128].

    And the features [B,192].
    """

    subject: Tensor
    scene: Tensor
    mask: Tensor
    features: Tensor


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.GroupNorm(8, outputs), nn.SiLU(inplace=True)
    )


class Judge(nn.Module):
    """A U-Net with two classification heads on its middle."""

    def __init__(self) -> None:
        super().__init__()
        self.down1 = nn.Sequential(_block(3, 24, 2), _block(24, 24))
        self.down2 = nn.Sequential(_block(24, 48, 2), _block(48, 48))
        self.down3 = nn.Sequential(_block(48, 96, 2), _block(96, 96))
        self.down4 = nn.Sequential(_block(96, 96, 2), _block(96, 96))
        self.up3 = _block(192, 48)
        self.up2 = _block(96, 24)
        self.up1 = _block(48, 24)
        self.mask = nn.Conv2d(24, 4, 1)
        self.subject = nn.Linear(192, len(pictures.SUBJECT_NAMES))
        self.scene = nn.Linear(192, len(pictures.SCENE_NAMES))

    def forward(self, images: Tensor) -> Verdict:
        """Judge `images`, float [B,3,128,128] in [0,1]."""
        features, up = self.look(images)
        mask = F.pixel_shuffle(self.mask(up), 2)[:, 0]
        return Verdict(self.subject(features), self.scene(features), mask, features)

    def look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What `images` show: features of the whole picture [B,192] and of its places [B,24,64,64]."""
        d1 = self.down1(images * 2 - 1)
        d2 = self.down2(d1)
        d3 = self.down3(d2)
        d4 = self.down4(d3)
        features = torch.cat([d4.mean((2, 3)), d4.amax((2, 3))], 1)
        up = self.up3(torch.cat([F.interpolate(d4, scale_factor=2.0), d3], 1))
        up = self.up2(torch.cat([F.interpolate(up, scale_factor=2.0), d2], 1))
        return features, self.up1(torch.cat([F.interpolate(up, scale_factor=2.0), d1], 1))


def _batch(seeds: range) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    made = [pictures.random_picture(seed) for seed in seeds]
    images = torch.from_numpy(np.stack([p.image for p in made])).permute(0, 3, 1, 2).float() / 255
    masks = torch.from_numpy(np.stack([p.mask for p in made])).float()
    subjects = torch.tensor([pictures.SUBJECT_NAMES.index(p.kind.subject) for p in made])
    scenes = torch.tensor([pictures.SCENE_NAMES.index(p.kind.scene) for p in made])
    return images, masks, subjects, scenes


def degrade(images: Tensor, vae: nn.Module, generator: torch.Generator) -> Tensor:
    """Return `images` as the checkpoint would show them (an eighth through the autoencoder), noisy and recoloured."""
    part = len(images) // 8
    with torch.no_grad():
        decoded = vae.taesd_decoder(vae.taesd_encoder(images[:part])).float().clamp(0, 1)
    images = torch.cat([decoded, images[part:]])
    gain = 1 + 0.1 * torch.randn(len(images), 3, 1, 1, generator=generator).to(images)
    noise = torch.rand(len(images), 1, 1, 1, generator=generator).to(images) * 0.05
    return (images * gain + noise * torch.randn(images.shape, generator=generator).to(images)).clamp(0, 1)


def train_judge(steps: int, vae: nn.Module, device: torch.device, snapshot: Path, batch: int = 32) -> Judge:
    """Train the judge on fresh generator pictures (seeds from 100,000 on). snapshot: see `Snapshot`."""

    def loss(verdict: Verdict, masks: Tensor, subjects: Tensor, scenes: Tensor) -> Tensor:
        named = F.cross_entropy(verdict.subject.float(), subjects) + F.cross_entropy(verdict.scene.float(), scenes)
        return named + 2 * F.binary_cross_entropy_with_logits(verdict.mask.float(), masks)

    torch.manual_seed(5)
    generator = torch.Generator().manual_seed(6)
    seeds = range(100_000, 100_000 + steps * batch)
    return fit(Judge().to(device), loss, _batch, seeds, batch, vae, generator, snapshot)


def fit(
    judge: NetworkT,
    loss_of: Callable[..., Tensor],
    draw: Callable[[range], tuple[Tensor, ...]],
    seeds: range,
    batch: int,
    vae: nn.Module,
    generator: torch.Generator,
    snapshot: Path,
) -> NetworkT:
    """Train a judge on the pictures of `seeds`, `batch` of them per step.

    draw: seeds -> images [B,3,128,128] and what is true of them. loss_of: of the verdict and what is true. vae,
    generator: as of `degrade`. snapshot: see `Snapshot`.
    """
    device, steps = next(judge.parameters()).device, len(seeds) // batch
    optimiser = torch.optim.AdamW(judge.parameters(), 2e-3, fused=True)
    lr = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    own = {"generator": (generator.get_state, generator.set_state)}
    kept = Snapshot(snapshot, list(judge.parameters()), {"optimiser": optimiser, "lr": lr}, own)
    for step in range(kept.restore(), steps):
        images, *truth = (x.to(device) for x in draw(seeds[step * batch : (step + 1) * batch]))
        with mixed(device):
            verdict = judge(degrade(images, vae, generator))
        loss = loss_of(verdict, *truth)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        lr.step()
        if (step + 1) % 100 == 0:
            log.info("judge %d/%d loss %.4f", step + 1, steps, loss.item())
        kept.after(step + 1)
    return judge.eval()


def load_judge(path: Path = Path(__file__).parent / "judge.safetensors") -> Judge:
    """Load the committed judge in float32."""
    return loaded(Judge(), path)


def loaded(judge: NetworkT, path: Path) -> NetworkT:
    """The judge with the weights of a safetensors file, in float32."""
    from safetensors.torch import load_file

    judge.load_state_dict({k: v.float() for k, v in load_file(path).items()})
    return judge.eval().requires_grad_(False)


@torch.no_grad()
def judge_images(judge: Judge, images: Tensor) -> tuple[list[str], list[str], Tensor]:
    """Return subject names, scene names and boolean subject masks [B,128,128] for `images` [B,3,128,128] in [0,1]."""
    parts = [judge(chunk) for chunk in images.split(32)]
    subjects = [pictures.SUBJECT_NAMES[i] for p in parts for i in p.subject.argmax(1).tolist()]
    scenes = [pictures.SCENE_NAMES[i] for p in parts for i in p.scene.argmax(1).tolist()]
    return subjects, scenes, torch.cat([p.mask > 0 for p in parts])


def held_out_quality(judge: Judge, count: int = 512, start: int = 1_000_000) -> dict[str, float]:
    """Return subject and scene accuracy and mean mask IoU on pictures that nothing was trained on."""
    images, masks, subjects, scenes = _batch(range(start, start + count))
    named, placed, found = judge_images(judge, images)
    truth = masks > 0.5
    iou = (found & truth).sum((1, 2)) / (found | truth).sum((1, 2)).clamp(min=1)
    return {
        "subject accuracy": float(
            np.mean([n == pictures.SUBJECT_NAMES[i] for n, i in zip(named, subjects, strict=True)])
        ),
        "scene accuracy": float(np.mean([n == pictures.SCENE_NAMES[i] for n, i in zip(placed, scenes, strict=True)])),
        "mask IoU": float(iou.mean()),
    }

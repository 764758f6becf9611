"""From pictures to features: which block is read; pictures are encoded, noised, and given to the model once each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch.nn.functional as F
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...core.choices import one_of
from ...core.gradients.definition import Progress
from ..families.family import family_of, network_of
from ..families.offers import BLOCKS
from ..one_call import call_once, without_ours
from .block_outputs import BlockOutputs

AUTO = "auto"


def chosen_block(model: ModelPatcher, block: str) -> str:
    """The block of this name; for `auto` that of DIFT: the one that ends the first half of the decoder's levels.

    That is output.5 of SD 1.x and SD 2.x and output.2 of SDXL; both have places 16 picture pixels wide. Raises
    ValueError for a name that the model does not have, and as `family_of`.
    """
    scales = family_of(model, BLOCKS).blocks(network_of(model))
    if block != AUTO:
        one_of("block", block, (AUTO, *scales))
        return block
    coarsest = max(scales.values())
    levels = coarsest.bit_length()
    return next(
        name for name, scale in scales.items() if name.startswith("output") and scale == coarsest >> levels // 2
    )


def chosen_blocks(model: ModelPatcher, blocks: str) -> tuple[str, ...]:
    """The blocks with these names, separated by commas; for `auto` the decoder's last one on each grid.

    Those are output.1, .4, .7 and .10 of SD 1.x and SD 2.x, output.2, .5 and .7 of SDXL. In running order, each once.
    Raises ValueError for a name that the model does not have, and as `family_of`.
    """
    scales = family_of(model, BLOCKS).blocks(network_of(model))
    names = {name.strip() for name in blocks.split(",")}
    if names == {AUTO}:
        names = set({scale: name for name, scale in scales.items() if name.startswith("output")}.values())
    for name in names:
        one_of("blocks", name, (AUTO, *scales))
    return tuple(name for name in scales if name in names)


@dataclass(frozen=True)
class Encoded:
    """Pictures as latents.

    latents: [B,C,h,w]. top, left: what the encoder does not see at these sides of the pictures, because it takes sizes
    only that are multiples of a latent pixel. size: (height, width) of what it sees; picture: of the pictures.
    """

    latents: Tensor
    top: int
    left: int
    size: tuple[int, int]
    picture: tuple[int, int]

    def seen(self, pixels: Tensor) -> Tensor:
        """What the encoder sees of pixels [...,H,W]."""
        (height, width) = self.size
        return pixels[..., self.top : self.top + height, self.left : self.left + width]

    def whole(self, pixels: Tensor) -> Tensor:
        """Pixels [h,w] that the encoder sees as those of the whole picture [H,W]: the outermost are repeated."""
        (height, width), (all_rows, all_columns) = self.size, self.picture
        sides = self.left, all_columns - width - self.left, self.top, all_rows - height - self.top
        return F.pad(pixels[None, None], sides, mode="replicate")[0, 0]


def encode(vae: Any, pictures: Tensor) -> Encoded:
    """IMAGE [B,H,W,C] as latents. The middle is cut out, as the host's encoder does.

    Raises ValueError for pictures smaller than one latent pixel, and without a VAE.
    """
    if vae is None:  # what the host's loader gives then
        raise ValueError("the connected VAE is empty: the checkpoint has none. Load one with Load VAE and connect that")
    scale = vae.spacial_compression_encode()
    height, width = (side // scale * scale for side in pictures.shape[1:3])
    if not height or not width:
        raise ValueError(
            f"pictures of {pictures.shape[2]}x{pictures.shape[1]} pixels are too small: each side needs {scale} or more"
        )
    top, left = ((side % scale) // 2 for side in pictures.shape[1:3])
    seen = pictures[:, top : top + height, left : left + width, :3]
    return Encoded(vae.encode(seen), top, left, (height, width), tuple(pictures.shape[1:3]))


@dataclass(frozen=True)
class FeatureReader:
    """Reads the features of pictures, each by itself: they do not depend on the batch that a picture is in.

    model: LoRA, ControlNet and patches take part, guidance does not. positive: the CONDITIONING, one prompt of the
    whole picture. blocks: names. noise_levels: each from 0 (clean) to 1, with a model call of its own. noises: how many
    are averaged, all in one call. seed: of these noises, the same for every picture. Raises ValueError for less than
    one noise.
    """

    model: ModelPatcher
    positive: list
    blocks: tuple[str, ...]
    noise_levels: tuple[float, ...]
    noises: int
    seed: int

    def __post_init__(self) -> None:
        if self.noises < 1:
            raise ValueError(f"noises {self.noises} is not a whole number from 1: at least one noise is needed")

    def read(self, latents: Tensor, progress: Progress) -> Iterator[list[dict[str, Tensor]]]:
        """For each latent of [B,C,h,w] and each noise level the features by block, float32 [C,h',w'] on the CPU.

        progress: told after each model call; it may raise to cancel. Raises ValueError as `BlockOutputs.read`.
        """
        patcher = without_ours(self.model)
        observer, levels = BlockOutputs(patcher, self.blocks), self.noise_levels
        for i, latent in enumerate(latents):
            rows, found = latent.expand(self.noises, *latent.shape), []
            for j, level in enumerate(levels):
                call = partial(call_once, patcher, self.positive, {"samples": rows}, level, self.seed)
                found.append(observer.read(call, rows.shape))
                progress(i * len(levels) + j + 1, len(latents) * len(levels))
            yield found

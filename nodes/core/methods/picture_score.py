"""Scores of a predicted picture by its CLIP embedding, and their losses: what classifier guidance goes down.

Classifier guidance moves a sample along the gradient of a classifier's log-probability (Dhariwal, Nichol 2021, arXiv
2105.05233, equation 10). With a classifier of clean pictures the gradient is taken through the model's prediction of
the clean picture, so that any differentiable score will do (universal guidance: Bansal et al. 2023, arXiv 2302.07121).
e: embedding of the picture.

    text          1 - cos(e, t) with the embedding t of a text in the same space (CLIP guidance)
    aesthetics    -h(e / |e|), h: a small network that was trained on people's ratings (LAION's aesthetic predictors)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

# What the files of LAION's predictors call their layers: a linear one, and five without anything between them that
# matters after training (dropout).
_LINEAR, _FIVE = ("",), ("layers.0.", "layers.2.", "layers.4.", "layers.6.", "layers.7.")


class PictureScore(Protocol):
    """What is wanted of a picture. name: for reports. weight: of its loss. width: of the embeddings that it takes."""

    name: str
    weight: float
    width: int

    def loss(self, embeddings: Tensor) -> Tensor:
        """How far each picture is from it: [B] of embeddings [B,width], the less the better."""


@dataclass(frozen=True)
class TextMatch:
    """Pictures are to match a text. text: its embedding, float [width]."""

    text: Tensor
    weight: float = 1.0

    name = "text"

    @property
    def width(self) -> int:
        """See `PictureScore`."""
        return len(self.text)

    def loss(self, embeddings: Tensor) -> Tensor:
        """See `PictureScore`: from 0 to 2."""
        return 1 - F.cosine_similarity(embeddings, self.text.to(embeddings)[None], dim=-1)


@dataclass(frozen=True)
class Aesthetics:
    """Pictures are to please. layers: weight [out,in] and bias [out] of linear layers, the last with one output."""

    layers: Sequence[tuple[Tensor, Tensor]]
    weight: float = 1.0

    name = "aesthetics"

    @property
    def width(self) -> int:
        """See `PictureScore`."""
        return self.layers[0][0].shape[1]

    def loss(self, embeddings: Tensor) -> Tensor:
        """See `PictureScore`: minus the score."""
        h = F.normalize(embeddings, dim=-1)
        for layer in self.layers:
            weight, bias = (each.to(h, copy=True) for each in layer)  # autograd saves no tensor of inference mode
            h = F.linear(h, weight, bias)
        return -h[:, 0]


def aesthetics(tensors: Mapping[str, Tensor], weight: float = 1.0) -> Aesthetics:
    """The head that the tensors of a file are: one linear layer (weight, bias), or LAION's five (layers.0.weight, ...).

    Raises ValueError, with what is wrong, for other names, shapes that do not fit together, or numbers not finite.
    """
    prefixes = next((each for each in (_LINEAR, _FIVE) if set(tensors) == _names(each)), None)
    if prefixes is None:
        raise ValueError(
            f"an aesthetic head has the tensors {_listed(_names(_LINEAR))} or {_listed(_names(_FIVE))}, but this file "
            f"has {_listed(tensors)}. Choose LAION's linear or improved predictor as safetensors"
        )
    layers = [(tensors[f"{each}weight"], tensors[f"{each}bias"]) for each in prefixes]
    width = None
    for prefix, (matrix, bias) in zip(prefixes, layers, strict=True):
        fits = matrix.ndim == 2 and tuple(bias.shape) == (matrix.shape[0],) and width in (None, matrix.shape[1])
        if not fits or not (matrix.is_floating_point() and bias.is_floating_point()):
            raise ValueError(
                f"{prefix}weight is {matrix.dtype} {list(matrix.shape)} and {prefix}bias {bias.dtype} "
                f"{list(bias.shape)}; they must be floating-point [out, {width or 'in'}] and [out]"
            )
        if not (matrix.isfinite().all() and bias.isfinite().all()):
            raise ValueError(f"{prefix}weight or {prefix}bias has numbers that are not finite: the file is broken")
        width = len(matrix)
    if width != 1:
        raise ValueError(f"an aesthetic head has one score, but the last layer of this file has {width}")
    return Aesthetics([(matrix.float(), bias.float()) for matrix, bias in layers], weight)


def clip_pixels(pictures: Tensor, size: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Pictures [B,3,H,W] in 0..1 as CLIP's image encoders take them, [B,3,size,size], with their gradient.

    As the host prepares them: the shorter side is brought to `size`, the middle cut out; but not rounded to whole
    256ths, which has no gradient. mean, std: of the three colours.
    """
    height, width = pictures.shape[-2:]
    if (height, width) != (size, size):
        scale = size / min(height, width)
        new = round(scale * height), round(scale * width)
        pictures = F.interpolate(pictures, size=new, mode="bicubic", antialias=True)
        top, left = (new[0] - size) // 2, (new[1] - size) // 2
        pictures = pictures[:, :, top : top + size, left : left + size]
    shift, spread = (torch.tensor(each, dtype=pictures.dtype).view(3, 1, 1).to(pictures) for each in (mean, std))
    return (pictures.clamp(0, 1) - shift) / spread


def _names(prefixes: Sequence[str]) -> set[str]:
    return {f"{prefix}{part}" for prefix in prefixes for part in ("weight", "bias")}


def _listed(names: Sequence[str] | set[str]) -> str:
    return ", ".join(sorted(names)[:12]) or "none"

"""Networks that look at pictures: features for FID, KID and IS, CLIP, and the toy world's judge. No downloads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..toy_world.judge import load_judge
from ..toy_world.pictures import SCENE_NAMES, SUBJECT_NAMES
from .description import TOY

JUDGED = 128  # the judge looks at pictures of this side


class Seen(NamedTuple):
    """Features [D] and class logits [K] of a picture; the judge also tells subject, scene and subject mask [H,W]."""

    features: Tensor
    logits: Tensor | None
    subject: str | None = None
    scene: str | None = None
    mask: Tensor | None = None


@dataclass(frozen=True)
class Networks:
    """What is there; None is left out of the tables."""

    features: Callable[[Tensor], Seen] | None = field(repr=False)
    clip: Callable[[], tuple[Any, Any]] | None = field(repr=False)  # as torchmetrics takes it
    about: str


def load_networks(features: str | None, layer: int, clip: Path | None) -> Networks:
    """Load the networks; ValueError that names the file that cannot be read."""
    about = []
    network = None
    if features == TOY:
        network, told = ToyFeatures(), "192 features of the toy world's judge; IS: its subject classes"
    elif features:
        network, told = _from_file(Path(features), layer)
    about.append(f"FID, KID, IS: {told}." if network else "No feature network: FID, KID and IS are left out.")
    about.append(f"CLIP score: {clip.name}." if clip else "No CLIP model: the CLIP score is left out.")
    return Networks(network, _clip(clip) if clip else None, " ".join(about))


class ToyFeatures(nn.Module):
    """The judge as feature network, for pictures uint8 [3,H,W]."""

    def __init__(self) -> None:
        super().__init__()
        self._judge = load_judge()

    @torch.no_grad()
    def forward(self, picture: Tensor) -> Seen:
        """Features, subject logits and the judge's opinion."""
        image = picture[None].float() / 255
        if image.shape[-2:] != (JUDGED, JUDGED):
            image = F.interpolate(image, (JUDGED, JUDGED), mode="bilinear", antialias=True)
        verdict = self._judge(image)
        mask = F.interpolate(verdict.mask[:, None], picture.shape[-2:], mode="bilinear")[0, 0] > 0
        subject, scene = SUBJECT_NAMES[int(verdict.subject.argmax())], SCENE_NAMES[int(verdict.scene.argmax())]
        return Seen(verdict.features[0], verdict.subject[0], subject, scene, mask)


class ScriptFeatures(nn.Module):
    """A TorchScript network: uint8 [1,3,H,W] to features [1,D], or to features and class logits [1,K]."""

    def __init__(self, network: torch.jit.ScriptModule) -> None:
        super().__init__()
        self._network = network.eval()

    @torch.no_grad()
    def forward(self, picture: Tensor) -> Seen:
        """Features, and logits if the network gives them."""
        found = self._network(picture[None])
        features, logits = found if isinstance(found, tuple) else (found, None)
        return Seen(features[0], None if logits is None else logits[0])


class InceptionFeatures(nn.Module):
    """torchmetrics' Inception network with weights from a file (torch-fidelity's `weights-inception-2015-12-05`)."""

    def __init__(self, file: Path, layer: int) -> None:
        from torchmetrics.image.fid import NoTrainInceptionV3

        super().__init__()
        self._features, self._logits = (
            NoTrainInceptionV3("inception-v3-compat", [name], feature_extractor_weights_path=str(file))
            for name in (str(layer), "logits_unbiased")
        )

    @torch.no_grad()
    def forward(self, picture: Tensor) -> Seen:
        """Features of the chosen layer and class logits."""
        return Seen(self._features(picture[None])[0], self._logits(picture[None])[0])


def _from_file(file: Path, layer: int) -> tuple[nn.Module, str]:
    try:
        try:
            script = torch.jit.load(str(file), map_location="cpu")
        except RuntimeError:  # not TorchScript: weights alone
            torch.load(file, map_location="cpu", weights_only=True)  # torchmetrics itself would run code from the file
            return InceptionFeatures(file, layer), f"layer {layer} of Inception, {file.name}"
        network = ScriptFeatures(script)
        network(torch.zeros(3, 64, 64, dtype=torch.uint8))
        return network, f"TorchScript network {file.name}"
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"{file} is neither a TorchScript feature network nor torch-fidelity's Inception weights ({reason})"
        ) from error


def _clip(folder: Path) -> Callable[[], tuple[Any, Any]]:
    from transformers import CLIPModel, CLIPProcessor

    try:
        model = CLIPModel.from_pretrained(folder, local_files_only=True).eval()
        processor = CLIPProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{folder} does not hold a CLIP model in transformers' format ({error})") from error
    pair = _TensorClip(model), processor
    return lambda: pair


class _TensorClip(nn.Module):
    """CLIP whose features are tensors, as torchmetrics expects; newer transformers return them in an object."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model, self.config = model, model.config

    def get_image_features(self, *inputs: Tensor) -> Tensor:
        return _tensor(self._model.get_image_features(*inputs))

    def get_text_features(self, *inputs: Tensor) -> Tensor:
        return _tensor(self._model.get_text_features(*inputs))


def _tensor(found: Any) -> Tensor:
    return found if isinstance(found, Tensor) else found.pooler_output

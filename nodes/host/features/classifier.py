"""What was taught by pictures (EL_CLASSIFIER), and its file: everything that it takes to use it again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ...core.methods.taught_regions import Perceptrons
from ..families.family import family_of, network_of
from ..families.offers import BLOCKS
from .picture_features import FeatureReader

FOLDER = "explainable-latents"
_FORMAT = "explainable-latents classifier 1"

# The host may hold the same weights in another precision; bfloat16 keeps 8 bits.
_SAME = 2**-7


@dataclass(frozen=True)
class Recipe:
    """How the features were read.

    names: of the classes, the first is what no mask covered. family: of the model. blocks, noise_levels, noises, seed:
    see `FeatureReader`.
    """

    names: tuple[str, ...]
    family: str
    blocks: tuple[str, ...]
    noise_levels: tuple[float, ...]
    noises: int
    seed: int


@dataclass(frozen=True)
class Classifier:
    """EL_CLASSIFIER: trained perceptrons, and what they can read.

    context, pooled: of the prompt that the pictures were read with, [1,T,d] and [1,p] or none. mark: weights of the
    model's own by which it is known again, see `Family`.
    """

    recipe: Recipe
    perceptrons: Perceptrons
    context: Tensor
    pooled: Tensor | None
    mark: Tensor

    def reader(self, model: ModelPatcher) -> FeatureReader:
        """Reads pictures as they were read in teaching. Raises ValueError for another model."""
        recipe, family = self.recipe, family_of(model, BLOCKS)
        mark = family.mark(network_of(model))
        if recipe.family != family.name or mark.shape != self.mark.shape or not _close(mark, self.mark):
            raise ValueError(
                f"the regions {', '.join(recipe.names[1:])} were taught with another model than "
                f"{type(model.model).__name__}: features of different models have nothing in common. Load the model "
                "that they were taught with, or teach them anew"
            )
        positive = conditioning(self.context, self.pooled)
        return FeatureReader(model, positive, recipe.blocks, recipe.noise_levels, recipe.noises, recipe.seed)

    def save(self, name: str) -> Path:
        """Write `explainable-latents/<name>.safetensors` in the host's output folder; overwrites one of that name.

        Raises ValueError as `file_of`.
        """
        path = file_of(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {"mean": self.perceptrons.mean, "scale": self.perceptrons.scale, "mark": self.mark}
        tensors |= {"context": self.context} | ({} if self.pooled is None else {"pooled": self.pooled})
        for i, (weight, bias) in enumerate(self.perceptrons.layers):
            tensors |= {f"weight.{i}": weight, f"bias.{i}": bias}
        metadata = {"format": _FORMAT, "recipe": json.dumps(asdict(self.recipe))}
        save_file({key: tensor.contiguous().cpu() for key, tensor in tensors.items()}, path, metadata)
        return path

    @classmethod
    def given(cls, connected: Classifier | None, name: str) -> Classifier:
        """The connected one, or the saved one of this name. Raises ValueError unless exactly one of both is given."""
        if (connected is None) == (not name.strip()):
            given = "neither is" if connected is None else "both are"
            raise ValueError(f"give either a classifier or a file: {given} given")
        return connected or cls.load(name)

    @classmethod
    def load(cls, name: str) -> Classifier:
        """Read what `save` wrote. Raises ValueError as `file_of`, and if there is no such file or it is another's."""
        path = file_of(name)
        if not path.is_file():
            there = ", ".join(sorted(each.stem for each in path.parent.glob("*.safetensors"))) or "none"
            raise ValueError(f"there is no classifier {name!r} in {path.parent}; there are: {there}")
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise ValueError(f"{path.name} was not saved by Teach Regions: it is no '{_FORMAT}'")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  not a dict
        values = json.loads(metadata["recipe"])
        lists = {key: tuple(each) for key, each in values.items() if isinstance(each, list)}
        count = sum(key.startswith("weight.") for key in tensors)
        layers = tuple((tensors[f"weight.{i}"], tensors[f"bias.{i}"]) for i in range(count))
        perceptrons = Perceptrons(tensors["mean"], tensors["scale"], layers)
        return cls(Recipe(**values | lists), perceptrons, tensors["context"], tensors.get("pooled"), tensors["mark"])


def conditioning(context: Tensor, pooled: Tensor | None) -> list:
    """A CONDITIONING of one prompt."""
    return [[context, {} if pooled is None else {"pooled_output": pooled}]]


def file_of(name: str) -> Path:
    """Where a classifier of this name lies. Raises ValueError for an empty name and one that leads elsewhere."""
    folder = Path(folder_paths.get_output_directory()).resolve() / FOLDER
    path = folder / f"{name.removesuffix('.safetensors')}.safetensors"
    if not name.strip() or path.resolve().parent != folder or "\\" in name:
        raise ValueError(f"{name!r} is not a name for a file in {folder}: use letters, digits, '-', '_' or spaces")
    return path


def version_of(name: str) -> int | str:
    """A value that changes with the saved classifier of this name, for the host's cache."""
    try:
        return file_of(name).stat().st_mtime_ns if name.strip() else ""
    except (ValueError, FileNotFoundError):
        return "none"  # the run says what is wrong


def _close(mark: Tensor, other: Tensor) -> bool:
    return bool(torch.allclose(mark, other, rtol=_SAME, atol=_SAME * float(other.abs().mean())))

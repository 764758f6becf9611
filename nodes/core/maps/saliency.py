"""Saliency maps of subjects over the latent grid: the value that crosses nodes as EL_SALIENCY."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..choices import one_of

OVER_STEPS = ("mean", "last", "each", "sum")

# What a label says beside the word: which of several that are alike it is, and how its map was read.
_WHICH = re.compile(r"(#\d+)?( \(scores\))?$")


@dataclass(frozen=True)
class Saliency:
    """One map per subject, on the grid of the latent that it belongs to.

    maps: float32, [S,B,h,w] (S subjects, B latents of the batch) or, for Abs-Grad-SAM, [S,B,C,h,w]; larger is more
    salient.
    labels: one per map, the word as typed in the prompt; maps of several steps are labelled `word, step j`.
    sigma: noise level of the model call that the maps come from, in the model's own units; of several calls, the last.
    step: index in the sampler's schedule; None if the maps do not come from a single step (a mean, a probe).
    grid: (h, w) of the latent.
    spatial_scale: picture pixels per latent pixel, along each side; 8 for Stable Diffusion, more for some later models.
    refined: how often the maps were refined by self-attention. less_refined: the same maps refined 0 to refined - 1
    times, so that all take refined + 1 times the memory; empty where they are not kept.
    Raises ValueError when the shapes contradict each other.
    """

    maps: Tensor
    labels: tuple[str, ...]
    sigma: float
    step: int | None
    grid: tuple[int, int]
    spatial_scale: int = 8
    refined: int = 0
    less_refined: tuple[Tensor, ...] = ()

    def __post_init__(self) -> None:
        shape = tuple(self.maps.shape)
        if self.maps.ndim not in (4, 5) or self.maps.dtype != torch.float32:
            raise ValueError(
                f"saliency maps are float32 of shape [S,B,h,w] or [S,B,C,h,w], got {self.maps.dtype} of shape {shape}"
            )
        if shape[0] != len(self.labels):
            raise ValueError(f"{shape[0]} saliency maps but {len(self.labels)} labels: {', '.join(self.labels)}")
        if shape[-2:] != tuple(self.grid):
            raise ValueError(f"saliency maps of shape {shape} do not lie on the latent grid {tuple(self.grid)}")
        less = [(tuple(maps.shape), maps.dtype) for maps in self.less_refined]
        if len(less) not in (0, self.refined) or any(each != (shape, self.maps.dtype) for each in less):
            raise ValueError(
                f"less refined maps {less} of {self.refined} powers do not belong to maps of shape {shape}"
            )

    @property
    def every(self) -> tuple[Tensor, ...]:
        """The maps that are kept, the least refined first."""
        return *self.less_refined, self.maps

    @property
    def powers(self) -> range:
        """How often each of `every` was refined."""
        return range(self.refined - len(self.less_refined), self.refined + 1)

    @property
    def nbytes(self) -> int:
        """What all maps that are kept take."""
        return sum(maps.nbytes for maps in self.every)

    def with_maps(self, maps: Tensor) -> Saliency:
        """The same saliency with other `maps` of the same layout, and no less refined ones."""
        return replace(self, maps=maps, less_refined=())

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Saliency:
        """The same saliency with all its maps, less refined ones too, changed alike (a smoothed or dilated copy)."""
        return replace(self, maps=change(self.maps), less_refined=tuple(map(change, self.less_refined)))

    def at_power(self, power: int) -> Saliency:
        """The maps as they are when refined so often, bit for bit, alone. Raises ValueError if they are not kept."""
        if power not in self.powers:
            there = ", ".join(map(str, self.powers))
            raise ValueError(
                f"there are no maps with refine {power}, only with {there}: set refine on the node that "
                "captures, and run"
            )
        return replace(self, maps=self.every[power - self.powers[0]], refined=power, less_refined=())

    def select(self, indices: tuple[int, ...]) -> Saliency:
        """Only the subjects at `indices`, in that order."""
        at, labels = list(indices), tuple(self.labels[i] for i in indices)
        less = tuple(maps[at] for maps in self.less_refined)
        return replace(self, maps=self.maps[at], labels=labels, less_refined=less)

    def of_words(self, words: str) -> Saliency:
        """Only the maps of `words`, separated by commas, whatever their step or layer; all maps when it is empty.

        "dog#2" is the second dog of the prompt, "dog" every dog. Upper and lower case are the same. Raises ValueError
        if a word is missing; the error lists the words there are.
        """
        wanted = [word.strip().lower() for word in words.split(",") if word.strip()]
        names = [label.split(", ")[0].lower() for label in self.labels]
        plain = [_WHICH.sub("", name) for name in names]
        found = {word: [each == word for each in (names if word in names else plain)] for word in wanted}
        if missing := [word for word, hits in found.items() if not any(hits)]:
            there = ", ".join(dict.fromkeys(label.split(", ")[0] for label in self.labels))
            raise ValueError(f"there is no map of {', '.join(map(repr, missing))}; there are maps of: {there}")
        picked = tuple(i for i in range(len(names)) if any(hits[i] for hits in found.values()))
        return self.select(picked) if found else self


@dataclass(frozen=True)
class Table:
    """The maps of a saliency as a table: one column per word, one row per frame (a step or a layer).

    frames: their names, `step 5` or `input.4 (8x8)`; a single "" if the labels name no frame. maps: for each frame the
    index of each word's map, None if it has none.
    """

    words: tuple[str, ...]
    frames: tuple[str, ...]
    maps: tuple[tuple[int | None, ...], ...]


def tabulate(labels: Sequence[str]) -> Table:
    """The table of maps labelled `word` or `word, frame`. A word that comes twice in a frame counts as two words."""
    columns: dict[tuple[str, int], int] = {}
    rows: dict[str, int] = {}
    times: Counter[tuple[str, str]] = Counter()
    cells: dict[tuple[int, int], int] = {}
    for i, label in enumerate(labels):
        word, _, frame = label.partition(", ")
        row = rows.setdefault(frame, len(rows))
        column = columns.setdefault((word, times[word, frame]), len(columns))
        times[word, frame] += 1
        cells[row, column] = i
    maps = tuple(tuple(cells.get((row, column)) for column in range(len(columns))) for row in range(len(rows)))
    return Table(tuple(word for word, _ in columns), tuple(rows), maps)


def intensity(saliency: Saliency) -> Tensor:
    """Maps in multiples of each map's own mean, so that 1 is the average place: [S,B,h,w], all values 0 or above.

    Latent channels are averaged first. A map that is zero everywhere stays zero. Raises ValueError when a map is not
    finite or has negative values.
    """
    maps = saliency.maps if saliency.maps.ndim == 4 else saliency.maps.mean(dim=2)
    if not torch.isfinite(maps).all() or maps.min() < 0:
        raise ValueError(
            f"saliency of {', '.join(saliency.labels)} has negative or infinite values: the model's output was broken "
            "(did half precision overflow?). Run the model in another precision, such as bfloat16 or float32."
        )
    mean = maps.mean(dim=(-2, -1), keepdim=True)
    return torch.where(mean > 0, maps / mean, torch.zeros_like(maps))


def smooth_upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps [S,B,h,w] at a picture size (height, width) by bicubic interpolation, clipped to the range of each map."""
    low, high = maps.amin(dim=(-2, -1), keepdim=True), maps.amax(dim=(-2, -1), keepdim=True)
    return F.interpolate(maps, size=tuple(size), mode="bicubic", align_corners=False).clamp_(low, high)


def joined(saliencies: Sequence[Saliency], join: Callable[[list[Tensor]], Tensor], labels: tuple[str, ...]) -> Saliency:
    """Several saliencies as one: `join` of their maps, and of their less refined ones where all have kept these.

    labels: of the new maps. The rest is that of the last one, but it has no step.
    """
    last = saliencies[-1]
    alike = all(each.powers == last.powers for each in saliencies)
    sources = zip(*(each.every if alike else (each.maps,) for each in saliencies), strict=True)
    *less, maps = (join(list(each)) for each in sources)
    return replace(last, maps=maps, labels=labels, step=None, less_refined=tuple(less))


def over_steps(saliencies: Sequence[Saliency], how: str, total: Saliency) -> Saliency:
    """The maps of several model calls as one saliency.

    how: `mean` is the mean of the calls' maps (each sums to 1, so every step has the same weight); `last` the last
    call's; `each` all of them, call after call, labelled `word, step j`; `sum` is `total`, the calls' maps added
    up before they were normalised, so that each step is weighted by the attention to the word in it (as in DAAM,
    Tang et al. 2023). Raises ValueError for an unknown choice or when there is no call.
    """
    one_of("over_steps", how, OVER_STEPS)
    if not saliencies:
        raise ValueError("no model call was captured")
    last = saliencies[-1]
    if how == "last":
        return last
    if how == "sum":
        return total
    if how == "mean":
        return joined(saliencies, lambda maps: torch.stack(maps).mean(dim=0), last.labels)
    labels = tuple(f"{label}, step {each.step}" for each in saliencies for label in each.labels)
    return joined(saliencies, torch.cat, labels)

"""Self-guidance: where a word's thing is, how large, of which shape and look (Epstein et al. 2023, 2306.00986).

What a model attends to says where things will be, so a loss on it moves and resizes them while they are sampled. A:
attention map of a word in a layer, the mean of heads; p: places of the picture, x and y from 0 to 1; n(·): a map
brought to the range from 0 to 1.

    shape      S = n(sigmoid(10 (n(A) - 1/2)))
    centroid   c = Σ p S / Σ S
    size       the mean of S
    appearance a = Σ S Ψ / Σ S
    loss       E = |c - c'| + |size - size'| + k · mean of |S - S'| + l · mean of |a - a'| / mean of |a'|

Ψ: features of the penultimate block of the network's decoder, [C] at each place; S is constant in a, so that a thing
does not look alike by being elsewhere. The last mean is over the features, as a share of the plain run's, so that l
means the same for every network; the paper has no such share.

Targets are absolute, or relative to the run without guidance at the same step: moved by, so many times as large; S' is
the plain run's S, moved and resized as asked. Of words that shall stay as they are shape and appearance count. Absolute
differences as in the paper; that of a centroid is the sum over x and y. The loss of a word is the mean over layers,
that of a picture the sum over words. In the paper the centroid is that of A, which is wide: its way to a place is to
spread, and in the worlds of our tests the thing then stays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..choices import one_of
from ..words.subjects import Subjects
from .attend_and_excite import coarse_layers, together
from .guidance import GuidedTokens, Part, WordLosses
from .word_places import naming
from .word_shapes import Properties, averaged, carried, of_tokens, properties

FREE = "free"
MOVED, AT, _ = POSITIONS = ("moved by", "at", FREE)
TIMES, SHARE, _ = SIZES = ("times", "share", FREE)

# No thing is smaller than that share of the picture, where one is to be resized.
_SMALLEST = 1e-4

# What the plain run had at a step: for each part of the latent that the prompt is about, that of every layer.
Plain = Mapping[Part, Sequence[Properties]]


@dataclass(frozen=True)
class SelfGuidance:
    """See above; an `AttentionLoss`. changed: numbers of the words that change; the others are kept as they are.

    position: MOVED by or AT (x, y), as shares of the picture's width and height, or FREE. size: `amount` TIMES the
    plain area, that SHARE of the picture, or FREE. keep_shape, keep_others: weights of the shapes of the changed and
    of the other words. plain: of the step at hand. Raises ValueError for another choice or a number that cannot be.
    """

    changed: frozenset[int]
    position: str = MOVED
    x: float = 0.0
    y: float = 0.0
    size: str = TIMES
    amount: float = 1.0
    keep_shape: float = 0.0
    keep_others: float = 1.0
    keep_appearance: float = 0.0
    plain: Plain | None = None

    each_head = False
    compared = None

    def __post_init__(self) -> None:
        one_of("position", self.position, POSITIONS)
        one_of("size", self.size, SIZES)
        lowest = -1 if self.position == MOVED else 0
        for name, value in (("x", self.x), ("y", self.y)):
            if self.position != FREE and not lowest <= value <= 1:
                how = "moved by: from -1 to 1, a share of the picture" if lowest else "at: from 0 to 1"
                raise ValueError(f"{name} {value} is outside of the picture; with position {how}")
        if self.size != FREE and not 0 < self.amount <= (math.inf if self.size == TIMES else 1):
            allowed = "a positive number (1: as large)" if self.size == TIMES else "above 0 and at most 1, the picture"
            raise ValueError(f"amount {self.amount}: with size {self.size!r} it must be {allowed}")
        for name in ("keep_shape", "keep_others", "keep_appearance"):
            if not 0 <= (weight := getattr(self, name)) < math.inf:
                raise ValueError(f"{name} {weight} must be 0 (without this part of the loss) or a positive number")
        if self.position == self.size == FREE and not (self.keep_shape or self.keep_appearance):
            raise ValueError(
                "nothing is asked for: choose a position or a size, or give keep_shape or keep_appearance a weight"
            )

    @property
    def features(self) -> bool:
        """See `AttentionLoss`."""
        return self.keep_appearance > 0

    @property
    def needs_plain(self) -> bool:
        """Whether a target is relative to the run without guidance."""
        kept = self.keep_shape, self.keep_others, self.keep_appearance
        return self.position == MOVED or self.size == TIMES or any(kept)

    def beside(self, plain: Plain) -> SelfGuidance:
        """The loss at a step where the plain run had these properties."""
        return replace(self, plain=plain)

    def layers(self, scales: Mapping[str, int]) -> tuple[str, ...]:
        """See `AttentionLoss`: those 4 times coarser than the latent, whose maps show things best."""
        return coarse_layers(scales)

    def of_words(
        self, maps: Sequence[Tensor], tokens: GuidedTokens, part: Part, features: Tensor | None = None
    ) -> WordLosses:
        """See `AttentionLoss`. Raises ValueError if the plain run is needed and had nothing in this part."""
        own = properties(maps, tokens, part, features)
        if self.needs_plain and (self.plain is None or part not in self.plain):
            raise ValueError(
                "the run without guidance had no attention to the prompt in the same part of the picture at this "
                "step: choose a sampler that follows the scheduler (euler, dpmpp_2m), or a conditioning without a "
                "timestep range"
            )
        plain = self.plain[part] if self.needs_plain else [None] * len(own)
        losses = torch.stack([self._of_layer(*each, part) for each in zip(own, plain, strict=True)]).mean(0)
        return WordLosses(losses, of_tokens(together(maps), tokens), self.of_picture(losses))

    def of_picture(self, losses: Tensor) -> Tensor:
        """See `AttentionLoss`."""
        return losses.sum(0)

    def _of_layer(self, own: Properties, plain: Properties | None, part: Part) -> Tensor:
        """The losses [S,B] of a layer."""
        if plain is not None:
            plain = plain.to(own.sizes)
        wanted = torch.tensor([s in self.changed for s in range(len(own.sizes))], device=own.sizes.device)[:, None]
        losses = torch.zeros_like(own.sizes)
        if self.position != FREE:
            target = own.centres.new_tensor((self.x, self.y))
            target = target if self.position == AT else plain.centres + target
            losses = losses + (own.centres - target).abs().sum(-1)
        if self.size != FREE:
            target = self.amount if self.size == SHARE else self.amount * plain.sizes
            losses = losses + (own.sizes - target).abs()
        if self.keep_shape:
            losses = losses + self.keep_shape * (own.shapes - self._carried(plain, part)).abs().mean(dim=(-2, -1))
        losses = torch.where(wanted, losses, torch.zeros_like(losses))
        if self.keep_others:
            kept = (own.shapes - plain.shapes).abs().mean(dim=(-2, -1))
            losses = losses + torch.where(wanted, torch.zeros_like(kept), self.keep_others * kept)
        if self.keep_appearance:
            change = (own.appearances - plain.appearances).abs().mean(-1) / plain.appearances.abs().mean(-1)
            losses = losses + self.keep_appearance * change
        return losses

    def _carried(self, plain: Properties, part: Part) -> Tensor:
        """The plain run's shapes [S,B,h,w], moved and resized as asked."""
        shift = torch.zeros_like(plain.centres)
        if self.position != FREE:
            asked = plain.centres.new_tensor((self.x, self.y))
            shift = shift + asked if self.position == MOVED else asked - plain.centres
        larger = torch.ones_like(plain.sizes)
        if self.size != FREE:
            larger = larger * self.amount if self.size == TIMES else self.amount / plain.sizes.clamp_min(_SMALLEST)
        return carried(plain.shapes, plain.centres, shift, larger, part)


class Noted:
    """The `AttentionLoss` of the plain run: it is 0, and `found` what `loss` needs of it."""

    each_head, compared = SelfGuidance.each_head, SelfGuidance.compared

    def __init__(self, loss: SelfGuidance) -> None:
        self.layers, self.of_picture, self.features = loss.layers, loss.of_picture, loss.features
        self._found: dict[Part, list[list[Properties]]] = {}

    def of_words(
        self, maps: Sequence[Tensor], tokens: GuidedTokens, part: Part, features: Tensor | None = None
    ) -> WordLosses:
        """See `AttentionLoss`: note the properties."""
        maps = [layer.detach() for layer in maps]
        features = None if features is None else features.detach()
        self._found.setdefault(part, []).append(properties(maps, tokens, part, features))
        whole = of_tokens(together(maps), tokens)
        zeros = torch.zeros(whole.shape[:2], device=whole.device)
        return WordLosses(zeros, whole, zeros.sum(0))

    @property
    def found(self) -> Plain:
        """What was noted; where several conditionings are about the same part, their mean."""
        return {part: [averaged(each) for each in zip(*noted, strict=True)] for part, noted in self._found.items()}


def changed_words(text: str, subjects: Subjects) -> frozenset[int]:
    """Numbers of the words that are named, separated by commas; of all without a name. ValueError for no word."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    found = {name: naming(name, subjects) for name in names}
    for name, numbers in found.items():
        if not numbers:
            raise ValueError(
                f"words: '{name}' is no word of the prompt; its words are: {', '.join(subjects.labels)}. Write one of "
                "them, or name the word in 'override' of Parse Subjects or Prompt with Words"
            )
    named = frozenset(number for numbers in found.values() for number in numbers)
    return named or frozenset(range(len(subjects.items)))

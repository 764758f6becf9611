"""Regions taught by a few pictures: small perceptrons that read a diffusion model's features at single pixels.

Baranchuk, Rubachev, Voynov, Khrulkov, Babenko, *Label-Efficient Semantic Segmentation with Diffusion Models*, ICLR
2022: features of several blocks and noise levels, enlarged to the picture; ten perceptrons with two hidden layers, each
followed by ReLU and batch normalisation; Adam; their vote is the answer, and where they disagree they are uncertain.

Two things differ from the authors' code and change no number that is defined: pixels are sampled instead of all kept,
and the first layer, being linear, is applied on each block's own grid and its result enlarged, not the features.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .correspondence import features_at

PERCEPTRONS = 10
BATCH = 64
RATE = 1e-3
# Training ends when the accuracy on the batches has not risen for so many of them, after so many passes at least.
PATIENCE, PASSES, MOST_PASSES = 50, 4, 100
_FEW, _HIDDEN, _HIDDEN_OF_MANY = 30, (128, 32), (256, 128)
_EPSILON = 1e-5

Layers = tuple[tuple[Tensor, Tensor], ...]


@dataclass(frozen=True)
class Perceptrons:
    """Trained perceptrons, all float32.

    mean, scale: [D], what is taken off the features, and what they are then multiplied by. layers: weight [K,in,out]
    and bias [K,out] of each linear layer of the K perceptrons; batch normalisation is part of them.
    """

    mean: Tensor
    scale: Tensor
    layers: Layers

    @property
    def classes(self) -> int:
        """How many classes they tell apart."""
        return self.layers[-1][1].shape[1]

    def to(self, device: torch.device) -> Perceptrons:
        """The same on another device."""
        layers = tuple((weight.to(device), bias.to(device)) for weight, bias in self.layers)
        return Perceptrons(self.mean.to(device), self.scale.to(device), layers)


def sampled_pixels(labels: Tensor, count: int, classes: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Up to `count` pixels of labels [H,W], as many of each class as there are: centres (x, y) [P,2] and labels [P].

    labels: int64; those below 0 are not sampled. Drawn without replacement, class by class.
    """
    chosen = []
    for label in range(classes):
        places = (labels.flatten() == label).nonzero()[:, 0]
        chosen.append(places[torch.randperm(len(places), generator=generator)[: max(1, count // classes)]])
    at = torch.cat(chosen)
    width = labels.shape[1]
    points = torch.stack([at % width, at.div(width, rounding_mode="floor")], 1) + 0.5
    return points, labels.flatten()[at]


def pixel_features(features: Sequence[Tensor], points: Tensor, size: tuple[int, int]) -> Tensor:
    """Features of several blocks and noise levels [C,h,w] at points (x, y) of a picture of this size: [P,sum of C]."""
    return torch.cat([features_at(each, points, size) for each in features], 1)


def teach(samples: Tensor, labels: Tensor, classes: int, seed: int, report: Callable[[int, int], None]) -> Perceptrons:
    """Train perceptrons on samples [N,D] with labels [N]; needs autograd. Deterministic by `seed` on one device.

    report: told (passes done, passes at most) after each pass over the samples. Raises ValueError for less than two
    samples, and unless there are two classes or more.
    """
    if len(samples) < 2 or len(labels.unique()) < 2:
        raise ValueError(f"{len(samples)} pixels of {len(labels.unique())} classes: at least two of each are needed")
    mean = samples.mean(0)
    scale = 1 / samples.std(0).clamp_min(_EPSILON)
    x, generator = (samples - mean) * scale, torch.Generator().manual_seed(seed)
    widths = (x.shape[1], *(_HIDDEN if classes < _FEW else _HIDDEN_OF_MANY), classes)
    weights = [_initial(PERCEPTRONS, a, b, generator).to(x.device) for a, b in itertools.pairwise(widths)]
    biases = [torch.zeros(PERCEPTRONS, width, device=x.device) for width in widths[1:]]
    gains = [torch.ones(PERCEPTRONS, width, device=x.device) for width in widths[1:-1]]
    shifts = [torch.zeros(PERCEPTRONS, width, device=x.device) for width in widths[1:-1]]
    trained = [*weights, *biases, *gains, *shifts]
    for parameter in trained:
        parameter.requires_grad_()
    adam, best, since = torch.optim.Adam(trained, RATE), 0.0, 0
    for done in range(MOST_PASSES):
        for batch in _batches(len(x), generator):
            h, target = x[batch], labels[batch]
            for weight, bias, gain, shift in zip(weights[:-1], biases[:-1], gains, shifts, strict=True):
                h = (h @ weight + bias[:, None]).relu()
                variance, centre = torch.var_mean(h, 1, correction=0, keepdim=True)
                h = (h - centre) * torch.rsqrt(variance + _EPSILON) * gain[:, None] + shift[:, None]
            scores = h @ weights[-1] + biases[-1][:, None]
            loss = F.cross_entropy(scores.flatten(0, 1), target.flatten(), reduction="sum") / target.shape[1]
            adam.zero_grad()
            loss.backward()
            adam.step()
            right = float((scores.detach().argmax(-1) == target).float().mean())
            since, best = (0, right) if right > best else (since + 1, best)
        report(done + 1, MOST_PASSES)
        if done + 1 >= PASSES and since > PATIENCE:
            break
    with torch.no_grad():
        return Perceptrons(mean, scale, _without_normalisation(x, weights, biases, gains, shifts))


def predict(
    perceptrons: Perceptrons, features: Sequence[Tensor], size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Every pixel's class of a picture of this (height, width), from its features [C,h,w] in the order of teaching.

    Returns the classes by majority, int64 [H,W] (of equal counts the class with the higher mean probability); the mean
    probabilities [C,H,W]; and the disagreement [H,W]: the Jensen-Shannon divergence of the perceptrons, as a share of
    the largest one there could be, 0 to 1.
    """
    classes = perceptrons.classes
    votes, mean, entropies = 0, 0, 0
    for number, ((_, _), *deeper) in enumerate(_each(perceptrons.layers)):
        h = _first_layer(perceptrons, number, features, size)
        for weight, bias in deeper:
            h = h.relu() @ weight + bias
        probabilities = h.softmax(-1)
        votes = votes + F.one_hot(probabilities.argmax(-1), classes)
        mean = mean + probabilities / len(perceptrons.layers[0][0])
        entropies = entropies + _entropy(probabilities) / len(perceptrons.layers[0][0])
    largest = math.log(min(classes, len(perceptrons.layers[0][0])))
    disagreement = ((_entropy(mean) - entropies) / largest).clamp(0, 1)
    # probabilities are below 1 or equal, so that they decide between equal counts only
    winner = (votes + 0.5 * mean).argmax(-1)
    return winner.view(size), mean.T.reshape(classes, *size), disagreement.view(size)


def _first_layer(perceptrons: Perceptrons, number: int, features: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """What enters the first ReLU at every pixel, [H·W,width]: the same as of enlarged features, as it is linear."""
    weight, bias = (each[number] for each in perceptrons.layers[0])
    total, start = 0, 0
    for each in features:
        part = slice(start, start + len(each))
        start += len(each)
        own = (each.float() - perceptrons.mean[part, None, None]) * perceptrons.scale[part, None, None]
        mapped = torch.einsum("chw,co->ohw", own, weight[part])
        total = total + F.interpolate(mapped[None], size=size, mode="bilinear", align_corners=False)[0]
    return total.flatten(1).T + bias


def _without_normalisation(x: Tensor, weights: list, biases: list, gains: list, shifts: list) -> Layers:
    """The layers with batch normalisation over all samples made part of the layer behind it."""
    layers, h = [(weights[0], biases[0])], x.expand(len(weights[0]), *x.shape)
    for i, (gain, shift) in enumerate(zip(gains, shifts, strict=True)):
        weight, bias = layers[-1]
        h = (h @ weight + bias[:, None]).relu()
        variance, centre = torch.var_mean(h, 1, correction=0)
        factor = gain * torch.rsqrt(variance + _EPSILON)
        following = weights[i + 1]
        offset = ((shift - centre * factor)[:, None] @ following)[:, 0]
        layers.append((factor[..., None] * following, biases[i + 1] + offset))
    return tuple((weight.detach(), bias.detach()) for weight, bias in layers)


def _each(layers: Layers) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """The layers of one perceptron after the other's."""
    for number in range(len(layers[0][0])):
        yield [(weight[number], bias[number]) for weight, bias in layers]


def _batches(count: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Indices [K,batch] of one pass, in an order of its own for each perceptron; a last batch of one is left out."""
    order = torch.stack([torch.randperm(count, generator=generator) for _ in range(PERCEPTRONS)])
    yield from (batch for batch in order.split(BATCH, 1) if batch.shape[1] > 1)


def _initial(count: int, inputs: int, outputs: int, generator: torch.Generator) -> Tensor:
    """Kaiming's normal weights."""
    return torch.randn(count, inputs, outputs, generator=generator) * math.sqrt(2 / inputs)


def _entropy(probabilities: Tensor) -> Tensor:
    return -(probabilities * probabilities.clamp_min(torch.finfo(torch.float32).tiny).log()).sum(-1)

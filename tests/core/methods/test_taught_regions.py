"""Regions taught by a few pixels: sampling, training, and the vote against plain loops."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from explainable_latents.nodes.core.methods.taught_regions import (
    PERCEPTRONS,
    Perceptrons,
    pixel_features,
    predict,
    sampled_pixels,
    teach,
)


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def perceptrons(inputs, classes, seed=0, scale=1.0):
    widths = (inputs, 6, 4, classes)
    layers = tuple(
        (scale * random(3, a, b, seed=seed + i) / math.sqrt(a), random(3, b, seed=seed + 10 + i))
        for i, (a, b) in enumerate(itertools.pairwise(widths))
    )
    return Perceptrons(random(inputs, seed=seed + 20), random(inputs, seed=seed + 21).exp(), layers)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("size", [(12, 16), (7, 11)])
def test_every_pixel_is_what_a_loop_over_pixels_and_perceptrons_says(classes, size):
    """The loop enlarges the features first, as the paper does."""
    features = [random(3, 3, 4), random(2, 6, 8, seed=1), random(4, 3, 4, seed=2)]
    taught = perceptrons(9, classes, scale=2.0)
    winner, mean, disagreement = predict(taught, features, size)
    whole = torch.cat(
        [F.interpolate(each[None].double(), size=size, mode="bilinear", align_corners=False)[0] for each in features]
    )
    for y in range(size[0]):
        for x in range(size[1]):
            outputs = []
            for k in range(3):
                h = (whole[:, y, x] - taught.mean.double()) * taught.scale.double()
                for i, (weight, bias) in enumerate(taught.layers):
                    h = h @ weight[k].double() + bias[k].double()
                    h = h.clamp_min(0) if i < 2 else h
                exponential = np.exp(h.numpy() - h.numpy().max())
                outputs.append(exponential / exponential.sum())
            average = np.mean(outputs, 0)
            # float32 through three layers
            np.testing.assert_allclose(mean[:, y, x].numpy(), average, atol=2e-5)
            votes = np.bincount([int(each.argmax()) for each in outputs], minlength=classes)
            best = max(range(classes), key=lambda c, votes=votes, average=average: (votes[c], average[c]))
            assert int(winner[y, x]) == best
            entropy = [-(p * np.log(p)).sum() for p in (average, *outputs)]
            expected = (entropy[0] - np.mean(entropy[1:])) / math.log(min(classes, 3))
            assert float(disagreement[y, x]) == pytest.approx(expected, abs=5e-5)


def test_those_who_agree_are_certain_and_those_who_contradict_each_other_are_not():
    one = perceptrons(2, 2)
    same = Perceptrons(one.mean, one.scale, tuple((w[:1].repeat(3, 1, 1), b[:1].repeat(3, 1)) for w, b in one.layers))
    assert predict(same, [random(2, 4, 4)], (8, 8))[2].max() < 1e-6
    first, second, (weight, _) = ((w[:2], b[:2]) for w, b in one.layers)
    sure = torch.tensor([[50.0, -50.0], [-50.0, 50.0]])
    two = Perceptrons(one.mean, one.scale, (first, second, (0 * weight, sure)))
    winner, mean, disagreement = predict(two, [random(2, 4, 4)], (8, 8))
    torch.testing.assert_close(disagreement, torch.ones(8, 8))
    torch.testing.assert_close(mean, torch.full((2, 8, 8), 0.5))
    assert (winner == 0).all(), "of equal votes and probabilities the first"


def test_pixels_are_drawn_evenly_from_each_class_and_none_twice():
    labels = torch.zeros(20, 30, dtype=torch.long)
    labels[3:6, 4:9] = 1  # 15 pixels
    labels[10:, :15] = 2
    labels[0] = -1
    points, found = sampled_pixels(labels, 120, 3, torch.Generator().manual_seed(1))
    assert found.bincount().tolist() == [40, 15, 40]
    assert len(points.unique(dim=0)) == 95
    for (x, y), label in zip(points.tolist(), found.tolist(), strict=True):
        assert (x % 1, y % 1) == (0.5, 0.5)
        assert labels[int(y), int(x)] == label
    again, _ = sampled_pixels(labels, 120, 3, torch.Generator().manual_seed(1))
    other, _ = sampled_pixels(labels, 120, 3, torch.Generator().manual_seed(2))
    assert torch.equal(points, again)
    assert not torch.equal(points, other)


def test_features_of_pixels_are_those_of_the_enlarged_blocks_one_after_another():
    features, size = [random(3, 3, 4), random(2, 6, 8, seed=1)], (13, 17)
    whole = torch.cat([F.interpolate(e[None], size=size, mode="bilinear", align_corners=False)[0] for e in features])
    points = torch.tensor([[0.5, 0.5], [16.5, 12.5], [7.5, 3.5]])
    found = pixel_features(features, points, size)
    for row, (x, y) in zip(found, points.long().tolist(), strict=True):
        torch.testing.assert_close(row, whole[:, y, x], rtol=0, atol=1e-5)


def checkerboard(count, seed):
    """Points of a plane that no straight line separates by colour; two further numbers say nothing."""
    x = random(count, 4, seed=seed)
    return x * torch.tensor([1.0, 100.0, 5.0, 1.0]) + 1000, ((x[:, 0] > 0) ^ (x[:, 1] > 0)).long()


def shares_right(taught, x, labels):
    winner, _, _ = predict(taught, [x.T[:, None]], (1, len(x)))
    return float((winner[0] == labels).float().mean())


def test_what_no_straight_line_separates_is_learnt_and_the_same_seed_learns_the_same():
    x, labels = checkerboard(600, 1)
    told = []
    taught = teach(x, labels, 2, 7, lambda done, total: told.append((done, total)))
    assert shares_right(taught, x, labels) > 0.97
    assert shares_right(taught, *checkerboard(400, 2)) > 0.9
    assert [weight.shape for weight, _ in taught.layers] == [
        (PERCEPTRONS, 4, 128),
        (PERCEPTRONS, 128, 32),
        (PERCEPTRONS, 32, 2),
    ]
    assert told == [(i + 1, 100) for i in range(len(told))]
    assert 4 <= len(told) < 100, "it ends by itself"
    taught, again, other = (teach(x[:90], labels[:90], 2, seed, lambda *_: None) for seed in (7, 7, 8))
    for (weight, bias), (w, b), (v, _) in zip(taught.layers, again.layers, other.layers, strict=True):
        assert torch.equal(weight, w)
        assert torch.equal(bias, b)
        assert not torch.equal(weight, v)


def test_many_classes_have_wider_layers():
    labels = torch.arange(30).repeat(4)
    taught = teach(F.one_hot(labels).float() + 0.01 * random(120, 30), labels, 30, 0, lambda *_: None)
    assert [weight.shape[2] for weight, _ in taught.layers] == [256, 128, 30]
    assert taught.classes == 30


@pytest.mark.parametrize("labels", [[0, 0, 0], [1]])
def test_one_class_or_pixel_teaches_nothing(labels):
    with pytest.raises(ValueError, match="at least two of each are needed"):
        teach(random(len(labels), 4), torch.tensor(labels), 2, 0, lambda *_: None)

"""The losses of boxes, against double loops written from the papers' formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from explainable_latents.nodes.core.layout import Box
from explainable_latents.nodes.core.methods.box_losses import BoxLoss, top_values
from explainable_latents.nodes.core.methods.guidance import GuidedTokens, Part
from explainable_latents.nodes.core.methods.word_places import Boxes, inside

DOG, CAT = Box("dog", 0.0, 0.0, 0.5, 0.5), Box("cat", 0.4, 0.3, 1.0, 0.9)
BOXES = Boxes(((DOG,), (CAT,)))
TOKENS = GuidedTokens(((1,), (2, 3)), (0, 1, 2, 3))
LATENT = Part((16, 12), (0, 0), (16, 12))


def attention(*shape: int, seed: int = 0) -> Tensor:
    scores = 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.softmax(scores, dim=-1)


def mean_of_top(values: list[float]) -> float:
    """Of the 20 % largest, at least one."""
    count = max(1, math.floor(0.2 * len(values)))
    return sum(sorted(values, reverse=True)[:count]) / count


def by_loops(kind: str, layers: list[Tensor], inside: list[Tensor], inner: float, outer: float) -> list[list[float]]:
    """E of each word and picture: loops over layers, heads, tokens and places."""
    found = []
    for s, word in enumerate(TOKENS.words):
        found.append([])
        for b in range(layers[0].shape[0]):
            of_layers = []
            for layer, masks in zip(layers, inside, strict=True):
                heads, h, w = layer.shape[1:4]
                total = 0.0
                for head in range(heads):
                    for token in word:
                        within, without = [], []
                        for y in range(h):
                            for x in range(w):
                                (within if masks[s][y][x] else without).append(float(layer[b, head, y, x, token]))
                        if kind == "box share":
                            share = sum(within) / (sum(within) + sum(without))
                            total += (1 - share) ** 2 / heads / len(word)
                        else:
                            terms = inner * (1 - mean_of_top(within)) + outer * mean_of_top(without)
                            total += terms / len(word)
                of_layers.append(total)
            found[-1].append(sum(of_layers) / len(of_layers))
    return found


@pytest.mark.parametrize(("kind", "inner", "outer"), [("box share", 1, 1), ("top values", 1, 4)])
def test_losses_of_every_head_are_those_of_double_loops(kind, inner, outer):
    layers = [attention(2, 3, 8, 6, 4), attention(2, 2, 4, 3, 4, seed=1)]
    own = [inside(BOXES, tuple(layer.shape[2:4]), LATENT) for layer in layers]
    loss = BoxLoss(BOXES, kind, inner, outer)
    found = loss.of_words(layers, TOKENS, LATENT)
    expected = torch.tensor(by_loops(kind, layers, own, inner, outer), dtype=torch.float64)
    torch.testing.assert_close(found.losses, expected, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(loss.of_picture(found.losses), expected.mean(0))
    torch.testing.assert_close(found.remaining, expected.mean(0))
    assert found.maps.shape == (2, 2, 8, 6)


def test_boxdiff_is_that_of_double_loops():
    """Inside, outside, and along each axis the lines next to the ends of the box; on the smoothed maps.

    The ends are, as in the authors' code, the first line of the box and the first behind it.
    """
    layers, weights = [attention(2, 3, 8, 6, 4)], (0.7, 1.3, 2.0)
    loss = BoxLoss(BOXES, "BoxDiff", *weights)
    found = loss.of_words(layers, TOKENS, LATENT)
    owned, within_of_words = inside(BOXES, (8, 6), LATENT), torch.zeros(2, 2, dtype=torch.float64)
    for s in range(2):
        for b in range(2):
            grid = found.maps[s, b].tolist()
            cells = [(y, x) for y in range(8) for x in range(6)]
            within = [grid[y][x] for y, x in cells if owned[s, y, x]]
            without = [grid[y][x] for y, x in cells if not owned[s, y, x]]
            within_of_words[s, b] = max(0.0, 1 - mean_of_top(within))
            expected = weights[0] * float(within_of_words[s, b]) + weights[1] * mean_of_top(without)
            rows = [max(row) for row in grid]
            columns = [max(row[x] for row in grid) for x in range(6)]
            for lines, there in ((rows, owned[s].any(1).tolist()), (columns, owned[s].any(0).tolist())):
                first = there.index(True)
                ends = first, first + sum(there)
                near = {i for end in ends for i in (end - 1, end, end + 1) if 0 <= i < len(lines)}
                expected += weights[2] * sum(abs(lines[i] - there[i]) for i in near) / len(lines)
            assert float(found.losses[s, b]) == pytest.approx(expected, rel=1e-9)
    torch.testing.assert_close(loss.of_picture(found.losses), found.losses.sum(0))
    # what is repeated until it is small is the worst word's inside, as in the authors' code
    torch.testing.assert_close(found.remaining, within_of_words.amax(0))


@pytest.mark.parametrize("kind", ["box share", "top values", "BoxDiff"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_gradient_is_the_slope_on_odd_grids(kind, dtype):
    """Central differences in float64, away from ties; float32 has the same to its own precision."""
    scores = torch.randn(2, 2, 5, 7, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    loss, part = BoxLoss(BOXES, kind, 0.8, 1.5, 0.5), Part((20, 28), (0, 0), (20, 28))

    def total(x: Tensor) -> Tensor:
        return loss.of_picture(loss.of_words([torch.softmax(3 * x, dim=-1)], TOKENS, part).losses).sum()

    leaf = scores.to(dtype, copy=True).requires_grad_()
    (gradient,) = torch.autograd.grad(total(leaf), leaf)
    assert gradient.dtype == dtype
    for seed in range(5):
        direction = torch.randn(scores.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        slope = (total(scores + 1e-6 * direction) - total(scores - 1e-6 * direction)) / 2e-6
        tolerance = 1e-6 if dtype == torch.float64 else 1e-4
        assert float((gradient * direction).sum()) == pytest.approx(float(slope), rel=tolerance, abs=tolerance)


def test_of_a_part_of_the_picture_the_boxes_part_counts():
    """A conditioning with an area: the same as the whole picture's maps and boxes, cut out."""
    part = Part((8, 8), (2, 4), (6, 4))  # rows 2-7, columns 4-7 of a latent of 8 x 8
    cut = Box("cat", 0.0, 1 / 3, 1.0, 1.0)  # of the part
    layer = attention(1, 2, 6, 4, 4)
    for kind in ("box share", "top values", "BoxDiff"):
        placed = Boxes(((Box("cat", 0.5, 0.5, 1.0, 1.0),), (Box("cat", 0.25, 0.5, 1.0, 1.0),)))
        found = BoxLoss(placed, kind).of_words([layer], TOKENS, part)
        expected = BoxLoss(Boxes(((cut,), (cut,))), kind).of_words([layer], TOKENS, Part((6, 4), (0, 0), (6, 4)))
        assert torch.equal(found.losses, expected.losses)


def test_a_word_whose_place_is_outside_of_the_part_has_all_of_it_outside():
    left, part = Boxes(((Box("dog", 0, 0, 0.5, 1),),) * 2), Part((8, 8), (0, 4), (8, 4))
    layer = attention(1, 2, 8, 4, 4)
    assert BoxLoss(left).of_words([layer], TOKENS, part).losses.eq(1).all()
    everywhere = torch.ones(8, 4, dtype=torch.bool)
    outside = top_values(layer[..., [1]].movedim(-1, 2), everywhere).sum(1)[:, 0]
    found = BoxLoss(left, "top values", 1, 4).of_words([layer], TOKENS, part).losses
    torch.testing.assert_close(found[0], 2 + 4 * outside)  # of two heads
    assert BoxLoss(left, "BoxDiff").of_words([layer], TOKENS, part).losses.gt(1).all()


def test_a_box_over_the_whole_picture_has_no_outside():
    whole = Boxes(((Box("dog", 0, 0, 1, 1),), (Box("cat", 0, 0, 1, 1),)))
    for kind in ("box share", "top values", "BoxDiff"):
        layer = attention(1, 2, 4, 4, 4).requires_grad_()
        losses = BoxLoss(whole, kind).of_words([layer], TOKENS, LATENT).losses
        assert losses.isfinite().all()
        assert torch.autograd.grad(losses.sum(), layer)[0].isfinite().all()
    assert float(top_values(torch.rand(3, 3), torch.zeros(3, 3, dtype=torch.bool))) == 0


def test_its_layers():
    scales = {"input.7.0": 4, "middle.0.0": 8, "output.3.0": 4, "output.4.0": 4, "output.6.0": 2}
    assert BoxLoss(BOXES).layers(scales) == ("middle.0.0", "output.3.0", "output.4.0")
    assert BoxLoss(BOXES, "BoxDiff").layers(scales) == ("input.7.0", "output.3.0", "output.4.0")
    with pytest.raises(ValueError, match="loss 'GLIGEN' is not one of: box share, top values, BoxDiff"):
        BoxLoss(BOXES, "GLIGEN")
    with pytest.raises(ValueError, match=r"outside_weight -1 must be 0 \(without this part of the loss\)"):
        BoxLoss(BOXES, outside_weight=-1)

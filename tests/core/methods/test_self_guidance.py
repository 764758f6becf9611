"""Self-guidance, against double loops written from the paper's formulas."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from explainable_latents.nodes.core.methods.guidance import GuidedTokens, Part
from explainable_latents.nodes.core.methods.self_guidance import Noted, SelfGuidance, changed_words
from explainable_latents.nodes.core.methods.word_shapes import Properties, averaged, carried, centroid, shape
from explainable_latents.nodes.core.words.subjects import Subject, Subjects

TOKENS = GuidedTokens(((1,), (2, 3)), (0, 1, 2, 3))
WHOLE = Part((16, 12), (0, 0), (16, 12))
CORNER = Part((16, 12), (4, 6), (8, 6))
MOVE = SelfGuidance(frozenset({0}), x=0.2, y=-0.1, amount=1.5, keep_shape=0.7, keep_others=1.3)


def attention(*shape: int, seed: int = 0) -> Tensor:
    scores = 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.softmax(scores, dim=-1)


def layers_of(seed: int, count: int = 2) -> list[Tensor]:
    return [attention(count, 3, 8, 6, 4, seed=seed), attention(count, 2, 5, 7, 4, seed=seed + 1)]


def features_of(seed: int, count: int = 2) -> Tensor:
    return torch.randn(count, 5, 8, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain_of(
    loss: SelfGuidance, layers: list[Tensor], part: Part = WHOLE, features: Tensor | None = None
) -> SelfGuidance:
    noted = Noted(loss)
    found = noted.of_words(layers, TOKENS, part, features)
    assert not found.losses.any()
    assert not found.remaining.any()
    return loss.beside(noted.found)


def map_of(layer: Tensor, b: int, word: tuple[int, ...]) -> list[list[float]]:
    _, heads, h, w, _ = layer.shape
    return [
        [
            sum(float(layer[b, head, y, x, token]) for head in range(heads) for token in word) / heads / len(word)
            for x in range(w)
        ]
        for y in range(h)
    ]


def ranged(grid: list[list[float]]) -> list[list[float]]:
    values = [each for row in grid for each in row]
    low, high = min(values), max(values)
    return [[(each - low) / (high - low) for each in row] for row in grid]


def properties_by_hand(grid: list[list[float]], part: Part) -> tuple[float, float, float, list[list[float]]]:
    """Centre x and y, size, and shape of a map."""
    h, w = len(grid), len(grid[0])
    (y0, x0), (a, b), (height, width) = part.offset, part.size, part.grid
    shapes = ranged([[1 / (1 + math.exp(-10 * (each - 0.5))) for each in row] for row in ranged(grid)])
    total = sum(map(sum, shapes))
    cx = sum((x0 + (x + 0.5) / w * b) / width * shapes[y][x] for y in range(h) for x in range(w)) / total
    cy = sum((y0 + (y + 0.5) / h * a) / height * shapes[y][x] for y in range(h) for x in range(w)) / total
    size = sum(map(sum, shapes)) / (h * w) * (a * b) / (height * width)
    return cx, cy, size, shapes


def looked_up(grid: list[list[float]], y: float, x: float) -> float:
    """Bilinear between the middles of cells; 0 outside."""
    h, w = len(grid), len(grid[0])
    row, column = y * h - 0.5, x * w - 0.5
    found = 0.0
    for i in (math.floor(row), math.floor(row) + 1):
        for j in (math.floor(column), math.floor(column) + 1):
            if 0 <= i < h and 0 <= j < w:
                found += (1 - abs(row - i)) * (1 - abs(column - j)) * grid[i][j]
    return found


def by_hand(loss: SelfGuidance, layers: list[Tensor], plain: list[Tensor], part: Part) -> list[list[float]]:
    (y0, x0), (a, b), (height, width) = part.offset, part.size, part.grid
    found = []
    for s, word in enumerate(TOKENS.words):
        found.append([])
        for picture in range(layers[0].shape[0]):
            of_layers = []
            for own, other in zip(layers, plain, strict=True):
                cx, cy, size, shapes = properties_by_hand(map_of(own, picture, word), part)
                px, py, plain_size, plain_shapes = properties_by_hand(map_of(other, picture, word), part)
                h, w = len(shapes), len(shapes[0])
                cells = [(y, x) for y in range(h) for x in range(w)]
                if s not in loss.changed:
                    total = sum(abs(shapes[y][x] - plain_shapes[y][x]) for y, x in cells) / len(cells)
                    of_layers.append(loss.keep_others * total)
                    continue
                tx, ty = (px + loss.x, py + loss.y) if loss.position == "moved by" else (loss.x, loss.y)
                wanted = loss.amount * plain_size if loss.size == "times" else loss.amount
                total = 0.0 if loss.position == "free" else abs(cx - tx) + abs(cy - ty)
                total += 0.0 if loss.size == "free" else abs(size - wanted)
                dx, dy = (0.0, 0.0) if loss.position == "free" else (tx - px, ty - py)
                wide = 1.0 if loss.size == "free" else math.sqrt(wanted / plain_size)
                kept = 0.0
                for y, x in cells:
                    # where this cell is in the picture, where that was before, and where that is in the part
                    at = (x0 + (x + 0.5) / w * b) / width, (y0 + (y + 0.5) / h * a) / height
                    was = px + (at[0] - px - dx) / wide, py + (at[1] - py - dy) / wide
                    inner = (was[0] * width - x0) / b, (was[1] * height - y0) / a
                    kept += abs(shapes[y][x] - looked_up(plain_shapes, inner[1], inner[0])) / len(cells)
                of_layers.append(total + loss.keep_shape * kept)
            found[-1].append(sum(of_layers) / len(of_layers))
    return found


@pytest.mark.parametrize("part", [WHOLE, CORNER], ids=["whole", "part"])
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"position": "at", "x": 0.7, "y": 0.4},
        {"size": "share", "amount": 0.3},
        {"position": "free"},
        {"size": "free", "keep_shape": 0.0},
    ],
    ids=str,
)
def test_the_loss_is_that_of_double_loops(how, part):
    loss, layers, before = replace(MOVE, **how), layers_of(0), layers_of(7)
    found = plain_of(loss, before, part).of_words(layers, TOKENS, part)
    expected = torch.tensor(by_hand(loss, layers, before, part), dtype=torch.float64)
    torch.testing.assert_close(found.losses, expected, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(loss.of_picture(found.losses), expected.sum(0))
    torch.testing.assert_close(found.remaining, expected.sum(0))
    assert found.maps.shape == (2, 2, 8, 6)


def enlarged(grid: list[list[float]], h: int, w: int) -> list[list[float]]:
    """Bilinear between the middles of cells; at the edges the outermost."""
    rows, columns = len(grid), len(grid[0])
    return [
        [
            looked_up(
                grid,
                min(max((y + 0.5) / h, 0.5 / rows), 1 - 0.5 / rows),
                min(max((x + 0.5) / w, 0.5 / columns), 1 - 0.5 / columns),
            )
            for x in range(w)
        ]
        for y in range(h)
    ]


def appearance_by_hand(layer: Tensor, features: Tensor, b: int, word: tuple[int, ...]) -> list[float]:
    *_, channels, h, w = features.shape
    shapes = enlarged(properties_by_hand(map_of(layer, b, word), WHOLE)[3], h, w)
    cells = [(y, x) for y in range(h) for x in range(w)]
    total = sum(shapes[y][x] for y, x in cells)
    return [sum(shapes[y][x] * float(features[b, c, y, x]) for y, x in cells) / total for c in range(channels)]


@pytest.mark.parametrize("moved", [True, False], ids=["moved", "free"])
def test_appearance_is_the_mean_of_the_features_under_the_shape(moved):
    """Of all words, the changed and the others, beside the rest of the loss; the grids differ."""
    others = {} if moved else {"position": "free", "size": "free", "keep_shape": 0.0, "keep_others": 0.0}
    loss = replace(MOVE, keep_appearance=0.9, **others)
    layers, before, features, plain = layers_of(0), layers_of(7), features_of(1), features_of(2)
    expected = torch.tensor(by_hand(loss, layers, before, WHOLE), dtype=torch.float64)
    for s, word in enumerate(TOKENS.words):
        for b in range(2):
            for own, other in zip(layers, before, strict=True):
                now = appearance_by_hand(own, features, b, word)
                was = appearance_by_hand(other, plain, b, word)
                change = sum(abs(x - y) for x, y in zip(now, was, strict=True)) / sum(map(abs, was))
                expected[s, b] += 0.9 * change / len(layers)
    found = plain_of(loss, before, features=plain).of_words(layers, TOKENS, WHOLE, features)
    torch.testing.assert_close(found.losses, expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_only_the_features_have_a_gradient_by_the_appearance(dtype):
    loss = SelfGuidance(frozenset({0}), "free", size="free", keep_others=0.0, keep_appearance=1.0)
    layers = [layer.to(dtype).requires_grad_() for layer in layers_of(0)]
    features = features_of(1).to(dtype).requires_grad_()
    loss = plain_of(loss, [layer.detach() for layer in layers_of(7)], features=features_of(2))

    def total(given: Tensor) -> Tensor:
        own = [layer.to(given) for layer in layers]
        return loss.of_picture(loss.of_words(own, TOKENS, WHOLE, given).losses).sum()

    *of_layers, gradient = torch.autograd.grad(total(features), [*layers, features], allow_unused=True)
    assert all(each is None or not each.any() for each in of_layers)
    exact = features.detach().double()
    for seed in range(5):
        direction = torch.randn(exact.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        slope = float(total(exact + 1e-6 * direction) - total(exact - 1e-6 * direction)) / 2e-6
        assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_gradient_is_the_slope_on_odd_grids(dtype):
    """Central differences in float64; float32 has the same to its own precision."""
    loss = plain_of(MOVE, [attention(2, 2, 5, 7, 4, seed=3)])
    scores = torch.randn(2, 2, 5, 7, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def total(x: Tensor) -> Tensor:
        return loss.of_picture(loss.of_words([torch.softmax(3 * x, dim=-1)], TOKENS, WHOLE).losses).sum()

    leaf = scores.to(dtype, copy=True).requires_grad_()
    (gradient,) = torch.autograd.grad(total(leaf), leaf)
    assert gradient.dtype == dtype
    for seed in range(5):
        direction = torch.randn(scores.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        slope = (total(scores + 1e-6 * direction) - total(scores - 1e-6 * direction)) / 2e-6
        tolerance = 1e-5 if dtype == torch.float64 else 1e-3
        assert float((gradient * direction).sum()) == pytest.approx(float(slope), rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("how", [{}, {"position": "free", "size": "free"}, {"size": "free"}], ids=str)
def test_what_is_as_in_the_plain_run_and_shall_stay_so_has_no_loss_and_no_slope(how):
    layers = [layer.requires_grad_() for layer in layers_of(0)]
    loss = plain_of(SelfGuidance(frozenset({0}), **{"keep_shape": 1.0, **how}), layers)
    losses = loss.of_words(layers, TOKENS, WHOLE).losses
    assert not losses.any()
    assert all(not gradient.any() for gradient in torch.autograd.grad(losses.sum(), layers))


def test_pictures_do_not_depend_on_each_other():
    layers, before = layers_of(0, 3), layers_of(7, 3)
    together = plain_of(MOVE, before).of_words(layers, TOKENS, WHOLE).losses
    for i in range(3):
        own, plain = ([layer[i : i + 1] for layer in each] for each in (layers, before))
        torch.testing.assert_close(plain_of(MOVE, plain).of_words(own, TOKENS, WHOLE).losses[:, 0], together[:, i])


def test_a_map_is_where_and_as_large_as_it_looks():
    """A square of a quarter of the area in the upper right corner; a constant map has no shape and is in the middle."""
    square = torch.zeros(8, 8, dtype=torch.float64)
    square[:4, 4:] = 1
    part = Part((8, 8), (0, 0), (8, 8))
    assert centroid(square, part).tolist() == [0.75, 0.25]
    assert float(shape(square).mean()) == pytest.approx(0.25)
    assert not shape(torch.ones(4, 4)).any()
    assert centroid(torch.ones(4, 6), part).tolist() == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shapes_are_carried(dtype):
    """By whole cells exactly; twice as wide and high it has four times the area; nothing asked: the same bits."""
    part = Part((8, 12), (0, 0), (8, 12))
    square = torch.zeros(1, 1, 8, 12, dtype=dtype)
    square[..., 3:5, 5:7] = 1
    centre, still, once = torch.tensor([[[0.5, 0.5]]]), torch.zeros(1, 1, 2), torch.ones(1, 1)
    assert torch.equal(carried(square, centre.to(dtype), still.to(dtype), once.to(dtype), part), square)
    moved = carried(square.float(), centre, torch.tensor([[[0.25, -0.25]]]), once, part)
    torch.testing.assert_close(moved, square.float().roll((-2, 3), (-2, -1)), atol=1e-5, rtol=0)
    large = carried(square.float(), centre, still, 4 * once, part)
    assert float(large.sum()) == pytest.approx(16, rel=0.05)
    torch.testing.assert_close(centroid(large, part), centre)


def test_conditionings_about_the_same_part_count_by_their_mean():
    noted, one, other = Noted(MOVE), layers_of(0), layers_of(7)
    noted.of_words(one, TOKENS, WHOLE)
    noted.of_words(other, TOKENS, WHOLE)
    alone = [plain_of(MOVE, each).plain[WHOLE] for each in (one, other)]
    for found, *each in zip(noted.found[WHOLE], *alone, strict=True):
        for mean, first, second in zip(found.tensors, *(part.tensors for part in each), strict=True):
            torch.testing.assert_close(mean, (first + second) / 2)
    assert averaged([alone[0][0]]) is alone[0][0]
    assert isinstance(averaged(alone[0][:1]), Properties)


def test_what_has_no_plain_run_is_an_error():
    absolute = SelfGuidance(frozenset({0}), "at", 0.5, 0.5, "free", keep_others=0.0)
    assert not absolute.needs_plain
    assert absolute.of_words(layers_of(0), TOKENS, WHOLE).losses[1].eq(0).all()
    for loss in (MOVE, plain_of(MOVE, layers_of(0), CORNER)):
        with pytest.raises(ValueError, match="the run without guidance had no attention to the prompt in the same"):
            loss.of_words(layers_of(0), TOKENS, WHOLE)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"position": "left"}, "position 'left' is not one of: moved by, at, free"),
        ({"size": "huge"}, "size 'huge' is not one of: times, share, free"),
        ({"x": 1.2}, "x 1.2 is outside of the picture; with position moved by: from -1 to 1"),
        ({"position": "at", "y": -0.1}, "y -0.1 is outside of the picture; with position at: from 0 to 1"),
        ({"x": math.nan}, "x nan is outside of the picture"),
        ({"amount": 0.0}, r"amount 0.0: with size 'times' it must be a positive number \(1: as large\)"),
        ({"size": "share", "amount": 2.0}, "amount 2.0: with size 'share' it must be above 0 and at most 1"),
        ({"keep_others": -1.0}, r"keep_others -1.0 must be 0 \(without this part of the loss\)"),
        ({"keep_appearance": math.nan}, "keep_appearance nan must be 0"),
        ({"position": "free", "size": "free"}, "nothing is asked for: choose a position or a size"),
    ],
    ids=str,
)
def test_mistakes(how, words):
    with pytest.raises(ValueError, match=words):
        SelfGuidance(frozenset({0}), **how)


def test_the_words_that_change():
    texts = ("dog", 1), ("cat", 0), ("dog", 2)
    items = tuple(
        Subject(text, "subject", (4 * i, 4 * i + 3), {"l": (i + 1,)}, number=number)
        for i, (text, number) in enumerate(texts)
    )
    subjects = Subjects("dog cat dog", items, "rules", {"l": (1, 2, 3)})
    assert changed_words("", subjects) == {0, 1, 2}
    assert changed_words(" Cat ,", subjects) == {1}
    assert changed_words(f"a red cat, {subjects.labels[2]}", subjects) == {1, 2}
    assert changed_words("cat, a dog", subjects) == {0, 1, 2}
    with pytest.raises(ValueError, match="words: 'bus' is no word of the prompt; its words are: dog#1, cat, dog#2"):
        changed_words("cat, bus", subjects)

"""Abs-Grad-SAM behind the last attention of a transformer: both ways against the literal solver, on random layers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from explainable_latents.nodes.core.gradients.definition import (
    WordAttention,
    attention_change,
    brute_force,
    distinct_tokens,
)
from explainable_latents.nodes.core.gradients.parallel_block import ParallelBlock
from explainable_latents.nodes.core.gradients.patches import as_patches, from_patches, is_local, patchwise


class End:
    """A random end of a transformer: attention, gate, norm and linear layer, and where `mlp` an MLP before the norm.

    size, patch: of the prediction. tokens: of the text.
    """

    def __init__(
        self, *, heads=2, width=4, batch=2, size=(5, 6), patch=(2, 2), channels=3, frames=0, mlp=False, seed=0
    ):
        generator = torch.Generator().manual_seed(seed)

        def random(*shape: int, scale: float = 1.0) -> Tensor:
            return scale * torch.randn(*shape, generator=generator)

        d, self.size, self.patch, self.mlp = heads * width, size, patch, mlp
        grid = [-(-n // p) for n, p in zip(size, patch, strict=True)]
        q, tokens, k = max(frames, 1) * grid[0] * grid[1], 7, channels * patch[0] * patch[1]
        self.shape = (batch, channels, *([frames] if frames else []), *size)
        self.p = torch.softmax(random(batch, heads, q, tokens), -1)
        self.values, self.stream = random(batch, tokens, d), random(batch, q, d)
        self.out, self.gate, self.scales = random(d, d, scale=d**-0.5), random(batch, 1, d), 1 + random(batch, 1, d)
        self.up, self.down, self.last = random(4 * d, d), random(d, 4 * d, scale=0.2), random(k, d)
        self.shift, self.scale = random(k), -0.7

    def words(self, sets) -> tuple[WordAttention, Tensor, Tensor]:
        """The variable, the recorded prediction, and the stream that enters the norm."""
        columns = torch.stack([torch.isin(torch.arange(7), torch.tensor(s)).float() for s in sets], dim=1)
        used, columns = distinct_tokens(columns)
        change = torch.zeros_like(self.p[..., used], requires_grad=True)
        words = WordAttention(self.p[..., used], change, columns, self.values[:, used])
        attended = attention_change(self.p, self.values) + attention_change(change, words.values)
        y = self.stream + self.gate * F.linear(attended, self.out)
        if self.mlp:
            y = y + F.linear(F.gelu(F.linear(y, self.up)), self.down)
        n = F.layer_norm(y, y.shape[-1:], eps=1e-6) * self.scales
        return words, self.whole(self.scale * F.linear(n, self.last, self.shift)), y.detach()

    def whole(self, patches: Tensor) -> Tensor:
        """[B,Q,K] as a prediction, written with loops."""
        frames, (h, w), (ph, pw) = max([*self.shape[2:-2], 1]), self.size, self.patch
        rows, columns = -(-h // ph), -(-w // pw)
        whole = patches.new_zeros(self.shape[0], self.shape[1], frames, rows * ph, columns * pw)
        for i in range(patches.shape[1]):
            t, y, x = i // (rows * columns), i // columns % rows, i % columns
            one = patches[:, i].unflatten(-1, (self.shape[1], ph, pw))
            whole[:, :, t, y * ph : (y + 1) * ph, x * pw : (x + 1) * pw] = one
        return whole[..., :h, :w].reshape(self.shape)


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


CASES = [
    {},
    {"size": (7, 5), "seed": 1},
    {"size": (3, 5), "patch": (1, 1), "heads": 4, "batch": 1, "seed": 2},
    {"size": (5, 4), "frames": 3, "seed": 3},
    {"size": (6, 9), "patch": (2, 4), "channels": 1, "seed": 4},
]


@pytest.mark.parametrize("polarity", ["absolute", "positive"])
@pytest.mark.parametrize("mlp", [False, True])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_both_give_what_one_pass_for_each_element_gives(case, mlp, polarity):
    end = End(mlp=mlp, **case)
    words, prediction, stream = end.words([(1,), (2, 5)])
    brute, done = brute_force(words, prediction, polarity), []
    frames = brute.unsqueeze(3) if brute.ndim == 5 else brute
    expected = frames.transpose(2, 3).flatten(1, 2)
    patches = as_patches(prediction, end.patch)
    assert is_local(words, patches)
    scores = patchwise(words, patches, polarity, lambda at, count: done.append((at, count)))
    assert len(done) == done[-1][1] == end.last.shape[0]  # a pass for each number of a patch, whatever the size
    assert relative_error(from_patches(scores, end.patch, end.shape), expected) <= 1e-5
    if not mlp:
        block = ParallelBlock(stream, 1e-6, end.out, end.gate, end.last, end.scales, end.scale)
        closed = from_patches(block.scores(words, polarity), end.patch, end.shape)
        assert relative_error(closed, expected) <= 1e-5


def test_patches_are_put_back_as_they_were():
    for case in CASES:
        end = End(**case)
        _, prediction, _ = end.words([(1,)])
        patches = as_patches(prediction, end.patch)
        assert torch.equal(end.whole(patches), prediction)
        back = from_patches(patches[None], end.patch, end.shape)[0]
        frames = prediction if prediction.ndim == 4 else prediction.transpose(1, 2).flatten(0, 1)
        assert torch.equal(back, frames)


def test_a_gate_and_scales_of_every_token():
    """As where tokens of reference pictures are modulated in another way."""
    end = End(seed=5)
    tokens = end.stream.shape[1]
    end.gate, end.scales = (torch.randn(2, tokens, 8, generator=torch.Generator().manual_seed(i)) for i in (1, 2))
    words, prediction, stream = end.words([(1, 3)])
    block = ParallelBlock(stream, 1e-6, end.out, end.gate, end.last, end.scales, end.scale)
    found = from_patches(block.scores(words, "absolute"), end.patch, end.shape)
    assert relative_error(found, brute_force(words, prediction, "absolute")) <= 1e-5


def test_what_mixes_two_tokens_is_not_local():
    end = End(seed=6)
    words, prediction, _ = end.words([(1,)])
    mixed = prediction + 1e-3 * prediction.roll(end.patch[0], dims=-2)
    assert is_local(words, as_patches(prediction, end.patch))
    assert not is_local(words, as_patches(mixed, end.patch))
    assert not is_local(words, as_patches(prediction, (1, 1)))


def test_an_unknown_polarity_is_told():
    end = End()
    words, prediction, stream = end.words([(1,)])
    block = ParallelBlock(stream, 1e-6, end.out, end.gate, end.last, end.scales)
    for run in (lambda: patchwise(words, as_patches(prediction, (2, 2)), "both"), lambda: block.scores(words, "both")):
        with pytest.raises(ValueError, match="polarity 'both'"):
            run()

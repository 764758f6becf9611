"""Random last layers of a small UNet: from its last cross-attention to the prediction, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from explainable_latents.nodes.core.gradients.definition import WordAttention, attention_change, distinct_tokens
from explainable_latents.nodes.core.gradients.derivative import Feedforward
from explainable_latents.nodes.core.gradients.structured import Head


class LastLayers(nn.Module):
    """Random weights, and a random prompt's keys and values; `P` is a module, so that tools can attribute to it."""

    def __init__(
        self, *, heads=2, width=4, channels=16, groups=4, size=(5, 6), batch=1, tokens=7, latent=4, kernel=3, seed=0
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def random(*shape: int, scale: float = 1.0) -> Tensor:
            return scale * torch.randn(*shape, generator=generator)

        inner = heads * width
        self.size, self.heads, self.groups = size, heads, groups
        q, k = random(batch, size[0] * size[1], inner), random(batch, tokens, inner)
        self.q, self.k = q, k
        self.v = random(batch, tokens, inner)
        self.scores = (q.unflatten(2, (heads, -1)).transpose(1, 2)) @ k.unflatten(2, (heads, -1)).permute(0, 2, 3, 1)
        self.scores = self.scores * width**-0.5
        self.P = nn.Softmax(dim=-1)
        self.out = random(inner, inner, scale=inner**-0.5)
        self.residual = random(batch, size[0] * size[1], inner)
        self.norm = 1 + random(inner, scale=0.2), random(inner, scale=0.2)
        self.up = random(inner, 8 * inner, scale=inner**-0.5)
        self.up_bias = random(8 * inner, scale=0.2)
        self.down = random(4 * inner, inner, scale=(4 * inner) ** -0.5)
        self.proj = random(inner, channels, scale=inner**-0.5)
        self.skip = random(batch, channels, *size)
        self.head = Head(
            groups,
            1e-5,
            1 + random(channels, scale=0.3),
            random(channels, scale=0.3),
            random(latent, channels, kernel, kernel, scale=(9 * channels) ** -0.5),
            random(latent),
            scale=-1.7,
        )

    def features(self, attended: Tensor) -> Tensor:
        """[B,M,h,w] for the attention's output [B,Q,H*d]."""
        x = self.residual + attended @ self.out
        value, gate = (F.layer_norm(x, x.shape[-1:], *self.norm) @ self.up + self.up_bias).chunk(2, -1)
        x = x + (value * F.gelu(gate)) @ self.down
        return self.skip + (x @ self.proj).transpose(1, 2).unflatten(2, self.size)

    def feedforward(self) -> Feedforward:
        """The layers from the attention's output to the features, as the closed form takes them."""
        attended = (torch.softmax(self.scores, -1) @ self.values()).transpose(1, 2).flatten(2)
        x = self.residual + attended @ self.out
        down, last = (self.down @ self.proj).T, self.proj.T
        return Feedforward(x, self.out.T, *self.norm, 1e-5, self.up.T, self.up_bias, down, last)

    def values(self) -> Tensor:
        """The prompt's value vectors by head, [B,H,T,d]."""
        return self.v.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def forward(self, shift: Tensor) -> Tensor:
        """The prediction [B,C,h,w]; `shift` (zeros [B]) is added to the scores, where gradients can begin."""
        p = self.P(self.scores + shift.view(-1, 1, 1, 1))
        return self.predict(self.features((p @ self.values()).transpose(1, 2).flatten(2)))

    def predict(self, features: Tensor) -> Tensor:
        """GroupNorm, SiLU and the convolution, written out by torch's own layers."""
        h = self.head
        conv = F.conv2d(
            F.silu(F.group_norm(features, h.groups, h.gamma, h.beta, h.eps)), h.weight, h.bias, padding="same"
        )
        return h.scale * conv

    def words(self, token_sets: list[tuple[int, ...]]) -> tuple[WordAttention, Tensor]:
        """The words' attention as the solvers take it, and the features recorded by it."""
        columns = torch.zeros(self.k.shape[1], len(token_sets))
        for s, tokens in enumerate(token_sets):
            columns[list(tokens), s] = 1
        used, membership = distinct_tokens(columns)
        p = torch.softmax(self.scores, -1)
        change = torch.zeros_like(p[..., used], requires_grad=True)
        attended = (p @ self.values()).transpose(1, 2).flatten(2) + attention_change(change, self.v[:, used])
        return WordAttention(p[..., used], change, membership, self.v[:, used]), self.features(attended)


def definition(layers: LastLayers, token_sets: list[tuple[int, ...]], polarity: str) -> Tensor:
    """[S,B,C,h,w] straight from the formula: P a leaf with all its tokens, one element of one latent at a time."""
    p = torch.softmax(layers.scores, -1).requires_grad_()
    values = layers.v.unflatten(2, (layers.heads, -1)).transpose(1, 2)
    z = layers.predict(layers.features((p @ values).transpose(1, 2).flatten(2)))
    out = torch.zeros(len(token_sets), *z.shape)
    for index in torch.cartesian_prod(*(torch.arange(n) for n in z.shape)).tolist():
        (gradient,) = torch.autograd.grad(z[tuple(index)], p, retain_graph=True)
        counts = gradient.abs() if polarity == "absolute" else torch.relu(gradient)
        for s, tokens in enumerate(token_sets):
            for t in tokens:
                out[(s, *index)] += (p[index[0], :, :, t] * counts[index[0], :, :, t]).sum()
    return out.detach()


def relative_error(found: Tensor, expected: Tensor) -> float:
    """The largest error of any element relative to that element; 0 where both are exactly 0."""
    error = (found - expected).abs() / expected.abs()
    return float(torch.where(found == expected, 0.0, error).max())

"""Methods that edit the rows of positive prompts without a twin, and what their tests have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from explainable_latents.nodes.core.methods.dense_diffusion import DenseDiffusion
from explainable_latents.nodes.core.methods.prompt_to_prompt import Window
from explainable_latents.nodes.core.methods.structured_diffusion import PhraseAlone
from explainable_latents.nodes.core.methods.word_places import Masks
from explainable_latents.nodes.host.editing.dense_diffusion import install_dense_diffusion
from explainable_latents.nodes.host.editing.placed_phrases import PlacedPhrases
from explainable_latents.nodes.host.editing.regional_attention import install_regions
from explainable_latents.nodes.host.editing.structured_attention import install_structured_diffusion
from explainable_latents.nodes.host.same_prompt import Encoded
from tests.host.editing.twins import TARGET, WRITTEN, relative
from tests.host.unets import CONTEXT, conditioning

GRID = (15, 9)
PROMPT = "a red dog on a beach"
OWN = Encoded((TARGET[0][0],), {})
ROWS = ((2, 3), (6, 7))
ALWAYS = DenseDiffusion(window=Window(0, 1))
MASKS = torch.zeros(2, 30, 20)
MASKS[0, :, :9] = MASKS[1, 12:, 11:] = 1
PLACED = PlacedPhrases(PROMPT, OWN, ("red dog", "beach"), ROWS, Masks(MASKS))
ALONE = [
    PhraseAlone(words, rows, torch.randn(2, CONTEXT, generator=torch.Generator().manual_seed(seed)))
    for seed, (words, rows) in enumerate(zip(PLACED.words, ROWS, strict=True))
]


def dense(model, method: DenseDiffusion = ALWAYS, phrases: PlacedPhrases = PLACED):
    """A copy of the model with Place Phrases."""
    copy = model.clone()
    install_dense_diffusion(copy, phrases, method)
    return copy


def structured(model, phrases: Sequence[PhraseAlone] = ALONE, strength: float = 1.0, encoded: Encoded = OWN):
    """A copy of the model with Structured Diffusion."""
    copy = model.clone()
    install_structured_diffusion(copy, PROMPT, encoded, phrases, strength)
    return copy


def regional(model, *regions, **options):
    """A copy of the model with regions, each an entry of a CONDITIONING."""
    copy = model.clone()
    install_regions(copy, [each for region in regions for each in region], **options)
    return copy


def masked(seed: int, mask: Tensor, chunks: int = 1, **extra) -> list:
    """A region's prompt."""
    return conditioning(seed, chunks, mask=mask, **extra)


def half(grid: tuple[int, int] = (16, 16), side: str = "left") -> Tensor:
    """A mask [1,h,w] of one half."""
    mask = torch.zeros(1, *grid)
    if side == "left":
        mask[..., : grid[1] // 2] = 1
    else:
        mask[..., grid[1] // 2 :] = 1
    return mask


def assert_alike(found: Tensor, expected: Tensor, plain: Tensor) -> None:
    """Both differ by rounding, far less than the method changes."""
    assert relative(found, expected) < WRITTEN
    assert (found - expected).abs().max() < 0.02 * (plain - expected).abs().max()


def by_head(x: Tensor, heads: int) -> Tensor:
    """[R,N,H·d] as float64 [R,H,N,d]."""
    return x.double().unflatten(-1, (heads, -1)).transpose(1, 2)


def scores(q: Tensor, k: Tensor, heads: int) -> Tensor:
    """What the softmax is of, float64 [R,H,Q,K]."""
    return by_head(q, heads) @ by_head(k, heads).transpose(2, 3) * (q.shape[-1] // heads) ** -0.5


def cross_attention_of(network, options: dict):
    """The module whose attention an override is asked for; of the same block where it is self-attention."""
    part, number = options["block"]
    blocks = {"input": network.input_blocks, "middle": [network.middle_block], "output": network.output_blocks}
    (transformer,) = (each for each in blocks[part][number] if hasattr(each, "transformer_blocks"))
    return transformer.transformer_blocks[options["block_index"]].attn2


def positive_rows(count: int, options: dict) -> Iterator[slice]:
    """Of each positive conditioning in a call with `count` rows."""
    kinds = options["cond_or_uncond"]
    each = count // len(kinds)
    return (slice(j * each, (j + 1) * each) for j, kind in enumerate(kinds) if kind == 0)

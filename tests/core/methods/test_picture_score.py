"""Scores of pictures, by numbers worked out by hand, and which files are aesthetic heads."""

import math

import pytest
import torch
import torch.nn.functional as F

from explainable_latents.nodes.core.methods.picture_score import Aesthetics, TextMatch, aesthetics, clip_pixels

WIDTHS = (8, 6, 5, 4, 3, 1)
NUMBERS = (0, 2, 4, 6, 7)


def five(widths=WIDTHS) -> dict[str, torch.Tensor]:
    """Tensors named as LAION's improved predictor names them."""
    generator = torch.Generator().manual_seed(0)
    made = {}
    for number, wide, narrow in zip(NUMBERS, widths[:-1], widths[1:], strict=True):
        made[f"layers.{number}.weight"] = torch.randn(narrow, wide, generator=generator)
        made[f"layers.{number}.bias"] = torch.randn(narrow, generator=generator)
    return made


def test_the_loss_of_a_text_is_how_far_the_angle_is_from_none():
    score = TextMatch(torch.tensor([1.0, 0.0]), 3.0)
    found = score.loss(torch.tensor([[5.0, 0.0], [0.0, 2.0], [-1.0, 0.0], [1.0, 1.0]]))
    assert found.tolist() == pytest.approx([0, 1, 2, 1 - math.sqrt(0.5)], abs=1e-6)
    assert (score.width, score.weight, score.name) == (2, 3.0, "text")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_linear_head_takes_embeddings_of_length_one(dtype):
    head = aesthetics({"weight": torch.tensor([[2.0, 1.0]]), "bias": torch.tensor([0.5])})
    found = head.loss(torch.tensor([[3.0, 4.0], [0.0, 9.0]], dtype=dtype))
    assert found.tolist() == pytest.approx([-(2 * 0.6 + 0.8 + 0.5), -1.5])
    assert found.dtype == dtype


def test_five_layers_run_one_after_the_other():
    tensors = five()
    h = embeddings = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    h = h / h.norm(dim=1, keepdim=True)
    for number in NUMBERS:
        h = F.linear(h, tensors[f"layers.{number}.weight"], tensors[f"layers.{number}.bias"])
    head = aesthetics(tensors, 0.25)
    assert isinstance(head, Aesthetics)
    torch.testing.assert_close(head.loss(embeddings), -h[:, 0])
    assert (head.width, head.weight) == (8, 0.25)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"layers.2.weight": None}, "an aesthetic head has the tensors"),
        ({"more": torch.ones(1)}, "this file has .*more"),
        ({"layers.2.weight": torch.ones(5, 7)}, r"layers.2.weight is torch.float32 \[5, 7\].*\[out, 6\]"),
        ({"layers.4.bias": torch.ones(5)}, "layers.4.bias"),
        ({"layers.0.weight": torch.ones(6, 8, dtype=torch.int8)}, "torch.int8"),
        ({"layers.6.bias": torch.full((3,), math.nan)}, "not finite"),
        ({"layers.7.weight": torch.ones(2, 3), "layers.7.bias": torch.ones(2)}, "the last layer of this file has 2"),
    ],
)
def test_other_files_are_refused_with_what_is_wrong(change, words):
    tensors = {name: value for name, value in (five() | change).items() if value is not None}
    with pytest.raises(ValueError, match=words):
        aesthetics(tensors)


@pytest.mark.parametrize("size", [(32, 32), (40, 56), (57, 33)])
def test_pictures_are_brought_to_clips_size_with_a_gradient(size):
    pictures = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(2), requires_grad=True)
    pixels = clip_pixels(pictures, 32, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    assert pixels.shape == (2, 3, 32, 32)
    pixels.sum().backward()
    assert pictures.grad.abs().sum() > 0
    if size == (32, 32):
        assert torch.allclose(pixels[:, 1] * 0.3 + 0.4, pictures[:, 1], atol=1e-6)

"""Gaussian Smooth, Dilate and Saliency to Mask through their own `execute`, as ComfyUI calls it."""

import pytest
import torch

from explainable_latents.nodes.core.maps.filters import dilate, erode, gaussian_smooth
from explainable_latents.nodes.core.maps.saliency import Saliency


def saliency(*shape: int) -> Saliency:
    maps = torch.rand(*shape, generator=torch.Generator().manual_seed(0))
    return Saliency(maps, tuple(f"word {i}" for i in range(shape[0])), 1.0, None, tuple(shape[-2:]))


def mask(dtype: torch.dtype) -> torch.Tensor:
    return (torch.rand(2, 37, 53, generator=torch.Generator().manual_seed(1)) > 0.6).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_mask_of_any_float_type_stays_one(nodes, dtype):
    (soft,) = nodes["ELSmoothSaliency"].execute(mask(dtype), 2.0, 5).result
    (grown,) = nodes["ELDilateSaliency"].execute(mask(dtype), "dilate", 3, 2).result
    (shrunk,) = nodes["ELDilateSaliency"].execute(mask(dtype), "erode", 3, 1).result
    exact = mask(torch.float32)
    assert torch.equal(soft, gaussian_smooth(exact, 2.0, 5).to(dtype))
    assert torch.equal(grown, dilate(exact, 3, 2).to(dtype))
    assert torch.equal(shrunk, erode(exact, 3, 1).to(dtype))


def test_saliency_with_latent_channels_goes_all_the_way(nodes):
    given = saliency(2, 3, 4, 9, 13)
    (soft,) = nodes["ELSmoothSaliency"].execute(given, 6.0, 3).result
    (grown,) = nodes["ELDilateSaliency"].execute(soft, "dilate", 3, 3).result
    assert grown.labels == given.labels
    assert torch.equal(grown.maps, dilate(gaussian_smooth(given.maps, 6.0, 3), 3, 3))
    (union,) = nodes["ELSaliencyToMask"].execute(given, "", "otsu", 0.0, "union", False, "together").result
    (one,) = nodes["ELSaliencyToMask"].execute(given, "word 1", "otsu", 0.0, "union", False, "together").result
    (each,) = nodes["ELSaliencyToMask"].execute(given, "", "otsu", 0.0, "each", False, "together").result
    assert union.shape == (3, 72, 104)
    assert torch.equal(torch.cat([torch.maximum(each[:3], one) - union, each[3:] - one]), torch.zeros(6, 72, 104))

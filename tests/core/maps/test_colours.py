"""Colour maps: even steps, rising lightness, also for colour-blind viewers."""

import pytest
import torch

from explainable_latents.nodes.core.maps.colours import (
    COLORMAPS,
    colormap,
    colourise,
    distinct_colours,
    oklab_to_srgb,
)

# Linear-light simulation of the three dichromacies (G. M. Machado et al., 2009, severity 1.0).
BLINDNESS = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


# Ottosson's forward transform, which the pack itself does not need.
CONES = [
    [0.4122214708, 0.5363325363, 0.0514459929],
    [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
]
LAB = [
    [0.2104542553, 0.7936177850, -0.0040720468],
    [1.9779984951, -2.4285922050, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.8086757660],
]


def linear(rgb: torch.Tensor) -> torch.Tensor:
    rgb = rgb.double()
    return torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def srgb_to_oklab(rgb: torch.Tensor) -> torch.Tensor:
    cones = linear(rgb) @ torch.tensor(CONES).double().T
    return cones.clamp_min(0) ** (1 / 3) @ torch.tensor(LAB).double().T


def test_oklab_of_known_colours():
    assert torch.allclose(srgb_to_oklab(torch.ones(3)), torch.tensor([1.0, 0, 0]).double(), atol=1e-4)
    red = srgb_to_oklab(torch.tensor([1.0, 0.0, 0.0]))
    assert torch.allclose(red, torch.tensor([0.628, 0.225, 0.126]).double(), atol=1e-3)
    rgb = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(oklab_to_srgb(srgb_to_oklab(rgb)), rgb.double(), atol=1e-5)


@pytest.mark.parametrize("name", COLORMAPS)
def test_steps_are_even_and_lightness_rises(name):
    lab = srgb_to_oklab(colormap(name))
    steps = lab.diff(dim=0).norm(dim=1)
    assert steps.max() < 1.25 * steps.min()
    assert (lab[:, 0].diff() > 0).all()
    assert lab[-1, 0] - lab[0, 0] > 0.65


@pytest.mark.parametrize("name", COLORMAPS)
@pytest.mark.parametrize("kind", BLINDNESS)
def test_the_order_survives_colour_blindness(name, kind):
    seen = (linear(colormap(name)) @ torch.tensor(BLINDNESS[kind]).double().T).clamp(0, 1)
    seen = torch.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    lightness = srgb_to_oklab(seen)[:, 0]
    assert (lightness[8:] > lightness[:-8]).all()


def test_values_are_clipped_and_interpolated():
    table = colormap("fire")
    colours = colourise(torch.tensor([[-1.0, 0.0], [1.0, 2.0]]), "fire")
    assert torch.equal(colours, table[[0, 0, 255, 255]].reshape(2, 2, 3))
    middle = colourise(torch.tensor(100.25 / 255), "fire")
    assert torch.allclose(middle, 0.75 * table[100] + 0.25 * table[101], atol=1e-5)


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match="'jet' is not one of: fire, sea, grey"):
        colormap("jet")


def test_colours_of_regions_are_far_apart_and_followers_differ_in_lightness():
    """In Oklab 0.02 can just be told apart; lightness is what colour-blind viewers and print keep."""
    colours = distinct_colours(12)
    assert torch.equal(distinct_colours(5), colours[:5])
    lab = srgb_to_oklab(colours)
    assert torch.pdist(lab).min() > 0.09
    assert lab[:, 0].diff().abs().min() > 0.09
    # a picture with 8 bits per colour still tells 256 of them apart
    assert len((distinct_colours(256) * 255).round().unique(dim=0)) == 256

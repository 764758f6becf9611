"""Apple's devices have no float64: nothing is computed in it there, only on the CPU.

PyTorch's fake tensors stand in for the device's: they have no numbers, but a device and a type.
"""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from explainable_latents.nodes.core.maps.filters import dilate, gaussian_smooth
from explainable_latents.nodes.core.maps.thresholds import RULES


class WithoutFloat64(TorchDispatchMode):
    """Raises as such a device does."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.device.type == "cuda" and tensor.dtype == torch.float64:
                raise TypeError("the device has no float64")
        return out


@pytest.fixture
def maps():
    """Maps [S,B,C,h,w] on a device without float64."""
    with FakeTensorMode(), WithoutFloat64():
        yield torch.empty((2, 1, 4, 6, 5), device="cuda")


@pytest.mark.parametrize("rule", RULES)
def test_every_threshold_is_found_on_a_device_without_float64(maps, rule):
    level = RULES[rule](maps, 0.5)
    assert (level.shape, level.dtype, level.device) == ((2, 1, 4, 1, 1), torch.float32, maps.device)


@pytest.mark.parametrize("filtered", [lambda maps: gaussian_smooth(maps, 2.0, 5), lambda maps: dilate(maps, 3, 2)])
def test_maps_are_filtered_on_a_device_without_float64(maps, filtered):
    out = filtered(maps)
    assert (out.shape, out.dtype, out.device) == (maps.shape, torch.float32, maps.device)

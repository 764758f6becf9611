"""Trains the small networks of `core` on what a host's model made, outside of inference mode.

Only the training itself leaves it: the samples come from ordinary model calls.
"""

from __future__ import annotations

import comfy.model_management
import torch
from torch import Tensor

from ...core.gradients.definition import Progress
from ...core.methods.taught_regions import Perceptrons, teach
from .differentiable import full_float32


def trained(samples: Tensor, labels: Tensor, classes: int, seed: int, report: Progress) -> Perceptrons:
    """See `teach`; on the host's device, where the samples and as much again have room there, the result on the CPU.

    The samples may be inference tensors. Raises ValueError as `teach`, and the host's exception on cancel.
    """
    device = _device_for(samples)
    with torch.inference_mode(False), torch.enable_grad(), full_float32():
        return teach(samples.clone().to(device), labels.clone().to(device), classes, seed, report).to("cpu")


def _device_for(samples: Tensor) -> torch.device:
    """Where they have room and as much again; models are moved out of the way if they do not."""
    device, needed = comfy.model_management.get_torch_device(), 2 * samples.nbytes
    if needed > comfy.model_management.get_free_memory(device):
        comfy.model_management.unload_all_models()
    return device if needed <= comfy.model_management.get_free_memory(device) else torch.device("cpu")

"""What the blocks of a UNet put out, read through the host's own block patches."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from itertools import pairwise

from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, ResBlock, UNetModel, Upsample
from torch import Tensor, nn

See = Callable[[str, Tensor], None]


def block_scales(network: nn.Module) -> dict[str, int]:
    """The UNet's blocks in running order, `input.0` to the last but one, and how many times coarser than the latent.

    The last block has no patch behind it: it only makes the prediction of its output. No blocks for other networks.
    """
    if not isinstance(network, UNetModel):
        return {}
    scales, scale = {}, 1
    for number, block in enumerate(network.input_blocks):
        scale *= 2 if any(isinstance(layer, Downsample) for layer in block) else 1
        scales[f"input.{number}"] = scale
    if network.middle_block is not None:
        scales["middle.0"] = scale
    for number, block in enumerate(network.output_blocks[:-1]):
        scale //= 2 if any(isinstance(layer, Upsample) for layer in block) else 1
        scales[f"output.{number}"] = scale
    return scales


def attention_scales(network: nn.Module) -> dict[str, int]:
    """How many times coarser than the latent the attention in each block is; empty for other networks.

    Blocks of the decoder attend before they enlarge.
    """
    outputs = block_scales(network)
    if not outputs:
        return {}
    decoder = ["middle.0", *(f"output.{number}" for number in range(len(network.output_blocks)))]
    enlarged = {name: outputs.get(before, 1) for before, name in pairwise(decoder)}
    return {**outputs, **enlarged}


def residual_convolutions(network: nn.Module) -> dict[str, nn.Module]:
    """The last convolution of each decoder block's residual branch, to whose output the block's skip is added.

    Empty for other networks.
    """
    blocks = network.output_blocks if isinstance(network, UNetModel) else ()
    found = {
        f"output.{number}": [layer for layer in block if isinstance(layer, ResBlock)]
        for number, block in enumerate(blocks)
    }
    return {name: layers[0].out_layers[-1] for name, layers in found.items() if layers}


def with_blocks(options: dict, names: Collection[str], see: See) -> dict:
    """See `family.Family`. The patches come before those of other nodes: they see what the network made."""
    patches = dict(options.get("patches", {}))
    for kind, patch in (("input_block_patch", _after_input), ("output_block_patch", _before_output)):
        patches[kind] = [functools.partial(patch, names, see), *patches.get(kind, [])]
    return {**options, "patches": patches}


def _after_input(names: Collection[str], see: See, h: Tensor, options: dict) -> Tensor:
    """The host runs this after each block of the encoder."""
    _, number = options["block"]
    if (name := f"input.{number}") in names:
        see(name, h)
    return h


def _before_output(
    names: Collection[str], see: See, h: Tensor, skipped: Tensor, options: dict
) -> tuple[Tensor, Tensor]:
    """The host runs this before each block of the decoder: what comes in is what the block before it put out."""
    _, number = options["block"]
    if (name := f"output.{number - 1}" if number else "middle.0") in names:
        see(name, h)
    return h, skipped

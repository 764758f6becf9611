"""SD 1.x, SD 2.x and SDXL: ComfyUI's UNet."""

from __future__ import annotations

from comfy.ldm.modules.attention import SpatialTransformer, SpatialVideoTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.model_patcher import ModelPatcher

from ..compiled import as_written

SUPPORTED = "SD 1.x, SD 2.x and SDXL"


def layer_name(options: dict) -> str:
    """Name of the transformer block being run, from the host's transformer options: `output.3.0` is block ("output",
    3), depth 0."""
    block = options["block"]
    return f"{block[0]}.{block[1]}.{options.get('block_index', 0)}"


def cross_attention_layers(patcher: ModelPatcher) -> tuple[str, ...]:
    """Names of the model's cross-attention layers in the order in which the network runs them.

    Raises ValueError that names the model when it has none that can be read.
    """
    network = as_written(patcher.get_model_object("diffusion_model"))
    names: list[str] = []
    if isinstance(network, UNetModel):
        middle = [] if network.middle_block is None else [network.middle_block]
        for kind, blocks in (("input", network.input_blocks), ("middle", middle), ("output", network.output_blocks)):
            for number, block in enumerate(blocks):
                for module in block.modules():
                    if isinstance(module, SpatialTransformer) and not isinstance(module, SpatialVideoTransformer):
                        depths = range(len(module.transformer_blocks))
                        names += [
                            f"{kind}.{number}.{i}" for i in depths if module.transformer_blocks[i].attn2 is not None
                        ]
    if not names:
        model = type(patcher.model).__name__
        raise ValueError(
            f"attention of the model {model} ({type(network).__name__}) cannot be read: supported are {SUPPORTED}, "
            f"whose UNet has "
            "cross-attention layers. Load one of these."
        )
    return tuple(names)

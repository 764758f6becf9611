"""What users connect to Flux and Qwen-Image beside this pack: stock nodes and files of other precisions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tests.host.families.transformers import SMALL, noise, prompt, randomise, small

NETWORKS = ("Flux.1", "Qwen-Image")


@dataclass(frozen=True)
class Setup:
    """A ModelPatcher and both CONDITIONINGs."""

    model: Any
    positive: list
    negative: list


# Layers of a LoRA: in front, and (last) behind the last attention.
_LAYERS = {
    "Flux.1": ("double_blocks.1.img_attn.qkv", "single_blocks.0.linear1", "single_blocks.1.linear2"),
    "Qwen-Image": (
        "transformer_blocks.0.attn.to_k",
        "transformer_blocks.0.img_mlp.net.2",
        "transformer_blocks.1.attn.to_out.0",
    ),
}


def lora(name: str, *, bypass: bool = False, layers: slice = slice(None)) -> Setup:
    """A LoRA of rank 4, loaded by the host. bypass: beside the weights instead of into them."""
    import comfy.sd

    model, generator = small(name), torch.Generator().manual_seed(8)
    weights = {}
    for layer in _LAYERS[name][layers]:
        rows, columns = model.model.diffusion_model.get_parameter(f"{layer}.weight").shape
        weights[f"diffusion_model.{layer}.lora_up.weight"] = 0.3 * torch.randn(rows, 4, generator=generator)
        weights[f"diffusion_model.{layer}.lora_down.weight"] = 0.3 * torch.randn(4, columns, generator=generator)
    load = comfy.sd.load_bypass_lora_for_models if bypass else comfy.sd.load_lora_for_models
    return Setup(load(model, None, weights, 1.0, 0.0)[0], prompt(name), prompt(name, 2))


def control_net(name: str) -> Setup:
    """A ControlNet with one block of each kind, applied to both prompts: XLabs' for Flux, InstantX's for Qwen-Image."""
    import comfy.controlnet
    import comfy.latent_formats
    import comfy.ops
    import nodes
    from comfy.ldm.flux.controlnet import ControlNetFlux
    from comfy.ldm.qwen_image.controlnet import QwenImageControlNetModel

    how = {"dtype": torch.float32, "device": "cpu", "operations": comfy.ops.disable_weight_init}
    more, vae = {}, None
    if name == "Flux.1":
        network = ControlNetFlux(**SMALL[name].config | {"depth": 1, "depth_single_blocks": 1}, **how)
        more["extra_conds"] = ["y", "guidance"]
    else:
        network = QwenImageControlNetModel(**SMALL[name].config | {"num_layers": 1}, **how)
        more |= {"compression_ratio": 1, "latent_format": comfy.latent_formats.Wan21()}
        vae = _video_vae()
    randomise(network)
    control = comfy.controlnet.ControlNet(network, load_device=torch.device("cpu"), **more)
    picture = torch.rand(1, 128, 96, 3, generator=torch.Generator().manual_seed(4))
    both = prompt(name), prompt(name, 2)
    applied = nodes.ControlNetApplyAdvanced().apply_controlnet(*both, control, picture, 1.0, 0.0, 1.0, vae=vae)
    return Setup(small(name), *applied)


def _video_vae() -> Any:
    """The autoencoder of Qwen-Image, small, as the host loads it."""
    import comfy.sd
    from comfy.ldm.wan.vae import WanVAE

    network = WanVAE(dim=8, z_dim=16, dim_mult=[1, 2, 4, 4], temperal_downsample=[False, True, True])
    randomise(network)
    return comfy.sd.VAE(sd=network.state_dict())


def fp8(name: str) -> Setup:
    """As the loader's weight_dtype fp8_e4m3fn makes it."""
    return Setup(small(name, torch.float8_e4m3fn), prompt(name), prompt(name, 2))


def scaled_fp8(name: str) -> Setup:
    """As the templates' fp8_scaled files: most layers' weights are 8 bit numbers with a scale."""
    weights = small(name).model.diffusion_model.state_dict()
    form = torch.tensor(list(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8)
    for place in [each for each, value in weights.items() if "blocks." in each and value.ndim == 2]:
        scale = weights[place].abs().max() / 448
        weights[place] = (weights[place] / scale).to(torch.float8_e4m3fn)
        layer = place.removesuffix("weight")
        weights |= {f"{layer}weight_scale": scale, f"{layer}comfy_quant": form}
    with torch.inference_mode():
        return Setup(small(name, quantised=weights), prompt(name), prompt(name, 2))


def references(name: str) -> Setup:
    """Two reference pictures of other sizes than the latent; Qwen-Image has those at time 0."""
    from comfy_extras.nodes_edit_model import ReferenceLatent
    from comfy_extras.nodes_flux import FluxKontextMultiReferenceLatentMethod

    both = [prompt(name), prompt(name, 2)]
    for seed, grid in ((5, (8, 8)), (6, (10, 6))):
        seen = {"samples": noise(name, grid=grid, seed=seed)}
        both = [ReferenceLatent.execute(each, seen)[0] for each in both]
    if name == "Qwen-Image":
        both = [FluxKontextMultiReferenceLatentMethod.execute(each, "index_timestep_zero")[0] for each in both]
    return Setup(small(name), *both)


SETUPS: dict[str, Callable[[str], Setup]] = {
    "LoRA": lora,
    "bypassed LoRA": lambda name: lora(name, bypass=True, layers=slice(2)),
    "ControlNet": control_net,
    "fp8": fp8,
    "scaled fp8": scaled_fp8,
    "references": references,
}


def official(name: str, model: Any, setup: Setup, observers: Iterable[Callable[[Any], Any]] = ()) -> Tensor:
    """The latent of three steps of the model's template: its shift, guider and sampler nodes.

    observers: put what they like on a copy of the model, in front of these nodes.
    """
    import comfy.samplers
    from comfy_extras import nodes_custom_sampler as custom
    from comfy_extras.nodes_cfg import CFGNorm
    from comfy_extras.nodes_flux import FluxGuidance
    from comfy_extras.nodes_model_advanced import ModelSamplingAuraFlow, ModelSamplingFlux
    from comfy_extras.nodes_sd3 import EmptySD3LatentImage

    model = model.clone()
    for put in observers:
        put(model)
    if name == "Flux.1":
        (model,) = ModelSamplingFlux().patch(model, 1.15, 0.5, 96, 128)
        guider = custom.BasicGuider.execute(model, FluxGuidance.execute(setup.positive, 3.5)[0])[0]
    else:
        (model,) = ModelSamplingAuraFlow().patch_aura(model, 3.1)
        guider = custom.CFGGuider.execute(CFGNorm.execute(model, 1.0)[0], setup.positive, setup.negative, 2.5)[0]
    sigmas = custom.BasicScheduler.execute(model, "simple", 3, 1.0)[0]
    start, euler = EmptySD3LatentImage.execute(96, 128, 2)[0], comfy.samplers.sampler_object("euler")
    with torch.inference_mode():
        made = custom.SamplerCustomAdvanced.execute(custom.RandomNoise.execute(7)[0], guider, euler, sigmas, start)[0]
    return made["samples"]

"""Small random models for the real server, in the places of the files that the templates for transformers name.

ComfyUI's own loaders load them. Its own classes have their sizes from here where ComfyUI takes them as given: small
networks are added to its table of supported ones, and a small text encoder's file says what its configuration is.
"""

import json
from pathlib import Path
from typing import Any

import comfy.clip_vision
import comfy.ops
import comfy.sd
import comfy.supported_models
import comfy.utils
import folder_paths
import safetensors
import torch
from comfy.ldm.wan.vae import WanVAE
from comfy.supported_models_base import ClipTarget
from comfy.taesd.taesd import TAESD
from comfy.text_encoders import flux, qwen_image, z_image
from comfy.text_encoders.qwen_vl import Qwen2VLVisionTransformer
from comfy_api.latest import ComfyExtension, io, ui
from safetensors.torch import save_file

WIDTH = 64  # of the text encoders
_LANGUAGE_MODEL = {
    "hidden_size": WIDTH,
    "intermediate_size": WIDTH,
    "num_hidden_layers": 3,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
}
_CLIP_L = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2}
_T5 = {"d_model": WIDTH, "d_ff": WIDTH, "d_kv": 16, "num_heads": 2, "num_layers": 2}
_EYES = {
    **_CLIP_L,
    "hidden_act": "quick_gelu",
    "model_type": "clip_vision_model",
    "num_channels": 3,
    "patch_size": 16,
    "image_size": 64,
    "projection_dim": WIDTH,
}
# The name of ComfyUI's option for an encoder's configuration. Of CLIP it makes one out of another.
CONFIGURATIONS = {
    "model_config": _CLIP_L,
    "clip_l_model_config": _CLIP_L,
    "t5xxl_model_config": _T5,
    "qwen25_7b_model_config": _LANGUAGE_MODEL,
    "qwen3_4b_model_config": _LANGUAGE_MODEL,
}
# In a file: what kind of text encoder it is, which ComfyUI tells by its size.
_KIND = "kind."


class SmallQwenImage(comfy.supported_models.QwenImage):
    """Of two blocks and width 64."""

    unet_config = {"image_model": "qwen_image", "num_layers": 2, "in_channels": 64}
    unet_extra_config = {
        "attention_head_dim": 32,
        "num_attention_heads": 2,
        "joint_attention_dim": WIDTH,
        "axes_dims_rope": (8, 12, 12),
    }


class SmallZImage(comfy.supported_models.ZImage):
    """Of two blocks and width 256."""

    unet_config = {"image_model": "lumina2", "dim": 256}
    unet_extra_config = {
        "n_heads": 8,
        "n_kv_heads": 8,
        "n_refiner_layers": 1,
        "axes_dims": [8, 12, 12],
        "axes_lens": [1536, 512, 512],
        "rope_theta": 256.0,
        "ffn_dim_multiplier": 8 / 3,
        "z_image_modulation": True,
        "time_scale": 1000.0,
        "pad_tokens_multiple": 32,
    }


comfy.supported_models.models[:0] = [SmallQwenImage, SmallZImage]

_load_clip, _detect_te_model = comfy.sd.load_clip, comfy.sd.detect_te_model


def load_clip(ckpt_paths: list[str], *args: Any, **kwargs: Any) -> Any:
    """ComfyUI's own, with the configuration that the files say they have."""
    options = dict(kwargs.pop("model_options", {}))
    for path in ckpt_paths:
        with safetensors.safe_open(path, "pt") as file:
            options |= json.loads((file.metadata() or {}).get("configuration", "{}"))
    clip = _load_clip(ckpt_paths, *args, model_options=options, **kwargs)
    if options and hasattr(clip.cond_stage_model, "qwen25_7b"):  # its eyes have one size only
        small = {"hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "num_layers": 1}
        eyes = Qwen2VLVisionTransformer(**small, output_hidden_size=WIDTH, ops=comfy.ops.manual_cast)
        eyes.load_state_dict(randomised(eyes.state_dict()))
        clip.cond_stage_model.qwen25_7b.transformer.visual = eyes
    return clip


def detect_te_model(state_dict: dict[str, Any]) -> Any:
    """ComfyUI's own, or what the file says."""
    kind = next((key.removeprefix(_KIND) for key in state_dict if key.startswith(_KIND)), None)
    return _detect_te_model(state_dict) if kind is None else comfy.sd.TEModel[kind]


_load_eyes = comfy.clip_vision.load


def load_eyes(path: str) -> Any:
    """ComfyUI's own, or with the configuration that the file says it has."""
    with safetensors.safe_open(path, "pt") as file:
        configuration = (file.metadata() or {}).get("configuration")
    if configuration is None:
        return _load_eyes(path)
    eyes = comfy.clip_vision.ClipVisionModel(json.loads(configuration))
    eyes.load_sd(comfy.utils.load_torch_file(path))
    return eyes


comfy.sd.load_clip, comfy.sd.detect_te_model = load_clip, detect_te_model
comfy.clip_vision.load = load_eyes

_FLUX = {
    "image_model": "flux",
    "in_channels": 16,
    "out_channels": 16,
    "vec_in_dim": WIDTH,
    "context_in_dim": WIDTH,
    "hidden_size": 128,
    "mlp_ratio": 4.0,
    "num_heads": 1,
    "depth": 2,
    "depth_single_blocks": 1,
    "axes_dim": [16, 56, 56],
    "theta": 10000,
    "patch_size": 2,
    "qkv_bias": True,
    "guidance_embed": True,
    "txt_ids_dims": [],
}
_Z_IMAGE = {"patch_size": 2, "in_channels": 16, "cap_feat_dim": WIDTH, "n_layers": 2, "qk_norm": True}
NETWORKS = {
    "flux1-dev.safetensors": (comfy.supported_models.Flux, _FLUX),
    "qwen_image_fp8_e4m3fn.safetensors": (SmallQwenImage, {}),
    "z_image_turbo_bf16.safetensors": (SmallZImage, _Z_IMAGE),
}
# Tokenizer and text encoder; of a file: which part of the encoder it holds, and what kind of encoder that is.
ENCODERS = (
    (
        flux.FluxTokenizer,
        flux.flux_clip(),
        {"clip_l.safetensors": ("clip_l", ""), "t5xxl_fp16.safetensors": ("t5xxl", "")},
    ),
    (
        qwen_image.QwenImageTokenizer,
        qwen_image.te(),
        {"qwen_2.5_vl_7b_fp8_scaled.safetensors": ("qwen25_7b", "QWEN25_7B")},
    ),
    (z_image.ZImageTokenizer, z_image.te(), {"qwen_3_4b.safetensors": ("qwen3_4b", "QWEN3_4B")}),
)


def randomised(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Random weights in the places of these; scales are near 1, and tokens' vectors have length sqrt(WIDTH)."""
    generator, made = torch.Generator().manual_seed(0), {}
    for name, value in weights.items():
        spread = 0.05 if value.ndim < 2 else 1.0 if len(value) > 10_000 else 1.2 / value[0].numel() ** 0.5
        offset = float(value.ndim < 2 and name.endswith(("weight", "scale", "gamma")))
        made[name] = (torch.randn(value.shape, generator=generator) * spread + offset).to(torch.float16)
    return made


def write(folder: str, name: str, weights: dict[str, torch.Tensor], **metadata: str) -> None:
    """Write random weights into a file of this name where the loaders look for it."""
    path = Path(folder_paths.get_folder_paths(folder)[0])
    path.mkdir(parents=True, exist_ok=True)
    save_file(randomised(weights), path / name, metadata)


class TestSmallModels(io.ComfyNode):
    """Writes the files."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(node_id="TestSmallModels", category="tests", is_output_node=True, inputs=[])

    @classmethod
    def execute(cls) -> io.NodeOutput:
        for name, (supported, described) in NETWORKS.items():
            config = supported({**supported.unet_config, **described, "dtype": torch.float32})
            config.manual_cast_dtype = None
            network = config.get_model({}, "", device="cpu").diffusion_model
            write("diffusion_models", name, network.state_dict())
        for tokenizer, model, files in ENCODERS:
            clip = comfy.sd.CLIP(ClipTarget(tokenizer, model), model_options=dict(CONFIGURATIONS))
            for name, (part, kind) in files.items():
                weights = getattr(clip.cond_stage_model, part).transformer.state_dict()
                weights = {key: value for key, value in weights.items() if not key.startswith("visual.")}
                weights |= {_KIND + kind: torch.zeros(1)} if kind else {}
                own = {key: value for key, value in CONFIGURATIONS.items() if key.startswith((part, "model"))}
                write("text_encoders", name, weights, configuration=json.dumps(own))
        write("vae", "ae.safetensors", TAESD(latent_channels=16).state_dict())
        small = WanVAE(dim=8, z_dim=16, dim_mult=[1, 2, 4, 4], temperal_downsample=[False, True, True])
        write("vae", "qwen_image_vae.safetensors", small.state_dict())
        eyes = comfy.clip_vision.ClipVisionModel(_EYES).model.state_dict()
        write("clip_vision", "clip-vit-large-patch14.safetensors", eyes, configuration=json.dumps(_EYES))
        return io.NodeOutput(ui=ui.PreviewText("written"))


class SmallModels(ComfyExtension):
    """What ComfyUI loads."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [TestSmallModels]


async def comfy_entrypoint() -> ComfyExtension:
    return SmallModels()

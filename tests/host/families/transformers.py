"""One small random transformer of every layout in the pack's table, as the host itself builds it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Small:
    """A small network. supported: its class in comfy.supported_models. config: of that. latent: shape of a picture's.

    text: tokens of the positive and of the negative prompt. width: of their vectors. pooled: of their pooled ones.
    centred: whether scales are numbers around 0 to which 1 is added. change: what is done to the network before it gets
    weights.
    """

    supported: str
    config: dict
    latent: tuple[int, ...]
    width: int
    text: tuple[int, int] = (20, 30)
    pooled: int = 0
    centred: bool = False
    change: Callable[[Any], None] | None = None


_FLUX = {
    "image_model": "flux",
    "in_channels": 16,
    "out_channels": 16,
    "vec_in_dim": 64,
    "context_in_dim": 96,
    "hidden_size": 64,
    "mlp_ratio": 4.0,
    "num_heads": 2,
    "depth": 2,
    "depth_single_blocks": 2,
    "axes_dim": [8, 12, 12],
    "theta": 10000,
    "patch_size": 2,
    "qkv_bias": True,
    "guidance_embed": True,
    "txt_ids_dims": [],
}
_FLUX2 = {
    "image_model": "flux2",
    "in_channels": 128,
    "out_channels": 128,
    "vec_in_dim": None,
    "context_in_dim": 96,
    "hidden_size": 128,
    "mlp_ratio": 3.0,
    "num_heads": 1,
    "depth": 1,
    "depth_single_blocks": 1,
    "axes_dim": [32, 32, 32, 32],
    "theta": 2000,
    "patch_size": 1,
    "qkv_bias": False,
    "guidance_embed": False,
    "txt_ids_dims": [3],
    "global_modulation": True,
    "mlp_silu_act": True,
    "ops_bias": False,
    "default_ref_method": "index",
    "ref_index_scale": 10.0,
    "yak_mlp": False,
    "txt_norm": False,
}
_CHROMA = {
    "image_model": "chroma",
    "in_channels": 64,
    "out_channels": 64,
    "context_in_dim": 96,
    "hidden_size": 64,
    "mlp_ratio": 4.0,
    "num_heads": 2,
    "depth": 2,
    "depth_single_blocks": 2,
    "axes_dim": [8, 12, 12],
    "theta": 10000,
    "patch_size": 2,
    "qkv_bias": True,
    "in_dim": 64,
    "out_dim": 64,
    "hidden_dim": 32,
    "n_layers": 1,
    "txt_ids_dims": [],
    "vec_in_dim": None,
}
_QWEN = {
    "image_model": "qwen_image",
    "in_channels": 64,
    "out_channels": 16,
    "num_layers": 2,
    "attention_head_dim": 32,
    "num_attention_heads": 2,
    "joint_attention_dim": 96,
    "pooled_projection_dim": 64,
    "axes_dims_rope": (8, 12, 12),
}
_SD3 = {
    "in_channels": 16,
    "patch_size": 2,
    "out_channels": 16,
    "depth": 2,
    "input_size": None,
    "adm_in_channels": 64,
    "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": 96, "out_features": 128}},
    "num_patches": 64,
    "pos_embed_max_size": 8,
    "qk_norm": "rms",
    "pos_embed_scaling_factor": None,
    "x_block_self_attn_layers": [0],
}
_LUMINA = {
    "image_model": "lumina2",
    "patch_size": 2,
    "in_channels": 16,
    "dim": 96,
    "cap_feat_dim": 64,
    "n_layers": 2,
    "n_refiner_layers": 1,
    "qk_norm": True,
    "n_heads": 4,
    "n_kv_heads": 2,
    "axes_dims": [8, 8, 8],
    "axes_lens": [300, 512, 512],
    "rope_theta": 10000.0,
    "ffn_dim_multiplier": 4.0,
}
_ZIMAGE = _LUMINA | {
    "dim": 256,
    "n_heads": 8,
    "n_kv_heads": 8,
    "axes_dims": [8, 12, 12],
    "axes_lens": [1536, 512, 512],
    "rope_theta": 256.0,
    "ffn_dim_multiplier": 8 / 3,
    "z_image_modulation": True,
    "time_scale": 1000.0,
    "pad_tokens_multiple": 32,
}
_KREA2 = {
    "image_model": "krea2",
    "features": 128,
    "tdim": 64,
    "txtdim": 32,
    "heads": 4,
    "kvheads": 2,
    "multiplier": 4,
    "layers": 2,
    "patch": 2,
    "channels": 16,
    "txtlayers": 3,
    "txtheads": 2,
    "txtkvheads": 2,
}
_PREDICT2 = {
    "image_model": "cosmos_predict2",
    "max_img_h": 240,
    "max_img_w": 240,
    "max_frames": 128,
    "in_channels": 16,
    "out_channels": 16,
    "patch_spatial": 2,
    "patch_temporal": 1,
    "model_channels": 64,
    "concat_padding_mask": True,
    "crossattn_emb_channels": 96,
    "pos_emb_cls": "rope3d",
    "pos_emb_learnable": True,
    "pos_emb_interpolation": "crop",
    "min_fps": 1,
    "max_fps": 30,
    "use_adaln_lora": True,
    "adaln_lora_dim": 16,
    "num_blocks": 2,
    "num_heads": 2,
    "extra_per_block_abs_pos_emb": False,
    "rope_h_extrapolation_ratio": 4.0,
    "rope_w_extrapolation_ratio": 4.0,
    "rope_t_extrapolation_ratio": 1.0,
    "extra_h_extrapolation_ratio": 1.0,
    "extra_w_extrapolation_ratio": 1.0,
    "extra_t_extrapolation_ratio": 1.0,
    "rope_enable_fps_modulation": False,
}
_WAN = {
    "image_model": "wan2.1",
    "model_type": "t2v",
    "dim": 128,
    "out_dim": 16,
    "num_heads": 1,
    "ffn_dim": 128,
    "num_layers": 2,
    "patch_size": (1, 2, 2),
    "freq_dim": 256,
    "window_size": (-1, -1),
    "qk_norm": True,
    "cross_attn_norm": True,
    "eps": 1e-6,
    "in_dim": 16,
    "text_dim": 96,
}
_AURA = {
    "max_seq": 64,
    "cond_seq_dim": 96,
    "n_double_layers": 1,
    "n_layers": 2,
    "dim": 64,
    "n_heads": 2,
    "global_conddim": 64,
}
_RADIANCE = _CHROMA | {
    "image_model": "chroma_radiance",
    "in_channels": 3,
    "out_channels": 3,
    "patch_size": 16,
    "nerf_hidden_size": 16,
    "nerf_mlp_ratio": 2,
    "nerf_depth": 1,
    "nerf_max_freqs": 4,
    "nerf_tile_size": 512,
    "nerf_final_head_type": "conv",
    "nerf_embedder_dtype": torch.float32,
    "use_x0": False,
    "use_sequential_txt_ids": False,
}
_KANDINSKY = {
    "image_model": "kandinsky5",
    "model_dim": 64,
    "axes_dims": (8, 12, 12),
    "rope_scale_factor": (1.0, 1.0, 1.0),
    "time_dim": 32,
    "ff_dim": 128,
    "visual_embed_dim": 64,
    "num_text_blocks": 1,
    "num_visual_blocks": 2,
    "in_text_dim": 96,
    "in_text_dim2": 64,
}
_OMNIGEN = {
    "image_model": "omnigen2",
    "axes_dim_rope": [8, 8, 8],
    "axes_lens": [300, 512, 512],
    "ffn_dim_multiplier": None,
    "hidden_size": 96,
    "in_channels": 16,
    "multiple_of": 32,
    "norm_eps": 1e-5,
    "num_attention_heads": 4,
    "num_kv_heads": 2,
    "num_layers": 2,
    "num_refiner_layers": 1,
    "out_channels": None,
    "patch_size": 2,
    "text_feat_dim": 64,
    "timestep_scale": 1000.0,
}
_BOOGU = {
    "image_model": "boogu",
    "hidden_size": 96,
    "num_layers": 1,
    "num_double_stream_layers": 1,
    "num_refiner_layers": 1,
    "instruction_feat_dim": 64,
    "num_attention_heads": 4,
    "num_kv_heads": 2,
    "multiple_of": 32,
    "axes_dim_rope": [8, 8, 8],
    "axes_lens": [300, 512, 512],
}
_IDEOGRAM = {
    "image_model": "ideogram4",
    "in_channels": 128,
    "num_layers": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 64,
    "intermediate_size": 64,
    "adaln_dim": 32,
    "llm_features_dim": 96,
    "mrope_section": [12, 10, 10],
}
_MAGE = {
    "image_model": "mage_flow",
    "in_channels": 128,
    "out_channels": 128,
    "num_layers": 2,
    "attention_head_dim": 32,
    "num_attention_heads": 2,
    "joint_attention_dim": 96,
    "axes_dims_rope": (8, 12, 12),
}
_JOY = {
    "image_model": "joyimage",
    "in_channels": 16,
    "hidden_size": 64,
    "patch_size": [1, 2, 2],
    "num_layers": 2,
    "num_attention_heads": 2,
    "text_dim": 96,
    "rope_dim_list": [8, 12, 12],
    "theta": 10000,
}
_LENS = {
    "image_model": "lens",
    "in_channels": 128,
    "out_channels": 32,
    "num_layers": 2,
    "attention_head_dim": 32,
    "num_attention_heads": 2,
    "enc_hidden_dim": 48,
    "axes_dims_rope": (8, 12, 12),
    "multi_layer_encoder_feature": True,
    "selected_layer_index": (0, 1),
}
_HUNYUAN = {
    "image_model": "hunyuan_video",
    "in_channels": 64,
    "patch_size": [1, 1],
    "out_channels": 64,
    "vec_in_dim": None,
    "axes_dim": [16, 16],
    "meanflow": False,
    "context_in_dim": 96,
    "hidden_size": 64,
    "mlp_ratio": 4.0,
    "num_heads": 2,
    "depth": 1,
    "depth_single_blocks": 1,
    "theta": 256,
    "qkv_bias": True,
    "byt5": False,
    "guidance_embed": False,
    "use_cond_type_embedding": False,
    "vision_in_dim": None,
    "meanflow_sum": False,
}
_ERNIE = {
    "image_model": "ernie",
    "hidden_size": 64,
    "num_attention_heads": 2,
    "num_layers": 2,
    "ffn_hidden_size": 128,
    "in_channels": 128,
    "out_channels": 128,
    "patch_size": 1,
    "text_in_dim": 96,
    "rope_axes_dim": (8, 12, 12),
}
_PIXART = {
    "image_model": "pixart_sigma",
    "num_heads": 2,
    "patch_size": 2,
    "hidden_size": 72,
    "in_channels": 4,
    "depth": 2,
    "model_max_length": 30,
    "micro_condition": False,
    "input_size": 32,
    "pe_interpolation": 1,
    "caption_channels": 96,
}
_HUNYUAN_DIT = {
    "image_model": "hydit",
    "hidden_size": 64,
    "num_heads": 2,
    "depth": 4,
    "text_states_dim": 96,
    "text_states_dim_t5": 64,
}
_HIDREAM_O1 = {
    "image_model": "hidream_o1",
    "text_config_overrides": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "rope_dims": [6, 5, 5],
    },
    "vision_config_overrides": {"hidden_size": 32, "num_heads": 2, "intermediate_size": 64, "depth": 1},
}
_PIXELDIT = {
    "image_model": "pixeldit_t2i",
    "num_groups": 2,
    "hidden_size": 64,
    "pixel_hidden_size": 8,
    "pixel_attn_hidden_size": 32,
    "pixel_num_groups": 2,
    "patch_depth": 2,
    "pixel_depth": 1,
    "txt_embed_dim": 96,
}
_LTXV = {
    "image_model": "ltxv",
    "cross_attention_dim": 64,
    "attention_head_dim": 32,
    "num_attention_heads": 2,
    "caption_channels": 96,
    "num_layers": 2,
}


def _small_adapter(network: Any) -> None:
    """Anima's own has a hundred million parameters."""
    import comfy.ops
    from comfy.ldm.anima.model import LLMAdapter

    how = {"device": None, "dtype": torch.float32, "operations": comfy.ops.disable_weight_init}
    sizes = {"source_dim": 48, "target_dim": 96, "model_dim": 64, "num_layers": 1, "num_heads": 2}
    network.llm_adapter = LLMAdapter(**sizes, **how).eval().requires_grad_(False)


PICTURE, VIDEO, PACKED = (16, 16, 12), (16, 1, 16, 12), (128, 8, 6)

SMALL = {
    "Qwen-Image": Small("QwenImage", _QWEN, VIDEO, 96),
    "Flux.1": Small("Flux", _FLUX, PICTURE, 96, pooled=64),
    "Flux.2": Small("Flux2", _FLUX2, PACKED, 96),
    "LongCat": Small(
        "LongCatImage", _FLUX | {"guidance_embed": False, "vec_in_dim": None, "txt_ids_dims": [1, 2]}, PICTURE, 96
    ),
    "Chroma": Small("Chroma", _CHROMA, PICTURE, 96),
    "SD 3.5": Small("SD3", _SD3, PICTURE, 96, (154, 154), 64),
    "Lumina 2": Small("Lumina2", _LUMINA, PICTURE, 64),
    "Z-Image": Small("ZImage", _ZIMAGE, PICTURE, 64, (20, 40)),
    "Krea 2": Small("Krea2", _KREA2, VIDEO, 96, centred=True),
    "Predict2": Small("CosmosT2IPredict2", _PREDICT2, VIDEO, 96),
    "Anima": Small("Anima", _PREDICT2 | {"image_model": "anima"}, VIDEO, 48, change=_small_adapter),
    "Wan": Small("WAN21_T2V", _WAN, VIDEO, 96),
    "Wan I2V": Small("WAN21_I2V", _WAN | {"model_type": "i2v", "in_dim": 36}, VIDEO, 96),
    "AuraFlow": Small("AuraFlow", _AURA, (4, 16, 12), 96),
    "Chroma Radiance": Small("ChromaRadiance", _RADIANCE, (3, 128, 96), 96),
    "Kandinsky 5": Small("Kandinsky5Image", _KANDINSKY, PICTURE, 96, pooled=64),
    "OmniGen 2": Small("Omnigen2", _OMNIGEN, PICTURE, 64),
    "Boogu": Small("Boogu", _BOOGU, PICTURE, 64),
    "Ideogram 4": Small("Ideogram4", _IDEOGRAM, PACKED, 96),
    "Mage-Flow": Small("MageFlow", _MAGE, PACKED, 96),
    "JoyImage": Small("JoyImage", _JOY, VIDEO, 96),
    "Lens": Small("Lens", _LENS, PACKED, 96),
    "HunyuanImage 2.1": Small("HunyuanImage21", _HUNYUAN, (64, 8, 6), 96),
    "Ernie-Image": Small("ErnieImage", _ERNIE, PACKED, 96),
    "PixArt": Small("PixArtSigma", _PIXART, (4, 40, 36), 96),  # it fails on smaller ones
    "HunyuanDiT": Small("HunyuanDiT", _HUNYUAN_DIT, (4, 16, 12), 96, (77, 107)),
    "HiDream-O1": Small("HiDreamO1", _HIDREAM_O1, (3, 256, 192), 1),
    "PixelDiT": Small("PixelDiTT2I", _PIXELDIT, (3, 128, 96), 96, (300, 300)),
    "LTX-Video": Small("LTXV", _LTXV, (128, 1, 8, 6), 96),
}


def known() -> dict[str, Small]:
    """Those whose class this ComfyUI has."""
    import comfy.supported_models

    return {name: each for name, each in SMALL.items() if hasattr(comfy.supported_models, each.supported)}


# Buffers that are made and not learnt.
_MADE = ("inv_freq", "freqs", "_range", ".seq")


def _of_this_host(config: dict) -> dict:
    """The config without what this ComfyUI's Radiance does not have yet."""
    from comfy.ldm.chroma_radiance.model import ChromaRadianceParams

    new = {"use_sequential_txt_ids"} - ChromaRadianceParams.__dataclass_fields__.keys()
    return {key: value for key, value in config.items() if key not in new}


def small(name: str | Small, dtype: torch.dtype = torch.float32, quantised: dict | None = None) -> Any:
    """A ModelPatcher of the network, one of `SMALL` or another, with random weights, and which computes in `dtype`.

    Weights of 8 bits are cast to float32 when they are used. quantised: weights instead, as the host keeps quantised
    checkpoints, with scales and formats beside some of them.
    """
    import comfy.model_patcher
    import comfy.supported_models

    each = SMALL[name] if isinstance(name, str) else name
    described = _of_this_host(each.config)
    config = getattr(comfy.supported_models, each.supported)({**described, "dtype": dtype})
    config.unet_config |= {**described, "dtype": dtype}
    config.manual_cast_dtype = torch.float32 if quantised or dtype.itemsize == 1 else None
    config.quant_config = {"mixed_ops": True} if quantised else None
    model = config.get_model({}, "", device="cpu")
    network = model.diffusion_model
    if each.change is not None:
        each.change(network)
    if quantised:
        network.load_state_dict(quantised)
    else:
        randomise(network, each.centred)
    return comfy.model_patcher.ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))


def randomise(network: Any, centred: bool = False) -> None:
    """Give a network random weights. centred: see `Small`."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for place, value in [*network.named_parameters(), *network.named_buffers()]:
            if not value.is_floating_point() or any(place.endswith(made) or made in place for made in _MADE):
                continue
            spread = 1.2 / max(1, value[0].numel()) ** 0.5 if value.ndim > 1 else 0.05
            scales = value.ndim <= 1 and place.endswith(("weight", "scale"))
            offset = float(scales and not centred)
            value.copy_(torch.randn(value.shape, generator=generator) * spread + offset)


def prompt(name: str, seed: int = 1, tokens: int | None = None, **extra: Any) -> list:
    """A random CONDITIONING of the network's kind; of seed 1 as long as a positive one, else as a negative one."""
    each, generator = SMALL[name], torch.Generator().manual_seed(seed)
    length = tokens or each.text[0 if seed == 1 else 1]
    # what a CLIP gives has it always, and older hosts ask for it
    given: dict[str, Any] = {"pooled_output": None, **extra}
    if each.pooled:
        given["pooled_output"] = torch.randn(1, each.pooled, generator=generator)
    if name == "Anima":
        count = min(length, 12)
        given |= {"t5xxl_ids": torch.arange(5, 5 + count, dtype=torch.int), "t5xxl_weights": torch.ones(count)}
    if name == "HunyuanDiT":
        given |= {"attention_mask": torch.ones(1, length), "attention_mask_mt5xl": torch.ones(1, 256)}
        given["conditioning_mt5xl"] = torch.randn(1, 256, 64, generator=generator)
    if name == "Wan I2V":
        given["clip_vision_output"] = _seen_picture(generator)
    if name == "HiDream-O1":
        # the text itself: the network encodes it. Its last token is the one of the time.
        ids = torch.randint(1000, 150000, (1, length), generator=generator)
        ids[:, -1] = 151673
        return [[ids.unsqueeze(-1).float(), given | {"text_input_ids": ids}]]
    if name in ("Lumina 2", "OmniGen 2", "Boogu", "LTX-Video"):
        given["attention_mask"] = torch.ones(1, length, dtype=torch.long)
    return [[torch.randn(1, length, each.width, generator=generator), given]]


def _seen_picture(generator: torch.Generator) -> Any:
    """What the host's vision encoder makes of a picture, at random."""
    from comfy.clip_vision import Output

    seen = Output()
    seen["penultimate_hidden_states"] = torch.randn(1, 257, 1280, generator=generator)
    return seen


def noise(name: str, batch: int = 1, grid: tuple[int, int] | None = None, seed: int = 0) -> Tensor:
    shape = SMALL[name].latent
    shape = shape if grid is None else (*shape[:-2], *grid)
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(seed))


def sample(
    name: str,
    model: Any,
    steps: int = 1,
    cfg: float = 4.0,
    positive: list | None = None,
    negative: list | None = None,
    start: Tensor | None = None,
) -> Tensor:
    """The host's own sampling from fixed noise, as the server does it: in inference mode."""
    import comfy.sample

    start = noise(name) if start is None else start
    with torch.inference_mode():
        return comfy.sample.sample(
            model,
            start,
            steps,
            cfg,
            "euler",
            "simple",
            positive or prompt(name),
            negative or prompt(name, 2),
            torch.zeros_like(start),
            disable_pbar=True,
            seed=0,
        )

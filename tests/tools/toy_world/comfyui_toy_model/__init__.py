"""Lets a stock ComfyUI load the toy checkpoints with its own loaders. For tests and the demo; users do not need it.

ComfyUI recognises a checkpoint by its network. This module adds two recognised models, both with the CLIP BPE tokenizer
and a two-layer CLIP text encoder of width 64: an SD-type UNet with 64 channels, and a Qwen-Image transformer whose
tokens have 16 channels.
"""

import comfy.supported_models
import torch
from comfy import latent_formats, sd1_clip, supported_models_base, utils

WIDTH = 64
VOCABULARY = 49408
TEXT_CONFIG = {
    "num_hidden_layers": 2,
    "hidden_size": WIDTH,
    "num_attention_heads": 2,
    "intermediate_size": 4 * WIDTH,
    "hidden_act": "quick_gelu",
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
}


class ToyClipTokenizer(sd1_clip.SDTokenizer):
    """The CLIP BPE tokenizer, for textual-inversion embeddings of width 64."""

    def __init__(self, embedding_directory=None, tokenizer_data=None):
        super().__init__(
            embedding_directory=embedding_directory, embedding_size=WIDTH, tokenizer_data=tokenizer_data or {}
        )


class ToyTokenizer(sd1_clip.SD1Tokenizer):
    """Tokenizer of the toy model, under the usual key `l`."""

    def __init__(self, embedding_directory=None, tokenizer_data=None):
        super().__init__(embedding_directory, tokenizer_data=tokenizer_data or {}, tokenizer=ToyClipTokenizer)


class ToyClipModel(sd1_clip.SDClipModel):
    """Two transformer layers; the vectors of padding tokens are zero."""

    def __init__(self, device="cpu", dtype=None, model_options=None):
        super().__init__(
            device=device,
            dtype=dtype,
            textmodel_json_config=dict(TEXT_CONFIG),
            zero_out_masked=True,
            return_projected_pooled=False,
            model_options=model_options or {},
        )


class ToyTextEncoder(sd1_clip.SD1ClipModel):
    """Text encoder of the toy model, under the usual key `clip_l`."""

    def __init__(self, device="cpu", dtype=None, model_options=None):
        super().__init__(device=device, dtype=dtype, clip_model=ToyClipModel, model_options=model_options or {})


class ToyUnpaddedTextEncoder(ToyTextEncoder):
    """The same without the vectors of padding: as many as a prompt has tokens, as of language models."""

    def encode_token_weights(self, token_weight_pairs):
        """Cut off what follows the last chunk's end-of-text token."""
        vectors, *others = super().encode_token_weights(token_weight_pairs)
        *full, last = token_weight_pairs["l"]
        tokens = [token if isinstance(token, int) else None for token, *_ in last]  # an embedding is no number
        count = sum(map(len, full)) + tokens.index(TEXT_CONFIG["eos_token_id"]) + 1
        return vectors[:, :count], *others


class ToyText:
    """What the toy models' classes share: a text encoder whose table holds only the words of its world."""

    text_encoder = ToyTextEncoder

    def process_clip_state_dict(self, state_dict):
        """Rename the text encoder's weights and expand its compact table to the CLIP vocabulary.

        Row 0 stands for every token that the toy world does not use.
        """
        clip = utils.state_dict_prefix_replace(state_dict, {"cond_stage_model.": "clip_l."}, filter_keys=True)
        ids = clip.pop("clip_l.token_ids")
        key = "clip_l.transformer.text_model.embeddings.token_embedding.weight"
        table = clip[key]
        rows = torch.zeros(VOCABULARY, dtype=torch.long)
        rows[ids.long()] = torch.arange(1, len(ids) + 1)
        clip[key] = table[rows]
        return clip

    def clip_target(self, state_dict=None):
        """Return the tokenizer and text encoder classes."""
        return supported_models_base.ClipTarget(ToyTokenizer, self.text_encoder)


class ToyModel(ToyText, supported_models_base.BASE):
    """An ε-prediction SD-type UNet with the β schedule of Stable Diffusion 1.x."""

    unet_config = {"context_dim": WIDTH, "model_channels": 64, "use_linear_in_transformer": False}
    unet_extra_config = {"num_heads": -1, "num_head_channels": 32}
    latent_format = latent_formats.SD15
    memory_usage_factor = 1.0


class ToyLatents(latent_formats.SD15):
    """The toy autoencoder's latents as one frame each, as the Qwen-Image class has them."""

    latent_dimensions = 3


class ToyTransformer(ToyText, comfy.supported_models.QwenImage):
    """A flow-matching Qwen-Image transformer of width 128."""

    text_encoder = ToyUnpaddedTextEncoder
    unet_config = {"image_model": "qwen_image", "in_channels": 16}
    unet_extra_config = {
        "out_channels": 4,
        "attention_head_dim": 32,
        "num_attention_heads": 4,
        "joint_attention_dim": WIDTH,
        "axes_dims_rope": (8, 12, 12),
    }
    sampling_settings = {"multiplier": 1.0, "shift": 0.0}  # pictures so small need no more steps at high noise
    latent_format = ToyLatents
    memory_usage_factor = 1.0
    vae_key_prefix = ["first_stage_model."]
    text_encoder_key_prefix = ["cond_stage_model."]


comfy.supported_models.models.append(ToyModel)
# Before the host's own, which takes every Qwen-Image transformer for one of width 3072.
comfy.supported_models.models.insert(0, ToyTransformer)

NODE_CLASS_MAPPINGS = {}

"""The toy model's parts: the host's own UNet and TAESD classes with fresh weights, and a trainable CLIP text model."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CONTEXT = 64
TEXT_LAYERS = 2
TEXT_HEADS = 2
TOKENS = 77
UNET_CONFIG = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 64,
    "num_res_blocks": [1, 1],
    "channel_mult": [1, 2],
    "transformer_depth": [1, 1],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1, 1, 1],
    "num_heads": -1,
    "num_head_channels": 32,
    "use_spatial_transformer": True,
    "context_dim": CONTEXT,
    "use_linear_in_transformer": False,
    "legacy": False,
    "dtype": torch.float32,
}

TRANSFORMER_CONFIG = {
    "in_channels": 16,  # of a token: 2 x 2 latent pixels
    "out_channels": 4,
    "num_layers": 4,
    "attention_head_dim": 32,
    "num_attention_heads": 4,
    "joint_attention_dim": CONTEXT,
    "axes_dims_rope": (8, 12, 12),
    "dtype": torch.float32,
}


def initialise(module: nn.Module) -> None:
    """Give every layer of `module` fresh weights; the host creates its layers without any."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.GroupNorm | nn.LayerNorm):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)


def make_unet(device: torch.device) -> nn.Module:
    """Return the host's SD-type UNet with fresh weights; residual branches start at zero.

    As in the original training.
    """
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock, UNetModel

    unet = UNetModel(**UNET_CONFIG, device=device, operations=comfy.ops.disable_weight_init)
    initialise(unet)
    for block in unet.modules():
        if isinstance(block, ResBlock):
            nn.init.zeros_(block.out_layers[-1].weight)
        if block.__class__.__name__ == "SpatialTransformer":
            nn.init.zeros_(block.proj_out.weight)
    nn.init.zeros_(unet.out[-1].weight)
    return unet


def make_transformer(device: torch.device) -> nn.Module:
    """Return the host's Qwen-Image transformer with fresh weights; every block passes its input on at first.

    As in the original training of such networks (adaLN-zero, Peebles & Xie 2023).
    """
    import comfy.ops
    from comfy.ldm.qwen_image.model import QwenImageTransformer2DModel

    network = QwenImageTransformer2DModel(**TRANSFORMER_CONFIG, device=device, operations=comfy.ops.disable_weight_init)
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            nn.init.xavier_uniform_(parameter)
        else:
            nn.init.constant_(parameter, float(name.endswith("weight")))  # of a norm; else a bias
    modulations = [layer for block in network.transformer_blocks for layer in (block.img_mod[1], block.txt_mod[1])]
    for layer in (*modulations, network.norm_out.linear, network.proj_out):
        nn.init.zeros_(layer.weight)
    return network


def make_autoencoder(device: torch.device) -> nn.Module:
    """Return the host's TAESD with fresh weights: Kaiming for its ReLU layers, a small last layer in each half."""
    from comfy.taesd.taesd import TAESD

    vae = TAESD()
    for layer in vae.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    for block in vae.modules():
        if block.__class__.__name__ == "Block":
            block.conv[-1].weight.data *= 0.2
    for last in (vae.taesd_encoder[-1], vae.taesd_decoder[-1]):
        last.weight.data *= 0.1
    nn.init.constant_(vae.taesd_decoder[-1].bias, 0.5)
    return vae.to(device)


class TextLayer(nn.Module):
    """One pre-norm transformer layer with the host's parameter names, out of place so that autograd can follow it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(CONTEXT)
        self.self_attn = nn.ModuleDict({f"{n}_proj": nn.Linear(CONTEXT, CONTEXT) for n in ("q", "k", "v", "out")})
        self.layer_norm2 = nn.LayerNorm(CONTEXT)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(CONTEXT, 4 * CONTEXT), "fc2": nn.Linear(4 * CONTEXT, CONTEXT)})

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output for `x` [B,T,CONTEXT]."""
        normed = self.layer_norm1(x)
        q, k, v = (
            self.self_attn[f"{n}_proj"](normed).unflatten(-1, (TEXT_HEADS, -1)).transpose(1, 2) for n in ("q", "k", "v")
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + self.self_attn["out_proj"](mixed)
        hidden = self.mlp["fc1"](self.layer_norm2(x))
        return x + self.mlp["fc2"](hidden * torch.sigmoid(1.702 * hidden))


class TextEncoder(nn.Module):
    """Trainable twin of the host's CLIP text model over a compact table: row 0 is every unknown word."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(rows, CONTEXT)
        self.position_embedding = nn.Embedding(TOKENS, CONTEXT)
        self.layers = nn.ModuleList(TextLayer() for _ in range(TEXT_LAYERS))
        self.final_layer_norm = nn.LayerNorm(CONTEXT)
        nn.init.normal_(self.token_embedding.weight, std=0.5)
        nn.init.normal_(self.position_embedding.weight, std=0.05)

    def forward(self, rows: Tensor, keep: Tensor) -> Tensor:
        """Return [B,TOKENS,CONTEXT] for table rows [B,TOKENS].

        Positions where `keep` [B,TOKENS] is false (padding) become 0.
        """
        x = self.token_embedding(rows) + self.position_embedding.weight
        for layer in self.layers:
            x = layer(x)
        return self.final_layer_norm(x) * keep.unsqueeze(-1)

    def host_state_dict(self) -> dict[str, Tensor]:
        """Return the weights under the host's names (`text_model.…`, an identity `text_projection`)."""
        places = {"token_embedding": "embeddings.", "position_embedding": "embeddings.", "layers": "encoder."}
        names = {k: f"text_model.{places.get(k.split('.')[0], '')}{k}" for k in self.state_dict()}
        renamed = {names[k]: v for k, v in self.state_dict().items()}
        return renamed | {"text_projection.weight": torch.eye(CONTEXT)}


def plain_attention(
    _backend,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    mask: Tensor | None = None,
    *_args,
    skip_reshape: bool = False,
    **_kwargs,
) -> Tensor:
    """Attention override by two batched products: on a CPU its backward pass is far faster than the fused kernel's.

    mask: [B,1,keys], added to the scores. skip_reshape: the heads are a dimension already.
    """
    if not skip_reshape:
        q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    if mask is not None:
        scores = scores + mask.unsqueeze(1)
    return (scores.softmax(-1).to(v.dtype) @ v).transpose(1, 2).flatten(2)

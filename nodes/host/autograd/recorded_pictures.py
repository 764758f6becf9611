"""A VAE's decoder and a CLIP image encoder, such that autograd can differentiate what they make of a latent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from comfy.clip_model import CLIPLayer, CLIPVisionModelProjection
from comfy.clip_vision import ClipVisionModel
from comfy.ldm.modules.diffusionmodules.model import AttnBlock, ResnetBlock, Upsample, pytorch_attention
from comfy.sd import VAE
from comfy.taesd.taesd import Block
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...core.methods.picture_score import clip_pixels
from .foreign_attention import attention_in_own_precision
from .host_layers import own_layer, repeated_block, replace_forward, with_host_weights

# What a backward pass runs again, so that only what enters it is kept.
_REPEATED = (ResnetBlock, AttnBlock, Upsample, Block, CLIPLayer)

# Measured, see tests/host/autograd/test_picture_gradient.py: how many times the memory that the host reckons for
# decoding a picture its decoding, encoding by CLIP and the way back take; and of CLIP, numbers kept for each of a
# layer's outputs.
_DECODING, _KEPT = 1.6, 12


class Pictures:
    """What a latent looks like to CLIP. vae: decodes it; eyes: the CLIP image encoder.

    Raises ValueError for a VAE that is not for pictures, an image encoder without an embedding in CLIP's space, or
    layers that gradients cannot pass.
    """

    def __init__(self, vae: VAE, eyes: ClipVisionModel) -> None:
        vae.throw_exception_if_invalid()
        if vae.latent_dim != 2 or vae.output_channels != 3:
            raise ValueError("vae is not one for pictures (it decodes video or sound): connect that of the checkpoint")
        if not isinstance(eyes.model, CLIPVisionModelProjection):
            raise ValueError(
                f"clip_vision is a {type(eyes.model).__name__}, which shares no space with texts: load a CLIP image "
                "encoder (CLIP-ViT-L, H or bigG) with Load CLIP Vision"
            )
        self._vae, self._eyes = vae, eyes
        self.patchers = [vae.patcher, eyes.patcher]
        for layer in (each for _, _, found in self._networks() for each in found):
            own_layer(layer)

    @property
    def width(self) -> int:
        """Of the embeddings."""
        projection = self._eyes.model.visual_projection
        return projection.out_features if isinstance(projection, nn.Linear) else self._eyes.config["hidden_size"]

    def bytes_needed(self, grid: tuple[int, int]) -> float:
        """The memory for one picture of a latent of (h, w), with the way back."""
        decoding = self._vae.memory_used_decode((1, self._vae.latent_channels, *grid), self._vae.vae_dtype)
        config = self._eyes.config
        tokens = (self._eyes.image_size // config["patch_size"]) ** 2 + 1
        layer = tokens * (4 * config["hidden_size"] + config["intermediate_size"])
        entering = tokens * config["hidden_size"] * config["num_hidden_layers"]
        weights = max(each.numel() for each in self._eyes.model.parameters())
        return _DECODING * decoding + 4 * (_KEPT * layer + entering + 2 * weights)

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Inside the block `embeddings` can be differentiated; outside of inference mode.

        No weight is copied for longer than its layer runs, and again when the backward pass reaches it. Of each block
        only what enters it is kept. Raises ValueError if another node replaced how a layer computes.
        """
        with ExitStack() as exits:
            for network, device, layers in self._networks():
                blocks = [each for each in network.modules() if isinstance(each, _REPEATED)]
                repeated = {layer for block in blocks for layer in block.modules()}
                for layer in layers:
                    compute = _of_a_copy(own_layer(layer)) if isinstance(layer, nn.LayerNorm) else own_layer(layer)
                    forward = with_host_weights(compute, layer, device, layer in repeated, dtype=None)
                    replace_forward(layer, forward, exits)
                for block in blocks:
                    again = _repeated_layer if isinstance(block, CLIPLayer) else repeated_block
                    replace_forward(block, again(block.forward), exits)
                    if isinstance(block, AttnBlock):  # other backends compute in place, or have no derivative
                        exits.callback(setattr, block, "optimized_attention", block.optimized_attention)
                        block.optimized_attention = pytorch_attention
                _clone_numbers(network, layers, exits)
            yield

    def embeddings(self, latents: Tensor) -> Tensor:
        """CLIP's embeddings [B,width] of the pictures of latents [B,C,h,w], as the VAE knows them."""
        vae, eyes = self._vae, self._eyes
        decoded = vae.first_stage_model.decode(latents.to(vae.device, vae.vae_dtype))
        precision = torch.promote_types(decoded.dtype, torch.float32)
        pictures = vae.process_output(decoded.to(eyes.load_device, precision, copy=True))
        pixels = clip_pixels(pictures, eyes.image_size, eyes.image_mean, eyes.image_std)
        return eyes.model(pixel_values=pixels)[2].to(latents)

    def _networks(self) -> Iterator[tuple[nn.Module, torch.device, list[nn.Module]]]:
        """Both networks, their devices, and their layers with weights; embeddings, which gradients need not pass."""
        vae, eyes = self._vae, self._eyes
        for network, device in ((vae.first_stage_model, vae.device), (eyes.model, eyes.load_device)):
            yield network, device, [each for each in network.modules() if _is_layer(each)]


def _is_layer(module: nn.Module) -> bool:
    return hasattr(module, "weight") and not isinstance(module, (nn.Embedding, nn.BatchNorm2d))


def _clone_numbers(network: nn.Module, layers: list[nn.Module], exits: ExitStack) -> None:
    """Numbers that a module has beside its layers (TAESD's scale) are the host's inference tensors: use copies."""
    known = {id(each) for layer in layers for each in layer.parameters(recurse=False)}
    for module in network.modules():
        if isinstance(module, nn.Embedding):
            continue
        for name, own in list(module.named_parameters(recurse=False)):
            if id(own) not in known:
                exits.callback(setattr, module, name, own)
                setattr(module, name, nn.Parameter(own.detach().clone(), requires_grad=False))


def _of_a_copy(compute: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The layer of a copy of x: the host changes x itself afterwards, which autograd must not see."""
    return lambda x, *weights: compute(x.clone(), *weights)


def _repeated_layer(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A CLIP layer's `forward` of which autograd keeps only x, with an attention that has a derivative."""

    def forward(x: Tensor, mask: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
        return checkpoint(lambda x: run(x.clone(), mask, attention_in_own_precision), x, use_reentrant=False)

    return forward

"""The attention that is captured against diffusers' own networks with the same weights: another implementation."""

from __future__ import annotations

import inspect

import pytest
import torch
import torch.nn.functional as F

from explainable_latents.nodes.core.attention.probabilities import ALL_TOKENS
from explainable_latents.nodes.host.attention.observer import observe
from tests.host.families.test_transformers import SUBJECTS
from tests.host.families.transformers import SMALL, noise, prompt, sample, small


@pytest.fixture
def attended(monkeypatch):
    """The probabilities [B,H,Q,K] of every attention that diffusers computes in the test, in float64."""
    import diffusers.models.transformers.transformer_flux as of_flux
    import diffusers.models.transformers.transformer_qwenimage as of_qwen
    import diffusers.models.transformers.transformer_z_image as of_z_image

    found = []

    def by_position(q, k, v, attn_mask=None, **_):
        """Its own attention function: [B,L,H,d]."""
        return kept(*(each.transpose(1, 2) for each in (q, k, v))).transpose(1, 2)

    def kept(q, k, v, attn_mask=None, **_):
        """As PyTorch's: [B,H,L,d]."""
        found.append(torch.softmax(q.double() @ k.double().transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1))
        return found[-1].to(v.dtype) @ v

    for module in (of_flux, of_qwen, of_z_image):
        monkeypatch.setattr(module, "dispatch_attention_fn", by_position)
    monkeypatch.setattr(F, "scaled_dot_product_attention", kept)
    return found


def captured(name):
    """The maps of every layer of one run on the positive prompt alone, and what its network was called with."""
    model, calls = small(name), []
    network = model.model.diffusion_model
    handle = network.register_forward_pre_hook(
        lambda module, args, given: calls.append((args, given)), with_kwargs=True
    )
    observed = model.clone()
    capture = observe(observed, SUBJECTS, layers="all", share=ALL_TOKENS)
    sample(name, observed, cfg=1.0, positive=prompt(name), start=noise(name))
    handle.remove()
    (x, t), given = calls[0]
    return (
        network,
        capture.runs.kept[-1].layers,
        x.clone(),
        t.clone(),
        {k: v.clone() for k, v in given.items() if torch.is_tensor(v)},
    )


def filled(theirs, network, names):
    """Their network with the weights of ComfyUI's. names: their name -> ours, or (ours, a slice of it, what to do)."""
    ours = network.state_dict()
    with torch.no_grad():
        for name, value in theirs.state_dict().items():
            source = names.get(name, name)
            place, part, change = (source, None, None) if isinstance(source, str) else (*source, None)[:3]
            weight = ours[place] if part is None else ours[place].narrow(part[0], part[1], value.shape[0])
            value.copy_(change(weight) if change else weight)
    return theirs.eval()


def packed(x):
    """[B,C,h,w] -> [B,N,4 C], as their pipelines do it."""
    b, c, h, w = x.shape
    return x.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, 4 * c)


def compare(layers, p, tolerance=1e-6):
    """p: of the places to the text's tokens [1,H,N,T], of every layer. tolerance: a share of the map's maximum."""
    assert len(layers) == len(p)
    for maps, each in zip(layers.values(), p, strict=True):
        for own, tokens in zip(maps[:, 0], SUBJECTS.positions(), strict=True):
            other = each[0][..., list(tokens)].sum((-1, 0)).unflatten(-1, own.shape)
            assert (own - other).abs().max() <= tolerance * other.max()


@torch.no_grad()
def test_flux(comfy, attended):
    import comfy.utils
    from diffusers import FluxTransformer2DModel

    network, layers, x, t, given = captured("Flux.1")
    theirs = FluxTransformer2DModel(
        patch_size=1,
        in_channels=64,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=32,
        num_attention_heads=2,
        joint_attention_dim=96,
        pooled_projection_dim=64,
        guidance_embeds=True,
        axes_dims_rope=(8, 12, 12),
    )
    filled(theirs, network, comfy.utils.flux_to_diffusers(SMALL["Flux.1"].config))
    ids = torch.zeros(8, 6, 3)
    ids[..., 1] += torch.arange(8).unsqueeze(1)
    ids[..., 2] += torch.arange(6)
    attended.clear()
    theirs(
        hidden_states=packed(x),
        encoder_hidden_states=given["context"],
        pooled_projections=given["y"],
        timestep=t,
        guidance=given["guidance"],
        img_ids=ids.flatten(0, 1),
        txt_ids=torch.zeros(20, 3),
    )
    compare(layers, [p[:, :, 20:, :20] for p in attended])


@torch.no_grad()
def test_sd3(comfy, attended):
    """Its text comes behind the picture there; the first layer has an attention of the picture alone beside it."""
    import comfy.utils
    from diffusers import SD3Transformer2DModel

    network, layers, x, t, given = captured("SD 3.5")
    theirs = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=16,
        num_layers=2,
        attention_head_dim=64,
        num_attention_heads=2,
        joint_attention_dim=96,
        caption_projection_dim=128,
        pooled_projection_dim=64,
        out_channels=16,
        pos_embed_max_size=8,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    filled(theirs, network, comfy.utils.mmdit_to_diffusers(SMALL["SD 3.5"].config | {"num_blocks": 2}))
    attended.clear()
    theirs(hidden_states=x, encoder_hidden_states=given["context"], pooled_projections=given["y"], timestep=t)
    compare(layers, [p[:, :, :48, 48:] for p in attended if p.shape[-1] == 48 + 154])


@torch.no_grad()
def test_qwen_image(comfy, attended):
    from diffusers import QwenImageTransformer2DModel

    network, layers, x, t, given = captured("Qwen-Image")
    theirs = QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=64,
        out_channels=16,
        num_layers=2,
        attention_head_dim=32,
        num_attention_heads=2,
        joint_attention_dim=96,
        axes_dims_rope=(8, 12, 12),
    )
    filled(theirs, network, {})
    attended.clear()
    lengths = {"txt_seq_lens": [20]} if "txt_seq_lens" in inspect.signature(theirs.forward).parameters else {}
    theirs(
        hidden_states=packed(x[:, :, 0]),
        encoder_hidden_states=given["context"],
        encoder_hidden_states_mask=torch.ones(1, 20, dtype=torch.long),
        timestep=t,
        img_shapes=[[(1, 8, 6)]],
        **lengths,
    )
    compare(layers, [p[:, :, 20:, :20] for p in attended])


@torch.no_grad()
def test_z_image(comfy, attended):
    """The text comes behind the picture there; both are filled up to 32 places."""
    import comfy.utils
    from diffusers import ZImageTransformer2DModel

    config = SMALL["Z-Image"].config
    network, layers, x, t, given = captured("Z-Image")
    theirs = ZImageTransformer2DModel(
        in_channels=config["in_channels"],
        cap_feat_dim=config["cap_feat_dim"],
        **{name: config[name] for name in ("dim", "n_heads", "n_kv_heads", "axes_dims", "axes_lens", "rope_theta")},
        **{name: config[name] for name in ("n_layers", "n_refiner_layers", "norm_eps", "qk_norm") if name in config},
    )
    # Widths that ComfyUI rounds otherwise; at the published size they are the same.
    theirs.t_embedder = type(theirs.t_embedder)(256, mid_size=256)
    for block in (*theirs.noise_refiner, *theirs.context_refiner, *theirs.layers):
        block.feed_forward = type(block.feed_forward)(dim=256, hidden_dim=768)
        for norm in (block.attention.norm_q, block.attention.norm_k):
            norm.eps = torch.finfo(torch.float32).eps  # ComfyUI's; 1e-5 there moves the maps by 5e-6
    filled(theirs, network, comfy.utils.z_image_to_diffusers(config))
    attended.clear()
    theirs(x=list(x.unsqueeze(2)), t=1 - t, cap_feats=list(given["context"]))
    count = given["context"].shape[1]
    compare(layers, [p[:, :, :48, 64 : 64 + count] for p in attended if p.shape[-1] > 64])


@torch.no_grad()
def test_auraflow(comfy, attended):
    """Eight tokens that are no text come first."""
    import comfy.utils
    from diffusers import AuraFlowTransformer2DModel

    network, layers, x, t, given = captured("AuraFlow")
    theirs = AuraFlowTransformer2DModel(
        sample_size=16,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=32,
        num_attention_heads=2,
        joint_attention_dim=96,
        caption_projection_dim=64,
        pos_embed_max_size=64,
    )
    filled(theirs, network, comfy.utils.auraflow_to_diffusers(SMALL["AuraFlow"].config))
    attended.clear()
    theirs(hidden_states=x, encoder_hidden_states=given["context"], timestep=t)
    compare(layers, [p[:, :, 28:, 8:28] for p in attended])


@torch.no_grad()
def test_pixart(comfy, attended):
    import comfy.utils
    from diffusers import PixArtTransformer2DModel

    network, layers, x, t, given = captured("PixArt")
    theirs = PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=36,
        num_layers=2,
        cross_attention_dim=72,
        sample_size=64,
        interpolation_scale=1,
        caption_channels=96,
    )
    filled(theirs, network, comfy.utils.pixart_to_diffusers(SMALL["PixArt"].config))
    attended.clear()
    theirs(hidden_states=x, encoder_hidden_states=given["context"], timestep=t)
    # Their own float32 is up to 0.8e-6 from their float64.
    compare(layers, [p for p in attended if p.shape[-1] == given["context"].shape[1]], tolerance=2e-6)

"""Stand-ins for guidance nodes of other packs: each hooks ComfyUI where those do; the formulas are ours, and short."""

from __future__ import annotations

import copy
import importlib

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.host.families.networks import NETWORKS


def extra_node(module, name, *args):
    """A stock node that patches a model."""

    def patch(model):
        return getattr(importlib.import_module(f"comfy_extras.{module}"), name).execute(model, *args)[0]

    return patch


def blocks_of(model):
    """(part, number, depth) of every block with cross-attention, as patches are addressed."""
    from explainable_latents.nodes.host.families.family import cross_attention_layers

    names = [name.split(".") for name in cross_attention_layers(model)]
    return [(part, int(number), int(depth)) for part, number, depth in names]


def after_guidance(model, function):
    model = model.clone()
    model.set_model_sampler_post_cfg_function(function)
    return model


def again(args, x, options=None):
    """The prediction for the positive conditionings alone, called once more behind the guidance."""
    import comfy.samplers

    options = args["model_options"] if options is None else options
    return comfy.samplers.calc_cond_batch(args["model"], [args["cond"]], x, args["sigma"], options)[0]


def perturbed_self_attention(replacer):
    """The positive conditionings are evaluated again with another self-attention in the middle (PAG, SEG)."""

    def patch(model):
        def function(args):
            from comfy.model_patcher import set_model_options_patch_replace

            options = set_model_options_patch_replace(args["model_options"].copy(), replacer, "attn1", "middle", 0)
            other = again(args, args["input"], options)
            return args["denoised"] + 2.0 * (args["cond_denoised"] - other)

        return after_guidance(model, function)

    return patch


def identity(q, k, v, extra_options, mask=None):
    return v


def blurred(q, k, v, extra_options, mask=None):
    from comfy.ldm.modules.attention import optimized_attention

    return optimized_attention(q.mean(1, keepdim=True).expand_as(q), k, v, heads=extra_options["n_heads"])


def sliding_windows(model):
    """SWG: the positive conditionings are evaluated again on windows of the latent."""

    def function(args):
        halves = [again(args, half.contiguous()) for half in args["input"].chunk(2, dim=-1)]
        return args["denoised"] + args["cond_denoised"] - torch.cat(halves, dim=-1)

    return after_guidance(model, function)


def negative_attention(model):
    """NAG of a pack: attn2 of every block is replaced, and pushed away from what another text gives there."""
    from comfy.ldm.modules.attention import optimized_attention

    text = torch.randn(1, 77, 64, generator=torch.Generator().manual_seed(11))
    model = model.clone()
    for part, number, depth in blocks_of(model):
        module = dict(attention_modules(model))[part, number, depth]
        keys, values = module.to_k(text), module.to_v(text)

        def replacer(q, k, v, extra_options, keys=keys, values=values):
            out = optimized_attention(q, k, v, extra_options["n_heads"])
            other = optimized_attention(
                q, keys.expand(len(q), -1, -1), values.expand(len(q), -1, -1), extra_options["n_heads"]
            )
            positive = (
                torch.tensor(extra_options["cond_or_uncond"]).repeat_interleave(
                    len(q) // len(extra_options["cond_or_uncond"])
                )
                == 0
            )
            return out + 0.5 * (out - other) * positive[:, None, None]

        model.set_model_attn2_replace(replacer, part, number, depth)
    return model


def attention_modules(model):
    """((part, number, depth), attn2) of every block."""
    modules = NETWORKS["SD 1.x"].modules(model.model.diffusion_model, "cross")
    return [(block, modules[".".join(map(str, block))]) for block in blocks_of(model)]


def sparse_attention(model):
    """PLADIS: attn2 of the output blocks is replaced by one of dense and sparse probabilities."""

    def replacer(q, k, v, extra_options):
        q, k, v = (x.unflatten(-1, (extra_options["n_heads"], -1)).transpose(1, 2) for x in (q, k, v))
        dense = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1)
        sparse = F.relu(dense - dense.mean(-1, keepdim=True))
        return ((2 * sparse - dense) @ v).transpose(1, 2).flatten(2)

    model = model.clone()
    for block in blocks_of(model):
        if block[0] == "output":
            model.set_model_attn2_replace(replacer, *block)
    return model


def recording_attention(model):
    """KSamplerDAAM: while it samples, attn2 of every block is replaced by an attention that keeps its probabilities."""
    kept = []

    def replacer(q, context=None, value=None, extra_options=None, mask=None):
        heads = extra_options["n_heads"]
        q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, context, value))
        p = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1)
        kept.append(p.mean(1))
        return (p @ v).transpose(1, 2).flatten(2)

    model = model.clone()
    for block in blocks_of(model):
        model.set_model_patch_replace(replacer, "attn2", *block)
    return model


def frequencies(model):
    """FDG: low and high frequencies of the difference are scaled by numbers of their own."""

    def function(args):
        difference = args["cond_denoised"] - args["uncond_denoised"]
        low = F.interpolate(F.avg_pool2d(difference, 2), scale_factor=2)
        return args["input"] - (args["uncond_denoised"] + args["cond_scale"] * low + 9.0 * (difference - low))

    model = model.clone()
    model.set_model_sampler_cfg_function(function)
    return model


def momentum(model):
    """MG: the step before is remembered in the model options."""

    def function(args):
        memory = args["model_options"].setdefault("momentum", {})
        before = memory.get("average", args["denoised"])
        memory["average"] = 0.4 * args["denoised"] + 0.6 * before
        return args["denoised"] + 0.5 * (args["denoised"] - before)

    return after_guidance(model, function)


def sliding_mode(model):
    """SMC-CFG: the difference of the step before is remembered in the model options."""

    def function(args):
        memory = args["model_options"].setdefault("sliding", {})
        difference = args["cond_denoised"] - args["uncond_denoised"]
        surface = difference + 5.0 * memory.get("before", difference)
        memory["before"] = difference - 0.1 * surface / surface.norm()
        return args["input"] - (args["uncond_denoised"] + args["cond_scale"] * memory["before"])

    model = model.clone()
    model.set_model_sampler_cfg_function(function)
    return model


def noised_conditionings(model):
    """CADS of one pack: copies of the conditionings, with noise on them, are evaluated."""

    def function(args):
        import comfy.samplers

        conds = copy.deepcopy(args["conds"])
        for cond in (each for listed in conds if listed is not None for each in listed):
            text = cond["model_conds"]["c_crossattn"]
            cond["model_conds"]["c_crossattn"] = type(text)(0.8 * text.cond + 0.2 * torch.randn_like(text.cond))
        return comfy.samplers.calc_cond_batch(args["model"], conds, args["input"], args["sigma"], args["model_options"])

    model = model.clone()
    model.set_model_sampler_calc_cond_batch_function(function)
    return model


def noised_context(model):
    """CADS of another pack: noise on what the network attends to, row by row."""

    def wrapper(apply_model, args):
        context = args["c"]["c_crossattn"]
        noise: Tensor = torch.empty_like(context, device="cpu").normal_()
        return apply_model(
            args["input"], args["timestep"], **{**args["c"], "c_crossattn": 0.9 * context + 0.2 * noise.to(context)}
        )

    model = model.clone()
    model.set_model_unet_function_wrapper(wrapper)
    return model


def hard_mask_by_time(model):
    """Differential Diffusion (Advanced): the noise mask is cut at a threshold that falls with the noise level."""

    def function(sigma, mask, extra_options):
        sampling = extra_options["model"].inner_model.model_sampling
        threshold = float(sampling.timestep(sigma[:1])) / 999 / 1.5
        return (mask >= threshold).to(mask.dtype)

    model = model.clone()
    model.set_model_denoise_mask_function(function)
    return model


GUIDANCE = {
    "PAG of a pack": perturbed_self_attention(identity),
    "SEG": perturbed_self_attention(blurred),
    "SWG": sliding_windows,
    "NAG of a pack": negative_attention,
    "PLADIS": sparse_attention,
    "KSamplerDAAM": recording_attention,
    "FDG": frequencies,
    "MG": momentum,
    "SMC-CFG": sliding_mode,
    "CADS": noised_conditionings,
    "CADS of another pack": noised_context,
    "Epsilon Scaling": extra_node("nodes_eps", "EpsilonScaling", 1.05),
    "CFG-Zero*": extra_node("nodes_cfg", "CFGZeroStar"),
}

"""What users put on a model beside this pack: stock nodes, and patches made as other packs make them."""

from __future__ import annotations

import torch


def lora(model):
    import comfy.sd

    generator = torch.Generator().manual_seed(8)
    weights = {}
    for name in (
        "output_blocks.1.1.transformer_blocks.0.attn2.to_k",
        "input_blocks.1.1.transformer_blocks.0.attn2.to_q",
    ):
        rows, columns = model.model.diffusion_model.get_parameter(f"{name}.weight").shape
        weights[f"diffusion_model.{name}.lora_up.weight"] = torch.randn(rows, 4, generator=generator)
        weights[f"diffusion_model.{name}.lora_down.weight"] = torch.randn(4, columns, generator=generator)
    return comfy.sd.load_lora_for_models(model, None, weights, 1.0, 0.0)[0]


def extra_node(module, name, *args):
    """A stock node that patches a model."""

    def patch(model):
        import importlib

        return getattr(importlib.import_module(f"comfy_extras.{module}"), name).execute(model, *args)[0]

    return patch


def image_prompt(model, through_the_host):
    """A node that replaces attn2 in the manner of IPAdapter: a second attention to image tokens is added."""
    from comfy.ldm.modules.attention import optimized_attention

    generator = torch.Generator().manual_seed(9)

    def replacer(q, k, v, extra_options):
        options = {"transformer_options": extra_options} if through_the_host else {}
        # as many tokens as IPAdapter Plus has: more than the text
        image = torch.randn(1, 257, k.shape[-1], generator=generator.manual_seed(9)).expand(q.shape[0], -1, -1)
        out = 0.5 * optimized_attention(q, image, image, extra_options["n_heads"], **options)
        return out + optimized_attention(q, k, v, extra_options["n_heads"], **options)

    model = model.clone()
    for block in [("input", 1), ("middle", 0), ("output", 0), ("output", 3)]:
        model.set_model_attn2_replace(replacer, *block)
    model.set_model_attn2_replace(replacer, "output", 2, 0)
    return model


def context_patch(model):
    """A node that changes what attn2 looks at: the keys and values are scaled, four more tokens put behind."""

    def patch(n, context, value, extra_options):
        more = torch.ones_like(context[:, :4])
        return n, torch.cat([context * 1.1, more], dim=1), torch.cat([value, more], dim=1)

    model = model.clone()
    model.set_model_attn2_patch(patch)
    return model


def other_override(model):
    from comfy.ldm.modules.attention import attention_basic

    def override(attention, *args, **kwargs):
        return attention_basic(*args, **kwargs) * 0.9

    model = model.clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = override
    return model


def override_at_call_time(model):
    """A node that installs its override as we do, when the network is called."""
    from comfy.patcher_extension import WrappersMP

    def wrapper(executor, x, timesteps, context, y, control, transformer_options, **kwargs):
        previous = transformer_options.get("optimized_attention_override")

        def override(attention, *args, **inner):
            out = attention(*args, **inner) if previous is None else previous(attention, *args, **inner)
            return out * 0.9

        options = {**transformer_options, "optimized_attention_override": override}
        return executor(x, timesteps, context, y, control, options, **kwargs)

    model = model.clone()
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "other", wrapper)
    return model


def split_calls(model):
    """A node that evaluates positive and negative one after the other."""

    def wrapper(apply_model, args):
        out = []
        count = len(args["cond_or_uncond"])
        for i in range(count):
            part = {name: value.chunk(count)[i] for name, value in args["c"].items() if torch.is_tensor(value)}
            options = dict(args["c"]["transformer_options"])
            options["cond_or_uncond"], options["uuids"] = (
                options["cond_or_uncond"][i : i + 1],
                options["uuids"][i : i + 1],
            )
            x, t = args["input"].chunk(count)[i], args["timestep"].chunk(count)[i]
            out.append(apply_model(x, t, **part, transformer_options=options))
        return torch.cat(out)

    model = model.clone()
    model.set_model_unet_function_wrapper(wrapper)
    return model


PATCHES = {
    "LoRA": lora,
    "FreeU": extra_node("nodes_freelunch", "FreeU", 1.1, 1.2, 0.9, 0.2),
    "FreeU_V2": extra_node("nodes_freelunch", "FreeU_V2", 1.3, 1.4, 0.9, 0.2),
    "HyperTile": extra_node("nodes_hypertile", "HyperTile", 32, 2, 0, False),
    "ToMe": extra_node("nodes_tomesd", "TomePatchModel", 0.4),
    "SAG": extra_node("nodes_sag", "SelfAttentionGuidance", 0.5, 2.0),
    "PAG": extra_node("nodes_pag", "PerturbedAttentionGuidance", 3.0),
    "NAG": extra_node("nodes_nag", "NAGuidance", 5.0, 0.5, 1.5),
    "Differential Diffusion": extra_node("nodes_differential_diffusion", "DifferentialDiffusion", 1.0),
    "attn2 replaced": lambda model: image_prompt(model, False),
    "attn2 replaced, through the host's attention": lambda model: image_prompt(model, True),
    "attn2 patched": context_patch,
    "another override": other_override,
    "another override at call time": override_at_call_time,
    "split calls": split_calls,
}

"""Models with a twin, what their samplers see, and attention whose probabilities are written down in float64."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from explainable_latents.nodes.host.editing.twin_sampling import Twin
from tests.host.unets import conditioning, unet_config

SOURCE, TARGET = conditioning(5), conditioning(1)
STEPS = 3
# The host computes in float32, the written probabilities in float64.
WRITTEN = 1e-4


def twin(model, *editors, source=SOURCE, note: list | None = None, **options):
    """A copy of the model with a twin; `note` collects the sampler's states [2B,C,h,w]."""
    copy = model.clone()
    Twin(source, editors, **options).install(copy)
    if note is not None:
        from comfy.patcher_extension import WrappersMP

        def seen(executor, x, *args, **kwargs):
            note.append(x.clone())
            return executor(x, *args, **kwargs)

        copy.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "note", seen)
    return copy


# Gives, for a layer's name, its step, q, k, v [R,H,N,d] and the number of conditionings of the call, what is attended
# with instead, and a float64 mask that is added to the scores.
Edit = Callable[[str, int, Tensor, Tensor, Tensor, int], tuple[Tensor, Tensor, Tensor, Tensor | float]]


def written_down(model, edit: Edit):
    """The model with self-attention whose probabilities are written down, of what `edit` gives."""
    copy = model.clone()

    def override(attention, q, k, v, heads, *args, transformer_options, **kwargs):
        if k.shape[1] != q.shape[1] or "block" not in transformer_options:
            return attention(q, k, v, heads, *args, transformer_options=transformer_options, **kwargs)
        part, number = transformer_options["block"]
        levels = transformer_options["sample_sigmas"]
        step = int((levels >= transformer_options["sigmas"][0] * (1 - 1e-5)).sum()) - 1
        qkv = (x.double().unflatten(-1, (heads, -1)).transpose(1, 2).clone() for x in (q, k, v))
        name = f"{part}.{number}.{transformer_options['block_index']}"
        own, keys, values, mask = edit(name, step, *qkv, len(transformer_options["cond_or_uncond"]))
        p = (own @ keys.transpose(2, 3) * own.shape[-1] ** -0.5 + mask).softmax(-1)
        return (p @ values).transpose(1, 2).flatten(-2).to(q)

    copy.model_options["transformer_options"]["optimized_attention_override"] = override
    return copy


def pairs(rows: int, conditionings: int) -> list[tuple[slice, slice]]:
    """Rows of source and target of each conditioning of a call."""
    each = rows // conditionings
    half = each // 2
    return [(slice(j * each, j * each + half), slice(j * each + half, (j + 1) * each)) for j in range(conditionings)]


def relative(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest number."""
    return float((found - expected).abs().max() / expected.abs().max())


def control_net():
    """A ControlNet of random weights for the small SD 1.x UNet, and a picture for each of two."""
    import comfy.cldm.cldm
    import comfy.controlnet
    import comfy.ops

    config = unet_config("SD15")
    del config["out_channels"], config["transformer_depth_output"]
    operations = comfy.ops.disable_weight_init
    network = comfy.cldm.cldm.ControlNet(hint_channels=3, **config, device="cpu", operations=operations)
    generator = torch.Generator().manual_seed(4)
    for value in network.parameters():
        value.data = torch.randn(value.shape, generator=generator) * 0.05
    control = comfy.controlnet.ControlNet(network, load_device=torch.device("cpu"))
    return control, torch.rand(2, 128, 128, 3, generator=generator)


def controlled(positive: list, negative: list) -> dict:
    """Both prompts with that ControlNet."""
    import nodes

    applied = nodes.ControlNetApplyAdvanced().apply_controlnet(positive, negative, *control_net(), 1.0, 0.0, 0.8)
    return dict(zip(("positive", "negative"), applied, strict=True))

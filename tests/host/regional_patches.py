"""Stand-ins for nodes that rearrange cross-attention: Attention Couple in its two manners, and NegPip.

They hook ComfyUI where those nodes do and lay out rows and keys alike; the code is ours.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

POSITIVE = 0


def left_half(share: float = 1.0) -> Tensor:
    """A mask [1,128,128] of the picture's left half; elsewhere 1 - share."""
    mask = torch.full((1, 128, 128), 1.0 - share)
    mask[..., :64] = share
    return mask


class Couple:
    """Regions with texts of their own: a positive conditioning's rows are repeated once per region, each with that
    region's text as keys and values, and mixed behind the attention by the regions' masks.

    masks: [1,H,W] of the sampler's own text and of every region. texts: contexts [1,T,d] of the regions. strengths: of
    all. interleaved: the texts' tokens are keys and values in turn, and only the keys are used as such.
    """

    def __init__(self, masks, texts, strengths=None, interleaved=False):
        masks = torch.stack(masks)
        self.masks = masks / masks.sum(0)
        self.texts = texts
        self.strengths = strengths or [1.0] * len(masks)
        self.interleaved = interleaved
        self.kinds = []

    def install(self, model):
        model = model.clone()
        model.set_model_attn2_patch(self.spread)
        model.set_model_attn2_output_patch(self.blend)
        return model

    def hook(self, conditioning):
        """The conditioning that brings the regions along, as a prompt with them in it is encoded."""
        import comfy.hooks

        patches = {"attn2_patch": [self.spread], "attn2_output_patch": [self.blend]}
        hook = comfy.hooks.TransformerOptionsHook(
            transformers_dict={"patches": patches}, hook_scope=comfy.hooks.EnumHookScope.HookedOnly
        )
        group = comfy.hooks.HookGroup()
        group.add(hook)
        return comfy.hooks.set_hooks_for_conditioning(conditioning, hooks=group, append_hooks=True)

    def spread(self, n, context, value, extra_options):
        kinds = extra_options["cond_or_uncond"]
        batch = len(n) // len(kinds)
        self.kinds = [kind for kind in kinds for _ in range(len(self.masks) if kind == POSITIVE else 1)]
        keys = [self._rows(kinds, context, [text[:, ::2] if self.interleaved else text for text in self.texts], batch)]
        keys += [self._rows(kinds, value, [text[:, 1::2] if self.interleaved else text for text in self.texts], batch)]
        repeats = torch.tensor([len(self.masks) if kind == POSITIVE else 1 for kind in kinds])
        n = torch.cat([part.repeat(int(r), 1, 1) for part, r in zip(n.split(batch), repeats, strict=True)])
        return n, *keys

    def _rows(self, kinds, context, texts, batch):
        length = math.lcm(context.shape[1], *(text.shape[1] for text in texts))
        rows = []
        for kind, own in zip(kinds, context.split(batch), strict=True):
            if kind != POSITIVE:
                rows.append(own.repeat(1, length // own.shape[1], 1))
                continue
            for text, strength in zip([own, *texts], self.strengths, strict=True):
                text = text.to(own).expand(batch, -1, -1) * strength
                rows.append(text.repeat(1, length // text.shape[1], 1))
        return torch.cat(rows)

    def blend(self, out, extra_options):
        grid = extra_options["activations_shape"][-2:]
        shares = F.interpolate(self.masks.to(out), size=tuple(grid), mode="nearest").flatten(2).transpose(1, 2)
        parts, mixed = list(out.chunk(len(self.kinds))), []
        while parts:
            if self.kinds[-len(parts)] != POSITIVE:
                mixed.append(parts.pop(0))
                continue
            regions, parts = parts[: len(shares)], parts[len(shares) :]
            mixed.append(sum(region * share for region, share in zip(regions, shares, strict=True)))
        return torch.cat(mixed)


def negpip(model):
    """Of every two tokens the first is a key and the second its value."""

    def patch(n, context, value, extra_options):
        return n, context[:, ::2], value[:, 1::2]

    model = model.clone()
    model.set_model_attn2_patch(patch)
    return model


def interleaved(conditioning, negative=()):
    """A CONDITIONING as NegPip's text encoder makes it; tokens at `negative` have values of the opposite sign."""
    context, extra = conditioning[0]
    values = context.clone()
    values[:, list(negative)] *= -1
    return [[torch.stack([context, values], dim=2).flatten(1, 2), extra]]

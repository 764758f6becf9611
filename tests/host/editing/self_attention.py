"""MasaCtrl and Plug-and-Play, and the self-attention that each is: what exchanges queries, keys, values, features."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager

import torch

from explainable_latents.nodes.core.methods.masking import ImageMasking
from explainable_latents.nodes.core.methods.mutual_self_attention import MutualSelfAttention
from explainable_latents.nodes.core.methods.plug_and_play import PlugAndPlay
from explainable_latents.nodes.core.methods.prompt_to_prompt import Window
from explainable_latents.nodes.host.editing.mutual_self_attention import MutualSelfAttentionEditor
from explainable_latents.nodes.host.editing.plug_and_play import PlugAndPlayEditor
from tests.host.editing.twins import pairs

LATER = MutualSelfAttention(Window(0.34, 1.0))  # from the second of three steps on
PLAY = PlugAndPlay(Window(0, 0.67), Window(0, 0.0))
GRID = (15, 9)


def of_masks(grid: tuple[int, int] = GRID) -> tuple[torch.Tensor, torch.Tensor]:
    """Of target and source, another one for each of two pictures."""
    generator = torch.Generator().manual_seed(1)
    return tuple((torch.rand(2, *grid, generator=generator) > 0.4).float() for _ in range(2))


def masked(grid: tuple[int, int] = GRID) -> MutualSelfAttentionEditor:
    return MutualSelfAttentionEditor(LATER, "auto", *map(ImageMasking, of_masks(grid)))


EDITORS = {
    "MasaCtrl": MutualSelfAttentionEditor(LATER),
    "MasaCtrl with masks": masked(),
    "Plug-and-Play": PlugAndPlayEditor(PLAY),
    "Plug-and-Play, features": PlugAndPlayEditor(PlugAndPlay(Window(0, 0.67), Window(0, 1.0))),
}


def source_keys(masks=None) -> Callable:
    """What MasaCtrl attends with: in the decoder, from the second step on."""

    def edit(name, step, q, k, v, conditionings):
        if not name.startswith("output.") or step < 1:
            return q, k, v, 0.0
        mask = torch.zeros(len(q), 1, q.shape[2], k.shape[2], dtype=torch.float64)
        for source, target in pairs(len(q), conditionings):
            k[target], v[target] = k[source], v[source]
            if masks is not None:
                size = (15, 9) if q.shape[2] == 135 else (8, 5)
                inside, own = (
                    torch.nn.functional.interpolate(each.unsqueeze(1), size=size).flatten(1) > 0.5 for each in masks
                )
                mask[target].masked_fill_((inside.unsqueeze(2) != own.unsqueeze(1)).unsqueeze(1), -torch.inf)
        return q, k, v, mask

    return edit


def source_layout(name, step, q, k, v, conditionings):
    """What Plug-and-Play attends with: from the decoder's second block on, in the first two steps of three."""
    if name.startswith("output.") and not name.startswith("output.0.") and step < 2:
        for source, target in pairs(len(q), conditionings):
            q[target], k[target] = q[source], k[source]
    return q, k, v, 0.0


WRITTEN_DOWN = {
    "MasaCtrl": source_keys(),
    "MasaCtrl with masks": source_keys(of_masks()),
    "Plug-and-Play": source_layout,
    "Plug-and-Play, features": source_layout,
}


@contextmanager
def features_of_the_source(model, block: int = 1):
    """The second decoder block's residual branch as the host has it, line by line, with the features exchanged."""
    residual = model.model.diffusion_model.output_blocks[block][0]

    def forward(x, emb):
        h = residual.in_layers(x)
        h = residual.out_layers(h + residual.emb_layers(emb)[..., None, None])
        for source, target in pairs(len(h), 2):
            h[target] = h[source]
        return residual.skip_connection(x) + h

    residual.forward = forward
    try:
        yield
    finally:
        del residual.forward

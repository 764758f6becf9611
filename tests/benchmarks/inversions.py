"""Methods that begin with the inversion of a given picture, for `editing`: each by the pack's own nodes' functions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .editing import Editing

STEPS, GUIDANCE, ITERATIONS = 50, 3.0, 5
# Published: the share of the noisy end that edit-friendly inversion leaves out, and how far DiffEdit goes into it.
SKIP, DEPTH = 0.36, 0.8


def edits(toy: Editing, before: str, after: str, latent: Tensor, seed: int) -> Iterator[tuple[str, float, Tensor]]:
    """A method's name, how much of the schedule it samples, and the latent of its result."""
    import comfy.sample
    import nodes

    from explainable_latents.nodes.core.maps.masks import Shaping, saliency_masks
    from explainable_latents.nodes.core.methods.inversion import HIGHER
    from explainable_latents.nodes.core.methods.masked_latent import Policy
    from explainable_latents.nodes.core.methods.masking import ImageMasking
    from explainable_latents.nodes.core.methods.prompt_to_prompt import Window
    from explainable_latents.nodes.host.editing.edit_friendly import invert_edit_friendly
    from explainable_latents.nodes.host.editing.inversion import invert
    from explainable_latents.nodes.host.editing.own_run import Guided, schedule
    from explainable_latents.nodes.host.editing.paths import RECORDED
    from explainable_latents.nodes.host.editing.prompt_difference import difference_map
    from explainable_latents.nodes.host.editing.prompt_to_prompt import prompt_to_prompt
    from explainable_latents.nodes.host.editing.twin_sampling import Twin
    from explainable_latents.nodes.host.sampling.masked_latent import MaskedLatent

    old, new, negative = (toy.encode(text) for text in (before, after, ""))
    picture = {"samples": latent}

    def path(denoise: float, guidance: float = 1.0):
        levels = schedule(toy.model, int(STEPS * denoise + 1e-9), "normal", denoise, None)
        return invert(Guided(toy.model, old, negative, guidance), picture, levels, ITERATIONS, HIGHER, False).path

    def sampled(model, denoise: float) -> Tensor:
        how = seed, int(STEPS * denoise + 1e-9), GUIDANCE, "euler", "normal", new, negative, picture
        return nodes.common_ksampler(model, *how, denoise=denoise)[0]["samples"]

    whole = path(1.0)
    for name, windows in (("inverted, no editor", (0.0, 0.0)), ("inverted, Prompt-to-Prompt 0.8, 0.4", (0.8, 0.4))):
        cross, own = (Window(0, end) for end in windows)
        editor = prompt_to_prompt(toy.clip, before, after, "auto", cross, own, 2, "", "")
        model = toy.model.clone()
        Twin(old, [editor] if any(windows) else [], RECORDED, trajectory=whole).install(model)
        yield name, 1.0, sampled(model, 1.0)
    levels = schedule(toy.model, STEPS, "normal", 1.0, None)
    found, sampler = invert_edit_friendly(Guided(toy.model, old, negative, GUIDANCE), picture, levels, SKIP, seed)
    how = sampler, torch.tensor(found.path.levels), new, negative, found.start["samples"]
    friendly = comfy.sample.sample_custom(toy.model, torch.zeros_like(latent), GUIDANCE, *how, disable_pbar=True)
    yield "edit-friendly", 1 - SKIP, friendly
    differs = difference_map(toy.model, old, new, picture, 0.5, 10, seed)
    mask = saliency_masks(differs, Shaping("mean × factor", 1.5), "together")
    model, steps = toy.model.clone(), int(STEPS * DEPTH + 1e-9)
    policies = Policy("keep"), Policy("recorded path")
    MaskedLatent(ImageMasking(mask), latent, f"1-{steps}", *policies, path(DEPTH)).install(model)
    yield "DiffEdit", DEPTH, sampled(model, DEPTH)

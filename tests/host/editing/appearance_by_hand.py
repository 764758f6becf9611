"""A run with a third picture, which gives its appearance, written down call by call."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from explainable_latents.nodes.core.methods.appearance import Schedule
from explainable_latents.nodes.core.methods.prompt_to_prompt import Window
from tests.host.editing.twins import SOURCE, STEPS, TARGET, twin
from tests.host.unets import conditioning, noise, sample

OTHER, NEGATIVE, GRID, CFG = conditioning(7), conditioning(2), (15, 9), 4.0
# Of three steps: fine layers take the structure in the first, coarse ones take the appearance in the second alone, the
# states that enter the third step and the end get the statistics.
SCHEDULE = Schedule(Window(0.0, 1.0), Window(0.34, 0.67), 2, Window(0.0, 0.5), 0.67)
ALWAYS = Schedule(Window(), Window(), 0, Window(), 1.0)
# Windows in which none of three steps falls.
NEVER = Schedule(Window(0.4, 0.5), Window(0.4, 0.5), 0, Window(), 1.0)
_TAKEN = {("fine", 0): "source", ("fine", 1): "appearance", ("fine", 2): "appearance", ("coarse", 1): "appearance"}

# bool [h,w] of target and appearance; None for all places.
Masks = tuple[Tensor, Tensor] | None


def taken_at(block: tuple[str, int], step: int | None) -> str | None:
    """Of which picture a layer takes something by `SCHEDULE`; None where it takes nothing, or in a plain run."""
    return _TAKEN.get(("coarse" if block[1] < 2 else "fine", step)) if block[0] == "output" else None


def normalised(state: Tensor, other: Tensor, masks: Masks = None) -> Tensor:
    """The state with the other one's statistics; with masks [h,w] those of the places inside, which alone change."""
    inside, theirs = masks or [torch.ones(state.shape[-2:], dtype=torch.bool)] * 2
    variance, mean = torch.var_mean(state[..., inside].double(), -1, keepdim=True)
    wanted, target = torch.var_mean(other[..., theirs].double(), -1, keepdim=True)
    changed = state.clone()
    changed[..., inside] = ((state[..., inside] - mean) * (wanted / variance).sqrt() + target).float()
    return changed


@torch.no_grad()
def by_hand(
    model,
    options: Callable[[int | None], dict],
    guidance: tuple[float, ...],
    reference: Tensor | None = None,
    masks: Masks = None,
    batch: int = 2,
) -> Tensor:
    """The target's latent: Euler's steps of three pictures, each predicted with and without the editor.

    options: the transformer options of a step of the edited run, of rows [source, target, appearance]; of None: of the
    plain one. guidance: of each step. reference: the latent that is the appearance at every noise level; None: it is
    sampled. masks: of the statistics.
    """
    import comfy.samplers

    network, drawn = model.model, noise(batch, GRID)
    levels = comfy.samplers.calculate_sigmas(network.model_sampling, "normal", STEPS)
    seen: list = []
    sample(twin(model, note=seen), batch=batch, grid=GRID)
    x = seen[0][:batch].repeat(3, 1, 1, 1)
    target, appearance = slice(batch, 2 * batch), slice(2 * batch, 3 * batch)
    texts = torch.cat([text[0][0].expand(batch, -1, -1) for text in (SOURCE, TARGET, OTHER)])

    def given(sigma):
        if reference is not None:
            x[appearance] = network.process_latent_in(reference) + sigma * drawn

    def predicted(sigma, step):
        each = [
            network.apply_model(x, sigma.expand(len(x)), c_crossattn=text, transformer_options=options(step))
            for text in (texts, NEGATIVE[0][0].expand(len(x), -1, -1))
        ]
        return each[1] + CFG * (each[0] - each[1])

    for step, (sigma, following) in enumerate(pairwise(levels)):
        given(sigma)
        if step == 2:
            x[target] = normalised(x[target], x[appearance], masks)
        edited, plain = predicted(sigma, step), predicted(sigma, None)
        made = plain.clone()
        made[target] = plain[target] + guidance[step] * (edited[target] - plain[target])
        x = x + (x - made) / sigma * (following - sigma)
    given(levels[-1])
    return network.process_latent_out(normalised(x[target], x[appearance], masks))

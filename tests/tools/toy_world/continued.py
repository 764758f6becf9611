"""What trainings share that go on from the first toy checkpoint: its parts, and pictures through its autoencoder."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from .export import State
from .groups import Group, Named, describe
from .modules import TextEncoder, make_autoencoder
from .train import as_tensor, drawn, encode
from .vocabulary import Vocabulary

Shown = tuple[str, list[tuple[str, str, str, str]]]  # a picture's scene, and what a caption can say of each thing in it


def part(state: State, prefix: str) -> State:
    """The tensors under a `prefix`, in float32, without it."""
    return {k.removeprefix(prefix): v.float() for k, v in state.items() if k.startswith(prefix)}


def taught_text(state: State, vocabulary: Vocabulary) -> TextEncoder:
    """The first checkpoint's text encoder with a row for every word of `vocabulary`; new words start at random."""
    encoder = TextEncoder(vocabulary.rows)
    own = part(state, "cond_stage_model.transformer.text_model.")
    weights = {k.removeprefix("embeddings.").removeprefix("encoder."): v for k, v in own.items()}
    table = weights.pop("token_embedding.weight")
    encoder.load_state_dict(weights | {"token_embedding.weight": encoder.token_embedding.weight.detach()})
    known = {int(token): row for row, token in enumerate(state["cond_stage_model.token_ids"], start=1)}
    with torch.no_grad():
        encoder.token_embedding.weight[0] = table[0]
        for row, token in enumerate(vocabulary.token_ids, start=1):
            if token in known:
                encoder.token_embedding.weight[row] = table[known[token]]
    return encoder


def frozen_autoencoder(state: State, device: torch.device) -> nn.Module:
    """The first checkpoint's autoencoder, which learns no more."""
    vae = make_autoencoder(device).to(memory_format=torch.channels_last).requires_grad_(False)
    vae.load_state_dict(part(state, "first_stage_model."))
    return vae


def as_shown(group: Group) -> tuple[np.ndarray, Shown]:
    """A picture, and what captions can say of it."""
    return group.image, (group.scene, [(t.subject, t.colour, t.size, t.side) for t in group.things])


def encoded(draw: Callable[[int], tuple[np.ndarray, Shown]], seeds: range, vae: nn.Module) -> dict:
    """The pictures of `seeds` as `latents` [N,4,16,16], as a network sees them, and what is `shown` on each."""
    images, shown = zip(*drawn(draw, seeds), strict=True)
    raw = encode(vae, as_tensor(images), next(vae.parameters()).device)
    return {"latents": 0.18215 * (raw / vae.vae_scale.cpu() + vae.vae_shift.cpu()), "shown": list(shown)}


def captions(data: dict) -> tuple[Tensor, Callable[[int, np.random.Generator], str]]:
    """The latents of `encoded`, and what describes the i-th of them in a random way."""
    shown = [(scene, [Named(*words) for words in things]) for scene, things in data["shown"]]
    return data["latents"], lambda i, rng: describe(shown[i][1], shown[i][0], rng)

"""How well the attention to a word covers its subject: held-out pictures with noise on them, one model call each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from .cases import HELD_OUT
from .groups import random_group
from .loaded import Toy
from .pictures import random_picture
from .table import estimate

LEVELS = (0.25, 0.5, 0.75)  # shares of the noise schedule's times
Maps = dict[str, Tensor]  # layers, or several added up, -> one map per word [S,16,16]


@dataclass(frozen=True)
class Shown:
    """A picture uint8 [128,128,3], its prompt, and the mask bool [128,128] of each word, in the prompt's order."""

    image: np.ndarray
    seed: int
    prompt: str
    masks: dict[str, np.ndarray]


@dataclass(frozen=True)
class Overlap:
    """IoU of `attention to a word > its mean` with its subject's mask, and with the other subject's if there is one."""

    layer: str
    level: float
    word: str
    own: float
    other: float | None


def single_pictures(count: int) -> list[Shown]:
    """Held-out pictures of the first world."""
    drawn = ((seed, random_picture(seed)) for seed in range(HELD_OUT, HELD_OUT + count))
    return [Shown(p.image, seed, f"{p.kind.subject} on {p.kind.scene}", {p.kind.subject: p.mask}) for seed, p in drawn]


def pair_pictures(count: int) -> list[Shown]:
    """Held-out pictures of two subjects; the prompt names the nearer one first in every other."""
    shown, seed = [], HELD_OUT
    while len(shown) < count:
        group = random_group(seed)
        if len(group.things) == 2:
            things = group.things[:: 1 if len(shown) % 2 else -1]
            prompt = " and ".join(f"{article(t.subject)} {t.subject}" for t in things) + f" on the {group.scene}"
            shown.append(Shown(group.image, seed, prompt, {t.subject: t.mask for t in things}))
        seed += 1
    return shown


def article(word: str) -> str:
    """The article before a word."""
    return "an" if word[0] in "aeiou" else "a"


def overlaps(toy: Toy, pictures: Sequence[Shown], levels: Sequence[float] = LEVELS) -> list[Overlap]:
    """Every layer's overlaps on every picture, at every noise level."""
    found = []
    for level in levels:
        for picture in tqdm(pictures):
            for layer, maps in layer_maps(toy, picture, level).items():
                found += _overlaps(layer, level, picture, maps)
    return found


def layer_maps(toy: Toy, picture: Shown, level: float) -> Maps:
    """The attention to a picture's words, in one call of the model on it with noise of `level`.

    Of `all` layers, of those of each grid, and of each one alone.
    """
    transformer = hasattr(toy.model.model.diffusion_model, "transformer_blocks")
    return _transformer_maps(toy, picture, level) if transformer else _unet_maps(toy, picture, level)


def _overlaps(layer: str, level: float, picture: Shown, maps: Tensor) -> list[Overlap]:
    found, (height, width) = [], picture.image.shape[:2]
    for i, (word, own) in enumerate(picture.masks.items()):
        above = maps[i] > maps[i].mean()
        mask = above.repeat_interleave(height // len(above), 0).repeat_interleave(width // above.shape[1], 1).numpy()
        others = [other for name, other in picture.masks.items() if name != word]
        found.append(Overlap(layer, level, word, _iou(mask, own), _iou(mask, others[0]) if others else None))
    return found


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


def mean_overlap(found: Sequence[Overlap], which: str = "own", **wanted: Any) -> str:
    """Mean of `own` or `other` among those with the `wanted` layer, level or word, and its standard error."""
    chosen = [getattr(o, which) for o in found if all(getattr(o, name) == value for name, value in wanted.items())]
    return estimate(chosen)


def one_call(model: Any, toy: Toy, picture: Shown, level: float) -> Tensor:
    """Call the model once on the picture noised to `level`, as a sampler does; what the sampler gives."""
    import comfy.sample
    import comfy.samplers

    latent = toy.vae.encode(torch.from_numpy(picture.image.copy()).float()[None] / 255)
    latent = comfy.sample.fix_empty_latent_channels(model, latent)
    return comfy.sample.sample_custom(
        model,
        comfy.sample.prepare_noise(latent, picture.seed),
        1.0,
        comfy.samplers.sampler_object("euler"),
        torch.tensor([toy.sigma(level), 0.0]),
        toy.encode(picture.prompt),
        toy.encode(""),
        latent,
        disable_pbar=True,
    )


def _words(toy: Toy, picture: Shown) -> Any:
    from explainable_latents.nodes.core.words.parsing import parse
    from explainable_latents.nodes.host.tokens import tokenize

    subjects = parse(picture.prompt, tokenize(toy.clip, picture.prompt), ", ".join(picture.masks)).with_role("subject")
    if subjects.labels != tuple(picture.masks):
        raise ValueError(f"the words of '{picture.prompt}' are {subjects.labels}, not {tuple(picture.masks)}")
    return subjects


def _unet_maps(toy: Toy, picture: Shown, level: float) -> Maps:
    from explainable_latents.nodes.host.attention.observer import observe

    patched = toy.model.clone()
    capture = observe(patched, _words(toy, picture))
    layers = capture.runs.of(one_call(patched, toy, picture, level)).layers
    grids = sorted({grid for _, grid in layers}, reverse=True)
    maps = {"all": _added(list(layers.values()))}
    maps |= {f"{h}x{w}": _added([m for (_, grid), m in layers.items() if grid == (h, w)]) for h, w in grids}
    return maps | {f"{name} ({h}x{w})": _added([m]) for (name, (h, w)), m in layers.items()}


def _transformer_maps(toy: Toy, picture: Shown, level: float) -> Maps:
    """Probabilities among all keys, text and picture, as they are; the network's text comes before its picture."""
    words = _words(toy, picture).positions()
    blocks: dict[str, Tensor] = {}

    def record(attention: Callable, q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        side = 8
        scores = q[:, :, -side * side :].float() @ k.float().transpose(-1, -2) * q.shape[-1] ** -0.5
        to_words = scores.softmax(-1).sum(1)  # over heads
        maps = torch.stack([to_words[..., list(tokens)].sum(-1) for tokens in words])
        blocks[f"block {kwargs['transformer_options']['block_index']}"] = maps.unflatten(-1, (side, side)).cpu()
        return attention(q, k, v, *args, **kwargs)

    patched = toy.model.clone()
    patched.model_options["transformer_options"]["optimized_attention_override"] = record
    one_call(patched, toy, picture, level)
    return {"all": _added(list(blocks.values()))} | {name: _added([maps]) for name, maps in blocks.items()}


def _added(maps: list[Tensor]) -> Tensor:
    """Maps [S,1,h,w] of several layers, added up on the latent's grid: [S,16,16]."""
    from explainable_latents.nodes.core.attention.aggregate import aggregate

    return aggregate(maps, (16, 16))[:, 0]

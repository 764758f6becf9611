"""The gradient of a loss on cross-attention by the sampler's state.

The state of the prompt's rows becomes a leaf of autograd as it enters the model, which scales and rounds it as ever;
what runs until the last chosen attention is recorded, and one backward pass per call of the network gives the gradient
by the state itself. Everything is released before the call returns, even by an error.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ...core.attention.aggregate import resize
from ...core.attention.refine import AUTO
from ...core.gradients.loss_scale import LossScale
from ...core.maps.saliency import Saliency
from ...core.methods.guidance import PROMPT_WORDS, AttentionLoss, GuidedTokens, Part, WordLosses
from ...core.words.subjects import Subjects
from ..attention.layer_choice import LayerSelection, select_layers
from ..attention.named_tokens import NamedTokens
from ..attention.override import processing
from ..attention.positives import PromptRows
from ..compiled import as_written
from ..early_exit import may_leave
from ..families.family import family_of, network_of
from ..families.offers import GUIDANCE
from ..families.unet_gradients import LayersUntil
from .differentiable import differentiable
from .measurement import Evaluation, Measurement
from .recorded_features import RecordedFeatures
from .word_maps import LeftNetwork, WordMaps

log = logging.getLogger("explainable_latents")

# CLIP reads a text in chunks of so many tokens, each with a first and a last one of its own.
_CHUNK = 77

# In place of a layer's name: the maps that the loss is about.
_GUIDED = "guided"

# A latent fine enough that every layer's grid shows how many times coarser it is.
_FINE = 1024


@dataclass(frozen=True)
class Measured:
    """What one measurement found, of B pictures and S words; the mean over the prompt's conditionings.

    gradient: of the pictures' losses by the state [B,C,h,w], not finite where none could be found. losses: of the words
    [S,B]. total: of the pictures [B]. remaining: see `WordLosses`. saliency: the maps that the losses are about, if
    there are any. labels: of the words, or of what else the losses are about.
    """

    gradient: Tensor
    losses: Tensor
    total: Tensor
    remaining: Tensor
    saliency: Saliency | None
    labels: tuple[str, ...]


class LatentGradient(Measurement):
    """Measures `loss` of `subjects` and its gradient during model calls made through `measure`; else does nothing.

    patcher: the model, changed in place: pass a clone. key: of its wrappers. layers: AUTO for the loss's own, or see
    `select_layers`. prompt: the subjects' as a CONDITIONING, None for the first positive one. left: how many calls of
    the network were ended early. Raises ValueError for a model that does not offer this, an unknown layer, or no word.
    """

    def __init__(
        self,
        patcher: ModelPatcher,
        key: str,
        subjects: Subjects,
        loss: AttentionLoss,
        layers: str = AUTO,
        prompt: Sequence[Sequence[Any]] | None = None,
    ) -> None:
        family, self._loss, self._subjects = family_of(patcher, GUIDANCE), loss, subjects
        self._words = subjects.positions()
        if not self._words:
            raise ValueError("there is no subject: name one in 'override' of Parse Subjects or Prompt with Words")
        grids = family.site_grids(network_of(patcher), (_FINE, _FINE))
        scales = {name: _FINE // side for name, (side, _) in grids.items()}
        usual = LayerSelection(frozenset(loss.layers(scales)), frozenset())
        own = layers.strip().lower() == AUTO
        self._selection = usual if own else select_layers(tuple(grids), layers, "cross-attention", (AUTO,))
        self._scale_of_picture = patcher.get_model_object("latent_format").spacial_downscale_ratio
        self._loss_scale, self._asked = LossScale(), loss
        self._found: list[tuple[Tensor, ...]] = []
        self.left = 0
        super().__init__(patcher, key, family, subjects, prompt)

    def measure(self, call: Callable[[], object], loss: AttentionLoss | None = None) -> Measured | None:
        """What the model call that `call` makes tells; None if the prompt is not active in it (a timestep range).

        loss: of this call, about the same layers, in place of the usual one.
        """
        self._found, self._asked = [], loss or self._loss
        try:
            with self.measuring():
                call()
                done = self.call
            found = self._found
        finally:
            self._found, self._asked = [], self._loss
        if done is None or not found:
            return None
        numbers = (torch.stack(each).mean(0) for each in zip(*found, strict=True))
        maps = resize(done.layers()[_GUIDED], done.grid).float()
        labels, scale = self._subjects.labels, self._scale_of_picture
        return Measured(*numbers, Saliency(maps, labels, done.sigma, done.step, done.grid, scale), labels)

    def bytes_needed(self, model: ModelPatcher, count: int, grid: tuple[int, int], room: float) -> float:
        """See `Measurement`; blocks are repeated if the device has less, see `differentiable`."""
        network, number = (
            as_written(model.get_model_object("diffusion_model")),
            model.model.get_dtype_inference().itemsize,
        )
        memory = self._until(network, grid).memory(grid, number)
        needed = memory.once(count, _CHUNK)
        return needed if needed <= room else memory.once(count, _CHUNK, repeat=True)

    def evaluated(self, run: Evaluation) -> Tensor:
        """See `Measurement`."""
        leave = may_leave(run.model, run.control, run.options, self.model_options)
        layers, grid = self._until(run.network, self.call.grid), tuple(run.x.shape[-2:])
        memory = layers.memory(grid, run.model.get_dtype_inference().itemsize).once(len(run.x), run.context.shape[1])
        repeat = memory + len(run.x) * self.plain > comfy.model_management.get_free_memory(run.x.device)
        positions, tokens = self._tokens(run.rows)
        named = NamedTokens(tuple((position,) for position in positions))
        how = self._loss.each_head, self._loss_scale.passed, leave
        maps = WordMaps(run.rows, named, layers.sites, layers.end, *how)
        with (
            RecordedFeatures(self.family, self._block(run.network), layers.end, leave) as features,
            differentiable(layers, run.x.device, run.options, repeat=repeat),
            processing(features.watched(run.options), self.family, [maps], run.called) as options,
            torch.enable_grad(),
        ):
            precision = torch.promote_types(run.x.dtype, torch.float32)
            leaf = run.x.detach().to(precision, copy=True).requires_grad_()
            try:
                out = run.make(leaf, run.t.clone(), options).detach()
            except LeftNetwork:
                self.left += 1
                out = torch.zeros_like(run.x)
            torch.set_grad_enabled(True)
            maps.require_all(run.network, run.options)
            found = [
                self._asked.of_words(
                    [each[i] for each in maps.maps.values()],
                    tokens,
                    Part(self.call.grid, row.offset, row.size),
                    features.of_rows(row, run.network, run.options),
                )
                for i, row in enumerate(run.rows)
            ]
            totals = [self._asked.of_picture(each.losses) for each in found]
            gradient = self._gradient(totals, leaf, run.rows)
        for each, total, row in zip(found, totals, run.rows, strict=True):
            self._keep(gradient, each, total.detach(), row)
        return out

    def _gradient(self, totals: list[Tensor], leaf: Tensor, rows: list[PromptRows]) -> Tensor:
        """Of all pictures' losses by the leaf: they do not depend on each other. 0 of a loss that is always 0."""
        if not any(total.requires_grad for total in totals):
            return torch.zeros_like(leaf)
        numbers = range(len(leaf))
        counted = [
            number
            for total, row in zip(totals, rows, strict=True)
            for number, loss in zip(numbers[row.rows], total.detach().tolist(), strict=True)
            if 0 < loss < float("inf")
        ]
        return self._loss_scale.of_rows(torch.cat(totals).sum(), leaf, counted)

    def _keep(self, gradient: Tensor, found: WordLosses, total: Tensor, row: PromptRows) -> None:
        """Put the gradient of a conditioning's rows at its place in the latent."""
        own, (y, x), (a, b) = gradient[row.rows], row.offset, row.size
        placed = own.new_zeros((*own.shape[:2], *self.call.grid))
        placed[..., y : y + a, x : x + b] = own
        device = self.call.device
        numbers = (placed, found.losses.detach(), total, found.remaining.detach())
        self._found.append(tuple(each.to(device) for each in numbers))
        self.call.maps.setdefault(_GUIDED, []).append((found.maps.detach(), row))

    def _until(self, network: nn.Module, grid: tuple[int, int]) -> LayersUntil:
        """The layers until the chosen ones. Raises ValueError if a latent of this size has no such grid."""
        grids = self.family.site_grids(network, grid)
        chosen = [name for name, own in grids.items() if (name, own) in self._selection]
        if not chosen:
            there = ", ".join(sorted({f"{h}x{w}" for h, w in grids.values()}))
            raise ValueError(
                f"no cross-attention layer has one of the chosen grids; this latent gives {there} (height x width)"
            )
        return self.family.layers_until(network, chosen, self._block(network))

    def _block(self, network: nn.Module) -> str | None:
        """The one whose features the loss needs, if any: the decoder's last but one."""
        return list(self.family.blocks(network))[-1] if self._loss.features else None

    def _tokens(self, rows: list[PromptRows]) -> tuple[list[int], GuidedTokens]:
        """The positions in the prompt's context whose attention is needed, and which of them the loss is about."""
        compared: set[int] = set()
        if self._loss.compared is not None:
            length = min(context.shape[1] - row.padding for row in rows for context in row.contexts)
            by_padding = all(set(item.tokens) == {"l"} for item in self._subjects.items)
            whole = by_padding if self._loss.compared == AUTO else self._loss.compared != PROMPT_WORDS
            inner = (position for position in range(length) if position % _CHUNK not in (0, _CHUNK - 1))
            compared = set(inner if whole else self._subjects.word_positions())
        positions = sorted(compared.union(*self._words))
        numbers = {position: number for number, position in enumerate(positions)}
        of_words = tuple(tuple(numbers[position] for position in word) for word in self._words)
        return positions, GuidedTokens(of_words, tuple(range(len(positions))))

"""The gradient of a score of the predicted picture by the sampler's state.

The chain is taken in two parts. First the prediction of the positive conditionings, as the host combines them, is
recorded as a function of the state. Then each picture by itself is decoded and scored, with the gradient by its latent;
and these gradients go back through the network together. So only one picture is decoded at a time. Everything is
released before the call returns, even by an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import comfy.model_management
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from torch import Tensor

from ...core.gradients.loss_scale import LossScale
from ...core.methods.picture_score import PictureScore
from ..attention.override import processing
from ..compiled import as_written, uncompiled
from ..families.family import family_of, network_of
from ..families.offers import GUIDANCE
from ..families.sites import NetworkCall
from ..ui.running_node import stop_when_cancelled
from .differentiable import differentiable
from .foreign_attention import RecordedAttention, attention_in_own_precision
from .latent_gradient import Measured
from .measurement import without_splitting
from .memory_request import asking_for
from .recorded_pictures import Pictures


class PictureGradient:
    """Measures `scores` of the predicted picture and their gradient during model calls made through `measure`.

    patcher: the model, changed in place: pass a clone. key: of its wrappers. pictures: what a latent looks like to
    CLIP; their models are loaded with the patched one. Raises ValueError for a model that does not offer this, no
    score, or a score of embeddings of another width than those of the pictures.
    """

    def __init__(self, patcher: ModelPatcher, key: str, pictures: Pictures, scores: Sequence[PictureScore]) -> None:
        self._family = family_of(patcher, GUIDANCE)
        if not scores:
            raise ValueError("nothing says what the picture shall be like: connect 'text', or choose 'aesthetics'")
        for score in scores:
            if score.width != pictures.width:
                raise ValueError(
                    f"{score.name} is about embeddings of {score.width} numbers, but this clip_vision gives "
                    f"{pictures.width}: load the image encoder of the same CLIP model (768: ViT-L/14, 1024: ViT-H/14, "
                    "1280: ViT-bigG/14)"
                )
        self._pictures, self._scores = pictures, tuple(scores)
        self._network_scale, self._picture_scale = LossScale(), LossScale()
        self._measuring, self._found = False, None
        self._calls: ExitStack | None = None
        patcher.set_additional_models(key, pictures.patchers)
        for kind, wrapper in (
            (WrappersMP.PREPARE_SAMPLING, asking_for(self.bytes_needed)),
            (WrappersMP.PREDICT_NOISE, self._around_step),
            (WrappersMP.APPLY_MODEL, self._around_model),
        ):
            patcher.add_wrapper_with_key(kind, key, wrapper)

    def measure(self, call: Callable[[], object]) -> Measured | None:
        """What the model call that `call` makes tells; None if no positive is active in it (a timestep range)."""
        self._measuring, self._found = True, None
        try:
            call()
            return self._found
        finally:
            self._measuring, self._found = False, None

    def bytes_needed(self, model: ModelPatcher, count: int, grid: tuple[int, int], room: float) -> float:
        """The memory for `count` latents of (h, w) beside the call itself. room: what the device has beside that."""
        number = model.model.get_dtype_inference().itemsize
        memory = self._family.whole_network(network_of(model)).memory(grid, number)
        seen, needed = self._pictures.bytes_needed(grid), memory.once(count, 0)
        return seen + (needed if needed + seen <= room else memory.once(count, 0, repeat=True))

    def evaluate(self, guider: Any, x: Tensor, timestep: Tensor, model_options: dict) -> Tensor:
        """Evaluate the positive conditionings alone at state `x` [B,C,h,w], and measure; their prediction."""
        listed = guider.conds.get("positive") or []
        model, options = guider.inner_model, without_splitting(model_options)
        layers = self._family.whole_network(as_written(model.diffusion_model))
        memory = layers.memory(tuple(x.shape[-2:]), model.get_dtype_inference().itemsize).once(len(x), 0)
        plain = len(x) * model.memory_required([1, *x.shape[1:]])
        repeat = memory + plain > comfy.model_management.get_free_memory(x.device)
        transformer = model_options.get("transformer_options", {})
        with ExitStack() as exits:
            exits.enter_context(uncompiled())
            exits.enter_context(differentiable(layers, x.device, transformer, repeat=repeat))
            exits.enter_context(torch.enable_grad())
            self._calls = exits.enter_context(ExitStack())
            exits.callback(setattr, self, "_calls", None)
            leaf = x.detach().to(torch.promote_types(x.dtype, torch.float32), copy=True).requires_grad_()
            predicted = comfy.samplers.calc_cond_batch(model, [listed], leaf, timestep.clone(), options)[0]
            if predicted.requires_grad:
                self._found = self._measured(model.process_latent_out(predicted), leaf)
        return predicted.detach()

    def _measured(self, latents: Tensor, leaf: Tensor) -> Measured:
        """What the pictures of predicted latents [B,C,h,w], recorded as a function of the `leaf`, tell."""
        losses, slopes = [], []
        with self._pictures.recorded():
            for number in range(len(latents)):
                stop_when_cancelled(number, len(latents))
                latent = latents[number : number + 1].detach().clone().requires_grad_()
                embeddings = self._pictures.embeddings(latent)
                each = torch.stack([score.loss(embeddings) for score in self._scores])
                slopes.append(self._picture_scale.of_rows(self._total(each).sum(), latent, _finite(each.sum(0))))
                losses.append(each.detach())
        found, slope = torch.cat(losses, 1), torch.cat(slopes)
        counted = [i for i in _finite(slope.flatten(1).sum(1)) if bool(slope[i].any())]
        gradient = self._network_scale.of_rows((latents * slope).sum(), leaf, counted)
        total = self._total(found)
        return Measured(gradient.detach(), found, total, total, None, tuple(score.name for score in self._scores))

    def _total(self, losses: Tensor) -> Tensor:
        """The loss of each picture [B], from those of the scores [S,B]."""
        weights = losses.new_tensor([score.weight for score in self._scores])
        return weights @ losses

    def _around_step(
        self, executor: WrapperExecutor, x: Tensor, timestep: Tensor, model_options: dict, *args: Any, **kwargs: Any
    ) -> Tensor:
        """PREDICT_NOISE wrapper: while measuring, `evaluate` the first call; `executor.class_obj` is the guider."""
        if not self._measuring or self._found is not None:
            return executor(x, timestep, model_options, *args, **kwargs)
        return self.evaluate(executor.class_obj, x, timestep, model_options)

    def _around_model(
        self,
        executor: WrapperExecutor,
        x: Tensor,
        t: Tensor,
        c_concat: Tensor | None,
        c_crossattn: Tensor | None,
        control: dict | None,
        transformer_options: dict,
        **conds: Any,
    ) -> Tensor:
        """APPLY_MODEL wrapper: where the call is recorded, so is its attention, until the way back has ended."""
        options = transformer_options
        if self._calls is not None:
            called = NetworkCall(as_written(executor.class_obj.diffusion_model), x.shape, c_crossattn.shape[1])
            attention = RecordedAttention(attention_in_own_precision, self._network_scale.passed)
            options = self._calls.enter_context(processing(options, self._family, [attention], called))
        return executor(x, t, c_concat, c_crossattn, control, options, **conds)


def _finite(values: Tensor) -> list[int]:
    """The places of the finite ones among values [B]."""
    return values.isfinite().nonzero()[:, 0].tolist()

"""The gradient of a loss on attention by the sampler's state: against finite differences, in every way to take it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from explainable_latents.nodes.core.layout import Box
from explainable_latents.nodes.core.methods.attend_and_excite import AttendAndExcite
from explainable_latents.nodes.core.methods.box_losses import BoxLoss
from explainable_latents.nodes.core.methods.guidance import AttentionLoss, GuidedTokens, Part, WordLosses
from explainable_latents.nodes.core.methods.self_guidance import Noted, SelfGuidance
from explainable_latents.nodes.core.methods.word_places import Boxes
from explainable_latents.nodes.host.autograd.latent_gradient import LatentGradient, Measured
from tests.host.autograd.test_gradients_through_attention import overridden, spelled_out
from tests.host.unets import SUBJECTS, conditioning, noise, random_unet

KEY = "explainable_latents.test"
PUBLISHED = AttendAndExcite()
PLACES = Boxes(((Box("dog", 0, 0, 0.6, 0.6),), (Box("beach", 0.2, 0.4, 1, 1),)))


@dataclass
class AtNoiseLevel:
    """Measures a model at one noise level, on states of any precision, as a sampler function would be given them."""

    model: Any
    positive: list
    sigma: float = 2.0
    loss: AttentionLoss = PUBLISHED
    layers: str = "auto"

    def __post_init__(self) -> None:
        self.patcher = self.model.clone()
        self.gradient = LatentGradient(self.patcher, KEY, SUBJECTS, self.loss, self.layers)

    def __call__(self, *states: Tensor, loss: AttentionLoss | None = None) -> list[Measured]:
        import comfy.samplers

        found: list[Measured] = []

        def function(model: Callable, x: Tensor, sigmas: Tensor, extra_args: dict, **_: Any) -> Tensor:
            for state in states:
                levels = sigmas[0] * state.new_ones(len(state))
                found.append(self.gradient.measure(lambda s=state, t=levels: model(s, t, **extra_args), loss))
            return x

        guider = comfy.samplers.CFGGuider(self.patcher)
        guider.set_conds(self.positive, conditioning(2))
        start = torch.zeros(states[0].shape)
        sampler = comfy.samplers.KSAMPLER(function)
        with torch.inference_mode():
            guider.sample(start, start, sampler, torch.tensor([self.sigma, 0.0]), disable_pbar=True, seed=0)
        return found


def state(batch: int = 1, grid: tuple[int, int] = (8, 8), dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return 2.2 * noise(batch, grid, seed).to(dtype)


def two_positives() -> list:
    """The prompt for the whole picture and, once more, for a part of it."""
    (context, pooled), *_ = conditioning(1)
    return [[context, pooled], [context, {**pooled, "area": (6, 4, 2, 3), "strength": 0.8}]]


CASES = [
    ("SD15", 1, (8, 8), conditioning(1)),
    ("SD20", 2, (6, 8), conditioning(1)),
    ("SDXL", 1, (8, 8), conditioning(1)),
    ("SD15", 1, (8, 10), [[conditioning(1)[0][0], {"area": (6, 4, 2, 3)}]]),
    ("SD15", 2, (8, 8), two_positives()),
]


IN_PLACES = [
    (BoxLoss(PLACES, kind, 0.8, 1.5, 0.5), case)
    for kind, case in (
        ("box share", CASES[2]),
        ("box share", CASES[4]),
        ("top values", CASES[3]),
        ("BoxDiff", ("SD15", 2, (7, 9), conditioning(1))),
    )
]


APPEARANCE = SelfGuidance(frozenset({0}), x=0.1, keep_shape=0.3, keep_appearance=1.5)
LOOK_ALONE = SelfGuidance(frozenset({0, 1}), "free", size="free", keep_others=0.0, keep_appearance=1.0)


class FixedShapes:
    """The loss with features averaged under the shapes of the first state that is measured, whatever the state's."""

    each_head, compared, features = False, None, True

    def __init__(self, loss: SelfGuidance) -> None:
        self.layers, self.of_picture = loss.layers, loss.of_picture
        self._loss = loss
        self._rest = None if loss.position == loss.size == "free" else replace(loss, keep_appearance=0.0)
        self._first: dict[Part, list[Tensor]] = {}

    def of_words(self, maps: Sequence[Tensor], tokens: GuidedTokens, part: Part, features: Tensor) -> WordLosses:
        first = self._first.setdefault(part, [layer.detach() for layer in maps])
        found = self._loss.of_words(first, tokens, part, features)
        if self._rest is None:
            return found
        now, then = (self._rest.of_words(each, tokens, part).losses for each in (maps, first))
        return replace(found, losses=found.losses + now - then)


def beside_another_state(measure: AtNoiseLevel, x: Tensor) -> SelfGuidance:
    """The loss beside a plain run that had another state than x."""
    noted = Noted(measure.loss)
    measure(x + 0.3 * noise(len(x), tuple(x.shape[-2:]), seed=9).to(x), loss=noted)
    return measure.loss.beside(noted.found)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("loss", [APPEARANCE, LOOK_ALONE], ids=["moved", "look alone"])
def test_the_slope_of_an_appearance_in_every_direction(comfy, loss, case):
    """As above, through features of the decoder; the shape under which they are averaged counts as constant.

    So the oracle is the loss of features under the shapes that the state itself has, moved with the features alone.
    """
    kind, batch, grid, positive = case
    measure = AtNoiseLevel(random_unet(kind, torch.float64, seed=3), positive, loss=loss)
    x, step, count = state(batch, grid), 1e-6, 6
    beside = beside_another_state(measure, x)
    (here,) = measure(x, loss=beside)
    fixed = FixedShapes(beside)
    measure(x, loss=fixed)
    directions = torch.randn(count, *x.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    around = measure(*(x + sign * step * each for each in directions for sign in (1, -1)), loss=fixed)
    assert here.gradient.dtype == torch.float64
    assert float(here.gradient.norm()) > 0
    for direction, ahead, back in zip(directions, around[::2], around[1::2], strict=True):
        slopes = (ahead.total - back.total) / (2 * step)
        found = (here.gradient * direction).flatten(1).sum(1)
        torch.testing.assert_close(found, slopes, rtol=1e-5, atol=1e-6 * float(slopes.abs().max()))


@pytest.mark.parametrize(("loss", "case"), [*((PUBLISHED, case) for case in CASES), *IN_PLACES])
def test_it_is_the_slope_of_the_loss_in_every_direction(comfy, loss, case):
    """Central differences in float64, of the state itself and so through the model's scaling of its input."""
    kind, batch, grid, positive = case
    measure = AtNoiseLevel(random_unet(kind, torch.float64, seed=3), positive, loss=loss)
    x, step, count = state(batch, grid), 1e-6, 8
    directions = torch.randn(count, *x.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    here, *around = measure(x, *(x + sign * step * each for each in directions for sign in (1, -1)))
    assert here.gradient.dtype == torch.float64
    for direction, ahead, back in zip(directions, around[::2], around[1::2], strict=True):
        slopes = (ahead.total - back.total) / (2 * step)
        found = (here.gradient * direction).flatten(1).sum(1)
        # away from where two peaks are equally high; 2e-9 to 3e-7 measured
        torch.testing.assert_close(found, slopes, rtol=1e-6, atol=1e-7 * float(slopes.abs().max()))


def test_outside_of_the_prompts_area_it_is_zero(comfy):
    area = [[conditioning(1)[0][0], {"area": (6, 4, 2, 3)}]]
    (found,) = AtNoiseLevel(random_unet(seed=3), area)(state(grid=(8, 10), dtype=torch.float32))
    inside = torch.zeros(8, 10, dtype=torch.bool)
    inside[2:8, 3:7] = True
    assert found.gradient[..., ~inside].eq(0).all()
    assert found.gradient[..., inside].ne(0).all()
    assert found.saliency.maps.shape == (2, 1, 8, 10)


@pytest.mark.parametrize("kind", ["SD15", "SDXL"])
@pytest.mark.parametrize("loss", [PUBLISHED, LOOK_ALONE], ids=["attention", "appearance"])
@pytest.mark.parametrize("layers", ["auto", "all"])
def test_repeating_blocks_or_completing_the_call_gives_the_same(comfy, little_memory, kind, loss, layers):
    """In little memory blocks are run again; beside another node's patch the call is not left early: bit for bit."""
    model, x = random_unet(kind, seed=3), state(2, dtype=torch.float32)
    how = {"loss": loss, "layers": layers}
    plain = AtNoiseLevel(model, conditioning(1), **how)
    given = beside_another_state(plain, x) if loss.features else None
    plain.gradient.left = 0
    (expected,) = plain(x, loss=given)
    assert plain.gradient.left == 1
    watched = model.clone()
    watched.set_model_input_block_patch(lambda h, options: h)
    completed = AtNoiseLevel(watched, conditioning(1), **how)
    assert torch.equal(completed(x, loss=given)[0].gradient, expected.gradient)
    assert completed.gradient.left == 0
    little_memory()
    repeated = AtNoiseLevel(model, conditioning(1), **how)
    assert torch.equal(repeated(x, loss=given)[0].gradient, expected.gradient)


def test_a_batch_is_as_many_pictures_by_themselves(comfy):
    model, x = random_unet(seed=3), state(3, dtype=torch.float32)
    measure = AtNoiseLevel(model, conditioning(1))
    together, *alone = measure(x, *x.split(1))
    for i, one in enumerate(alone):
        # a batch is added up in another order
        torch.testing.assert_close(together.gradient[i : i + 1], one.gradient, rtol=1e-3, atol=1e-7)
        torch.testing.assert_close(together.losses[:, i : i + 1], one.losses, rtol=1e-5, atol=1e-6)


def test_a_picture_that_is_not_finite_leaves_the_others_alone(comfy):
    measure = AtNoiseLevel(random_unet(seed=3), conditioning(1))
    x = state(2, dtype=torch.float32)
    broken = x.clone()
    broken[0, 0, 0, 0] = torch.nan
    whole, found = measure(x, broken)
    assert found.total.isnan().tolist() == [True, False]
    torch.testing.assert_close(found.gradient[1], whole.gradient[1], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("dtype", "closest"), [(torch.float16, 0.999), (torch.bfloat16, 0.97)])
@pytest.mark.parametrize("loss", [PUBLISHED, BoxLoss(PLACES)])
def test_half_precision_keeps_the_direction(comfy, dtype, closest, loss):
    """Cosine to the gradient in float32: 0.99998 and 0.996 measured for Attend-and-Excite."""
    found = []
    for precision in (torch.float32, dtype):
        measure = AtNoiseLevel(random_unet("SD15", precision, seed=3), conditioning(1), loss=loss)
        (one,) = measure(state(2, dtype=torch.float32))
        assert one.gradient.dtype == torch.float32
        found.append(one.gradient)
    assert torch.cosine_similarity(*(each.flatten(1) for each in found)).min() >= closest


class Small(torch.autograd.Function):
    """Attention's output unchanged, whose gradient passes float16 in units in which it is very small, or overflows."""

    @staticmethod
    def forward(x, unit):
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.unit = inputs[1]

    @staticmethod
    def backward(ctx, gradient):
        return (gradient * ctx.unit).half().float() / ctx.unit, None


@pytest.mark.parametrize("unit", [2.0**-10, 2.0**12], ids=["small", "large"])
def test_small_and_large_gradients_survive_float16(comfy, unit):
    model, x = random_unet(seed=3), state(dtype=torch.float32)

    def attention(q, k, v, heads):
        return Small.apply(spelled_out(q, k, v, heads), unit)

    plain, scaled = (
        AtNoiseLevel(each, conditioning(1))(x)[0].gradient for each in (model, overridden(model, attention))
    )
    # three digits of float16
    assert float((scaled - plain).norm() / plain.norm()) <= 5e-3


def test_the_layers_that_are_named(comfy):
    model, x = random_unet(seed=3), state(dtype=torch.float32)
    losses = {}
    for layers in ("auto", "4x4", "output.0", "8x8", "all"):
        losses[layers] = AtNoiseLevel(model, conditioning(1), layers=layers)(x)[0].losses
    assert torch.equal(losses["auto"], losses["4x4"])
    for layers in ("output.0", "8x8", "all"):
        assert not torch.equal(losses[layers], losses["auto"])
    with pytest.raises(
        ValueError, match=r"no cross-attention layer has one of the chosen grids; this latent gives 4x4, 8x8"
    ):
        AtNoiseLevel(model, conditioning(1), layers="16x16")(x)
    with pytest.raises(ValueError, match=r"no cross-attention layer is called 'input\.99'"):
        AtNoiseLevel(model, conditioning(1), layers="input.99")


def test_words_compete_with_the_whole_text_or_with_the_prompts_words(comfy):
    """auto: the whole text for a model with CLIP-L alone, the prompt's words for others."""
    model, x = random_unet(seed=3), state(dtype=torch.float32)
    found = {}
    for compared in ("auto", "whole text", "prompt words"):
        loss = AttendAndExcite(compared=compared)
        found[compared] = AtNoiseLevel(model, conditioning(1), loss=loss)(x)[0].losses
    assert torch.equal(found["auto"], found["prompt words"])  # these subjects have tokens of two encoders
    assert not torch.equal(found["auto"], found["whole text"])


def test_a_prompt_that_is_not_active_gives_nothing(comfy):
    late = [[conditioning(1)[0][0], {"start_percent": 0.9, "end_percent": 1.0}]]
    assert AtNoiseLevel(random_unet(seed=3), late)(state(dtype=torch.float32)) == [None]


def test_without_words_it_says_where_to_name_some(comfy):
    with pytest.raises(ValueError, match="there is no subject: name one in 'override'"):
        LatentGradient(random_unet().clone(), KEY, replace(SUBJECTS, items=()), AttendAndExcite())

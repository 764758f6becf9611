"""The gradient of a score of the predicted picture by the state: against finite differences through the host's code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from explainable_latents.nodes.core.methods.picture_score import Aesthetics, TextMatch, clip_pixels
from explainable_latents.nodes.host.autograd.latent_gradient import Measured
from tests.host.autograd.test_memory import used_by
from tests.host.eyes import SIDE, WIDTH, random_eyes, random_vae
from tests.host.unets import conditioning, noise, random_unet

KEY = "explainable_latents.test"
TEXT = TextMatch(torch.randn(WIDTH, generator=torch.Generator().manual_seed(9)), 2.0)
HEAD = Aesthetics([(torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(4)), torch.ones(1))], 0.5)


@dataclass
class Watched:
    """Measures a model at one noise level, on states of any precision, as a sampler function would be given them."""

    model: Any
    vae: Any
    eyes: Any
    positive: list
    scores: tuple = (TEXT, HEAD)
    sigma: float = 2.0

    def __post_init__(self) -> None:
        from explainable_latents.nodes.host.autograd.picture_gradient import PictureGradient
        from explainable_latents.nodes.host.autograd.recorded_pictures import Pictures

        self.patcher = self.model.clone()
        self.gradient = PictureGradient(self.patcher, KEY, Pictures(self.vae, self.eyes), self.scores)

    def run(self, action: Callable[..., None]) -> None:
        import comfy.samplers

        def function(model: Callable, x: Tensor, sigmas: Tensor, extra_args: dict, **_: Any) -> Tensor:
            action(model, sigmas[0], extra_args)
            return x

        guider = comfy.samplers.CFGGuider(self.patcher)
        guider.set_conds(self.positive, conditioning(2))
        guider.set_cfg(1.0)
        start = torch.zeros(1, 4, 8, 8)
        with torch.inference_mode():
            guider.sample(
                start, start, comfy.samplers.KSAMPLER(function), torch.tensor([self.sigma, 0.0]), disable_pbar=True
            )

    def __call__(self, *states: Tensor) -> list[Measured]:
        found: list[Measured] = []

        def each(model: Callable, sigma: Tensor, extra: dict) -> None:
            for state in states:
                levels = sigma * state.new_ones(len(state))
                found.append(self.gradient.measure(lambda s=state, t=levels: model(s, t, **extra)))

        self.run(each)
        return found

    def losses(self, *states: Tensor) -> list[Tensor]:
        """The losses [S,B] by the host's own call, decoding and image encoder, without any of our recording."""
        found: list[Tensor] = []

        def each(model: Callable, sigma: Tensor, extra: dict) -> None:
            for state in states:
                predicted = model(state, sigma * state.new_ones(len(state)), **extra)
                latents = self.patcher.model.process_latent_out(predicted)
                decoded = self.vae.first_stage_model.decode(latents.to(self.vae.vae_dtype))
                pictures = (decoded.to(state) + 1).div(2).clamp(0, 1)
                pixels = clip_pixels(pictures, SIDE, self.eyes.image_mean, self.eyes.image_std)
                embeddings = self.eyes.model(pixel_values=pixels)[2]
                found.append(torch.stack([score.loss(embeddings) for score in self.scores]))

        self.run(each)
        return found


def state(batch: int = 1, grid: tuple[int, int] = (8, 8), dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return 2.2 * noise(batch, grid, seed).to(dtype)


def two_positives() -> list:
    (context, pooled), *_ = conditioning(1)
    (other, _), *_ = conditioning(5)
    return [[context, pooled], [other, {**pooled, "area": (6, 4, 2, 3), "strength": 0.8}]]


@pytest.fixture
def doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the host rounds to float32 stays as it is, so that differences can be small."""
    monkeypatch.setattr(Tensor, "float", lambda self: self)


@pytest.mark.parametrize(
    ("kind", "batch", "grid", "positive", "tiny"),
    [
        ("SD15", 1, (8, 8), conditioning(1), False),
        ("SD15", 2, (6, 10), conditioning(1), True),
        ("SDXL", 1, (8, 6), conditioning(1), False),
        ("SD15", 1, (8, 10), two_positives(), False),
    ],
)
def test_it_is_the_slope_of_the_loss_in_every_direction(comfy, doubles, kind, batch, grid, positive, tiny):
    wide = torch.float64
    watched = Watched(random_unet(kind, wide, seed=3), random_vae(wide, tiny=tiny), random_eyes(wide), positive)
    x, step, count = state(batch, grid), 1e-6, 4
    directions = torch.randn(count, *x.shape, generator=torch.Generator().manual_seed(5), dtype=wide)
    (here,) = watched(x)
    assert here.gradient.dtype == wide
    assert here.labels == ("text", "aesthetics")
    assert here.saliency is None
    plain, *around = watched.losses(x, *(x + sign * step * each for each in directions for sign in (1, -1)))
    torch.testing.assert_close(here.losses, plain, rtol=1e-9, atol=1e-12)
    weights = torch.tensor([2.0, 0.5], dtype=wide)
    torch.testing.assert_close(here.total, weights @ plain, rtol=1e-9, atol=1e-12)
    for direction, ahead, back in zip(directions, around[::2], around[1::2], strict=True):
        slopes = weights @ (ahead - back) / (2 * step)
        found = (here.gradient * direction).flatten(1).sum(1)
        torch.testing.assert_close(found, slopes, rtol=1e-5, atol=1e-6 * float(slopes.abs().max()))


@pytest.mark.parametrize(("dtype", "closest"), [(torch.float16, 0.995), (torch.bfloat16, 0.93)])
@pytest.mark.parametrize("kind", ["SD15", "SDXL"])
def test_half_precision_keeps_the_direction(comfy, dtype, closest, kind):
    """Cosine to the gradient with the network in float32; VAE and image encoder are the same.

    Measured: above 0.9999 in float16 and 0.9999 in bfloat16 for SD 1.5; for SDXL 0.9987 in float16, 0.949 in bfloat16.
    """
    seen, found = (random_vae(), random_eyes()), []
    for precision in (torch.float32, dtype):
        (one,) = Watched(random_unet(kind, precision, seed=3), *seen, conditioning(1))(state(2, dtype=torch.float32))
        assert one.gradient.dtype == torch.float32
        found.append(one.gradient)
    assert torch.cosine_similarity(*(each.flatten(1) for each in found)).min() >= closest


@pytest.mark.parametrize("size", [(32, 32), (48, 64), (100, 40)])
def test_pictures_are_prepared_as_the_host_does_but_for_its_rounding(comfy, size):
    from comfy.clip_model import clip_preprocess

    mean, std = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
    pictures = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(2))
    expected = clip_preprocess(pictures.movedim(1, -1), SIDE, list(mean), list(std))
    found = clip_pixels(pictures, SIDE, mean, std)
    assert float((found - expected).abs().max()) <= 0.5 / 255 / min(std) + 1e-4


def test_a_broken_picture_does_not_reach_the_others(comfy):
    """Each picture of a batch has its own gradient: that of one without a finite state is not finite."""
    watched = Watched(random_unet(seed=3), random_vae(), random_eyes(), conditioning(1))
    x = state(3, dtype=torch.float32)
    whole, *alone = watched(x, *x.split(1))
    for i, one in enumerate(alone):
        torch.testing.assert_close(whole.gradient[i : i + 1], one.gradient, rtol=5e-3, atol=1e-6)
    x[1] = float("nan")
    (broken,) = watched(x)
    assert not broken.gradient[1].isfinite().any()
    torch.testing.assert_close(broken.gradient[::2], whole.gradient[::2], rtol=5e-3, atol=1e-6)


def test_in_little_memory_it_is_the_same(comfy, little_memory):
    """Blocks of the network are run again then: bit for bit."""
    parts = random_unet(seed=3), random_vae(), random_eyes(), conditioning(1)
    x = state(2, dtype=torch.float32)
    (expected,) = Watched(*parts)(x)
    little_memory()
    (found,) = Watched(*parts)(x)
    assert torch.equal(found.gradient, expected.gradient)


def test_other_image_encoders_and_vaes_are_refused(comfy):
    from explainable_latents.nodes.host.autograd.recorded_pictures import Pictures

    eyes, vae = random_eyes(), random_vae()
    eyes.model = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match="clip_vision is a Linear, which shares no space with texts"):
        Pictures(vae, eyes)
    vae.latent_dim = 3
    with pytest.raises(ValueError, match="vae is not one for pictures"):
        Pictures(vae, random_eyes())


@pytest.mark.parametrize("grid", [(8, 8), (6, 10)])
def test_what_is_asked_for_is_what_a_picture_takes(comfy, grid):
    """With the decoder of SD's own widths: at most what is asked for, at least half of it; and all is given back."""
    from explainable_latents.nodes.host.autograd.recorded_pictures import Pictures

    pictures = Pictures(random_vae(ch=128, ch_mult=[1, 2, 4, 4], num_res_blocks=2), random_eyes())

    def there_and_back() -> None:
        with pictures.recorded(), torch.enable_grad():
            latent = noise(1, grid).requires_grad_()
            torch.autograd.grad(TEXT.loss(pictures.embeddings(latent)).sum(), latent)

    most, left = used_by(there_and_back)
    assert left == 0
    assert 0.5 <= most / pictures.bytes_needed(grid) <= 1

"""DiffEdit's map in the host, against calls of the model itself."""

from __future__ import annotations

import pytest
import torch

from explainable_latents.nodes.host.editing.prompt_difference import difference_map
from explainable_latents.nodes.host.one_call import noise_sigma
from tests.host.unets import conditioning, noise, random_unet

SOURCE, TARGET = conditioning(5), conditioning(1)


@pytest.fixture(scope="module")
def model(comfy):
    return random_unet()


def latent(batch: int = 1, grid: tuple[int, int] = (16, 16)) -> dict:
    return {"samples": 0.5 * noise(batch, grid, 8)}


def slopes(model, prompt: list, level: float, noises: int, seed: int, picture: torch.Tensor) -> torch.Tensor:
    """The noise that the model predicts for each noised picture."""
    import comfy.model_management
    import comfy.sample

    sigma = torch.tensor([noise_sigma(model, level)])
    drawn = comfy.sample.prepare_noise(picture.expand(noises, -1, -1, -1), seed)
    z = model.model.process_latent_in(picture)
    found = []
    with torch.no_grad():
        for each in drawn:
            x = z + sigma * each[None]
            found.append((x - model.model.apply_model(x, sigma, c_crossattn=prompt[0][0])) / sigma)
    return torch.cat(found)


def test_the_map_is_that_of_the_models_own_predictions_whatever_the_batch(model):
    """At odd sizes, each picture by itself; the same seed gives the same noises."""
    pictures = latent(3, (15, 10))
    found = difference_map(model, SOURCE, TARGET, pictures, 0.5, 4, 7)
    assert found.maps.shape == (1, 3, 15, 10)
    assert found.grid == (15, 10)
    assert found.labels == ("difference",)
    assert found.sigma == pytest.approx(noise_sigma(model, 0.5))
    for i, picture in enumerate(pictures["samples"].split(1)):
        target, source = (slopes(model, prompt, 0.5, 4, 7, picture) for prompt in (TARGET, SOURCE))
        torch.testing.assert_close(found.maps[0, i], (target - source).abs().mean((0, 1)), rtol=1e-4, atol=1e-5)


def test_the_same_prompt_twice_is_zero_everywhere_bit_for_bit(model):
    assert torch.equal(difference_map(model, TARGET, TARGET, latent(2), 0.5, 2, 1).maps, torch.zeros(1, 2, 16, 16))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noises": 0}, "noises 0 is too few"),
        ({"noise_level": 0.0}, r"noise level 0\.0 is not in the range"),
        ({"latent": {"samples": torch.zeros(1, 4, 8, 8)}}, "the latent is empty"),
        ({"latent": {"samples": torch.ones(1, 4, 2, 8, 8)}}, "for pictures, not videos"),
    ],
)
def test_mistakes_are_named(model, change, message):
    how = {"latent": latent(), "noise_level": 0.5, "noises": 1, "seed": 0, **change}
    with pytest.raises(ValueError, match=message):
        difference_map(model, SOURCE, TARGET, **how)

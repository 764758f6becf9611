"""Pictures that are inverted, models of all predictions that do it, and runs from what was found."""

from __future__ import annotations

import torch

from explainable_latents.nodes.host.editing.own_run import Guided
from explainable_latents.nodes.host.editing.paths import RECORDED
from explainable_latents.nodes.host.editing.twin_sampling import Twin
from tests.host.unets import conditioning, noise, random_unet

SOURCE, NEGATIVE = conditioning(5), conditioning(2)
# Float32 over a few steps; latents here are of the size of 1 to 15.
CLOSE = {"rtol": 1e-3, "atol": 1e-3}
GRID = (8, 8)


def weak_unet(dtype: torch.dtype = torch.float32):
    """A network whose prediction hangs less on the state than a trained one's, so that few iterations are enough."""
    weights = dict(random_unet(dtype=dtype, model_channels=64).model.diffusion_model.state_dict())
    quiet = {**weights, "out.2.weight": 0.05 * weights["out.2.weight"]}
    return random_unet(dtype=dtype, weights=quiet, model_channels=64)


def picture(batch: int = 1, grid: tuple[int, int] = GRID, seed: int = 8) -> dict:
    return {"samples": 0.5 * noise(batch, grid, seed)}


def guided(model, cfg: float = 1.0) -> Guided:
    return Guided(model, SOURCE, NEGATIVE, cfg)


def kind(model, name: str):
    """The model, told to predict otherwise."""
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete, ModelSamplingSD3

    if name == "flow":
        return ModelSamplingSD3().patch(model, 1.0)[0]
    return ModelSamplingDiscrete().patch(model, name, False)[0]


def noting(model):
    """A copy of the model that notes the states that the sampler shows to it."""
    from comfy.patcher_extension import WrappersMP

    seen, copy = [], model.clone()

    def note(executor, x, timestep, *args, **kwargs):
        seen.append((float(timestep[0]), x.clone()))
        return executor(x, timestep, *args, **kwargs)

    copy.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "zz last", note)
    return copy, seen


def twin(model, path, **options):
    copy = model.clone()
    Twin(SOURCE, path=RECORDED, trajectory=path, **options).install(copy)
    return copy


def custom(model, sampler, sigmas, start: torch.Tensor, cfg: float = 2.0, positive=SOURCE) -> torch.Tensor:
    """SamplerCustom."""
    import comfy.sample

    return comfy.sample.sample_custom(
        model,
        torch.randn(start.shape),
        cfg,
        sampler,
        sigmas,
        positive,
        NEGATIVE,
        start,
        disable_pbar=True,
        seed=1,
    )

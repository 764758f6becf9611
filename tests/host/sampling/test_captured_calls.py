"""A mask is read from the model calls that it needs; all other calls of a compiled model run compiled."""

from __future__ import annotations

import importlib
from dataclasses import replace

import pytest
import torch

from explainable_latents.nodes.core.maps.masks import Shaping
from explainable_latents.nodes.core.methods.masking import AttentionMasking, GradientMasking
from explainable_latents.nodes.host.attention.observer import observe
from explainable_latents.nodes.host.sampling.masked_latent import MaskedLatent
from tests.host.toy_sampling import KEEP, REFERENCE, given
from tests.host.unets import SUBJECTS, conditioning, noise, random_unet, sample
from tests.tools.thorough import further

GRID = (4, 6)
SMALL = {
    "channel_mult": [1],
    "num_res_blocks": [1],
    "transformer_depth": [1],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1],
}
ATTENTION = AttentionMasking(SUBJECTS.with_role("subject"), Shaping())
CUMULATIVE = replace(ATTENTION, calls="cumulative")
GRADIENT = GradientMasking(SUBJECTS.with_role("subject"), Shaping())
# Of the eight steps the first prompt is active in 0 to 3, the second one in 4 to 7.
RANGES = [
    [conditioning(1)[0][0], {**conditioning(1)[0][1], "start_percent": 0.0, "end_percent": 0.5}],
    [conditioning(3)[0][0], {**conditioning(3)[0][1], "start_percent": 0.5, "end_percent": 1.0}],
]


@pytest.fixture(scope="module")
def models(comfy):
    """A model, the same one compiled by the host's node, and a list that grows whenever compiled code runs."""
    runs = []

    def backend(graph, inputs, **_):
        return lambda *args: runs.append(1) or graph(*args)

    model = random_unet("SD15", seed=3, **SMALL)
    node = importlib.import_module("comfy_extras.nodes_torch_compile").TorchCompileModel
    torch.compiler.reset()
    yield model, node.execute(model, backend)[0], runs
    torch.compiler.reset()


def masked(model, masking, at: str, sampler: str, runs: list | None = None, **settings):
    """The latent, the masks and, for each call of the network in turn, c where it ran compiled and . where not."""
    patcher, calls = model.clone(), []

    def counted(apply_model, args):
        before = len(runs or ())
        out = apply_model(args["input"], args["timestep"], **args["c"])
        calls.append("c" if len(runs or ()) > before else ".")
        return out

    patcher.set_model_unet_function_wrapper(counted)
    report = MaskedLatent(masking, noise(1, GRID, seed=4), at, KEEP, REFERENCE).install(patcher)
    with torch.inference_mode():
        out = sample(patcher, **{"steps": 6, "cfg": 1.0, "grid": GRID, "sampler": sampler, **settings})
    return out, [entry.mask for entry in report.manipulations(out)], "".join(calls)


@pytest.mark.parametrize(
    ("masking", "at", "sampler", "calls"),
    [
        (ATTENTION, "3", "euler", ". c . c c c"),  # in the first step a map without contrast is an early error
        (ATTENTION, "3-4", "euler", ". c . . c c"),
        (ATTENTION, "0, 3", "euler", ". . c . c c c"),  # step 0 has no call before it and asks for one
        (ATTENTION, "100%", "euler", ". c c c c ."),
        (ATTENTION, "", "euler", "c c c c c c"),
        further((ATTENTION, "3", "heun", ". c c c c . c c c c c")),  # two calls per step
        further((ATTENTION, "3", "dpmpp_2m", ". c . c c c")),
        (ATTENTION, "3", "sa_solver", ". c . c c c"),  # restarted at step 3
        (CUMULATIVE, "3", "euler", ". . . c c c"),
        (CUMULATIVE, "1, 4", "heun", ". . . . . . . . c c c"),
        (GRADIENT, "3", "euler", "c c c . c c c"),
        (given(0.5, 1, *GRID), "3", "euler", "c c c c c c"),
    ],
)
def test_calls_without_a_mask_to_find_run_compiled_and_the_result_is_the_same(models, masking, at, sampler, calls):
    model, compiled, runs = models
    out, masks, made = masked(compiled, masking, at, sampler, runs)
    assert made == calls.replace(" ", "")
    expected, same, _ = masked(model, masking, at, sampler)
    assert torch.equal(out, expected)
    assert len(masks) == len(same)
    assert all(torch.equal(mask, other) for mask, other in zip(masks, same, strict=True))


def test_a_prompt_that_has_just_become_active_is_asked_at_its_first_step_only(models):
    """Step 4 asks, since the prompt was not active in the call before; step 5 reads the call of step 4."""
    model, compiled, runs = models
    masking = replace(ATTENTION, positive=RANGES[1:])
    settings = {"steps": 8, "positive": RANGES}
    out, _, made = masked(compiled, masking, "4, 5", "euler", runs, **settings)
    assert made == ". c c . . . c c c".replace(" ", "")
    assert torch.equal(out, masked(model, masking, "4, 5", "euler", **settings)[0])


def test_a_capture_beside_it_captures_every_call(models):
    model, compiled, runs = models
    captured = compiled.clone()
    capture = observe(captured, SUBJECTS)
    out, _, made = masked(captured, ATTENTION, "3", "euler", runs)
    assert made == "......"
    assert len(capture.runs.of(out).saliencies) == 6
    assert torch.equal(out, masked(model, ATTENTION, "3", "euler")[0])

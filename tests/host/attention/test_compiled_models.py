"""Models that the host's TorchCompileModel compiles: looked into as if they were not, and else compiled as ever."""

from __future__ import annotations

import importlib

import pytest
import torch

from explainable_latents.nodes.host.attention.observer import observe
from tests.core.gradients.last_layers import relative_error
from tests.host.autograd.test_gradients import saliency
from tests.host.unets import SUBJECTS, noise, random_unet, sample
from tests.tools.thorough import THOROUGH

GRID, STEPS = (4, 6), 2


def sampled(model):
    with torch.inference_mode():
        return sample(model, steps=STEPS, cfg=1.0, grid=GRID)


def compiled_so_far() -> tuple[int, int]:
    """Graphs that were made, and breaks between them, since the start of the process."""
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())


def captured(model, **options):
    """The latent and the maps of a run whose attention is captured."""
    observed = model.clone()
    capture = observe(observed, SUBJECTS, **options)
    out = sampled(observed)
    return out, capture.saliency(out, "all", "each").maps


def compiled_by(run) -> tuple[int, int]:
    """What `run` adds to that."""
    before = compiled_so_far()
    run()
    return tuple(after - there for after, there in zip(compiled_so_far(), before, strict=True))


SMALL = {
    "channel_mult": [1],
    "num_res_blocks": [1],
    "transformer_depth": [1],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1],
}


@pytest.fixture(scope="module")
def models(comfy):
    """A model of four transformers, the same one compiled by the host's node, and what that took."""
    model = random_unet("SD15", seed=3, **SMALL)
    node = importlib.import_module("comfy_extras.nodes_torch_compile").TorchCompileModel
    compiled = node.execute(model, "eager")[0]
    torch.compiler.reset()
    yield model, compiled, compiled_by(lambda: sampled(compiled))
    torch.compiler.reset()


@pytest.mark.parametrize("options", [{}, {"layers": "output.1"}], ids=str)
def test_a_capture_of_a_compiled_model_is_that_of_the_model_and_breaks_no_graph(models, options):
    """What is compiled already is neither used for the capture nor made again, and it keeps no capture."""
    model, compiled, _ = models
    expected, maps = captured(model, **options)
    before = compiled_so_far()
    out, found = captured(compiled, **options)
    again = sampled(compiled)
    assert compiled_so_far() == before
    assert torch.equal(out, expected)
    assert torch.equal(found, maps)
    assert torch.equal(again, expected)


def test_the_log_says_that_captured_steps_run_uncompiled(models, caplog):
    model, compiled, _ = models
    captured(model)
    assert "uncompiled" not in caplog.text
    captured(compiled)
    assert caplog.text.count("the steps that are captured run uncompiled") == 1


def test_where_pytorch_cannot_run_it_uncompiled_the_log_says_what_to_do(models, caplog, monkeypatch):
    _, compiled, _ = models
    monkeypatch.delattr(torch.compiler, "set_stance")
    observed = compiled.clone()
    observe(observed, SUBJECTS)
    sampled(observed)
    assert caplog.text.count("PyTorch before 2.6 cannot run it uncompiled") == 1
    assert "connect the model without TorchCompileModel" in caplog.text
    torch.compiler.reset()


@THOROUGH  # compiles a network anew
def test_steps_that_are_not_captured_run_compiled_without_a_graph_break_for_each_layer(models):
    model, compiled, (graphs, breaks) = models
    expected, maps = captured(model, end_percent=0.3)
    assert len(maps) == len(SUBJECTS.items)  # of one of the two steps
    torch.compiler.reset()
    assert compiled_by(lambda: captured(compiled)) == (0, 0)
    before = compiled_so_far()
    out, found = captured(compiled, end_percent=0.3)
    made, broken = (after - there for after, there in zip(compiled_so_far(), before, strict=True))
    assert torch.equal(out, expected)
    assert torch.equal(found, maps)
    assert 0 < made <= graphs
    # PyTorch counts the host's first break once more for each of the three functions that our wrapper puts around it
    assert broken <= breaks + 3


@pytest.mark.parametrize("how", [{}, {"solver": "exact"}, {"definition": "aggregated"}], ids=str)
def test_gradients_of_a_compiled_model_are_those_of_the_model(models, how):
    model, compiled, _ = models
    sampled(compiled)
    start = compiled_so_far()
    found = saliency(compiled, start=noise(1, GRID), **how)
    assert compiled_so_far() == start
    # not bit for bit: the exact solver chooses how many passes to make at once by the time they take
    assert relative_error(found.maps, saliency(model, start=noise(1, GRID), **how).maps) <= 1e-5


def test_a_model_that_is_compiled_in_its_place_is_looked_into(models):
    """Other packs put the compiled network itself where the network was."""
    model, _, _ = models
    patched = model.clone()
    patched.add_object_patch("diffusion_model", torch.compile(model.model.diffusion_model, backend="eager"))
    expected, found = captured(model), captured(patched)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    plain, derived = (saliency(m, start=noise(1, GRID)) for m in (model, patched))
    assert torch.equal(derived.maps, plain.maps)

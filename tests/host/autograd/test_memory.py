"""The memory that is asked for before gradients are taken: against what the allocator gave, and who is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from explainable_latents.nodes.core.maps.masks import Shaping
from explainable_latents.nodes.core.methods.masked_latent import Policy
from explainable_latents.nodes.core.methods.masking import GradientMasking
from explainable_latents.nodes.host.autograd import exact_solver
from explainable_latents.nodes.host.families.family import cross_attention_layers
from explainable_latents.nodes.host.families.unet_gradients import LayersAfter
from explainable_latents.nodes.host.one_call import call_once, gradient_saliency
from explainable_latents.nodes.host.sampling.ksampler import sample_masked
from explainable_latents.nodes.host.sampling.masked_latent import MaskedLatent
from tests.host import unets
from tests.host.autograd.test_gradients import out_of_memory, subjects
from tests.host.autograd.test_latent_gradient import LOOK_ALONE, AtNoiseLevel, beside_another_state
from tests.host.operations import at
from tests.host.unets import SUBJECTS, conditioning, noise, random_unet
from tests.tools.thorough import further


def used_by(action: Callable[[], object]) -> tuple[int, int]:
    """Bytes that the CPU allocator held at most, and holds afterwards, beyond what it held before."""
    action()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        action()
    events = [e for e in run.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most, now


CASES = [
    # kind, channels, grid, batch, words' tokens, layer, how
    ("SD15", 64, (16, 16), 1, [(1,)], -1, "structured"),
    ("SD15", 128, (12, 20), 2, [(1, 2), (5, 6)], -1, "structured"),
    ("SD20", 64, (24, 24), 1, [(1,)], -1, "structured"),
    ("SD20", 128, (16, 16), 1, [(1,)], -1, "exact"),
    ("SD15", 64, (9, 14), 1, [(1,)], 2, "exact"),
    ("SDXL", 64, (16, 16), 2, [(1,), (2,)], 0, "exact"),
    ("SDXL", 128, (16, 16), 2, [(1, 2)], 0, "aggregated"),
    ("SDXL", 128, (16, 16), 2, [(1, 2)], 0, "in little memory"),
    further(("SD15", 256, (8, 8), 1, [(1,)], 0, "in little memory")),
]
MORE_CASES = [
    ("SD15", 64, (9, 14), 1, [tuple(range(1, 21))], -1, "structured"),
    ("SD15", 64, (16, 12), 1, [(1, 2, 3)], -1, "exact"),
    ("SD20", 64, (16, 16), 3, [(1,)], 0, "exact"),
    ("SDXL", 64, (16, 16), 1, [(1,)], -1, "exact"),
    ("SD20", 64, (24, 16), 1, [(1,)], 0, "aggregated"),
    ("SD20", 64, (24, 16), 1, [(1,)], 0, "in little memory"),
]


@pytest.mark.parametrize(
    ("kind", "channels", "grid", "batch", "sets", "layer", "how"),
    [*CASES, *(pytest.param(*case, marks=pytest.mark.matrix) for case in MORE_CASES)],
)
def test_what_is_asked_for_is_what_it_takes(comfy, little_memory, kind, channels, grid, batch, sets, layer, how):
    """At most the estimate beside a plain call, at least half of it in all; and all of it is given back."""
    model = random_unet(kind, model_channels=channels)
    network, layers = model.model.diffusion_model, cross_attention_layers(model)
    start, words = {"samples": noise(batch, grid)}, subjects(*sets)
    options = {"layer": layers[layer]} if how in ("structured", "exact") else {"definition": "aggregated"}
    if how == "in little memory":
        little_memory()
    solver = "exact" if how == "exact" else "structured"

    def saliency() -> None:
        with cancelled_after_a_few_passes() if how == "exact" else nullcontext():
            gradient_saliency(model, conditioning(1), start, words, 0.5, 0, "absolute", solver, **options)

    with torch.inference_mode():
        plain, _ = used_by(lambda: call_once(model.clone(), conditioning(1), start, 0.5, 0))
        found, left = used_by(saliency)
    asked, tokens = LayersAfter(network, layers[layer]).memory(grid), sum(len(s) for s in sets)
    estimate = {
        "structured": lambda: asked.structured(batch, tokens),
        "exact": lambda: asked.exact(batch, tokens, exact_solver.TOGETHER),
        "aggregated": lambda: asked.once(batch, tokens),
        "in little memory": lambda: asked.once(batch, tokens, repeat=True),
    }[how]()
    assert found - plain <= estimate
    assert found >= 0.5 * estimate
    assert left == 0


@pytest.mark.parametrize("look", [False, True], ids=["attention", "appearance"])
@pytest.mark.parametrize(
    ("kind", "channels", "grid", "batch", "little"),
    [
        ("SD15", 64, (16, 16), 1, False),
        ("SD20", 128, (24, 16), 2, False),
        ("SDXL", 128, (16, 16), 1, False),
        ("SDXL", 128, (16, 16), 2, True),
        ("SD15", 128, (32, 24), 1, True),
    ],
)
def test_what_guidance_asks_for_is_what_it_takes(comfy, little_memory, kind, channels, grid, batch, little, look):
    """As above, for the way from a loss on attention to the latent: not too little, and all of it is given back.

    A loss on features goes through most of the decoder too.
    """
    model = random_unet(kind, model_channels=channels)
    if little:
        little_memory()
    x = noise(batch, grid)
    measure = AtNoiseLevel(model, conditioning(1), loss=LOOK_ALONE) if look else AtNoiseLevel(model, conditioning(1))
    loss = beside_another_state(measure, x) if look else None
    with torch.inference_mode():
        plain, _ = used_by(lambda: call_once(model.clone(), conditioning(1), {"samples": x}, 0.5, 0))
    found, left = used_by(lambda: measure(x, loss=loss))
    room = -1.0 if little else float("inf")
    estimate = measure.gradient.bytes_needed(model, batch, grid, room)
    assert found - plain <= estimate
    assert found >= 0.5 * estimate
    assert left == 0


@contextmanager
def cancelled_after_a_few_passes() -> Iterator[None]:
    """The user cancels as soon as the first passes of a solver are done."""
    import comfy.model_management as management
    import comfy.utils

    def cancel(done: int, *_: object, **__: object) -> None:
        if done > 0:
            management.interrupt_current_processing()

    comfy.utils.set_progress_bar_global_hook(cancel)
    try:
        with pytest.raises(management.InterruptProcessingException):
            yield
    finally:
        comfy.utils.set_progress_bar_global_hook(None)


def cancel() -> None:
    import comfy.model_management as management

    management.interrupt_current_processing()
    management.throw_exception_if_processing_interrupted()


@pytest.mark.parametrize("how", [{"solver": "structured"}, {"solver": "exact"}, {"definition": "aggregated"}])
@pytest.mark.parametrize("end", [cancel, out_of_memory], ids=lambda end: end.__name__)
def test_all_memory_is_back_after_a_cancel_and_after_running_out_of_it(comfy, how, end):
    from comfy.model_management import InterruptProcessingException

    model, start = random_unet("SD15", seed=1), {"samples": noise(1, (10, 12))}
    options = {"solver": "structured", **how}

    def saliency() -> None:
        with pytest.raises((InterruptProcessingException, torch.OutOfMemoryError)), at("backward", 2, end):
            gradient_saliency(model, conditioning(1), start, SUBJECTS, 0.5, 0, "absolute", **options)

    with torch.inference_mode():
        most, left = used_by(saliency)
    assert most > 1e6
    assert left == 0


def test_passes_share_what_memory_is_free(comfy, monkeypatch):
    import comfy.model_management

    network = random_unet("SDXL").model.diffusion_model
    memory, cpu = LayersAfter(network, "output.1.1").memory((16, 16)), torch.device("cpu")
    for free, expected in ((0, 1), (2 * 5 * memory.exact_more(2, 3), 5), (10**15, 16)):
        monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda device, free=free: free)
        assert memory.fitting(2, 3, cpu, 16) == expected


@pytest.mark.parametrize("where", ["node", "sampler"])
def test_the_host_is_asked_before_it_loads_the_model(comfy, monkeypatch, where):
    import comfy.model_management

    asked, load = [], comfy.model_management.load_models_gpu

    def spy(models, memory_required=0, minimum_memory_required=None, **options):
        asked.append((memory_required, minimum_memory_required))
        return load(models, memory_required, minimum_memory_required=minimum_memory_required, **options)

    model, start = random_unet("SD15", seed=1), {"samples": noise(2, (10, 12))}
    monkeypatch.setattr(comfy.model_management, "load_models_gpu", spy)
    with torch.inference_mode():
        if where == "node":
            call_once(model.clone(), conditioning(1), start, 0.5, 0)
            gradient_saliency(model, conditioning(1), start, SUBJECTS, 0.5, 0, "absolute", "structured")
        else:
            stock = (7, 2, 3.0, "euler", "normal", conditioning(1), conditioning(2), start, 0.7)
            keep = Policy("keep")
            unets.sample(model, steps=2, batch=2, grid=(10, 12))
            plan = MaskedLatent(GradientMasking(SUBJECTS, Shaping()), noise(1, (10, 12)), "", keep, keep)
            sample_masked(model, stock, plan)
    needed = (
        LayersAfter(model.model.diffusion_model, cross_attention_layers(model)[-1]).memory((10, 12)).structured(2, 3)
    )
    (plain, plain_least), (more, more_least) = asked
    assert more >= plain + needed
    assert more_least >= plain_least + needed
    assert more_least <= plain_least + 2 * needed + model.model.memory_required([1, 4, 10, 12])

"""What the pack costs on the device: each use of it beside the stock run and beside a plain call of the model."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ...benchmarks.bench_attention import full_size_model, run, variants
from ...benchmarks.bench_masked_latent import MANIPULATED, maskings, runner
from ...benchmarks.turns import Meter
from .checks import PRECISIONS
from .rows import Row, Settings

PLAIN_CALLS = 5


def measurements(settings: Settings) -> Iterator[Row]:
    """A plain call, Abs-Grad-SAM of one picture, and whole runs, which take turns, so that all meet the same load."""
    dtype, computes_in = PRECISIONS[settings.usual]
    model = full_size_model(settings.device, dtype, computes_in=computes_in, channels=settings.channels)
    uses = _uses(model, settings)
    seconds: dict[str, list[float]] = {name: [] for name in uses}
    memory: dict[str, list[int]] = {name: [] for name in uses}
    for turn in range(settings.turns + 1):
        for name, prepare in uses.items():
            act = prepare()
            with Meter(settings.device) as meter:
                act()
            if turn:  # the first one also loads, compiles and fills caches
                seconds[name].append(meter.seconds)
                memory[name].append(meter.memory)
    yield plain_call(model, settings)
    for name in uses:
        middle = statistics.median(seconds[name])
        stock = _beside(name)
        times = None if stock is None else middle / statistics.median(seconds[stock])
        yield Row(name, seconds=middle, times=times, memory=int(statistics.median(memory[name])))


def plain_call(model: Any, settings: Settings) -> Row:
    """The network alone on two rows, as a step with guidance calls it; on a GPU timed by events on the device."""
    network = model.model.diffusion_model
    dtype, computes_in = PRECISIONS[settings.usual]
    options = {"device": settings.device, "dtype": computes_in or dtype}
    x, context = (torch.randn(2, *s, **options) for s in [(4, settings.side, settings.side), (77, 768)])
    time = torch.full((2,), 500.0, device=settings.device)
    seconds = []
    with torch.inference_mode(), Meter(settings.device) as meter:
        for _ in range(PLAIN_CALLS):
            seconds.append(_timed(lambda: network(x, time, context, transformer_options={}), settings.device))
    return Row("a plain call of the model", seconds=statistics.median(seconds), memory=meter.memory)


def _timed(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of a call: between two events on a GPU, else those that this process computed."""
    if device.type != "cuda":
        with Meter(device) as meter:
            call()
        return meter.seconds
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000


def _uses(model: Any, settings: Settings) -> dict[str, Callable[[], Callable[[], object]]]:
    """Name -> what prepares a use, outside of the measurement, and gives it."""
    from explainable_latents.nodes.core.methods.masked_latent import Policy
    from explainable_latents.nodes.host.one_call import gradient_saliency
    from explainable_latents.nodes.host.sampling.masked_latent import MaskedLatent

    steps, side = settings.steps, settings.side
    kinds, sample = variants(model), runner(steps, side)
    reference = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(2))
    positive = [[torch.randn(1, 77, 768, generator=torch.Generator().manual_seed(1)), {}]]
    changed = ", ".join(str(1 + i * (steps - 1) // MANIPULATED) for i in range(min(MANIPULATED, steps - 1)))

    def sampled(kind: str) -> Callable[[], object]:
        patched, _ = kinds[kind]()
        return lambda: run(patched, steps, side)

    def masked(masking: Any) -> Callable[[], object]:
        patched = model.clone()
        if masking is not None:
            MaskedLatent(masking, reference, changed, Policy("keep"), Policy("reference")).install(patched)
        return lambda: sample(patched)

    def derived() -> Callable[[], object]:
        words = kinds["capture"]()[1].subjects
        latent = {"samples": reference}

        def act() -> None:
            with torch.inference_mode():
                gradient_saliency(model, positive, latent, words, 0.5, 0, "absolute", "structured")

        return act

    return {
        "Abs-Grad-SAM of a picture": derived,
        "stock run, euler": lambda: sampled("none"),
        "the same with capture": lambda: sampled("capture"),
        "stock run, ddpm": lambda: masked(None),
        **{f"masked latent, {name}": lambda masking=masking: masked(masking) for name, masking in maskings().items()},
    }


def _beside(name: str) -> str | None:
    """The stock run that a use is compared with."""
    if name == "Abs-Grad-SAM of a picture":
        return None
    return "stock run, ddpm" if "ddpm" in name or name.startswith("masked") else "stock run, euler"

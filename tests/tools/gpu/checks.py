"""On the device: the picture is the same with capture on and off, whatever computes it; both solvers agree."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from ...benchmarks.bench_attention import full_size_model, run, variants
from .rows import Row, Settings

# weights, and what the host computes in where that is another precision
PRECISIONS = {
    "float32": (torch.float32, None),
    "float16": (torch.float16, None),
    "bfloat16": (torch.bfloat16, None),
    "float8 weights": (torch.float8_e4m3fn, torch.float16),
}
STEPS, SOLVER_SIDE, SOLVER_ERROR = 2, 16, 1e-4
BUDGET = 0.5  # of the model's size
# What the host, its attentions and compilers raise where something is not installed or not made for this device.
HOST_ERRORS = (RuntimeError, NotImplementedError, AssertionError, ImportError)


def attention_backends(settings: Settings) -> Iterator[Row]:
    """Every attention of the host that is installed here."""
    from comfy.ldm.modules import attention

    model = _model(settings, settings.usual)
    used = attention.optimized_attention
    for name, function in attention.REGISTERED_ATTENTION_FUNCTIONS.items():
        try:
            attention.optimized_attention = function
            yield same_picture(f"attention {name}", model, settings)
        finally:
            attention.optimized_attention = used


def precisions(settings: Settings) -> Iterator[Row]:
    """The picture and the two solvers in every precision."""
    for name in PRECISIONS:
        model = _model(settings, name)
        yield same_picture(name, model, settings)
        yield same_gradients(f"{name}, solvers", model, settings)


def little_memory(settings: Settings) -> Iterator[Row]:
    """The host may load only a part of the weights, as with --reserve-vram on a small card."""
    import comfy.model_management as management

    name = "half of the weights offloaded"
    if settings.device.type == "cpu":
        yield Row(name, "only on a GPU")
        return
    model = _model(settings, settings.usual, stays_on=torch.device("cpu"))
    reserved = management.EXTRA_RESERVED_VRAM
    management.unload_all_models()
    free = management.get_free_memory(settings.device)
    budget = management.minimum_inference_memory() - reserved + BUDGET * model.model_size()
    try:
        management.EXTRA_RESERVED_VRAM = free - budget
        row = same_picture(name, model, settings)
        offloaded = model.loaded_size() < model.model_size()
        yield row if offloaded or row.failed else Row(name, "the host loaded all of the model", failed=True)
        yield same_gradients(f"{name}, solvers", model, settings)
    finally:
        management.EXTRA_RESERVED_VRAM = reserved
        management.unload_all_models()


def compiled(settings: Settings) -> Iterator[Row]:
    """A model that is compiled as the host's node does; what is captured runs as the model that is not."""
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    name, plain = f"torch.compile, {settings.compiler}", _model(settings, settings.usual)
    model = plain.clone()
    try:
        set_torch_compile_wrapper(model=model, backend=settings.compiler)
        run(model, STEPS, settings.side)
    except HOST_ERRORS as error:
        yield _cannot(name, error)
        return
    yield same_picture(name, plain, settings, model)


CHECKS: tuple[Callable[[Settings], Iterator[Row]], ...] = (attention_backends, precisions, little_memory, compiled)


def same_picture(name: str, model: Any, settings: Settings, observed: Any = None) -> Row:
    """Sample with and without capture; where the host's own two runs differ, or it cannot run this, the row says so.

    observed: is captured in place of the model itself.
    """
    kinds = variants(model)
    try:
        expected, again = (run(kinds["none"]()[0], STEPS, settings.side) for _ in range(2))
    except HOST_ERRORS as error:
        return _cannot(name, error)
    if not torch.equal(expected, again):
        return Row(name, f"the host's own runs differ by {_apart(expected, again)}")
    patched, capture = variants(observed or model)["capture"]()
    found = run(patched, STEPS, settings.side)
    try:
        capture.saliency(found, "all", "mean")
    except ValueError as error:
        return Row(name, str(error), failed=True)
    same = torch.equal(found, expected)
    return Row(name, "same bit for bit" if same else f"differs by {_apart(found, expected)}", failed=not same)


def same_gradients(name: str, model: Any, settings: Settings) -> Row:
    """Abs-Grad-SAM by closed forms, against one backward pass per element."""
    from explainable_latents.nodes.host.one_call import gradient_saliency

    side = min(settings.side, SOLVER_SIDE)
    generator = torch.Generator().manual_seed(1)
    positive = [[torch.randn(1, 77, 768, generator=generator), {}]]
    latent = {"samples": torch.randn(1, 4, side, side, generator=generator)}
    words = variants(model)["capture"]()[1].subjects
    with torch.inference_mode():
        structured, exact = (
            gradient_saliency(model, positive, latent, words, 0.5, 0, "absolute", solver).maps
            for solver in ("structured", "exact")
        )
    error = float((structured - exact).abs().max() / exact.abs().max())
    return Row(name, f"{error:.0e} apart", failed=not error <= SOLVER_ERROR)


def _model(settings: Settings, precision: str, **more: Any) -> Any:
    dtype, computes_in = PRECISIONS[precision]
    return full_size_model(settings.device, dtype, computes_in=computes_in, channels=settings.channels, **more)


def _cannot(name: str, error: Exception) -> Row:
    return Row(name, f"the host cannot: {(str(error).strip() or type(error).__name__).splitlines()[0]}")


def _apart(found: torch.Tensor, expected: torch.Tensor) -> str:
    return f"{float((found - expected).abs().max() / expected.abs().max()):.0e}"

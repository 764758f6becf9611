"""Abs-Grad-SAM at SD 1.5 size: structured solver against the research strategy, time, memory and error, in one run.

`python -m tests.benchmarks.bench_grad_sam` (part of `make bench`); about 5 minutes on 2 cores, 6 GB of memory; exits 1
when a limit is missed. The network is the host's SD 1.5 UNet with random weights, float32, a 64x64 latent.

Research strategy: one backward pass per latent element from the prediction to the last cross-attention's probabilities,
in batches of 8; its time is extrapolated from a sample of batches. Single passes are shown as well, because batches are
slower than those on a CPU.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from ..comfyui.inprocess import load_comfyui
from ..comfyui.pack import alias_pack

FASTER_THAN_RESEARCH, MODEL_CALLS, MEMORY, ERROR = 250.0, 2.0, 1.5, 1e-4
GRID, BATCH, BATCHES, SINGLES = 64, 8, 4, 24
WORDS = {"one word of 1 token": [(3,)], "one word of 2 tokens": [(3, 4)], "3 words of 4 tokens": [(3,), (5, 6), (9,)]}


def sd15_model() -> object:
    """A ModelPatcher of the host's SD 1.5 network with random weights."""
    import comfy.model_patcher
    import comfy.supported_models

    config = {
        "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320, "num_res_blocks": [2, 2, 2, 2],
        "channel_mult": [1, 2, 4, 4], "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_middle": 1,
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0], "use_spatial_transformer": True,
        "context_dim": 768, "use_linear_in_transformer": False, "adm_in_channels": None, "legacy": False,
        "use_temporal_attention": False, "num_heads": 8, "num_head_channels": -1, "dtype": torch.float32,
    }  # fmt: skip
    described = comfy.supported_models.SD15(config)
    described.unet_config |= config
    described.manual_cast_dtype = None
    model = described.get_model({}, "", device="cpu")
    torch.manual_seed(0)
    for name, value in model.diffusion_model.named_parameters():
        if value.ndim > 1:
            torch.nn.init.normal_(value, std=value[0].numel() ** -0.5)
        else:
            torch.nn.init.constant_(value, float(name.endswith("weight")))
    return comfy.model_patcher.ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))


def measured(action: Callable[[], object]) -> tuple[float, float]:
    """Seconds of `action`, and by how many MB memory rose above what was in use before."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the kernel forgets the highest use so far
    before = memory_mb("VmRSS")
    began = time.perf_counter()
    action()
    return time.perf_counter() - began, memory_mb("VmHWM") - before


def memory_mb(field: str) -> float:
    """A field of this process's status, in MB."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field))
    return int(line.split()[1]) / 1024


def main() -> None:
    """Measure, print, exit 1 when a limit is missed."""
    load_comfyui()
    alias_pack()
    from explainable_latents.nodes.core.grad_sam import brute_force
    from explainable_latents.nodes.core.subjects import Subject, Subjects
    from explainable_latents.nodes.host import gradients, solving
    from explainable_latents.nodes.host.probe import call_once

    model = sd15_model()
    generator = torch.Generator().manual_seed(1)
    positive = [[torch.randn(1, 77, 768, generator=generator), {}]]
    latent = {"samples": torch.randn(1, 4, GRID, GRID, generator=generator)}
    inside: dict[str, object] = {}

    def solve(record: solving.Record, *args: object) -> torch.Tensor:
        began = time.perf_counter()
        found = solving.solve(record, *args)
        inside["solver"] = time.perf_counter() - began
        if inside.pop("wanted", False):
            inside.update(research(brute_force, record, found, generator))
        return found

    gradients.solve = solve
    with torch.inference_mode():
        plain = [measured(lambda: call_once(model.clone(), positive, latent, 0.5, 0)) for _ in range(4)][1:]
        call, memory = (statistics.median(x) for x in zip(*plain, strict=True))
        print(f"plain model call: {call:.2f} s, {memory:.0f} MB; {torch.get_num_threads()} threads")
        failed = False
        for name, sets in WORDS.items():
            items = tuple(Subject(str(i), "subject", (0, 1), {"l": s}) for i, s in enumerate(sets))
            subjects = Subjects("a prompt", items, "rules")
            ask = (model, positive, latent, subjects, 0.5, 0, "absolute", "structured")
            runs = [(*measured(lambda ask=ask: gradients.gradient_saliency(*ask)), inside["solver"]) for _ in range(3)]
            whole, extra, solver = (statistics.median(x) for x in zip(*runs, strict=True))
            inside["wanted"] = True
            gradients.gradient_saliency(*ask)
            failed |= report(name, (call, memory), (whole, extra, solver), inside)
    raise SystemExit(int(failed))


def research(brute_force: Callable, record: object, found: torch.Tensor, generator: torch.Generator) -> dict:
    """Time of the research strategy on a sample of elements, and how far the structured result is from it there."""
    z = record.prediction
    count = z[0].numel()
    times, error = {}, 0.0
    for batch, passes in ((1, SINGLES), (BATCH, BATCHES)):
        chosen = torch.randperm(count, generator=generator)[: batch * passes].tolist()
        brute_force(record.words, z, "absolute", elements=chosen[:batch], batch=batch)
        began = time.perf_counter()
        exact = brute_force(record.words, z, "absolute", elements=chosen, batch=batch)
        times[batch] = (time.perf_counter() - began) / len(chosen) * count
        error = max(error, float(((found.flatten(2)[..., chosen] - exact).abs() / exact).max()))
    return {"research": times[BATCH], "single": times[1], "error": error, "elements": BATCH * BATCHES + SINGLES}


def report(name: str, plain: tuple[float, float], ours: tuple[float, float, float], seen: dict) -> bool:
    """Print one case; whether a limit is missed."""
    (call, memory), (whole, extra, solver) = plain, ours
    faster, calls, more = seen["research"] / solver, whole / call, extra / memory
    print(
        f"\n{name}\n"
        f"  research strategy: {seen['research']:.0f} s in batches of {BATCH} (from {BATCHES} batches), "
        f"{seen['single']:.0f} s by single passes (from {SINGLES})\n"
        f"  structured: {solver:.2f} s, with its model call {whole:.2f} s\n"
        f"  {faster:.0f} times less than the research strategy (at least {FASTER_THAN_RESEARCH:.0f}), "
        f"{seen['single'] / solver:.0f} times less than single passes\n"
        f"  {calls:.2f} model calls in all (at most {MODEL_CALLS}), {solver / call:.2f} for the solver alone\n"
        f"  peak memory {extra:.0f} MB = {more:.2f} times a plain call's (at most {MEMORY})\n"
        f"  largest relative error {seen['error']:.1e} on {seen['elements']} elements (at most {ERROR})"
    )
    missed = faster < FASTER_THAN_RESEARCH or calls > MODEL_CALLS or more > MEMORY or seen["error"] > ERROR
    print("  LIMIT MISSED" if missed else "  as it should be")
    return missed


if __name__ == "__main__":
    main()

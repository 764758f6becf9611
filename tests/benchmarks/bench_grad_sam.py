"""Abs-Grad-SAM at SD 1.5 size: structured solver against the research strategy, time, memory and error, in one run.

`python -m tests.benchmarks.bench_grad_sam` (part of `make bench`); about 6 minutes on one core, 6 GB of memory; exits 1
when a limit is missed. The network is the host's SD 1.5 UNet with random weights, float32, a 64x64 latent.

Research strategy: one backward pass per latent element from the prediction to the last cross-attention's probabilities,
in batches of 8; its time is extrapolated from a sample of batches. Single passes are shown as well, because batches are
slower than those on a CPU. In every round each case is timed right after a plain call and before its own sample of the
research strategy, and ratios are taken within the round: what else the machine does meanwhile hits all of them alike.
"""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ..tools.comfyui.inprocess import load_comfyui
from ..tools.comfyui.pack import alias_pack

FASTER_THAN_RESEARCH, MODEL_CALLS, MEMORY, ERROR = 250.0, 2.0, 1.5, 1e-4
GRID, ROUNDS, BATCH, BATCHES, SINGLES = 64, 3, 8, 2, 8
WORDS = {
    "one word of 1 token": [(3,)],
    "one word of 2 tokens": [(3, 4)],
    "2 words of 3 tokens": [(3,), (5, 6)],
    "3 words of 4 tokens": [(3,), (5, 6), (9,)],
}


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


def timed(action: Callable[[], object]) -> float:
    """Seconds of `action`."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def peak(action: Callable[[], object]) -> float:
    """By how many MB memory rises in `action` above what was in use before."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the kernel forgets the highest use so far
    before = memory_mb("VmRSS")
    action()
    return memory_mb("VmHWM") - before


def memory_mb(field: str) -> float:
    """A field of this process's status, in MB."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field))
    return int(line.split()[1]) / 1024


def main() -> None:
    """Measure, print, exit 1 when a limit is missed."""
    load_comfyui()
    alias_pack()
    from explainable_latents.nodes.core.gradients.definition import brute_force
    from explainable_latents.nodes.core.words.subjects import Subject, Subjects
    from explainable_latents.nodes.host.autograd.gradient_probe import GradientProbe
    from explainable_latents.nodes.host.one_call import call_once, gradient_saliency

    model = sd15_model()
    generator = torch.Generator().manual_seed(1)
    positive = [[torch.randn(1, 77, 768, generator=generator), {}]]
    latent = {"samples": torch.randn(1, 4, GRID, GRID, generator=generator)}
    sampling, sampled = False, {}

    own = GradientProbe.solve

    def solve(
        probe: GradientProbe, recorded: object, layer: str, words: object, z: torch.Tensor, row: object
    ) -> object:
        began = time.perf_counter()
        found = own(probe, recorded, layer, words, z, row)
        sampled["solver"] = time.perf_counter() - began
        if sampling:
            maps = found.unflatten(0, (words.columns.shape[1], -1)).transpose(1, 2)
            sampled["seconds"] = timed(lambda: sampled.update(research(brute_force, words, z, maps, generator)))
        return found

    def plain() -> None:
        call_once(model.clone(), positive, latent, 0.5, 0)

    def saliency(sets: list[tuple[int, ...]]) -> None:
        items = tuple(Subject(str(i), "subject", (0, 1), {"l": s}) for i, s in enumerate(sets))
        words = Subjects("a prompt", items, "rules")
        gradient_saliency(model, positive, latent, words, 0.5, 0, "absolute", "structured")

    GradientProbe.solve = solve
    rounds: dict[str, list[Round]] = {name: [] for name in WORDS}
    with torch.inference_mode():
        plain()
        base = peak(plain)
        memory = {name: peak(lambda sets=sets: saliency(sets)) / base for name, sets in WORDS.items()}
        sampling = True
        for _ in range(ROUNDS):
            for name, sets in WORDS.items():
                call = timed(plain)
                whole = timed(lambda sets=sets: saliency(sets)) - sampled["seconds"]
                times = (sampled[field] for field in ("solver", "batches", "singles", "error"))
                rounds[name].append(Round(call, whole, *times))
    load = " ".join(f"{x:.1f}" for x in os.getloadavg())
    print(f"{torch.get_num_threads()} threads; load {load}; a plain call's peak memory {base:.0f} MB; {ROUNDS} rounds")
    missed = [name for name in WORDS if report(name, rounds[name], memory[name])]
    raise SystemExit(int(bool(missed)))


@dataclass(frozen=True)
class Round:
    """Seconds of a plain call, of the saliency with its call, of its solver, of the research strategy; the error."""

    call: float
    whole: float
    solver: float
    batches: float
    singles: float
    error: float


def research(
    brute_force: Callable, words: object, z: torch.Tensor, found: torch.Tensor, generator: torch.Generator
) -> dict:
    """Seconds of the research strategy by a sample of elements; how far the structured result is from it there."""
    count = z[0].numel()
    seconds, error = {}, 0.0
    for name, batch, passes in (("singles", 1, SINGLES), ("batches", BATCH, BATCHES)):
        chosen = torch.randperm(count, generator=generator)[: batch * passes].tolist()
        brute_force(words, z, "absolute", elements=chosen[:batch], batch=batch)
        began = time.perf_counter()
        exact = brute_force(words, z, "absolute", elements=chosen, batch=batch)
        seconds[name] = (time.perf_counter() - began) / len(chosen) * count
        error = max(error, float(((found.flatten(2)[..., chosen] - exact).abs() / exact).max()))
    return {**seconds, "error": error}


def report(name: str, rounds: list[Round], more: float) -> bool:
    """Print one case, medians over the rounds (least to most); whether a limit is missed."""

    def ratio(top: str, bottom: str) -> tuple[float, str]:
        found = sorted(getattr(r, top) / getattr(r, bottom) for r in rounds)
        middle, digits = statistics.median(found), 0 if found[0] > 10 else 2
        return middle, f"{middle:.{digits}f} ({found[0]:.{digits}f} to {found[-1]:.{digits}f})"

    def seconds(field: str) -> str:
        return f"{statistics.median(getattr(r, field) for r in rounds):.2f} s"

    faster, faster_text = ratio("batches", "solver")
    calls, calls_text = ratio("whole", "call")
    error, elements = max(r.error for r in rounds), len(rounds) * (BATCH * BATCHES + SINGLES)
    print(
        f"\n{name}\n"
        f"  model call {seconds('call')}; structured {seconds('solver')}, with its model call {seconds('whole')}\n"
        f"  research strategy {seconds('batches')} in batches of {BATCH} (from {BATCHES} batches a round), "
        f"{seconds('singles')} by single passes (from {SINGLES})\n"
        f"  {faster_text} times less than the research strategy (at least {FASTER_THAN_RESEARCH:.0f}), "
        f"{ratio('singles', 'solver')[1]} times less than single passes\n"
        f"  {calls_text} model calls in all (at most {MODEL_CALLS}), the solver alone {ratio('solver', 'call')[1]}\n"
        f"  peak memory {more:.2f} times a plain call's (at most {MEMORY})\n"
        f"  largest relative error {error:.1e} on {elements} elements (at most {ERROR})"
    )
    missed = faster < FASTER_THAN_RESEARCH or calls > MODEL_CALLS or more > MEMORY or error > ERROR
    print("  LIMIT MISSED" if missed else "  as it should be")
    return missed


if __name__ == "__main__":
    main()

"""Variants of one run measured in turns, so that a busy machine slows all of them alike."""

from __future__ import annotations

import gc
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..host.memory import MostBytes

MIB = 2**20
Variants = dict[str, Callable[[], tuple[object, object]]]
"""Name -> a function that gives a freshly patched model and what must live as long as it; one is called "none"."""


class Meter:
    """Time and most additional memory of a block, on the CPU or a CUDA device.

    seconds: on the CPU those this process computed, which other programs' load does not change; else those that passed.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"

    def __enter__(self) -> Meter:
        gc.collect()
        if self._cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
        else:
            # 5 makes Linux forget the largest resident size seen so far
            Path("/proc/self/clear_refs").write_text("5")
            self._before = _status("VmRSS")
        self._clock = time.perf_counter if self._cuda else time.process_time
        self._start = self._clock()
        return self

    def __exit__(self, *_: object) -> None:
        if self._cuda:
            torch.cuda.synchronize()
        self.seconds = self._clock() - self._start
        self.memory = (torch.cuda.max_memory_allocated() if self._cuda else _status("VmHWM")) - self._before


def _status(name: str) -> int:
    return int(re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


@dataclass(frozen=True)
class Cost:
    """What a variant costs beside the run without it: medians over the turns.

    time: its time against that of "none" in the same turn, less one. memory: bytes more at the highest point; on the
    CPU of the tensors that are alive together, since how much memory a process holds hangs on its allocator.
    """

    time: float
    memory: float

    def verdict(self, name: str, most_time: float, most_memory: int) -> tuple[bool, str]:
        """Whether it stays within the limits, and the line that says so."""
        good = self.time <= most_time and self.memory <= most_memory
        limits = f"{self.time:+.1%} time (at most {most_time:+.0%}), {self.memory / MIB:+.0f} MiB (at most "
        return good, f"{name}: {limits}{most_memory / MIB:+.0f}): {'ok' if good else 'FAILED'}"


@dataclass
class _Measured:
    seconds: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)


def costs_in_turns(
    variants: Variants, run: Callable[[object], Tensor], turns: int, device: torch.device
) -> dict[str, Cost]:
    """Run every variant `turns` times, print a table and give each one's cost.

    Raises RuntimeError when a variant changes the result of `run` in a single bit.
    """
    plain, _ = variants["none"]()
    expected = run(plain)
    measured = {name: _Measured() for name in variants}
    for turn in range(turns):
        # alternate the order: the first of a turn is not always the same
        for name in list(variants)[:: 1 if turn % 2 else -1]:
            patched, held = variants[name]()
            with Meter(device) as meter:
                result = run(patched)
            if not torch.equal(result, expected):
                raise RuntimeError(f"with {name} the latent differs")
            measured[name].seconds.append(meter.seconds)
            measured[name].memory.append(meter.memory)
            print(f"  turn {turn + 1}: {name}: {meter.seconds:.2f} s, {meter.memory / MIB:.0f} MiB", flush=True)
            del patched, held
    if device.type == "cpu":
        for name, make in variants.items():
            patched, held = make()
            with MostBytes() as seen:
                run(patched)
            measured[name].memory = [seen.most]
            del patched, held
    return _table(measured)


def _table(measured: dict[str, _Measured]) -> dict[str, Cost]:
    print("| variant | time | time against none, same turn (median) | most memory (median) | against none |")
    print("|---|---|---|---|---|")
    costs, none = {}, measured["none"]
    for name, each in measured.items():
        ratio = statistics.median(a / b for a, b in zip(each.seconds, none.seconds, strict=True))
        most = statistics.median(each.memory)
        costs[name] = cost = Cost(ratio - 1, most - statistics.median(none.memory))
        middle = statistics.median(each.seconds)
        print(f"| {name} | {middle:.2f} s | {cost.time:+.1%} | {most / MIB:.0f} MiB | {cost.memory / MIB:+.0f} MiB |")
    return costs

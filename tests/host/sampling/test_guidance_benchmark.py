"""What the benchmark of guidance measures of a run in the real host."""

from __future__ import annotations

import torch

from tests.benchmarks.guidance.asked import all_asked
from tests.benchmarks.guidance.variants import PLAIN
from tests.host.memory import MostBytes


def test_the_memory_of_a_run_is_that_of_sampling_alone(comfy):
    """Decoding takes more than sampling a toy picture; what a guided step keeps must show all the same."""
    from tests.benchmarks.guidance.sampled import Sampled

    sampled, asked = Sampled(), all_asked()[0]
    plain, guided = (sampled.memory(name, asked, 4) for name in (PLAIN, "Keep Words, as published"))
    with torch.inference_mode(), MostBytes() as decoding:
        sampled.toy.vae.decode(torch.zeros(1, 4, 16, 16))
    assert 0 < plain < guided
    assert plain < decoding.most

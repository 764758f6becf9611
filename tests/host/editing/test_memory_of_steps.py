"""What an edited run holds at once does not grow with its steps: nothing of an attention is stored."""

from __future__ import annotations

import pytest
import torch

from explainable_latents.nodes.core.methods.prompt_to_prompt import PromptToPrompt, Window
from tests.host.editing.test_contract import METHODS, Method
from tests.host.editing.test_prompt_to_prompt import aligned, editor
from tests.host.editing.twins import twin
from tests.host.memory import MostBytes
from tests.host.unets import random_unet, sample

ALWAYS = PromptToPrompt(aligned(77), Window(), {}, {}, Window(), 4)
EVERY = {**METHODS, "Prompt-to-Prompt": Method(lambda model: twin(model, editor(ALWAYS)))}
FEW, MANY = 4, 16


def most_bytes(model, steps: int) -> int:
    """At once, of all tensors that one run makes."""
    with torch.inference_mode(), MostBytes() as seen:  # as the host runs its nodes
        sample(model, steps=steps)
    return seen.most


@pytest.mark.parametrize("name", EVERY)
def test_what_a_run_holds_at_once_is_the_same_for_more_steps(comfy, name):
    edited = EVERY[name].put(random_unet())
    assert most_bytes(edited, FEW) == most_bytes(edited, MANY)

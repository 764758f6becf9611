"""The second toy world's model in the real host, with and without guidance."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from explainable_latents.nodes.core.layout import Box, Layout
from explainable_latents.nodes.core.words.parsing import parse
from explainable_latents.nodes.guidance import NODES
from explainable_latents.nodes.host.tokens import tokenize

from ...host.memory import MostBytes
from ...tools.comfyui.paths import TOY_TWO
from ...tools.toy_world.group_judge import judge_groups, load_group_judge
from ...tools.toy_world.loaded import Toy
from ...tools.toy_world.table import table
from .asked import Asked, Outcome, outcome
from .variants import PLACE_WORDS, PLAIN, VARIANTS

# As in the toy world's own tables.
STEPS, CFG, SAMPLER, SCHEDULER = 50, 3.0, "euler", "normal"


def defaults(node: type) -> dict[str, Any]:
    """The inputs of a node that have a default."""
    inputs = {each.id: getattr(each, "default", None) for each in node.define_schema().inputs}
    return {name: value for name, value in inputs.items() if value is not None}


class Sampled:
    """The second world's checkpoint and its judge. Times are those that this process computed, whatever the load."""

    def __init__(self) -> None:
        self.toy, self.judge = Toy(TOY_TWO), load_group_judge()

    def guided(self, name: str, asked: Asked) -> Any:
        """The model with a variant of VARIANTS, by its node; PLAIN is the model itself.

        Raises ValueError where the words that are parsed are not the prompt's subjects.
        """
        if name == PLAIN:
            return self.toy.model
        kind, inputs = VARIANTS[name]
        node = next(each for each in NODES if each.__name__ == kind)
        text = asked.prompt.text
        subjects = parse(text, tokenize(self.toy.clip, text), "").with_role("subject")
        found = [each.text for each in subjects.items]
        if found != list(asked.prompt.things):
            raise ValueError(f"'{text}' has the subjects {found} instead of {list(asked.prompt.things)}.")
        layout = Layout(tuple(Box(words, *corners) for words, corners in asked.boxes.items()))
        places = {"layout": layout} if kind == PLACE_WORDS else {}
        return node.execute(self.toy.model, subjects, **{**defaults(node), **inputs}, **places).result[0]

    def timed(self, name: str, asked: Asked) -> tuple[Tensor, float]:
        """A variant's picture [1,3,128,128] in [0,1], and the processor's seconds of sampling."""
        toy, empty = self.toy, {"samples": torch.zeros(1, 4, 16, 16)}
        texts = toy.encode(asked.prompt.text), toy.encode("")
        import nodes

        model, began = self.guided(name, asked), time.process_time()
        (latent,) = nodes.common_ksampler(model, asked.seed, STEPS, CFG, SAMPLER, SCHEDULER, *texts, empty)
        seconds = time.process_time() - began
        return toy.vae.decode(latent["samples"]).permute(0, 3, 1, 2).clamp(0, 1), seconds

    @torch.inference_mode()  # as the host runs its nodes
    def visit(self, asked: Asked, names: Iterable[str]) -> Mapping[str, tuple[Outcome, Image.Image]]:
        """The plain run and these variants of a prompt: what they show, and the pictures."""
        plain, seconds = self.timed(PLAIN, asked)
        made = {PLAIN: (plain, seconds), **{name: self.timed(name, asked) for name in names}}
        judged = judge_groups(self.judge, torch.cat([picture for picture, _ in made.values()]))
        pixels = {name: (255 * p[0].permute(1, 2, 0)).round().byte().numpy() for name, (p, _) in made.items()}
        return {
            name: (
                outcome(asked, seen, pixels[name], pixels[PLAIN], made[name][1] / seconds),
                Image.fromarray(pixels[name]),
            )
            for (name, seen) in zip(made, judged, strict=True)
        }

    @torch.inference_mode()
    def costs(self, asked: Asked, turns: int) -> str:
        """A table: the time of each variant of a prompt beside the plain run of the same turn, and its tensors."""
        times: dict[str, list[float]] = {name: [] for name in (PLAIN, *VARIANTS)}
        for turn in range(turns):
            for name in list(times)[:: 1 if turn % 2 else -1]:
                times[name].append(self.timed(name, asked)[1])
        rows = []
        for name, each in times.items():
            ratio = statistics.median(a / b for a, b in zip(each, times[PLAIN], strict=True))
            with MostBytes() as seen:
                self.timed(name, asked)
            rows.append((name, f"{statistics.median(each):.2f} s", f"{ratio:.2f} ×", f"{seen.most / 2**20:.1f} MiB"))
        return table(("", "processor time", "beside plain", "most memory of tensors"), rows)

"""The second toy world's model in the real host, plain and with a variant."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from explainable_latents.nodes import guidance, phrases, placed_phrases, regional_prompts
from explainable_latents.nodes.core.layout import Box, Layout
from explainable_latents.nodes.core.words.parsing import parse
from explainable_latents.nodes.host.tokens import tokenize

from ...host.memory import MostBytes
from ...tools.comfyui.paths import TOY_TWO
from ...tools.toy_world.group_judge import judge_groups, load_group_judge
from ...tools.toy_world.loaded import Toy
from ...tools.toy_world.quality_groups import Prompt
from ...tools.toy_world.table import table
from .asked import Asked, Outcome, outcome
from .variants import PLAIN, REGIONS, STRUCTURED, VARIANTS

# As in the toy world's own tables.
STEPS, CFG, SAMPLER, SCHEDULER = 50, 3.0, "euler", "normal"
FILES = guidance, placed_phrases, regional_prompts, phrases
ALONE = tuple(name for name, (node, _) in VARIANTS.items() if node == STRUCTURED)


def defaults(node: type) -> dict[str, Any]:
    """The inputs of a node that have a default."""
    inputs = {each.id: getattr(each, "default", None) for each in node.define_schema().inputs}
    return {name: value for name, value in inputs.items() if value is not None}


class Sampled:
    """The second world's checkpoint and its judge. Times are those that this process computed, whatever the load."""

    def __init__(self) -> None:
        self.toy, self.judge = Toy(TOY_TWO), load_group_judge()
        self._plain: tuple[tuple[Asked, ...], Tensor, float] | None = None

    def guided(self, name: str, batch: Sequence[Asked]) -> Any:
        """The model with a variant of VARIANTS for a batch, by its node; PLAIN is the model itself.

        Raises ValueError where the words that are parsed are not the prompt's subjects.
        """
        if name == PLAIN:
            return self.toy.model
        kind, inputs = VARIANTS[name]
        node = next(each for file in FILES for each in file.NODES if each.__name__ == kind)
        asked, text = batch[0], batch[0].prompt.text
        subjects = parse(text, tokenize(self.toy.clip, text), "").with_role("subject")
        found = [each.text for each in subjects.items]
        if found != list(asked.prompt.things):
            raise ValueError(f"'{text}' has the subjects {found} instead of {list(asked.prompt.things)}.")
        layout = Layout(tuple(Box(words, *corners) for words, corners in asked.boxes.items()))
        asked_for = {each.id for each in node.define_schema().inputs}
        given = {"model": self.toy.model, "clip": self.toy.clip, "subjects": subjects, "layout": layout}
        if kind == REGIONS:
            given["regions"] = self.regions(batch)
        given = {name: each for name, each in given.items() if name in asked_for}
        return node.execute(**{**defaults(node), **inputs, **given}).result[0]

    def regions(self, batch: Sequence[Asked]) -> list:
        """For each box of the batch the CONDITIONING of its thing alone, on its scene."""
        found = []
        for k, (words, corners) in enumerate(batch[0].boxes.items()):
            alone = [Prompt(dict([list(each.prompt.things.items())[k]]), each.prompt.scene) for each in batch]
            encoded = [self.toy.encode(prompt.text)[0] for prompt in alone]
            mask = Layout.share(Box(words, *corners), 16, 16)[None]
            found.append([torch.cat([context for context, _ in encoded]), {**encoded[0][1], "mask": mask}])
        return found

    def timed(self, name: str, batch: Sequence[Asked]) -> tuple[Tensor, float]:
        """A variant's pictures of a batch [B,3,128,128] in [0,1], and the processor's seconds for its latents.

        What knows its prompt by its text is run for each picture alone.
        """
        if name in ALONE and len(batch) > 1:
            pictures, seconds = zip(*(self.timed(name, [each]) for each in batch), strict=True)
            return torch.cat(pictures), sum(seconds)
        began = time.process_time()
        latents = self.latents(name, batch)
        seconds = time.process_time() - began
        return self.toy.vae.decode(latents).permute(0, 3, 1, 2).clamp(0, 1), seconds

    def latents(self, name: str, batch: Sequence[Asked], steps: int = STEPS) -> Tensor:
        """A variant's finished latents of a batch [B,4,16,16]."""
        import comfy.sample

        empty = torch.zeros(1, 4, 16, 16)
        noise = torch.cat([comfy.sample.prepare_noise(empty, asked.seed) for asked in batch])
        encoded = [self.toy.encode(asked.prompt.text)[0] for asked in batch]
        positive = [[torch.cat([context for context, _ in encoded]), encoded[0][1]]]
        how = steps, CFG, SAMPLER, SCHEDULER, positive, self.toy.encode(""), torch.zeros_like(noise)
        return comfy.sample.sample(self.guided(name, batch), noise, *how, disable_pbar=True, seed=batch[0].seed)

    @torch.inference_mode()
    def memory(self, name: str, asked: Asked, steps: int = STEPS) -> int:
        """The most bytes that the tensors of a variant's run take at once, without those of the decoder."""
        with MostBytes() as seen:
            self.latents(name, [asked], steps)
        return seen.most

    @torch.inference_mode()  # as the host runs its nodes
    def visit(self, batch: tuple[Asked, ...], name: str) -> list[tuple[Outcome, Image.Image]]:
        """What a batch of prompts shows with a variant, see `asked.batches`, and the pictures."""
        if self._plain is None or self._plain[0] != batch:
            self._plain = batch, *self.timed(PLAIN, batch)
        _, plain, seconds = self._plain
        made, took = (plain, seconds) if name == PLAIN else self.timed(name, batch)
        if name in ALONE:
            seconds = len(batch) * self.timed(PLAIN, batch[:1])[1]
        pixels, others = ((255 * each.permute(0, 2, 3, 1)).round().byte().numpy() for each in (made, plain))
        return [
            (outcome(asked, seen, own, other, took / seconds), Image.fromarray(own))
            for asked, seen, own, other in zip(batch, judge_groups(self.judge, made), pixels, others, strict=True)
        ]

    @torch.inference_mode()
    def costs(self, asked: Asked, turns: int) -> str:
        """A table: the time of each variant of a prompt beside the plain run of the same turn, and its tensors."""
        times: dict[str, list[float]] = {name: [] for name in (PLAIN, *VARIANTS)}
        for turn in range(turns):
            for name in list(times)[:: 1 if turn % 2 else -1]:
                times[name].append(self.timed(name, [asked])[1])
        rows = []
        for name, each in times.items():
            ratio = statistics.median(a / b for a, b in zip(each, times[PLAIN], strict=True))
            most = f"{self.memory(name, asked) / 2**20:.1f} MiB"
            rows.append((name, f"{statistics.median(each):.2f} s", f"{ratio:.2f} ×", most))
        return table(("", "processor time", "beside plain", "most memory of tensors"), rows)

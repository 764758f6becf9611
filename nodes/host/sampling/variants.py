"""Variants of one sampler run: its user goes back to an earlier stop and answers it in another way.

The run is sampled anew from its beginning, with the answers up to that stop as they were given. So a variant is bit for
bit the run that had its answers from the start, with every sampler, whatever that remembers of its steps. Everything
else on the model sees a run of its own for each variant: what captures and reports hold belongs to one of them. The
result is the batch of all that were finished, in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from torch import Tensor

from ..attention.model_call import OURS
from ..pauses.asking import Changes, Outcome, ask
from ..pauses.image_metadata import AnswersInImages
from ..pauses.messages import AT_END, BACK
from ..pauses.pause import Limit
from ..pauses.records import MOST_VARIANTS, check_steps_of, read_records
from ..ui.temporary_files import smaller
from .asker import AskedRun, Asker, Asks, KeptAnswers, steps_of
from .fresh_start import FreshStart
from .pause_content import pictures_and_maps
from .runs import noting

KEY = OURS + "variants"
MOST_BYTES = 512 * 1024**2  # of all finished variants


class WentBack(Exception):
    """Raised out of a sampler to have it sample another variant. variants: of which run."""

    def __init__(self, variants: VariantsOfRun) -> None:
        super().__init__()
        self.variants = variants


@dataclass(frozen=True)
class Stop:
    """Where a variant stopped. picture: what was predicted there, small, as a data URL. outcome: how it went on."""

    kind: str
    step: int
    picture: str | None
    outcome: Outcome


class VariantsOfRun:
    """One sampler run. single: whether there may be one variant only. finished: what its variants gave, on the CPU."""

    def __init__(self, single: bool) -> None:
        self.finished: list[Tensor] = []
        self._single = single
        self._pictures: list[str | None] = []  # of the finished ones
        self._origin: list[str] = []  # where the present one comes from, for its report
        self._kept: dict[int, KeptAnswers] = {}
        self._given = 1  # how many variants the recorded answers hold
        self._stop_at_end = False
        self._path: list[Stop] = []  # of the present variant
        self._repeated = self._place = 0  # how many of its stops are answered as before, and which one is the next
        self._limit = Limit(None)

    def asker(self, owner: object, node: str, plan: Asks, steps: Sequence[int], run: AskedRun) -> Asker:
        """What asks for a node before these steps of the variant that begins.

        owner: what is the same object in all variants. node: display name. Raises ValueError as `read_records` and
        `check_steps_of`, and where two nodes have recorded answers for different numbers of variants.
        """
        given = read_records(plan.answers)
        check_steps_of(steps_of(given), steps)
        if len(given) > 1:
            self._expect(len(given), node)
        if id(owner) not in self._kept:
            self._kept[id(owner)] = KeptAnswers(AnswersInImages(node, plan.metadata))
        recorded = given[len(self.finished) if len(given) > 1 else 0] if given else None
        run.notes.extend(self._origin)
        return Asker(self, plan, recorded, self._kept[id(owner)], run)

    def begin(self) -> None:
        """A variant is sampled from the run's beginning."""
        self._place = 0
        self._path = self._path[: self._repeated]

    def ask(
        self,
        kind: str,
        step: int,
        content: Callable[[], Mapping[str, Any]],
        limit: Limit,
        changes: Changes | None = None,
    ) -> Outcome:
        """Stop before `step`, see `Asker.ask`."""
        place, self._place = self._place, self._place + 1
        if place < self._repeated:
            return self._path[place].outcome
        self._limit = limit
        picture: list[str] = []

        def whole() -> Mapping[str, Any]:
            made = content()
            picture.extend(smaller(url) for url in made["pictures"][:1])
            if kind == AT_END:
                self._pictures.extend(picture or [None])
            full = len(self.finished) >= self._most
            stops = [{"kind": each.kind, "step": each.step, "picture": each.picture} for each in self._path]
            alone = self._single or self._given > 1
            about = {"variants": self._pictures, "full": full, "stop_at_end": None if alone else self._stop_at_end}
            return {"kind": kind, "step": step, **made, **about, "stops": [] if alone or full else stops}

        outcome = ask(whole, limit, changes=changes)
        if outcome.reason == BACK:
            self._repeated = outcome.answer.to
            went = f"the user went back to the stop before step {self._path[self._repeated].step}"
            number = len(self.finished)
            self._origin.append(f"variant {number + 1}: {went} of variant {number}" if kind == AT_END else went)
            raise WentBack(self)
        if outcome.answer is not None and outcome.answer.stop_at_end is not None:
            self._stop_at_end = outcome.answer.stop_at_end
        self._path.append(Stop(kind, step, picture[0] if picture else None, outcome))
        return outcome

    def finish(self, samples: Tensor, step: int, content: Callable[[], Mapping[str, Any]]) -> bool:
        """A variant has given `samples`, after its last step. Returns whether there is another one.

        content: what the user is shown who wanted to be asked. Raises ValueError where the recorded variants take more
        than MOST_BYTES.
        """
        self.finished.append(samples.cpu())
        self._origin = []
        for kept in self._kept.values():
            kept.finish()
        if self._given > 1:
            if self._given > self._most:
                raise ValueError(
                    f"answers: {self._given} variants of this latent take more than {MOST_BYTES >> 20} MB. Share them "
                    "between several runs"
                )
            self._origin = [f"variant {len(self.finished) + 1} of the recorded answers"]
            return len(self.finished) < self._given
        try:
            if self._stop_at_end:
                self.ask(AT_END, step, content, self._limit)
        except WentBack:
            return True
        return False

    @property
    def _most(self) -> int:
        """How many variants there may be."""
        size = max((each.numel() * each.element_size() for each in self.finished), default=1)
        return min(MOST_VARIANTS, max(1, MOST_BYTES // size))

    def _expect(self, count: int, node: str) -> None:
        """Recorded answers hold more variants than one."""
        if self._given not in (1, count):
            raise ValueError(
                f"answers of {node}: they hold {count} variants, those of another node of this run {self._given}. Copy "
                "both from the report of one run"
            )
        if self._single:
            raise ValueError(
                f"answers of {node}: they hold {count} variants, but latents of pictures and sound together cannot be "
                "put into a batch. Repeat each variant in a run of its own"
            )
        self._given = count


class Variants:
    """OUTER_SAMPLE wrapper of a model whose samplers pause. current: the run that goes on now."""

    def __init__(self) -> None:
        self.current: VariantsOfRun | None = None

    def __call__(self, executor: WrapperExecutor, *args: Any, **kwargs: Any) -> Tensor:
        """Sample the variants of a run, as many as its user or the recorded answers want; their batch is the result."""
        guider, start = executor.class_obj, FreshStart(executor.class_obj, args, kwargs)
        variants = VariantsOfRun(single=len(kwargs.get("latent_shapes") or ()) > 1)
        outer, self.current = self.current, variants
        predictions, goes_on = [], True
        try:
            while goes_on:
                variants.begin()
                args, kwargs, callback, newest = noting(*start.again())
                try:
                    samples = executor(*args, **kwargs)
                except WentBack as went:
                    if went.variants is not variants:
                        raise
                    start.leave()
                    continue
                predictions += newest
                content = _shown_at_end(guider.model_patcher.model, samples)
                goes_on = variants.finish(samples, len(start.sigmas) - 1, content)
        finally:
            self.current = outer
        if len(variants.finished) == 1:
            return samples
        if callback is not None and len(predictions) == len(variants.finished):
            # from which the host's nodes make their output `denoised_output`
            step, x0, x, *others = zip(*predictions, strict=True)
            callback(step[-1], torch.cat(x0), torch.cat(x), *(each[-1] for each in others))
        return torch.cat(variants.finished).to(samples)


def variants_of(patcher: ModelPatcher) -> Variants:
    """Let every sampler that runs `patcher` (changed in place: pass a clone) make variants, outside all other wrappers
    that are installed on it: these see a run for each."""
    installed = patcher.get_wrappers(WrappersMP.OUTER_SAMPLE, KEY)
    if installed:
        return installed[0]
    variants = Variants()
    around = patcher.wrappers.setdefault(WrappersMP.OUTER_SAMPLE, {})
    others = dict(around)
    around.clear()
    around.update({KEY: [variants], **others})
    return variants


def _shown_at_end(model: Any, samples: Tensor) -> Callable[[], Mapping[str, Any]]:
    """What the message of a pause says of a finished latent."""

    def content() -> Mapping[str, Any]:
        shown = pictures_and_maps(model.latent_format, model.process_latent_in(samples), None)
        return {"sigma": 0.0, "size": None, "found": [], "start": [], "values": [], **shown}

    return content

"""Capture a model's cross-attention while any sampler runs it, without changing what it computes, and read it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...core.attention.aggregate import RESIZE_MODES
from ...core.attention.looked_for import SOFTMAX
from ...core.attention.output_space import ATTENTION, OUTPUT, SPACES
from ...core.attention.probabilities import ALL_TEXT, PROMPT_WORDS, SHARES
from ...core.attention.refine import AUTO
from ...core.choices import one_of
from ...core.maps.saliency import Saliency, over_steps
from ...core.words.prompt_words import other_words
from ...core.words.subjects import LOOKED_FOR, OTHER, Subjects
from ..families.family import family_of, network_of
from ..families.offers import KEYS
from ..same_prompt import SampledPrompt, require_same_prompt
from .capturing import Observer, Settings
from .layer_choice import LayerSelection, select_layers
from .looked_for import encode_looked_for
from .model_call import OURS, no_attention
from .named_tokens import NamedTokens
from .positives import contexts_of
from .refinement import refine_plan
from .twin_blocks import TARGET

log = logging.getLogger("explainable_latents")

WRAPPER_KEY = OURS + "attention"


class AttentionCapture:
    """Handle of an observed model (EL_ATTENTION): filled while samplers run, read afterwards.

    subjects: whose attention is captured, other words of the prompt last. It holds sums per subject only, never a whole
    attention matrix.
    """

    def __init__(self, observer: Observer) -> None:
        self.subjects: Subjects = observer.subjects
        self.runs = observer.runs
        self._observer = observer

    def latest(self) -> Saliency | None:
        """The maps of the most recent model call [S,B,h,w], each summing to 1; None before the first.

        While a sampler runs, only its run counts.
        """
        run = self.runs.latest()
        return run.saliencies[-1] if run and run.saliencies else None

    def nothing_seen(self, where: str, otherwise: str) -> ValueError:
        """The error for the most recent run, see `no_attention`: what was warned of while it ran, or `otherwise`."""
        run = self.runs.latest()
        return no_attention(self._observer.labels, where, [*(run.notes if run else []), otherwise])

    def capture_calls(self, wanted: bool) -> None:
        """While a sampler runs: say whether its model calls are captured from now on; the others may run compiled."""
        self.runs.current.capturing = wanted

    def before_step(self) -> Saliency | None:
        """While a sampler runs, between two of its steps: the maps of its last model call; None if that had none."""
        return self.runs.current.last

    def until_step(self) -> Saliency | None:
        """While a sampler runs, between two of its steps: the maps of its calls so far added up before they are
        normalised; None when none of them had any."""
        run = self.runs.current
        return run.total(self._observer.resize, self._observer.scores) if run.saliencies else None

    def ask(self, predict: Callable[[], object]) -> Saliency | None:
        """The maps of the model call that `predict` makes, which is not a step of the sampler; None if it has none."""
        return self._observer.ask(predict)

    def ask_about(self, subjects: Subjects, prompt: list[Tensor], predict: Callable[[], object]) -> Saliency | None:
        """As `ask`, of the words of another prompt, at any noise level. prompt: its contexts [1,T,d]."""
        with self._observer.reading(subjects, prompt):
            return self._observer.ask(predict)

    def saliency(self, samples: Tensor, role: str, how: str, each_layer: bool = False) -> Saliency:
        """Maps of the finished run that made `samples` (see `Runs.of`), on the CPU.

        role: all, subject, scene, looked for or other. how: see `core.maps.saliency.over_steps`. each_layer: one map
        per layer instead, summed over the steps. Raises ValueError when there is nothing of that kind.
        """
        run = self.runs.of(samples)
        if not run.saliencies:
            otherwise = "start and end percent of Capture Attention include none of the sampler's steps (0 and 1: all)"
            raise no_attention(self._observer.labels, "while this latent was sampled", [*run.notes, otherwise])
        picked = self._with_role(role)
        if each_layer:
            return run.layer_saliency(picked, self._observer.scores)
        total = run.total(self._observer.resize, self._observer.scores).select(picked)
        return over_steps([call.select(picked) for call in run.saliencies], how, total)

    def _with_role(self, role: str) -> tuple[int, ...]:
        """The numbers of the maps whose words have this role. Raises ValueError if there are none."""
        found = len(self._observer.labels) - len(self.subjects.items)
        roles = [item.role for item in self.subjects.items] + [LOOKED_FOR] * found
        picked = tuple(i for i, each in enumerate(roles) if role in ("all", each))
        if not picked and role == LOOKED_FOR:
            raise ValueError(
                "nothing was looked for: type words into look_for of Capture Attention. A word that is a subject or "
                "the scene already has its map there"
            )
        if not picked and role == OTHER:
            raise ValueError(
                "no words without a role were captured: switch on all_words of Capture Attention; or every word of "
                "the prompt is a subject or the scene"
            )
        if not picked:
            self.subjects.with_role(role)
        return picked


def observe(
    patcher: ModelPatcher,
    subjects: Subjects,
    *,
    layers: str = AUTO,
    start_percent: float = 0.0,
    end_percent: float = 1.0,
    positive: list | None = None,
    resize: str = "nearest",
    share: str = AUTO,
    refine: int = 0,
    refine_layers: str = AUTO,
    clip: Any = None,
    look_for: str = "",
    reading: str = SOFTMAX,
    space: str = ATTENTION,
    all_words: bool = False,
    keep: bool = True,
    add_up: bool = False,
    block: str = TARGET,
) -> AttentionCapture:
    """Observe the cross-attention of `patcher` (changed in place: pass a clone) for `subjects`.

    layers: see `select_layers`, AUTO for those that are usual for the model family. start_percent, end_percent: the
    part of the noise schedule that is captured, 0 at pure noise. positive: the CONDITIONING of the subjects' prompt,
    needed only where several different prompts are combined. resize: nearest or bilinear. share: `all tokens` gives the
    plain probability (begin-of-text and padding keep their share, and so does the picture where it attends to itself as
    well), `all text` the probability renormalised over all tokens of the text, `prompt words` over the prompt's own;
    AUTO is the first for cross- and the second for joint attention. refine: how often maps are refined by
    self-attention, from 0 to 8, see `core.attention.refine`; refine_layers: of which layers, see `refine_plan`. clip,
    look_for, reading: further words, which need not be in the prompt, see `encode_looked_for` and
    `core.attention.looked_for`. space: attention, or output for another way to read joint attention, see
    `core.attention.output_space`. all_words: the prompt's other words, too, see `other_words`. keep: all maps, to be
    read after a run, or only the last one while it goes on; add_up: then their sums, too. block: whose attention is
    captured in a twin run, see `twin_blocks`.

    Raises ValueError for a model without readable cross-attention, an unknown layer or option, an empty range, or
    subjects without tokens.
    """
    if not 0.0 <= start_percent < end_percent <= 1.0:
        raise ValueError(
            f"start_percent {start_percent} and end_percent {end_percent} must satisfy 0 <= start_percent < "
            f"end_percent <= 1"
        )
    one_of("resize", resize, RESIZE_MODES)
    one_of("share", share, (AUTO, *SHARES))
    one_of("space", space, SPACES)
    family, network = family_of(patcher), network_of(patcher)
    share = family.share if share == AUTO else share
    if space == OUTPUT and not family.words_have_output:
        raise ValueError(
            f"space {OUTPUT!r} compares what an attention puts out for words and for places, but words have no output "
            f"in {family.name}: choose {ATTENTION!r}"
        )
    seen = replace(subjects, items=(*subjects.items, *other_words(subjects))) if all_words else subjects
    looked = encode_looked_for(clip, seen, look_for, reading)
    tokens = seen.positions() + (looked.inside if looked else ())
    if not tokens and not looked:
        raise ValueError("no subject to capture: name one in 'override' of Parse Subjects or Prompt with Words")
    if looked and looked.counts:
        family_of(patcher, KEYS)
    words = subjects.word_positions() if share == PROMPT_WORDS else None
    named = NamedTokens(tokens, words, share == ALL_TEXT)
    prompt = None if positive is None else contexts_of(positive)
    names, usual = family.site_names(network, family.text_kind), family.usual_layers(network)
    selection = LayerSelection(frozenset(usual), frozenset())
    if layers.strip().lower() != AUTO:
        selection = select_layers(names, layers, f"{family.text_kind}-attention", (AUTO,))
    when = start_percent, end_percent
    plan = refine_plan(patcher, refine, refine_layers)
    sampled = SampledPrompt()
    settings = Settings(named, prompt, selection, *when, resize, plan, looked, space, block, sampled)
    observer = Observer(seen, family, settings, keep, add_up)
    for kind, wrapper in (
        (WrappersMP.OUTER_SAMPLE, observer.around_run),
        (WrappersMP.PREDICT_NOISE, observer.around_step),
        (WrappersMP.CALC_COND_BATCH, observer.around_batch),
        (WrappersMP.APPLY_MODEL, observer.around_model),
    ):
        patcher.add_wrapper_with_key(kind, WRAPPER_KEY, wrapper)
    require_same_prompt(patcher, subjects, positive, log.warning, sampled)
    return AttentionCapture(observer)

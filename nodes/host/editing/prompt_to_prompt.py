"""Prompt-to-Prompt at the attention sites of a twin run, see `core.methods.prompt_to_prompt`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...core.methods.prompt_to_prompt import PromptToPrompt, Window, own_values, source_values
from ...core.words.alignment import described
from ...core.words.subjects import shorten
from ..attention.attention_call import AttentionCall
from ..families.sites import CROSS, SELF, Site
from ..patch_names import replaced_parts
from ..same_prompt import Encoded
from .editors import EditingProcessor, PairedRows, TwinCall
from .word_tables import ReadPrompt, paired, read_weight, read_window


class PromptToPromptEditor:
    """See `editors.Editor`.

    prompts: text and encoding of source and target, by which their conditionings are known. table: which words stand
    for which, for the user.
    """

    name = "Prompt-to-Prompt"

    def __init__(self, method: PromptToPrompt, prompts: Sequence[tuple[str, Encoded]], table: str) -> None:
        self.method = method
        self.table = table
        self._prompts = prompts

    def chosen(self, texts: Mapping[Any, tuple[Tensor, Tensor]]) -> frozenset:
        """See `Editor`: the conditionings with exactly the two prompts."""
        found = frozenset(
            uuid
            for uuid, pair in texts.items()
            if all(
                context.shape[1] == length and own.is_in(context)
                for context, length, (_, own) in zip(pair, self.method.alignment.lengths, self._prompts, strict=True)
            )
        )
        if not found:
            (source, _), (target, _) = self._prompts
            raise ValueError(
                f"Prompt-to-Prompt was given the source prompt '{shorten(source)}' and the target prompt "
                f"'{shorten(target)}', but these are not what is sampled. Connect the same two texts and the same CLIP "
                "to Prompt-to-Prompt and to the two CLIP Text Encode, of which one goes to the sampler's positive and "
                "the other to source of Twin Sampling"
            )
        return found

    def claims(self, step: int, steps: int) -> frozenset[str]:
        """See `Editor`."""
        cross = {CROSS} if self.method.terms(step, steps) is not None else set()
        return frozenset(cross | ({SELF} if self.method.replaces_self_attention(step, steps) else set()))

    def processors(self, call: TwinCall, chosen: frozenset) -> list[EditingProcessor]:
        """See `Editor`."""
        pairs = [pair for pair in call.pairs if pair.uuid in chosen]
        kinds = self.claims(call.step, call.steps)
        return [ReplacedAttention(self.method, call, pairs, tuple(kinds))] if pairs and kinds else []


def prompt_to_prompt(
    clip: Any,
    source: str,
    target: str,
    words: str,
    cross: Window,
    self_attention: Window,
    coarser: int,
    weights: str,
    word_windows: str,
) -> PromptToPromptEditor:
    """The editor for two prompts, read and encoded with the model's CLIP.

    words: see `paired`. weights, word_windows: see `ReadPrompt.of_words`. The rest: see `PromptToPrompt`. Raises
    ValueError as these.
    """
    before, after = ReadPrompt.by(clip, source, "source"), ReadPrompt.by(clip, target, "target")
    method = PromptToPrompt(
        paired(before, after, words),
        cross,
        after.of_words(word_windows, "word_windows", read_window),
        after.of_words(weights, "weights", read_weight),
        self_attention,
        coarser,
    )
    table = described(method.alignment, before.tokens, after.tokens)
    return PromptToPromptEditor(method, ((source, before.encoded), (target, after.encoded)), table)


class ReplacedAttention(EditingProcessor):
    """Gives the target's rows the source's attention in one model call; all other rows keep their bits."""

    def __init__(
        self, method: PromptToPrompt, call: TwinCall, pairs: Sequence[PairedRows], kinds: tuple[str, ...]
    ) -> None:
        self.kinds = kinds
        self._method = method
        self._call = call
        self._pairs = pairs
        self._terms = method.terms(call.step, call.steps)
        self._seen: set[str] = set()
        self._coarse = False

    def wants(self, site: Site) -> bool:
        """See `Processor`."""
        self._seen.add(site.kind)
        wanted = site.kind == CROSS or self._method.is_coarse(site.grid, self._call.latent)
        self._coarse |= wanted and site.kind == SELF
        return wanted

    @torch.no_grad()
    def edit(self, call: AttentionCall) -> AttentionCall:
        """See `Processor`. A call that another node changed is computed as it is, with a warning."""
        obstacle = self._obstacle(call)
        if obstacle:
            self._call.warn(f"Prompt-to-Prompt leaves {call.site.kind}-attention of some layers as it is: {obstacle}")
            return call
        for pair in self._pairs:
            q, k, v, _ = call.of_rows(pair.target)
            theirs = {"q": call.q[pair.source], "k": call.k[pair.source]}
            if call.site.kind == SELF:
                call = call.with_rows(pair.target, **theirs)
                continue
            moved, own = self._terms
            call = call.with_rows(pair.target, **theirs, v=source_values(v, moved, k.shape[1]))
            if own.any():
                call = call.with_added(pair.target, q, k, own_values(v, own))
        return call

    def finish(self, network: nn.Module) -> None:
        """See `EditingProcessor`."""
        if SELF in self._seen and not self._coarse:
            self._call.warn(
                f"Prompt-to-Prompt edits no self-attention: no layer is {self._method.coarser} times coarser than this "
                "latent. Choose a smaller self_coarser"
            )
        for kind in sorted(set(self.kinds) - self._seen):
            self._call.warn(
                f"Prompt-to-Prompt could not edit {kind}-attention: it is computed by {replaced_parts(network)}"
            )

    def _obstacle(self, call: AttentionCall) -> str:
        """Why source and target cannot be found in a call; empty if they can."""
        h, w = call.site.grid
        inputs, expected = call.inputs, (self._call.count, h * w)
        if call.attend is None:
            return f"it is computed by {inputs.changed_by}"
        if tuple(call.q.shape[:2]) != expected or call.k.shape[0] != expected[0]:
            found = tuple(call.q.shape[:2])
            return f"it has {found} rows and queries where {expected} were expected, {inputs.cause}"
        keys = self._call.length if call.site.kind == CROSS else h * w
        own = inputs.before is None or inputs.before[1] is inputs.after[1]
        if call.k.shape[1] != keys or not own:
            return f"its keys were changed by {inputs.changed_by}"
        if call.mask is not None and call.mask.ndim > 2 and call.mask.shape[0] > 1:
            return "its rows have masks of their own"
        return ""

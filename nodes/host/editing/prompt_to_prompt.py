"""Prompt-to-Prompt at the attention sites of a twin run, see `core.methods.prompt_to_prompt`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ...core.methods.prompt_to_prompt import PromptToPrompt, Window, own_values, source_values
from ...core.words.alignment import described
from ...core.words.subjects import shorten
from ..attention.attention_call import AttentionCall
from ..families.sites import CROSS, SELF, Site
from ..same_prompt import Encoded
from .editors import EditingProcessor, PairedRows, TwinCall
from .layers import Layer, layers_of
from .word_tables import ReadPrompt, paired, read_weight, read_window


class PromptToPromptEditor:
    """See `editors.Editor` and `editors.InstalledEditor`.

    prompts: text and encoding of source and target, by which their conditionings are known. table: which words stand
    for which, for the user.
    """

    name = "Prompt-to-Prompt"

    def __init__(
        self,
        method: PromptToPrompt,
        prompts: Sequence[tuple[str, Encoded]],
        table: str,
        layers: Sequence[Layer] = (),
    ) -> None:
        """layers: of the model that it is installed on."""
        self.method = method
        self.table = table
        self._prompts = prompts
        self._layers = layers

    def installed(self, patcher: ModelPatcher, source: list) -> PromptToPromptEditor:
        """See `Editor`."""
        return PromptToPromptEditor(self.method, self._prompts, self.table, layers_of(patcher))

    def chosen(self, texts: Mapping[Any, tuple[Tensor, Tensor]]) -> frozenset:
        """See `InstalledEditor`: the conditionings with exactly the two prompts."""
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

    def claims(self, step: int, steps: int) -> frozenset[tuple[str, str]]:
        """See `InstalledEditor`."""
        kinds = self._kinds(step, steps)
        return frozenset(
            (layer.kind, layer.name)
            for layer in self._layers
            if layer.kind in kinds and (layer.kind == CROSS or layer.coarser >= self.method.coarser)
        )

    def processors(self, call: TwinCall, chosen: frozenset) -> list[EditingProcessor]:
        """See `InstalledEditor`."""
        pairs = [pair for pair in call.pairs if pair.uuid in chosen]
        kinds = self._kinds(call.step, call.steps)
        return [ReplacedAttention(self.name, self.method, call, pairs, kinds)] if pairs and kinds else []

    def _kinds(self, step: int, steps: int) -> frozenset[str]:
        """The kinds of attention that are edited at a step."""
        cross = {CROSS} if self.method.terms(step, steps) is not None else set()
        return frozenset(cross | ({SELF} if self.method.replaces_self_attention(step, steps) else set()))


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
    """Gives the target's rows the source's attention in one model call."""

    def __init__(
        self, name: str, method: PromptToPrompt, call: TwinCall, pairs: Sequence[PairedRows], kinds: Collection[str]
    ) -> None:
        super().__init__(name, kinds, call)
        self._method = method
        self._pairs = pairs
        self._terms = method.terms(call.step, call.steps)
        self._coarse = False

    def chooses(self, site: Site) -> bool:
        """See `EditingProcessor`."""
        chosen = site.kind == CROSS or self._method.is_coarse(site.grid, self._call.latent)
        self._coarse |= chosen and site.kind == SELF
        return chosen

    def edited(self, call: AttentionCall) -> AttentionCall:
        """See `EditingProcessor`."""
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
        super().finish(network)

"""The words' probabilities in cross-attention layers as variables that autograd differentiates with respect to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.attention.heads import joined
from ...core.attention.probabilities import token_probabilities
from ...core.gradients.definition import WordAttention, distinct_tokens
from ...core.gradients.loss_scale import LossScale
from ..attention.arrangement import Arranger, Place, UnreadableError
from ..attention.attention_call import AttentionCall, Processor
from ..attention.named_tokens import NamedTokens
from ..attention.positives import PromptRows
from ..families.sites import CROSS, JOINT, Site
from ..patch_names import patch_name, replaced_parts
from .foreign_attention import differentiable_attention, followed


class WordVariable(Processor):
    """Adds a change of 0 to the words' probabilities in `layers`; autograd records from the first of them on.

    Attention that no gradient passes is computed by the user's own backend; what is added to its output is exactly 0,
    but has the gradient with respect to the probabilities. Other nodes' attention has to let gradients pass. Only the
    picture's queries have one. words: for each layer that ran one entry per entry of `rows`. grids: for each
    layer its (h, w). slope: see `LossScale`.
    """

    kinds = (CROSS, JOINT)

    def __init__(self, rows: list[PromptRows], named: NamedTokens, layers: Sequence[str], slope: float) -> None:
        self.words: dict[str, list[WordAttention]] = {}
        self.grids: dict[str, tuple[int, int]] = {}
        self._arranger = Arranger(rows, named)
        self._layers = layers
        self._loss_scale = LossScale(slope)

    def wants(self, site: Site) -> bool:
        """See `Processor`."""
        return site.name in self._layers

    def backend(self, attention: Callable) -> Callable:
        """See `Processor`: the host's backends compute in place, which autograd refuses."""
        return differentiable_attention if torch.is_grad_enabled() else attention

    def foreign(self, patch: Callable, compute: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """See `Processor`."""

        def followed_and_named(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            out = followed(patch, compute, q, k, v)
            if out.requires_grad:
                self._loss_scale.passed.append(patch_name(patch))
            return out

        return followed_and_named

    def require_all(self, network: nn.Module) -> None:
        """After the call: raise the ValueError that names the layers that were not seen, and who replaced them."""
        if unseen := [layer for layer in self._layers if layer not in self.words]:
            raise ValueError(
                f"the model's cross-attention {', '.join(unseen)} was not computed where it could be seen, but "
                f"replaced by {replaced_parts(network)}; connect the model without it"
            )

    def edit(self, call: AttentionCall) -> AttentionCall:
        """The call with the change added; turns recording on."""
        name, (h, w) = call.site.name, call.site.grid
        try:
            arrangement = self._arranger.arrangement(call.inputs)
        except UnreadableError as error:
            raise ValueError(f"cross-attention {name}: {error}; connect the model without it") from error
        rows, queries, keys = call.inputs.expected
        if call.found != (rows, queries, keys) or (len(call.v), call.v.shape[-2]) != (rows, keys):
            raise ValueError(
                f"cross-attention {name} has {(len(call.q), call.q.shape[-2])} rows and positions and "
                f"{(len(call.k), call.k.shape[-2])} rows and keys where {rows} rows of {h}x{w} and {keys} keys were "
                f"expected, {call.inputs.cause}; connect the model without it"
            )
        self.grids[name] = (h, w)
        tokens = [[distinct_tokens(place.columns) for place in places] for places in arrangement.places]
        if name not in self.words:  # a block that is run again gets the variables it had
            each_place = zip(arrangement.places, tokens, strict=True)
            self.words[name] = [_words(call, *each, self._loss_scale) for each in each_place]
        torch.set_grad_enabled(True)
        at, first = call.site.queries, call.site.keys.start
        others = 0, 0, at.start, queries - at.stop
        for places, used, words in zip(arrangement.places, tokens, self.words[name], strict=True):
            parts = words.change.split([len(each) for each, _ in used], dim=-1)
            for place, (each, _), part in zip(places, used, parts, strict=True):
                call = call.with_change(place.rows, first + each, F.pad(part, others) if any(others) else part)
        return call


@torch.no_grad()
def _words(
    call: AttentionCall, places: list[Place], tokens: list[tuple[Tensor, Tensor]], loss_scale: LossScale
) -> WordAttention:
    """The words' attention at all the places of one conditioning, whose `distinct_tokens` these are."""
    p, values = [], []
    for place, (used, _) in zip(places, tokens, strict=True):
        q, k, mask = call.of_picture(place.rows)
        keys = call.site.keys.start + used
        p.append(token_probabilities(q, k, call.site.heads, keys, mask=mask, scale=call.scale))
        values.append(joined(call.v[place.rows][..., keys, :], call.site.heads))
    p, columns = torch.cat(p, dim=-1), torch.cat([each for _, each in tokens])
    change = torch.zeros_like(p, requires_grad=True)
    return WordAttention(p, change, columns, torch.cat(values, dim=1).float(), loss_scale)

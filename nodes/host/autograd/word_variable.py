"""The words' probabilities in cross-attention layers as variables that autograd differentiates with respect to."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.attention.heads import joined
from ...core.attention.probabilities import token_probabilities
from ...core.gradients.definition import WordAttention, distinct_tokens
from ...core.gradients.loss_scale import LossScale
from ..attention.arrangement import Arrangement, Arranger, Place, UnreadableError
from ..attention.attention_call import AttentionCall
from ..attention.named_tokens import NamedTokens
from ..attention.positives import PromptRows
from ..families.sites import CROSS, JOINT, Site
from ..patch_names import replaced_parts
from .foreign_attention import RecordedAttention, differentiable_attention


class WordVariable(RecordedAttention):
    """Adds a change of 0 to the words' probabilities in `layers`; autograd records from the first of them on.

    Attention that no gradient passes is computed by the user's own backend; what is added to its output is exactly 0,
    but has the gradient with respect to the probabilities. Only the picture's queries have one. words: for each layer
    that ran one entry per entry of `rows`. grids: for each layer its (h, w). slope: see `LossScale`.
    """

    kinds = (CROSS, JOINT)

    def __init__(self, rows: list[PromptRows], named: NamedTokens, layers: Sequence[str], slope: float) -> None:
        self.words: dict[str, list[WordAttention]] = {}
        self.grids: dict[str, tuple[int, int]] = {}
        self._arranger = Arranger(rows, named)
        self._layers = layers
        self._loss_scale = LossScale(slope)
        super().__init__(differentiable_attention, self._loss_scale.passed)

    def wants(self, site: Site) -> bool:
        """See `Processor`."""
        return site.name in self._layers

    def require_all(self, network: nn.Module) -> None:
        """See `require_seen`."""
        require_seen(self._layers, self.words, network)

    def edit(self, call: AttentionCall) -> AttentionCall:
        """The call with the change added; turns recording on."""
        name = call.site.name
        arrangement = arranged(self._arranger, call)
        self.grids[name] = call.site.grid
        tokens = [[distinct_tokens(place.columns) for place in places] for places in arrangement.places]
        if name not in self.words:  # a block that is run again gets the variables it had
            each_place = zip(arrangement.places, tokens, strict=True)
            self.words[name] = [_words(call, *each, self._loss_scale) for each in each_place]
        torch.set_grad_enabled(True)
        at, first = call.site.queries, call.site.keys.start
        others = 0, 0, at.start, call.q.shape[-2] - at.stop
        for places, used, words in zip(arrangement.places, tokens, self.words[name], strict=True):
            parts = words.change.split([len(each) for each, _ in used], dim=-1)
            for place, (each, _), part in zip(places, used, parts, strict=True):
                call = call.with_change(place.rows, first + each, F.pad(part, others) if any(others) else part)
        return call


def arranged(arranger: Arranger, call: AttentionCall) -> Arrangement:
    """Where the prompt is in this attention. Raises ValueError if it is not there, or if other rows are."""
    name, (h, w) = call.site.name, call.site.grid
    try:
        found = arranger.arrangement(call.inputs)
    except UnreadableError as error:
        raise ValueError(f"cross-attention {name}: {error}; connect the model without it") from error
    rows, queries, keys = call.inputs.expected
    if call.found != (rows, queries, keys) or (len(call.v), call.v.shape[-2]) != (rows, keys):
        raise ValueError(
            f"cross-attention {name} has {(len(call.q), call.q.shape[-2])} rows and positions and "
            f"{(len(call.k), call.k.shape[-2])} rows and keys where {rows} rows of {h}x{w} and {keys} keys were "
            f"expected, {call.inputs.cause}; connect the model without it"
        )
    return found


def require_seen(layers: Sequence[str], seen: Collection[str], network: nn.Module, options: dict | None = None) -> None:
    """After the call: raise the ValueError that names the layers that were not seen, and who replaced them."""
    if unseen := [layer for layer in layers if layer not in seen]:
        raise ValueError(
            f"the model's cross-attention {', '.join(unseen)} was not computed where it could be seen, but "
            f"replaced by {replaced_parts(network, options)}; connect the model without it"
        )


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

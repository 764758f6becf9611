"""Eye-for-an-Eye: the appearance of one picture on the structure of another, by what is alike in both (Go et al. 2024).

In a self-attention layer each place i of the target gets the features f, which the layer's queries, keys and values are
projections of, of the place of the appearance that is most like it (see `appearance` for when):

    f_t[i] <- f_a[argmax_j cos(f_t[i], f_a[j])],   i in the target's mask, j in the appearance's

The projections act on each place by itself, so the same exchange of q, k and v is the same thing. At the steps that are
the structure's, place i takes place i of the structure.

As in the authors' code the target itself is matched; their paper matches the structure. There the structure is taken
over outside of the target's mask, too; here all that is outside stays the target's own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .correspondence import AT_ONCE


def most_alike(target: Tensor, appearance: Tensor, inside: Tensor | None = None, other: Tensor | None = None) -> Tensor:
    """For each place of the target the place of the appearance that is most like it: int64 [B,N], -1 for none.

    target: features [B,N,C]; appearance: [B,M,C]; compared by their cosine, in float32, a few at a time. inside, other:
    bool [B,N] and [B,M], the places that take and those that may be taken; None for all. Of several that are equally
    alike it is the first.
    """
    found = torch.full(target.shape[:2], -1, dtype=torch.int64, device=target.device)
    for i, (own, theirs) in enumerate(zip(target, appearance, strict=True)):
        queries = _places(inside, i, own)
        keys = _places(other, i, theirs)
        if not len(queries) or not len(keys):
            continue
        candidates = F.normalize(theirs[keys].float(), dim=1).T
        wanted = F.normalize(own[queries].float(), dim=1)
        some = max(1, AT_ONCE // len(keys))
        best = torch.cat([(each @ candidates).argmax(1) for each in wanted.split(some)])
        found[i, queries] = keys[best]
    return found


def same_places(features: Tensor, inside: Tensor | None = None, other: Tensor | None = None) -> Tensor:
    """Each place itself, in the form of `most_alike`; nothing in pictures where `most_alike` finds nothing, either."""
    batch, count = features.shape[:2]
    places = torch.arange(count, device=features.device).expand(batch, -1)
    for each in (inside, None if other is None else other.any(1, keepdim=True)):
        places = places if each is None else places.where(each, -1)
    return places


def taken(own: Tensor, theirs: Tensor, places: Tensor) -> Tensor:
    """`own` [B,N,C] where `places` [B,N] is -1, and that place of `theirs` [B,M,C] elsewhere."""
    found = theirs.gather(1, places.clamp_min(0).unsqueeze(-1).expand(-1, -1, own.shape[-1]))
    return found.where((places >= 0).unsqueeze(-1), own)


def _places(mask: Tensor | None, picture: int, features: Tensor) -> Tensor:
    """The places [N] of one picture with these features [N,C] that are inside a mask."""
    if mask is None:
        return torch.arange(len(features), device=features.device)
    return mask[picture].nonzero()[:, 0]

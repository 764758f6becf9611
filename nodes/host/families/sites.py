"""The places in a network where attention is computed."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

CROSS, SELF = "cross", "self"


@dataclass(frozen=True)
class Site:
    """One place in a network where attention is computed, as one model call of a given latent has it.

    block: the network's part and the number in it, ("output", 5). depth: of the transformer block in that part. kind:
    CROSS (queries of the picture, keys of the text) or SELF (both of the picture). grid: (h, w) of the picture's
    queries, row by row. heads: of the attention. queries, keys: where the picture's queries and the text's keys (SELF:
    the picture's) lie among those of the call.
    """

    block: tuple[str, int]
    depth: int
    kind: str
    grid: tuple[int, int]
    heads: int
    queries: slice
    keys: slice

    @property
    def name(self) -> str:
        """`output.5.0`, as users name layers."""
        return site_name(self.block, self.depth)


def site_name(block: tuple[str, int], depth: int) -> str:
    """The name of the sites of a transformer block: `output.5.0`."""
    return f"{block[0]}.{block[1]}.{depth}"


@dataclass(frozen=True)
class Inputs:
    """What the queries and keys of an attention are made from.

    before: queries' input n [R,Q,d] and keys' input, the context [R,T,d], as the model gives them; None where no other
    node has a patch there, and for SELF. after: both as the other nodes' patches left them, perhaps of other shapes.
    latent: rows, height and width of what the network was given. changed_by, called_by: the names of what other nodes
    put there and around the network, for messages.
    """

    before: tuple[Tensor, Tensor] | None
    after: tuple[Tensor, Tensor]
    latent: tuple[int, int, int]
    changed_by: str
    called_by: str

"""The places in a network where attention is computed."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

CROSS, SELF, JOINT = "cross", "self", "joint"
# An attention of the same blocks that is none of these, to a picture that is shown to the network: it is no site.
OTHER = "other"


@dataclass(frozen=True)
class Site:
    """One place in a network where attention is computed, as one model call of a given latent has it.

    block: the network's part and the number in it, ("output", 5). depth: of the transformer block in that part, None
    where the part is made of these. kind: CROSS (queries of the picture, keys of the text), SELF (both of the picture)
    or JOINT (both of text and picture). grid: (h, w) of the picture's queries, row by row. frames: how many such grids
    there are, one after another. counted: whether the network does not say which block it is in, so that its number is
    that of the order in which blocks run. heads: of the attention. queries, keys: where the picture's queries and the
    text's keys (SELF: the picture's) lie among those of the call. picture: where the picture's own keys lie, None for
    CROSS. patch: how many pixels of the latent (h, w) a query stands for; None where a coarser grid only rounds.
    """

    block: tuple[str, int]
    depth: int | None
    kind: str
    grid: tuple[int, int]
    heads: int
    queries: slice
    keys: slice
    picture: slice | None = None
    frames: int = 1
    patch: tuple[int, int] | None = None
    counted: bool = False

    @property
    def name(self) -> str:
        """`output.5.0` or `double.3`, as users name layers."""
        return site_name(self.block, self.depth)


def site_name(block: tuple[str, int], depth: int | None) -> str:
    """The name of the sites of a transformer block: `output.5.0`, `double.3`."""
    name = f"{block[0]}.{block[1]}"
    return name if depth is None else f"{name}.{depth}"


@dataclass(frozen=True)
class Shape:
    """Of an attention: its rows, queries, keys and heads."""

    rows: int
    queries: int
    keys: int
    heads: int


@dataclass(frozen=True)
class Inputs:
    """What the queries and keys of an attention are made from.

    expected: (rows, queries, keys) that the network itself gives to it. before: queries' input n [R,Q,d] and keys'
    input, the context [R,T,d], as the model gives them; None where no other node has a patch there, and for all but
    CROSS. after: both as the other nodes' patches left them, perhaps of other shapes; None in networks that have no
    such patches. latent: rows, height and width of what the network was given. changed_by, called_by: the names of what
    other nodes put there and around the network, for messages. own_tokens: whether only the model itself may have put
    further tokens there.
    """

    expected: tuple[int, int, int]
    before: tuple[Tensor, Tensor] | None
    after: tuple[Tensor, Tensor] | None
    latent: tuple[int, int, int]
    changed_by: str
    called_by: str
    own_tokens: bool = False

    @property
    def cause(self) -> str:
        """Why there are other numbers of rows, queries and keys than expected, for messages."""
        if self.own_tokens:
            return "reference pictures or further tokens of the model itself stand there: leave them out"
        return f"changed by {self.changed_by}"


@dataclass(frozen=True)
class NetworkCall:
    """One call of a network.

    latent: the shape [R,C,h,w] or [R,C,t,h,w] of its input. text: T of its context [R,T,d].
    """

    network: nn.Module
    latent: tuple[int, ...]
    text: int

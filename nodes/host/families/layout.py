"""How a transformer lays out text and picture in its attention, as data."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal

from torch import nn

from .sites import JOINT

# Where text and picture stand in a joint attention; reference pictures come at the "...". "text" alone: keys of a
# cross-attention, with another encoder's at the "...".
Order = Literal["text picture", "text picture ...", "text ... picture", "picture ... text", "text", "text ..."]


@dataclass(frozen=True)
class Layout:
    """How one network class lays out text and picture in its attention.

    family: what messages call its models. module, network: of ComfyUI's class. blocks: (name of the part, attribute of
    the list of blocks) in running order; the name is the `block_type` that the network announces, where it announces
    one. patch: attribute of the pixels (t, h, w) or (h, w) that a token stands for; a number stands for (n, n); several
    attributes, one each; none where it is one pixel. order: see `Order`. front: keys before the text. padded: attribute
    of the number of which the lengths of text and picture are made multiples, None in it for 1. calls: the kinds of a
    block's attentions in running order. labelled: whether the network announces its blocks; else they are counted.
    labelled_late: whether it does so only in newer ComfyUIs. pads_in_front: see `Family`. later: whether the later half
    of the first part is read unless the user chooses, else all layers. keys: attributes of the layers that make a
    text's keys: those of the network, then those of a block. without, having: attributes that are None, or are not, in
    the networks of this layout: of parts that bring further tokens. hidden: where the network does not announce its
    attention, see `rebound`: a block's attention module and the name of the function that it calls.
    asking: how many tokens at the text's end ask the joint attention that is announced, None for all; those before
    have only keys there.
    """

    family: str
    module: str
    network: str
    blocks: tuple[tuple[str, str], ...]
    patch: tuple[str, ...]
    order: Order
    front: int = 0
    padded: str = ""
    calls: tuple[str, ...] = (JOINT,)
    labelled: bool = True
    labelled_late: bool = False
    pads_in_front: bool = False
    later: bool = True
    keys: tuple[tuple[str, ...], tuple[str, ...]] | None = None
    without: tuple[str, ...] = ()
    having: tuple[str, ...] = ()
    hidden: tuple[str, str] | None = None
    asking: int | None = None

    def is_of(self, network: nn.Module) -> bool:
        """Whether the network is of exactly this class: subclasses have layouts of their own."""
        known = (type(network).__module__, type(network).__name__) == (self.module, self.network)
        if not known or any(getattr(network, name) is not None for name in self.without):
            return False
        return all(getattr(network, name) is not None for name in self.having)

    def names(self, network: nn.Module) -> tuple[tuple[str, int], ...]:
        """(part, number) of every block, in running order."""
        return tuple((part, i) for part, each in self.blocks for i in range(len(network.get_submodule(each))))

    def grid(self, network: nn.Module, latent: tuple[int, ...]) -> tuple[int, int, int]:
        """(t, h, w) of the picture's tokens for a latent [R,C,h,w] or [R,C,t,h,w]; a last one may reach beyond it."""
        size = (1,) * (5 - len(latent)) + latent[2:]
        return tuple(-(-n // p) for n, p in zip(size, self.patch_of(network), strict=True))

    def patch_of(self, network: nn.Module) -> tuple[int, int, int]:
        """The pixels (t, h, w) of the latent that a token stands for."""
        found = [getattr(network, each) for each in self.patch]
        if not found:
            return 1, 1, 1
        if len(found) == 1:
            found = [found[0]] * 2 if isinstance(found[0], int) else list(found[0])
        return (1,) * (3 - len(found)) + tuple(found)

    def multiple(self, network: nn.Module) -> int:
        """See `padded`."""
        return (getattr(network, self.padded) if self.padded else None) or 1

    def places(self, network: nn.Module, latent: tuple[int, ...], text: int, queries: int) -> Places:
        """Where text and picture are in a joint attention of so many queries, and how many there should at least be.

        text: tokens of the context.
        """
        count, unit = prod(self.grid(network, latent)), self.multiple(network)
        words, picture = (-(-n // unit) * unit for n in (text, count))
        silent = 0 if self.asking is None else words - self.asking
        least, length = self.front + words + picture, queries + silent
        exact = "..." not in self.order
        of_words, of_picture = self.front, self.front + words
        if self.order == "text ... picture":
            of_picture = length - picture
        elif self.order == "picture ... text":
            of_words, of_picture = length - words, 0
        expected = least if exact or length < least else length
        return Places(slice(of_words, of_words + text), slice(of_picture, of_picture + count), expected, silent)


@dataclass(frozen=True)
class Places:
    """Where the text's and the picture's keys are among `length`. silent: how many of the first have no query."""

    text: slice
    picture: slice
    length: int
    silent: int = 0

    @property
    def queries(self) -> slice:
        """Where the picture's queries are."""
        return slice(self.picture.start - self.silent, self.picture.stop - self.silent)

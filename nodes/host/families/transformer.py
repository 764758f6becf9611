"""Transformers: a family for each record in `layouts`, and how the sites of their blocks are found."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Container, Iterator, Mapping
from functools import partial, reduce
from itertools import chain
from math import prod
from typing import TYPE_CHECKING

from comfy.patcher_extension import WrappersMP, get_all_wrappers
from torch import Tensor, nn

from ...core.attention.heads import joined
from ...core.attention.probabilities import ALL_TEXT, ALL_TOKENS
from ..patch_names import of_other_nodes, other_names
from .layout import Layout
from .offers import GRADIENTS, KEYS
from .rebound import Rebound
from .sites import CROSS, JOINT, OTHER, SELF, Inputs, NetworkCall, Shape, Site, site_name
from .transformer_gradients import WITHOUT, TransformerEnd

if TYPE_CHECKING:
    from .family import Listener


class Transformer:
    """See `family.Family`."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.name = layout.family
        gradients = [] if layout.network in WITHOUT else [GRADIENTS]
        self.offers = frozenset([*gradients, KEYS] if layout.keys else gradients)
        across = CROSS in layout.calls
        self.text_kind, self.picture_kind = (CROSS, SELF) if across else (JOINT, JOINT)
        self.words_have_output = not across and layout.asking is None
        self.pads_in_front = layout.pads_in_front
        self.share = ALL_TOKENS if across else ALL_TEXT

    def site_names(self, network: nn.Module, kind: str) -> tuple[str, ...]:
        """See `Family`."""
        if not self.layout.is_of(network) or kind not in self.layout.calls:
            return ()
        return tuple(site_name(block, None) for block in self.layout.names(network))

    def usual_layers(self, network: nn.Module) -> tuple[str, ...]:
        """See `Family`."""
        names = self.site_names(network, self.text_kind)
        if not self.layout.later:
            return names
        first = [name for name in names if name.startswith(f"{self.layout.blocks[0][0]}.")]
        return tuple(first[len(first) // 2 :])

    def finder(self, call: NetworkCall) -> TransformerSites:
        """See `Family`."""
        return TransformerSites(self.layout, call)

    def key_layers(self, network: nn.Module) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """See `Family`."""
        if not self.layout.keys:
            return {}
        ((_, blocks),), (before, within) = self.layout.blocks, self.layout.keys
        return {
            name: partial(_through, [*map(network.get_submodule, before), *map(block.get_submodule, within)])
            for name, block in zip(self.site_names(network, CROSS), network.get_submodule(blocks), strict=True)
        }

    def layers_after(self, network: nn.Module, site: str | None) -> TransformerEnd:
        """See `Family`."""
        last = self.site_names(network, self.text_kind)[-1]
        if site != last:
            wanted = "all layers" if site is None else f"the layer {site}"
            raise ValueError(
                f"gradients by {wanted}: not for the models {self.name}, because ComfyUI's code for their blocks has "
                f"no derivative everywhere. Choose the definition Abs-Grad-SAM and the layer 'last' ({last})"
            )
        return TransformerEnd(self.layout, network, last)


class TransformerSites:
    """See `family.SiteFinder`.

    Networks announce the block that runs, in the transformer options; where they do not, blocks are counted by the
    attentions that have the length of a block's. Refiners of text or picture alone are shorter.
    """

    def __init__(self, layout: Layout, call: NetworkCall) -> None:
        self._layout = layout
        self._call = call
        self._grid = layout.grid(call.network, call.latent)
        self._blocks = layout.names(call.network)
        # How many attentions each block has computed; and how many all have, where they are counted.
        self._calls: dict[tuple[str, int], int] = defaultdict(int)
        self._counted = 0
        # The text's length behind other nodes' patches, None without any.
        self._text: int | None = None
        self._rebound: Rebound | None = None
        self._changed_by = self._called_by = ""
        self._own_tokens = False
        # Whether the host's node for it keeps reference pictures' keys, which then stand behind those of the call.
        self._keeps_references = False

    def install(self, options: dict, kinds: Container[str], listener: Listener) -> dict:
        """See `SiteFinder`."""
        patches = options.get("patches", {})
        replaced = options.get("patches_replace", {}).get("dit", {})
        at_entry = [each for each in patches.get("post_input", []) if each != self._measure]
        within = chain.from_iterable(patches.get(name, []) for name in ("attn1_patch", "attn2_patch", "double_block"))
        others = of_other_nodes([*at_entry, *within, *replaced.values()])
        self._changed_by, self._own_tokens = other_names(others), not others
        self._keeps_references = any(_keeps_references(each) for each in patches.get("attn1_patch", []))
        self._called_by = other_names(get_all_wrappers(WrappersMP.DIFFUSION_MODEL, options))
        if self._layout.hidden and self._rebound is None:
            self._rebound = Rebound(self._hidden(*self._layout.hidden), self._layout.hidden[1], listener.beside)
        if not at_entry or JOINT not in self._layout.calls:  # a cross-attention's network shows the patches no text
            return dict(options)
        return {**options, "patches": {**patches, "post_input": [*at_entry, self._measure]}}

    def take(self, options: dict, shape: Shape) -> tuple[Site, Inputs] | None:
        """See `SiteFinder`."""
        counted = not self._layout.labelled or (self._layout.labelled_late and "block_index" not in options)
        found = self._next(shape) if counted else self._labelled(options)
        if found is None or found[1] == OTHER:
            return None
        block, kind = found
        t, h, w = self._grid
        count, text = t * h * w, self._call.text
        picture: slice | None = slice(0, count)
        if kind == JOINT:
            places = self._layout.places(self._call.network, self._call.latent, text, shape.queries)
            queries, keys, picture = places.queries, places.text, places.picture
            expected = places.length - places.silent, places.length
            if self._keeps_references and shape.keys > places.length:
                expected = places.length, shape.keys
            if self._text is not None and self._text != self._text_length:
                expected = (0, 0)  # another node put tokens beside the text, nobody knows where
        elif kind == CROSS:
            behind = "..." in self._layout.order and shape.keys > text
            queries, keys, picture = slice(0, count), slice(0, text), None
            expected = count, shape.keys if behind else text
        else:
            queries, keys, expected = slice(0, count), slice(0, count), (count, count)
        rows, (height, width) = self._call.latent[0], self._call.latent[-2:]
        size, by = (rows, height, width), (self._changed_by, self._called_by, self._own_tokens)
        inputs = Inputs((rows, *expected), None, None, size, *by)
        patch = self._layout.patch_of(self._call.network)[1:]
        return Site(block, None, kind, (h, w), shape.heads, queries, keys, picture, t, patch, counted), inputs

    def forget(self) -> None:
        """See `SiteFinder`."""
        if self._rebound is not None:
            self._rebound.release()
            self._rebound = None

    @property
    def _text_length(self) -> int:
        """Positions that the network gives to the text."""
        unit = self._layout.multiple(self._call.network)
        return -(-self._call.text // unit) * unit

    def _hidden(self, path: str, _: str) -> Iterator[tuple[nn.Module, dict]]:
        """The attention module of each block, with options as of a network that announces it."""
        lists = dict(self._layout.blocks)
        for part, number in self._blocks:
            block = self._call.network.get_submodule(lists[part])[number]
            yield block.get_submodule(path), {"block_type": part, "block_index": number}

    def _labelled(self, options: dict) -> tuple[tuple[str, int], str] | None:
        """The block that the network announces, and the kind of its attention that is computed now."""
        if "block_index" not in options:
            return None
        part = options["block_type"] if len(self._layout.blocks) > 1 else self._layout.blocks[0][0]
        block = part, options["block_index"]
        number = self._calls[block]
        self._calls[block] += 1
        return (block, self._layout.calls[number]) if number < len(self._layout.calls) else None

    def _next(self, shape: Shape) -> tuple[tuple[str, int], str] | None:
        """The next block and its next attention in running order, if this one has the length of that."""
        number, turn = divmod(self._counted, len(self._layout.calls))
        if number == len(self._blocks) or not self._fits(self._layout.calls[turn], shape):
            return None
        self._counted += 1
        return self._blocks[number], self._layout.calls[turn]

    def _fits(self, kind: str, shape: Shape) -> bool:
        """Whether the attention may be one of this kind: patches may give a block's SELF and CROSS other keys."""
        count, text = prod(self._grid), self._call.text
        if kind == JOINT:
            return shape.queries == shape.keys >= self._layout.front + self._text_length + count
        of_the_other_kind = shape.keys == (text if kind == SELF else count)
        return shape.queries == count and (count == text or not of_the_other_kind)

    def _measure(self, entering: dict) -> dict:
        """The last patch behind the network's input layers."""
        self._text = entering["txt"].shape[1]
        return entering


def _keeps_references(patch: Callable) -> bool:
    """Whether it is that of the host's node Flux KV Cache, whose module is called by its path where it was loaded."""
    kind = type(patch)
    return (
        kind.__name__ == "KV_Attn_Input" and re.search(r"\bcomfy_extras[./\\]nodes_flux$", kind.__module__) is not None
    )


def _through(layers: list[nn.Module], text: Tensor) -> Tensor:
    """What layers make of a text [N,d], as [N,H*d]."""
    norm = getattr(layers[-1], "normalized_shape", None)
    made = reduce(lambda x, layer: layer(x), layers[:-1], text.unsqueeze(0))
    if norm is not None and norm[0] != made.shape[-1]:
        # it normalises each head by itself
        made = made.unflatten(-1, (-1, norm[0])).transpose(1, 2)
        return joined(layers[-1](made), made.shape[1])[0]
    return layers[-1](made)[0]

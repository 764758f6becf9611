"""Read cross-attention probabilities beside the user's attention backend during one call of the network."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...core.attention.probabilities import token_attention
from ...core.attention.rearranged import mixing_weights
from ..families.unet import layer_name
from .arrangement import Arrangement, Place, UnreadableError
from .hook import CrossAttentionHook
from .layer_choice import LayerSelection
from .patch_names import replaced_parts
from .rows import Rows


class Recorder(CrossAttentionHook):
    """Collects, for each chosen layer, the subjects' attention on that layer's own grid.

    maps: layer name -> one float32 tensor [S,B,h_n,w_n] per entry of `rows`, summed over tokens and heads.
    grids: the (h_n, w_n) of every cross-attention layer that ran. chosen: whether the user said which prompt is meant.
    """

    def __init__(
        self, rows: list[Rows], selection: LayerSelection, warn: Callable[[str], None], *, chosen: bool
    ) -> None:
        super().__init__(rows)
        self.maps: dict[str, list[Tensor]] = {}
        self.grids: dict[str, tuple[int, int]] = {}
        self._selection = selection
        self._warn = warn
        self._chosen = chosen
        # Maps of layers whose rows are still to be mixed: the arrangement and, per entry of `rows`, each place's map.
        self._unmixed: dict[str, tuple[Arrangement, list[list[Tensor]]]] = {}
        # Why layers could not be read -> their names.
        self._refused: dict[str, list[str]] = {}

    def install(self, options: dict) -> dict:
        """See `CrossAttentionHook`; what other nodes do with the attention's output is noted, too."""
        options = super().install(options)
        patches = options["patches"]
        if patches.get("attn2_output_patch"):
            patches["attn2_output_patch"] = [self._watched(patch) for patch in patches["attn2_output_patch"]]
        return options

    def _beside(self, previous: Callable | None) -> Callable:
        def override(attention: Callable, *args: Any, **kwargs: Any) -> Tensor:
            extra_options, self._next = self._next, None
            # A block whose attn2 module another node replaced never calls this for it: the next block's
            # self-attention comes instead.
            if extra_options is not None and layer_name(extra_options) == layer_name(kwargs["transformer_options"]):
                q, k, _, heads, *rest = args
                mask = rest[0] if rest else kwargs.get("mask")
                self._record(q, k, heads, extra_options, mask, kwargs.get("scale"))
            if previous is not None:
                return previous(attention, *args, **kwargs)
            return attention(*args, **kwargs)

        return override

    def _around(self, replacer: Callable) -> Callable:
        def replaced(q: Tensor, k: Tensor, v: Tensor, extra_options: dict, **kwargs: Any) -> Tensor:
            # What the replacer itself computes through the host's attention is not observed a second time.
            self._next = None
            self._record(q, k, extra_options["n_heads"], extra_options)
            return replacer(q, k, v, extra_options, **kwargs)

        return replaced

    def _watched(self, patch: Callable) -> Callable:
        """An attn2 output patch of another node; where it makes fewer rows of many, the maps follow."""

        def watched(out: Tensor, extra_options: dict) -> Tensor:
            mixed = patch(out, extra_options)
            if mixed.shape[0] != out.shape[0]:
                self._mix(layer_name(extra_options), out, mixed)
            return mixed

        return functools.update_wrapper(watched, patch, assigned=(), updated=())

    def finish(self, network: nn.Module) -> None:
        """After the call of the network: say what could not be read.

        Raises ValueError when none of the layers that ran is chosen: a grid that this latent does not have.
        """
        for name in self._unmixed:
            self._refuse(name, f"its rows are repeated and not brought together again, by {self._arranger.names}")
        for reason, names in self._refused.items():
            where = "" if len(names) == len(self.grids) else f" of layer {', '.join(names)}"
            self._warn(f"cross-attention{where} is not captured: {reason}")
        unseen = sorted(self._selection.names - self.grids.keys())
        if unseen or not self.grids:
            where = f" of layer {', '.join(unseen)}" if self.grids else ""
            by = replaced_parts(network)
            self._warn(f"cross-attention{where} was not computed where it could be seen, but replaced by {by}")
        if self.grids and not any(layer in self._selection for layer in self.grids.items()):
            there = ", ".join(sorted({f"{h}x{w}" for h, w in self.grids.values()}))
            raise ValueError(
                f"no cross-attention layer has one of the chosen grids; this latent gives {there} (height x width)"
            )

    def _refuse(self, name: str, reason: str) -> None:
        self._refused.setdefault(reason, []).append(name)

    @torch.no_grad()
    def _record(
        self, q: Tensor, k: Tensor, heads: int, options: dict, mask: Tensor | None = None, scale: float | None = None
    ) -> None:
        name = layer_name(options)
        h, w = options["activations_shape"][-2:]
        self.grids[name] = (h, w)
        if (name, (h, w)) not in self._selection:
            return
        try:
            arrangement = self._arranger.arrangement()
        except UnreadableError as error:
            self._refuse(name, str(error))
            return
        rows, keys = arrangement.shape
        if q.shape[:2] != (rows, h * w) or k.shape[:2] != (rows, keys):
            self._refuse(
                name,
                f"there are {tuple(q.shape[:2])} rows and queries and {tuple(k.shape[:2])} rows and keys where {rows} "
                f"rows of {h}x{w} queries and {keys} keys were expected, changed by {self._arranger.names}",
            )
            return
        maps = [[_seen(place, q, k, heads, mask, scale) for place in places] for places in arrangement.places]
        if arrangement.carriers is None:
            self.maps[name] = [each[0].unflatten(-1, (h, w)) for each in maps]
        else:
            self._unmixed[name] = arrangement, maps

    @torch.no_grad()
    def _mix(self, name: str, out: Tensor, mixed: Tensor) -> None:
        """Count each place's map as much as its rows count in the `mixed` [R,Q,d] that another node made of `out`."""
        if name not in self._unmixed:
            return
        arrangement, maps = self._unmixed.pop(name)
        found = []
        for row, carriers, places, each in zip(self._rows, arrangement.carriers, arrangement.places, maps, strict=True):
            weights = mixing_weights(out[carriers], mixed[row.rows])
            if weights is None:
                self._refuse(name, f"how its rows are mixed cannot be told, by {self._arranger.names}")
                return
            shares = [weights[place.carrier] * m for place, m in zip(places, each, strict=True)]
            found.append(torch.stack(shares).sum(0).unflatten(-1, self.grids[name]))
        self.maps[name] = found
        if not self._chosen:
            self._warn(
                f"parts of the picture have texts of their own, given by {self._arranger.names}: attention is captured "
                "for the sampler's own prompt, where that one counts; for a region's text connect its conditioning as "
                "'positive'"
            )


def _seen(place: Place, q: Tensor, k: Tensor, heads: int, mask: Tensor | None, scale: float | None) -> Tensor:
    """The subjects' attention [S,B,Q] in these rows."""
    q, k = q[place.rows], k[place.rows]
    return token_attention(
        q,
        k,
        heads,
        place.columns.expand(len(q), -1, -1),
        words=None if place.words is None else place.words.expand(len(q), -1),
        mask=mask if mask is None or mask.ndim < 3 or mask.shape[0] == 1 else mask[place.rows],
        scale=scale,
    )

"""Read cross-attention probabilities beside the user's attention backend during one call of the network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ...core.attention.heads import joined
from ...core.attention.output_space import ATTENTION, OUTPUT, output_likeness
from ...core.attention.probabilities import token_attention
from ...core.attention.rearranged import mixing_weights
from ..families.sites import CROSS, JOINT, Site
from ..patch_names import replaced_parts
from .arrangement import Arrangement, Arranger, Place, UnreadableError
from .attention_call import AttentionCall, Processor
from .layer_choice import LayerSelection
from .looked_for import LookedForMaps
from .named_tokens import NamedTokens
from .positives import PromptRows


class Recorder(Processor):
    """Collects, for each chosen layer, the subjects' attention on that layer's own grid.

    maps: layer name -> one float32 tensor [S,B,h_n,w_n] per entry of `rows`, summed over tokens and heads; after those
    of the subjects come those of the words that `looked` reads. The frames of a latent are further pictures of the
    batch, each picture's one after the other.
    grids: the (h_n, w_n) of every layer with words that ran. patch: see `Site`. chosen: whether the user said which
    prompt is meant. space: ATTENTION, or OUTPUT for the likeness of the attention's output vectors, see
    `core.attention.output_space`. names: of all layers with words. Raises ValueError as `Arranger`.
    """

    kinds = (CROSS, JOINT)

    def __init__(
        self,
        rows: list[PromptRows],
        named: NamedTokens,
        selection: LayerSelection,
        warn: Callable[[str], None],
        *,
        names: tuple[str, ...],
        chosen: bool,
        looked: LookedForMaps | None = None,
        space: str = ATTENTION,
    ) -> None:
        self.maps: dict[str, list[Tensor]] = {}
        self.grids: dict[str, tuple[int, int]] = {}
        self.patch: tuple[int, int] | None = None
        self._names = names
        self._space = space
        # What kind of sites they are, and whether they are told apart only by the order in which they run.
        self._kind = CROSS
        self._counted = False
        self._rows = rows
        self._arranger = Arranger(rows, named)
        self._selection = selection
        self._warn = warn
        self._chosen = chosen
        self._looked = looked
        # Maps of layers whose rows are still to be mixed: who changed them, the arrangement and, per entry of `rows`,
        # each place's map.
        self._unmixed: dict[str, tuple[str, Arrangement, list[list[Tensor]]]] = {}
        # Why layers could not be read -> their names.
        self._refused: dict[str, list[str]] = {}

    def wants(self, site: Site) -> bool:
        """See `Processor`."""
        self.grids[site.name] = site.grid
        self.patch, self._kind, self._counted = site.patch, site.kind, site.counted
        return (site.name, site.grid) in self._selection

    @torch.no_grad()
    def see(self, call: AttentionCall, out: Tensor) -> None:
        """See `Processor`."""
        name, (h, w), changed_by = call.site.name, call.site.grid, call.inputs.changed_by
        try:
            arrangement = self._arranger.arrangement(call.inputs)
        except UnreadableError as error:
            self._refuse(name, str(error))
            return
        rows, queries, keys = call.inputs.expected
        if call.found != (rows, queries, keys):
            of_picture = (
                f"{h}x{w} queries" if queries == h * w else f"{queries} queries, {h}x{w} of them the picture's,"
            )
            self._refuse(
                name,
                f"there are {(len(call.q), call.q.shape[-2])} rows and queries and {(len(call.k), call.k.shape[-2])} "
                f"rows and keys where {rows} rows of {of_picture} and {keys} keys were expected, "
                f"{call.inputs.cause}",
            )
            return
        seen = self._reading(call, out)
        maps = [[seen(place) for place in places] for places in arrangement.places]
        if arrangement.carriers is None:
            self.maps[name] = [each[0].unflatten(-1, (-1, h, w)).flatten(1, 2) for each in maps]
        else:
            self._unmixed[name] = changed_by, arrangement, maps

    @torch.no_grad()
    def mixed(self, name: str, out: Tensor, mixed: Tensor) -> None:
        """Weight each place's map as another node weighted its rows when it made `mixed` [R,Q,d] of `out`."""
        if name not in self._unmixed:
            return
        changed_by, arrangement, maps = self._unmixed.pop(name)
        found = []
        for row, carriers, places, each in zip(self._rows, arrangement.carriers, arrangement.places, maps, strict=True):
            weights = mixing_weights(out[carriers], mixed[row.rows])
            if weights is None:
                self._refuse(name, f"how its rows are mixed cannot be determined (mixed by {changed_by})")
                return
            shares = [weights[place.carrier] * m for place, m in zip(places, each, strict=True)]
            found.append(torch.stack(shares).sum(0).unflatten(-1, self.grids[name]))
        self.maps[name] = found
        if not self._chosen:
            self._warn(
                f"parts of the picture have texts of their own, given by {changed_by}: attention is captured for the "
                "sampler's own prompt, where that one counts; for a region's text connect its conditioning as "
                "'positive'"
            )

    def finish(self, network: nn.Module) -> None:
        """After the call of the network: say what could not be read.

        Raises ValueError when none of the layers that ran is chosen: a grid that this latent does not have.
        """
        for name, (changed_by, _, _) in self._unmixed.items():
            self._refuse(name, f"its rows were repeated, but not merged again, by {changed_by}")
        for reason, names in self._refused.items():
            where = "" if len(names) == len(self.grids) else f" of layer {', '.join(names)}"
            self._warn(f"{self._kind}-attention{where} is not captured: {reason}")
        unseen = sorted(self._selection.names - self.grids.keys())
        if unseen or not self.grids:
            where = f" of layer {', '.join(unseen)}" if self.grids else ""
            by = replaced_parts(network)
            self._warn(f"{self._kind}-attention{where} was not computed where it could be seen, but replaced by {by}")
        if self._counted and len(self.grids) < len(self._names):
            self.maps.clear()
            self._warn(
                f"attention is not captured: {len(self.grids)} of {len(self._names)} layers ran, and this model's "
                "layers are known by their order alone. Connect the model without the node that skips blocks"
            )
        if self.grids and not any(layer in self._selection for layer in self.grids.items()):
            there = ", ".join(sorted({f"{h}x{w}" for h, w in self.grids.values()}))
            raise ValueError(
                f"no {self._kind}-attention layer has one of the chosen grids; this latent gives {there} (height x "
                "width)"
            )

    def _reading(self, call: AttentionCall, out: Tensor) -> Callable[[Place], Tensor]:
        """What reads the maps [S,B,Q] of the rows of a place."""
        if self._space == OUTPUT:
            return lambda place: _alike(place, call, out)
        if self._looked is None:
            return lambda place: _seen(place, call)
        keys = self._looked.keys(call)
        return lambda place: self._looked.maps(place, call, keys)

    def _refuse(self, name: str, reason: str) -> None:
        self._refused.setdefault(reason, []).append(name)


def _seen(place: Place, call: AttentionCall) -> Tensor:
    """The subjects' attention [S,B,Q] in these rows."""
    q, k, mask = call.of_picture(place.rows)
    return token_attention(
        q,
        k,
        call.site.heads,
        place.columns.expand(len(q), -1, -1),
        words=None if place.words is None else place.words.expand(len(q), -1),
        mask=mask,
        scale=call.scale,
        text=call.site.keys,
    )


def _alike(place: Place, call: AttentionCall, out: Tensor) -> Tensor:
    """How much the output of every place is like that of the subjects' words [S,B,Q] in these rows."""
    vectors = joined(out[place.rows], call.site.heads)
    columns = place.columns.expand(len(vectors), -1, -1)
    return output_likeness(vectors, columns, call.site.keys, call.site.queries)

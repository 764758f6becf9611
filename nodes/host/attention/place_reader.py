"""Read the self-attention of all layers of a model call that is made to look at a picture, see `core.attention`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from torch import Tensor, nn

from ...core.attention.place_maps import PlaceMaps
from ...core.gradients.definition import Progress
from ..compiled import as_written
from ..families.family import family_of, network_of
from ..families.sites import JOINT, SELF, NetworkCall, Site
from ..patch_names import replaced_parts
from .attention_call import AttentionCall, Processor
from .model_call import OURS, ModelCall, evaluating
from .override import processing
from .positives import Positives

log = logging.getLogger("explainable_latents")

WRAPPER_KEY = OURS + "places"


class PlaceReader(Processor):
    """Adds up the self-attention of these rows at every site that it is asked about.

    count: rows of the network's batch. rows: of one picture. progress: called after each site, it may raise to cancel.
    covered: (h, w) of the latent's pixels that the places cover, the last of which may lie beyond it; None where the
    network only rounds.
    """

    kinds = (SELF, JOINT)

    def __init__(self, maps: PlaceMaps, names: tuple[str, ...], count: int, rows: slice, progress: Progress) -> None:
        self._maps = maps
        self._names = names
        self._count = count
        self._rows = rows
        self._progress = progress
        self._seen: set[str] = set()
        self._unreadable = ""
        self.covered: tuple[int, int] | None = None

    def wants(self, site: Site) -> bool:
        """See `Processor`. Leaves out the first attention of a block where that looks at the text as well."""
        return site.name in self._names

    def see(self, call: AttentionCall, out: Tensor) -> None:
        """See `Processor`."""
        site = call.site
        self._seen.add(site.name)
        if reason := call.unexpected(self._count):
            self._unreadable = f"layer {site.name} has {reason}"
        elif site.frames > 1:
            self._unreadable = f"layer {site.name} has {site.frames} frames, and only one picture can be read,"
        if not self._unreadable:
            q, k, mask = call.within_picture(self._rows)
            self.covered = site.patch and tuple(n * p for n, p in zip(site.grid, site.patch, strict=True))
            self._maps.add(q, k, site.heads, site.grid, mask=mask, scale=call.scale)
        self._progress(len(self._seen), len(self._names))

    def unreadable(self, network: nn.Module) -> str:
        """After the call of the network: why not all of its self-attention could be read; empty if it could."""
        unseen = [name for name in self._names if name not in self._seen]
        if unseen and not self._unreadable:
            by = replaced_parts(network)
            return f"layer {', '.join(unseen)} was not computed where it could be seen, but by {by}"
        return self._unreadable


class PlaceProbe:
    """Reads the self-attention of the model calls that are made through `look`; else it does nothing.

    patcher: changed in place, pass a clone. covered: see `PlaceReader`, of the last picture. Raises ValueError as
    `family_of` does.
    """

    def __init__(self, patcher: ModelPatcher) -> None:
        self._family = family_of(patcher)
        self._names = self._family.site_names(network_of(patcher), self._family.picture_kind)
        self._call: ModelCall | None = None
        self._maps = PlaceMaps()
        self._progress: Progress | None = None
        self._notes: list[str] = []
        self._warned: set[str] = set()
        self._read = False
        self.covered: tuple[int, int] | None = None
        for kind, wrapper in (
            (WrappersMP.PREDICT_NOISE, self._around_step),
            (WrappersMP.CALC_COND_BATCH, self._around_batch),
            (WrappersMP.APPLY_MODEL, self._around_model),
        ):
            patcher.add_wrapper_with_key(kind, WRAPPER_KEY, wrapper)

    def look(self, call: Callable[[], object], progress: Progress) -> tuple[Tensor, tuple[int, int]]:
        """What every place attends to, and the grid of the places, see `PlaceMaps.matrix`, of one picture.

        call: makes one model call on a batch of one, with the positive conditionings that cover the whole picture.
        progress: called after each layer; it may raise to cancel. Raises ValueError when no self-attention was seen, or
        some could not be read: the message names the node that is the cause.
        """
        self._progress, self._maps, self._notes, self._read = progress, PlaceMaps(), [], False
        try:
            call()
            if not self._read:
                inactive = "the positive conditioning covers only a part of the picture, or not this noise level"
                raise ValueError(f"self-attention of the picture was not seen: {'; '.join(self._notes) or inactive}")
            return self._maps.matrix()
        finally:
            self._progress, self._maps, self._call = None, PlaceMaps(), None

    def _around_step(
        self, executor: WrapperExecutor, x: Tensor, timestep: Tensor, model_options: dict, *args: Any, **kwargs: Any
    ) -> Tensor:
        """PREDICT_NOISE wrapper: `executor.class_obj` is the guider, which knows the positive conditionings."""
        if self._progress is not None and self._call is None:
            listed = executor.class_obj.conds.get("positive") or []
            how = self._warn, model_options, self._family.pads_in_front
            positives = Positives(listed, None, *how)
            sigma = float(timestep.flatten()[0])
            self._call = ModelCall(positives, x.shape[0], tuple(x.shape[-2:]), x.device, sigma, None)
        return executor(x, timestep, model_options, *args, **kwargs)

    def _around_batch(
        self, executor: WrapperExecutor, model: Any, conds: list, *args: Any, **kwargs: Any
    ) -> list[Tensor]:
        """CALC_COND_BATCH wrapper: find the positive list among `conds`."""
        with evaluating(self._call, conds):
            return executor(model, conds, *args, **kwargs)

    def _around_model(
        self,
        executor: WrapperExecutor,
        x: Tensor,
        t: Tensor,
        c_concat: Tensor | None,
        c_crossattn: Tensor | None,
        control: dict | None,
        transformer_options: dict,
        **conds: Any,
    ) -> Tensor:
        """APPLY_MODEL wrapper: read self-attention if rows of this call are of the whole picture."""
        call, rows = self._call, []
        # several conditionings of the whole picture would be the same picture again: the first one counts
        if call is not None and call.index is not None and not self._read:
            rows = call.positives.rows(x, c_crossattn, transformer_options, call.index, call.batch, call.grid)
            rows = [row for row in rows if row.size == call.grid]
        if not rows:
            return executor(x, t, c_concat, c_crossattn, control, transformer_options, **conds)
        reader = PlaceReader(self._maps, self._names, len(x), rows[0].rows, self._progress)
        network = as_written(executor.class_obj.diffusion_model)
        called = NetworkCall(network, x.shape, c_crossattn.shape[1])
        with processing(transformer_options, self._family, [reader], called) as options:
            out = executor(x, t, c_concat, c_crossattn, control, options, **conds)
        reason = reader.unreadable(network)
        if reason:
            raise ValueError(
                f"the picture cannot be cut into regions: self-attention of {reason}. Connect the model without that "
                "node"
            )
        self._read, self.covered = True, reader.covered
        return out

    def _warn(self, message: str) -> None:
        """Log a warning, once for all pictures; it is also part of the error if nothing was seen in one."""
        self._notes.append(message)
        if message not in self._warned:
            self._warned.add(message)
            log.warning(message)

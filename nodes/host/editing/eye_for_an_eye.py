"""Eye-for-an-Eye at the self-attention sites of a twin run, see `core.methods.eye_for_an_eye`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...core.attention.refine import AUTO
from ...core.methods.appearance import STRUCTURE, AppearanceTransfer
from ...core.methods.eye_for_an_eye import most_alike, same_places, taken
from ..attention.attention_call import AttentionCall
from ..attention.twin_blocks import APPEARANCE, TARGET
from ..families.sites import SELF, Site
from .appearance import AppearancePicture, InstalledAppearance
from .editors import EditingProcessor, TwinCall

NAME = "Eye-for-an-Eye"


@dataclass(frozen=True)
class EyeForAnEyeEditor:
    """See `editors.Editor`. layers: AUTO, or a choice of self-attention layers by name."""

    method: AppearanceTransfer
    picture: AppearancePicture
    layers: str = AUTO

    def installed(self, patcher: ModelPatcher, source: list) -> InstalledAppearance:
        """See `Editor`."""
        return InstalledEyeForAnEye.on(patcher, self.method, self.picture, self.layers)


class InstalledEyeForAnEye(InstalledAppearance):
    """See `InstalledAppearance`."""

    name = NAME
    reads_masks = True

    def processors(self, call: TwinCall, chosen: frozenset) -> list[EditingProcessor]:
        """See `InstalledEditor`. Negative conditionings are edited like the positive ones.

        Before the first call has told where the words are, every place takes from every place.
        """
        layers = self.taken(call.step, call.steps)
        if not layers:
            return []
        masks = {block: source.known(call.state) for block, source in self.masks.items()}
        return [AlikePlaces(call, layers, masks)]


class AlikePlaces(EditingProcessor):
    """Gives the target's places the queries, keys and values of what is alike, or of the structure, in one model call.

    layers: of which picture, by the layer's name. masks: on the whole latent [1 or B,H,W], of target and appearance;
    None or missing: all of it.
    """

    def __init__(self, call: TwinCall, layers: Mapping[str, str], masks: Mapping[str, Tensor | None]) -> None:
        super().__init__(NAME, (SELF,), call)
        self._layers = layers
        self._masks = masks

    def chooses(self, site: Site) -> bool:
        """See `EditingProcessor`."""
        return site.name in self._layers

    def edited(self, call: AttentionCall) -> AttentionCall:
        """See `EditingProcessor`."""
        made, structure = call, self._layers[call.site.name] == STRUCTURE
        features, _ = call.inputs.after
        for pair in self._call.pairs:
            inside, other = (
                None if mask is None else self._call.inside(mask, pair, call.site.grid)
                for mask in map(self._masks.get, (TARGET, APPEARANCE))
            )
            own, theirs = pair.target, pair.source if structure else pair.appearance
            if structure:
                places = same_places(features[own], inside, other)
            else:
                places = most_alike(features[own], features[theirs], inside, other)
            qkv = (taken(each[own], each[theirs], places) for each in (call.q, call.k, call.v))
            made = made.with_rows(own, **dict(zip("qkv", qkv, strict=True)))
        return made

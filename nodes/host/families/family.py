"""What differs between model families: which attention sites a network has, and how they are found while it runs.

A new family is one file beside `unet.py` and one line in `FAMILIES`, or, for a transformer, one record in
`layouts.py`; and one entry in tests/host/families.

For every family ComfyUI calls the model as `apply_model(x, t, c_concat, c_crossattn, control, transformer_options,
**conds)`, so what surrounds a call of the network is an APPLY_MODEL wrapper; the network's own wrappers have other
arguments in each family.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Mapping
from typing import Any, Protocol

from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ..compiled import as_written
from .layouts import LAYOUTS
from .offers import GRADIENTS
from .refused import REFUSED
from .sites import Inputs, NetworkCall, Shape, Site
from .transformer import Transformer
from .transformer_gradients import WITHOUT, TransformerEnd
from .unet import UNet
from .unet_gradients import LayersAfter, LayersUntil, WholeNetwork


class Listener(Protocol):
    """Is notified of what other nodes do at attention sites."""

    def around(self, replacement: Callable) -> Callable:
        """What to run in place of another node's function (q, k, v, extra_options) that replaces an attention."""

    def beside(self, attention: Callable, q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """What to run in place of an attention that no override is asked about; arguments as an override has them."""

    def mixed(self, name: str, out: Tensor, mixed: Tensor) -> None:
        """Another node made `mixed`, with fewer rows, of the cross-attention's output `out`."""


class SiteFinder(Protocol):
    """Finds, during one model call, the site of the attention that the network computes now."""

    def install(self, options: dict, kinds: Container[str], listener: Listener) -> dict:
        """A copy of the transformer options with which sites of these kinds are found; may be called repeatedly."""

    def take(self, options: dict, shape: Shape) -> tuple[Site, Inputs] | None:
        """The site of the attention that is computed now with these transformer options, and what goes into it.

        shape: of that attention. None for any other attention.
        """

    def forget(self) -> None:
        """Forget the call's tensors."""


class Family(Protocol):
    """A family of models.

    name: what messages call its models. offers: those of `offers.FEATURES` that it has; the methods for the others
    are missing. text_kind, picture_kind: the sites where the picture attends to words and to itself, JOINT for both
    where they are the same. words_have_output: whether the attention computes something for words too. pads_in_front:
    whether the host fills up short texts at their beginning. share: what attention to a word is a share of unless the
    user chooses, see `core.attention.probabilities`.
    """

    name: str
    offers: frozenset[str]
    text_kind: str
    picture_kind: str
    words_have_output: bool
    pads_in_front: bool
    share: str

    def site_names(self, network: nn.Module, kind: str) -> tuple[str, ...]:
        """Names of the network's attention sites of this kind, in running order; none if it is not of this family."""

    def usual_layers(self, network: nn.Module) -> tuple[str, ...]:
        """Names of the sites where words are read unless the user chooses."""

    def finder(self, call: NetworkCall) -> SiteFinder:
        """A new site finder, for one model call."""

    def key_layers(self, network: nn.Module) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """What makes the keys [N,H*d] of a text's encoding [N,d], for every site of CROSS by name.

        Empty where the family does not offer KEYS.
        """

    def value_layers(self, network: nn.Module) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """What makes the values, likewise. This needs EDITING."""

    def layers_after(self, network: nn.Module, site: str | None) -> LayersAfter | TransformerEnd:
        """What gradients pass from this attention to the network's output; None: from the first one.

        Its type says how they can be found. Raises ValueError where gradients cannot pass. This needs GRADIENTS, the
        following three GUIDANCE, the others BLOCKS.
        """

    def layers_until(self, network: nn.Module, sites: Collection[str], block: str | None = None) -> LayersUntil:
        """What gradients pass from the attention at these sites, and this block's output, to the network's input."""

    def whole_network(self, network: nn.Module) -> WholeNetwork:
        """What gradients pass from the network's output to what the network is given."""

    def site_grids(self, network: nn.Module, grid: tuple[int, int]) -> dict[str, tuple[int, int]]:
        """The grids (h, w) of all sites of CROSS for a latent of this size, by name in running order."""

    def blocks(self, network: nn.Module) -> dict[str, int]:
        """The blocks whose outputs can be read, in running order: name -> how many times coarser than the latent."""

    def with_blocks(self, options: dict, names: Collection[str], see: Callable[[str, Tensor], None]) -> dict:
        """A copy of the transformer options with which `see` gets the output of each of these blocks as it is made.

        It may leave the network by an exception. It must not change the tensor, and the network may do so later.
        """

    def mark(self, network: nn.Module) -> Tensor:
        """A few of the network's own weights, float32 [n] on the CPU, by which it can be known again.

        Those that LoRA does not change and that the host keeps as they are when it quantises others.
        """


FAMILIES: tuple[Family, ...] = (UNet(), *map(Transformer, LAYOUTS))


def family_of(patcher: ModelPatcher, needed: str = "") -> Family:
    """The family that knows the model.

    needed: one of `offers.FEATURES` that it has to offer. Raises ValueError, naming the model and all families that
    could be used, when there is none, and when it does not offer that.
    """
    network = network_of(patcher)
    model = f"{type(patcher.model).__name__} ({type(network).__name__})"
    for family in FAMILIES:
        if family.site_names(network, family.text_kind):
            if not needed or needed in family.offers:
                return family
            able = ", ".join(each.name for each in FAMILIES if needed in each.offers)
            reason = WITHOUT.get(type(network).__name__) if needed == GRADIENTS else None
            because = f", because {reason}" if reason else ""
            raise ValueError(
                f"{needed}: not for the model {model}{because}; this works with {able}. Load one of these."
            )
    if reason := REFUSED.get(type(network).__name__):
        raise ValueError(f"attention of the model {model} cannot be read: {reason}")
    raise ValueError(
        f"attention of the model {model} cannot be read: supported are "
        f"{', '.join(family.name for family in FAMILIES)}. Load one of these."
    )


def network_of(patcher: ModelPatcher) -> nn.Module:
    """The model's network, as it was before it was compiled."""
    return as_written(patcher.get_model_object("diffusion_model"))


def cross_attention_layers(patcher: ModelPatcher) -> tuple[str, ...]:
    """Names of the sites where the model attends to words, in running order. Raises ValueError as `family_of` does."""
    family = family_of(patcher)
    return family.site_names(network_of(patcher), family.text_kind)

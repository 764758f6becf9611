"""When the rest of a model call may be left out.

Once the last block that is read has been seen, the rest of the network computes a prediction that nobody needs: half of
the call or more. It may be left out only where nobody else notices: other nodes' patches and wrappers, ControlNet and
hooks on modules may count calls or keep what they see, so beside any of them the call is completed.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

from torch import nn

from .attention.model_call import OURS
from .compiled import as_written
from .patch_names import of_other_nodes

# In transformer_options, each a dict of dicts or lists of what other nodes installed.
_PLACES = ("wrappers", "callbacks")


def may_leave(model: Any, control: dict | None, options: dict, model_options: dict) -> bool:
    """Whether nothing but the network itself would run in the rest of this call.

    model: the host's, whose `diffusion_model` runs. control: what ControlNets add to this call. options: its
    transformer options. model_options: those of the patched model.
    """
    network = model.diffusion_model
    return not (
        control
        or "model_function_wrapper" in model_options
        or "optimized_attention_override" in options
        or any(options.get("patches_replace", {}).values())
        or of_other_nodes(chain(*options.get("patches", {}).values()))
        or any(_foreign(options.get(place, {})) for place in _PLACES)
        or as_written(network) is not network
        or _streams_weights(model)
        or any(_is_hooked(module) for module in network.modules())
    )


def _foreign(installed: dict) -> bool:
    """Whether there is anything of another node: kind -> key -> functions."""
    return any(
        functions for keys in installed.values() for key, functions in keys.items() if not str(key).startswith(OURS)
    )


def _streams_weights(model: Any) -> bool:
    """Whether the host fetches the next block's weights while one runs; a call that ends early would leave them."""
    patcher = getattr(model, "current_patcher", None)
    return patcher is not None and hasattr(patcher, "is_dynamic") and patcher.is_dynamic()


def _is_hooked(module: nn.Module) -> bool:
    """Whether somebody watches the module, or put another `forward` in place of its own."""
    return bool(module._forward_hooks or module._forward_pre_hooks) or "forward" in vars(module)

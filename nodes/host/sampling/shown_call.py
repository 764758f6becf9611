"""What a pause shows of the model: the newest call that the sampler made, or that call once more with other values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...core.maps.saliency import Saliency
from ..attention.model_call import EDITED, aside
from ..attention.observer import AttentionCapture
from .live_prompt import LivePrompt


class ShownCall:
    """See above.

    guider: the host's. prompt: of the run. attention: whose maps are shown, None for none. latent, mask: what an
    inpainting run keeps outside its mask, and that mask; None where it is no such run.
    """

    def __init__(
        self, guider: Any, prompt: LivePrompt, attention: AttentionCapture | None, latent: Tensor, mask: Tensor | None
    ) -> None:
        self._guider = guider
        self._prompt = prompt
        self._attention = attention
        self._kept = None if mask is None else (latent, mask)
        self._call: tuple[Tensor, tuple[Any, ...], dict[str, Any]] | None = None

    def made(self, x: Tensor, *args: Any, **kwargs: Any) -> None:
        """The sampler makes this call. The state is copied: a sampler may go on in its memory."""
        self._call = x.clone(), args, kwargs

    def forget(self) -> None:
        """It is not made again."""
        self._call = None

    def maps(self) -> Saliency | None:
        """The words' maps of the newest call; None if it has none."""
        going_on = self._attention is not None and self._attention.runs.current is not None
        return self._attention.before_step() if going_on else None

    def again(self, text: str) -> tuple[Tensor, Saliency | None]:
        """What the model predicts with the guider's values of now [B,C,h,w], and the maps of the words of `text`.

        text: of the prompt that the guider has now. Random generators stay as they are.
        """
        x, (timestep, model_options, *others), named = self._call
        marked = aside({"model_options": model_options}, EDITED)["model_options"]
        predicted = []

        def predict() -> None:
            predicted.append(self._guider(x, timestep, marked, *others, **named))

        maps = None
        with torch.random.fork_rng([x.device] if x.device.type == "cuda" else []):
            if self._attention is None:
                predict()
            elif text == self._prompt.own:
                maps = self._attention.ask(predict)
            else:
                contexts = [cond["cross_attn"] for cond in self._guider.conds["positive"]]
                maps = self._attention.ask_about(self._prompt.words(text), contexts, predict)
        x0 = predicted[0]
        if self._kept is not None:
            latent, mask = self._kept
            x0 = x0 * mask + latent * (1 - mask)
        return x0, maps

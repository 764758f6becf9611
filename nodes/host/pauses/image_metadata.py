"""What was answered at the pauses of a run, in the metadata of the images that it saves.

The host gives the nodes of a run one dictionary, `extra_pnginfo`, and nodes that save images write what is in it,
beside the workflow. It is there only for runs that were queued with their workflow, as the browser does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from comfy_execution.utils import get_executing_context

from .records import Record, as_objects

KEY = "explainable_latents"


@dataclass(frozen=True)
class ImageMetadata:
    """The metadata of the images of one run. run: its id. entries: what is written with every image."""

    run: str
    entries: dict[str, Any]


def image_metadata(entries: Any) -> ImageMetadata | None:
    """That of the run that goes on. entries: the host's `extra_pnginfo`. None where it has none."""
    context = get_executing_context()
    usable = context is not None and isinstance(entries, dict)
    return ImageMetadata(context.prompt_id, entries) if usable else None


class AnswersInImages:
    """The answers of one sampler run: in the metadata under `KEY`, as {answers: [{sampler, node, answers: [...]}]}.

    Those of several variants are a list of lists: what they have in common at their beginning is where they part.

    sampler: the id of the sampler node. node: the display name of the node that paused it; `answers` is what its input
    of that name takes. metadata: given to that node; it is that of another run where the node came from the host's
    cache, and nothing is written then. None for none.
    """

    def __init__(self, node: str, metadata: ImageMetadata | None) -> None:
        context = get_executing_context()
        self._entries = metadata.entries if metadata and context and metadata.run == context.prompt_id else None
        self._entry = {"sampler": context and context.node_id, "node": node, "answers": []}

    def write(self, variants: Sequence[Sequence[Record]]) -> None:
        """These are the answers now, for each variant of the run."""
        objects = as_objects(variants)
        if self._entries is None or not (objects or self._entry["answers"]):
            return
        own = self._entries.get(KEY)  # whoever queues a run may send anything
        before = own.get("answers") if isinstance(own, Mapping) else None
        others = [each for each in (before if isinstance(before, list) else []) if each is not self._entry]
        self._entry["answers"] = objects
        if objects:
            self._entries[KEY] = {"answers": [*others, self._entry]}
        elif others:
            self._entries[KEY] = {"answers": others}
        else:
            self._entries.pop(KEY, None)

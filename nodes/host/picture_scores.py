"""What a picture shall be like, as a user says it: a text, or a file with an aesthetic head in models/classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import folder_paths
from safetensors import SafetensorError
from safetensors.torch import load_file

from ..core.methods.picture_score import Aesthetics, PictureScore, TextMatch, aesthetics

_FOLDER, _KIND = "classifiers", ".safetensors"
NONE = "none"


def heads() -> list[str]:
    """The files that a node offers, after NONE.

    The host's own list of this folder has only files without an extension.
    """
    folders = folder_paths.get_folder_paths(_FOLDER)
    found = (name for folder in folders for name in folder_paths.recursive_search(folder, [])[0])
    return [NONE, *sorted({name for name in found if name.endswith(_KIND)})]


def read_head(name: str, weight: float = 1.0) -> Aesthetics:
    """The head in a file. Raises ValueError, with the file's name, for one that is missing, broken, or no head."""
    path = folder_paths.get_full_path(_FOLDER, name)
    if path is None:
        there = ", ".join(heads()[1:]) or "none"
        raise ValueError(f"aesthetics: there is no {name!r} in the folder models/classifiers; there are: {there}")
    try:
        return aesthetics(load_file(path, "cpu"), weight)
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"aesthetics: {name} cannot be used: {error}") from error


def scores_of(
    text: Sequence[Sequence[Any]] | None, text_weight: float, aesthetics: str, aesthetics_weight: float
) -> list[PictureScore]:
    """What the node's inputs ask for. text: a CONDITIONING. aesthetics: a file, or NONE.

    Raises ValueError for several texts at once, or one without an embedding of the whole text, and as `read_head`.
    """
    scores: list[PictureScore] = []
    if text is not None and text_weight:
        if len(text) != 1:
            raise ValueError(f"text has {len(text)} conditionings, combined; connect a single CLIP Text Encode")
        pooled = text[0][1].get("pooled_output")
        if pooled is None:
            raise ValueError(
                "text has no embedding of the whole text (pooled_output): encode it with the text encoder of a CLIP "
                "model, such as clip_l.safetensors or clip_g.safetensors in Load CLIP"
            )
        scores.append(TextMatch(pooled.flatten(0, -2)[0].float(), text_weight))
    if aesthetics != NONE and aesthetics_weight:
        scores.append(read_head(aesthetics, aesthetics_weight))
    return scores

"""One model call of a sampler, as it is being captured."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from ..core.attention import Piece, compose, resize
from .conditionings import Positives, Rows


@dataclass
class ModelCall:
    """One model call of a sampler. index: of the positive list while the host evaluates it, else None."""

    positives: Positives
    batch: int
    grid: tuple[int, int]
    sigma: float
    step: int | None
    index: int | None = None
    evaluated: bool = False
    pieces: dict[str, list[tuple[Tensor, Rows]]] = field(default_factory=dict)

    def layers(self) -> dict[str, Tensor]:
        """Every layer's map: on its own grid, or on the latent's where several conditionings share the frame."""
        whole = all(len(pieces) == 1 and pieces[0][1].is_whole(self.grid) for pieces in self.pieces.values())
        if whole:
            return {name: pieces[0][0] for name, pieces in self.pieces.items()}
        return {
            name: compose([Piece(resize(maps, row.size), row.offset, row.weight) for maps, row in pieces], self.grid)
            for name, pieces in self.pieces.items()
        }


def step_of(sigma: float, model_options: dict) -> int | None:
    """Index of the sampler's step that evaluates at `sigma`: the last one whose noise level is not below it."""
    sigmas = model_options.get("transformer_options", {}).get("sample_sigmas")
    if sigmas is None:
        return None
    return max(0, int((sigmas.float().cpu() >= sigma * (1 - 1e-5)).sum()) - 1)

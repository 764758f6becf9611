"""Random maps, and what tells about them."""

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

# Maps [S,B,h,w] with values in 0..1 for property tests.
ANY_MAPS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(2, 9), st.integers(2, 9)),
    elements=st.floats(0, 1, width=32, allow_subnormal=False).map(lambda v: round(v, 3)),
).map(torch.from_numpy)


def random_maps(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def labels_of(maps: torch.Tensor) -> tuple[str, ...]:
    return tuple(f"word {i}" for i in range(len(maps)))


def is_flat(maps: torch.Tensor) -> bool:
    return bool((maps.amax((-2, -1)) - maps.amin((-2, -1)) <= 1e-6 * maps.abs().amax((-2, -1))).any())

"""What `make test` leaves to `make test-thorough`: further cases of what it shows by others, and what takes a minute.

Every test runs on every change, in one of the two. The first is for those who wait for it: a sample of the cases of
long lists, and one renderer for each browser test. The second has the rest.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

THOROUGH = pytest.mark.thorough


def every_second(cases: Iterable[Any], first: int = 0) -> list[Any]:
    """Parameters of a test: every second of `cases` from the `first` on, the others are left to `make test-thorough`.

    cases: each a tuple of a test's several parameters, or the value of its only one.
    """
    return [case if i % 2 == first else further(case) for i, case in enumerate(cases)]


def further(case: Any) -> Any:
    """A case that is left to `make test-thorough`."""
    return pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=THOROUGH)

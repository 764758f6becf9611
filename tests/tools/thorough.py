"""What `make test` leaves to `make test-thorough`: further cases of what it shows by others, and what takes a minute.

Every test runs on every change, in one of the two. The first is for those who wait for it: a sample of the cases of
long lists, and one renderer for each browser test. The second has the rest.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

THOROUGH = pytest.mark.thorough

# A test with at least so many cases has a long list of them.
LONG = 4
HALVED = "browser", "core", "host", "nodes", "workflows"
TESTS = Path(__file__).resolve().parent.parent


def further(case: Any) -> Any:
    """A case that is left to `make test-thorough`: a tuple of a test's parameters, or the value of its only one."""
    return pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=THOROUGH)


def halve(items: Iterable[pytest.Item]) -> None:
    """Leave half of the cases of each test that has `LONG` of them to `make test-thorough`.

    Which half hangs on the names of the cases alone: one stays where it is when others come and go, as long as the list
    is long, and no value of one parameter is always left out. Of tests in the folders `HALVED`.
    """
    cases: dict[tuple[Path, str], list[pytest.Function]] = defaultdict(list)
    for item in items:
        if isinstance(item, pytest.Function) and item.path.relative_to(TESTS).parts[0] in HALVED:
            cases[item.path, item.originalname].append(item)
    for several in cases.values():
        if len(several) >= LONG:
            for case in several:
                if zlib.crc32(case.name.encode()) % 2:
                    case.add_marker(THOROUGH)

"""What tests of gradients share."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.host.memory import nothing_free


@pytest.fixture
def little_memory(comfy) -> Iterator[Callable[[], None]]:
    """Call it, and from then on the pack is told that no memory is free."""
    with ExitStack() as until_the_end:
        yield lambda: until_the_end.enter_context(nothing_free())

"""How every command of this repository starts and ends: errors in one sentence, exit codes, whole files only."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

from .errors import HostError

TERMINATED = 128 + signal.SIGTERM
INTERRUPTED = 128 + signal.SIGINT


def run_main(main: Callable[[], int | None]) -> NoReturn:
    """Run a command and leave with its exit code.

    1 and a message for an expected error, 130 for Ctrl-C, 143 for SIGTERM, which unwinds like Ctrl-C, so that `with`
    blocks end what they started.
    """
    signal.signal(signal.SIGTERM, _terminate)
    try:
        sys.exit(main())
    except (HostError, ValueError, TimeoutError) as error:
        _fail(str(error), 1)
    except KeyboardInterrupt:
        _fail("interrupted", INTERRUPTED)
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error), 1)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to that becomes `path` when the block ends well, and is removed when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        part.chmod(0o644)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(TERMINATED)


def _fail(message: str, code: int) -> NoReturn:
    print(f"error: {message}" if code == 1 else message, file=sys.stderr)
    sys.exit(code)

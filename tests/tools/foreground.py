"""Start a command of this repository as a terminal would."""

from __future__ import annotations

import sys

_RESTORE = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"


def foreground(*arguments: str) -> list[str]:
    """The command line that runs this Python with `arguments` and hears Ctrl-C.

    A shell that runs the tests in the background tells them, and so their children, to ignore it.
    """
    return [sys.executable, "-c", _RESTORE, sys.executable, *arguments]

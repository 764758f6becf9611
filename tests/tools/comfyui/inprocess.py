"""ComfyUI as a library, in this process: for tests of `nodes/host` and for training the toy model."""

from __future__ import annotations

import atexit
import shutil
import sys
from pathlib import Path

from .base import prepare_base, temporary_base
from .install import Host, installed


def load_comfyui(base: Path | None = None, device: str = "--cpu") -> Host:
    """Make `import comfy`, `nodes`, `folder_paths` ... work, with a base directory like a server's.

    `base` None makes one for this run only, which is removed at the end.
    Call it before anything imports `comfy`: ComfyUI reads its command line at import.
    """
    host = installed()
    if base is None:
        base = temporary_base()
        atexit.register(shutil.rmtree, base, ignore_errors=True)
    prepare_base(base)
    if not host.pinned:
        sys.dont_write_bytecode = True
    sys.path.insert(0, str(host.tree))  # first: our root may be on the path, and its `nodes` would hide ComfyUI's
    arguments = sys.argv
    sys.argv = ["main.py", *([device] if device else []), "--disable-api-nodes", "--base-directory", str(base)]
    try:
        import comfy.options

        comfy.options.enable_args_parsing()
        import comfy.cli_args

        # As main.py does: ComfyUI later puts a folder with a `utils.py` of its own before this package.
        import utils.extra_config  # noqa: F401
    finally:
        sys.argv = arguments
    return host

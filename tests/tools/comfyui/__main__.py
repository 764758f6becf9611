"""`python -m tests.tools.comfyui COMMAND`: install, serve, run. Standard library only, any Python 3.11 or newer."""

from __future__ import annotations

import argparse
import os
import sys

if sys.version_info < (3, 11):
    sys.exit(
        f"error: Python 3.11 or newer is needed, this is {sys.version.split()[0]}: make PYTHON=/path/to/python3.11"
    )

if os.name != "posix":
    sys.exit("error: the test host runs on Linux and macOS; on Windows use it inside WSL")

from .command import run_main
from .install import install, with_extra, with_python
from .oldest import find_oldest, oldest_version
from .paths import HOME
from .server import ComfyServer, server_environment

EXTRA = "--with="


def main() -> None:
    """Read the command line and do it."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.tools.comfyui", description="The real ComfyUI for tests and the demo."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("install", help="set ComfyUI up, or check that it is")
    serve = commands.add_parser("serve", help="run it for your browser, with this pack, until Ctrl-C")
    serve.add_argument("--port", type=int, default=8188)
    serve.add_argument("--gpu", action="store_true", help="let ComfyUI choose the device instead of the CPU")
    commands.add_parser(
        "run", help="run the environment's Python with all further arguments; --with=NAME first adds an optional extra"
    )
    commands.add_parser(
        "oldest", help="the same on the oldest Python that the pack promises; says so where there is none"
    )
    given = sys.argv[1:]
    further = given[1:] if given[:1] in (["run"], ["oldest"]) else []  # Python's options, not ours
    options = parser.parse_args(given[: len(given) - len(further)])
    host = install()
    if options.command == "install":
        print(f"ComfyUI: {host.tree}\nPython:  {host.python}")
    elif options.command == "serve":
        _serve(options.port, "" if options.gpu else "--cpu")
    elif options.command == "oldest":
        _run_oldest(further)
    else:
        python = host.python
        if further and further[0].startswith(EXTRA):
            python = with_extra(host, further.pop(0).removeprefix(EXTRA))
        os.execve(python, [str(python), *further], server_environment(host))


def _run_oldest(arguments: list[str]) -> None:
    version, python = oldest_version(), find_oldest()
    if python is None:
        print(f"not run: this machine has no Python {version} (on the PATH, of pyenv or of uv)")
        return
    host = with_python(python, version)
    os.execve(host.python, [str(host.python), *arguments], server_environment(host))


def _serve(port: int, device: str) -> None:
    with ComfyServer(port=port, base=HOME / "base", device=device) as server:
        print(f"ComfyUI with explainable-latents: {server.url}   (Ctrl-C ends it; log: {server.log})", flush=True)
        server.wait()
        server.check()


if __name__ == "__main__":
    run_main(main)

"""Becomes the ComfyUI server: `launch.py PARENT PROGRAM ARGUMENT...`. Run by `server`, as a script.

Linux kills the server when the thread that started it ends, so that not even a killed test run leaves one behind.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    parent, arguments = int(sys.argv[1]), sys.argv[2:]
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background job inherits "ignore": a clean stop needs it
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the process that started this server is gone")
    os.execv(sys.executable, [sys.executable, *arguments])

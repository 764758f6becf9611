"""Exit codes, messages and whole files."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.comfyui.command import whole_file
from tests.tools.comfyui.paths import ROOT


def run_command(body: str) -> subprocess.CompletedProcess[str]:
    """A command with this body, run as users run it."""
    head = (
        "import os, signal, time\nfrom tests.tools.comfyui.command import run_main\n"
        "from tests.tools.comfyui.errors import *\n"
    )
    code = f"{head}def main():\n    {body}\nrun_main(main)"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ("return", 0, ""),
        ("return 3", 3, ""),
        ("raise ServerError('no luck')", 1, "error: no luck\n"),
        ("open('/no/such/file')", 1, "error: /no/such/file: No such file or directory\n"),
        ("raise FileNotFoundError('make toy')", 1, "error: make toy\n"),
        ("signal.signal(2, signal.default_int_handler); os.kill(os.getpid(), 2); time.sleep(9)", 130, "interrupted\n"),
        ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)", 143, ""),
    ],
)
def test_exit_codes(body: str, code: int, message: str):
    done = run_command(body)
    assert (done.returncode, done.stderr) == (code, message)


def test_unexpected_errors_keep_their_traceback():
    done = run_command("{}['key']")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_whole_file_or_none(tmp_path: Path):
    target = tmp_path / "sub" / "sheet.jpg"
    with whole_file(target) as part:
        part.write_text("first")
    with pytest.raises(OSError, match="disk full"), whole_file(target) as part:
        _write_half(part)
    assert target.read_text() == "first"
    assert os.listdir(target.parent) == ["sheet.jpg"]


def _write_half(part: Path) -> None:
    part.write_text("hal")
    raise OSError("disk full")


def test_a_killed_writer_leaves_no_result(tmp_path: Path):
    target = tmp_path / "sheet.jpg"
    code = (
        "import os, sys; from pathlib import Path; from tests.tools.comfyui.command import whole_file\n"
        "with whole_file(Path(sys.argv[1])) as part:\n"
        "    part.write_text('half'); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(target)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not target.exists()

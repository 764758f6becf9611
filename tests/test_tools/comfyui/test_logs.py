"""Which logs of servers are kept."""

import os
import subprocess
import sys

from tests.tools.comfyui.server import KEPT_LOGS, remove_old_logs


def test_a_log_outlives_any_number_of_later_servers_while_its_owner_runs(tmp_path):
    """Found in the whole suite: the log of the first server was gone after twenty more had started."""
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    owners = (os.getpid(), gone.pid, *[gone.pid] * KEPT_LOGS)
    for age, owner in enumerate(owners):
        log = tmp_path / f"comfyui-{owner}-{age}.log"
        log.touch()
        os.utime(log, (age, age))
    remove_old_logs(tmp_path)
    left = {log.name for log in tmp_path.iterdir()}
    assert left == {f"comfyui-{owner}-{age}.log" for age, owner in enumerate(owners) if age != 1}

"""ComfyUI as these tests see it: the real one, on the CPU, away from the user's files, not hidden by our `nodes`."""

import sys
from pathlib import Path

import comfy.cli_args
import comfy.model_management
import folder_paths
import nodes

from tests.tools.comfyui.install import installed
from tests.tools.comfyui.paths import HOME


def test_comfyui_is_the_installed_one_and_runs_on_the_cpu():
    assert Path(comfy.cli_args.__file__).is_relative_to(installed().tree)
    assert Path(nodes.__file__) == installed().tree / "nodes.py"
    assert comfy.model_management.get_torch_device().type == "cpu"


def test_its_folders_are_private():
    assert Path(folder_paths.base_path).is_relative_to(HOME / "runs")
    assert Path(folder_paths.get_output_directory()).is_relative_to(HOME / "runs")


def test_our_command_line_is_left_alone():
    assert "--base-directory" not in sys.argv

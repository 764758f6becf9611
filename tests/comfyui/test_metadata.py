"""What `pyproject.toml` promises: to the registry, to pip, and about the oldest Python."""

import re
import subprocess
import sys

import tomllib

from .paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_registry_metadata():
    requirements = re.sub(r"#.*", "", (ROOT / "requirements.txt").read_text()).split()
    assert PROJECT["project"]["dependencies"] == requirements
    assert PROJECT["project"]["name"] == "explainable-latents"
    assert PROJECT["tool"]["comfy"]["PublisherId"]
    for key in ("readme", "license"):
        file = PROJECT["project"][key]
        assert (ROOT / (file["file"] if isinstance(file, dict) else file)).is_file()


def test_the_pack_uses_nothing_that_the_oldest_python_lacks():
    """On a newer Python only this notices: neither the tests nor ruff mind `typing.Self` on 3.10."""
    oldest = PROJECT["project"]["requires-python"].removeprefix(">=")
    options = ["--no-tips", "--violations", "--eval-annotations", f"--target={oldest}-"]
    command = [sys.executable, "-c", "import vermin; vermin.main()", *options, "__init__.py", "nodes"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout

"""The layers hold: `nodes/core` and the package itself run where there is no ComfyUI, and the linter guards it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PURE = ROOT / "nodes" / "core"
CORE = sorted(".".join(p.relative_to(PURE).with_suffix("").parts) for p in PURE.rglob("*.py") if p.stem != "__init__")

IMPORT_ALL = """
import importlib, sys, types
package = types.ModuleType("pack")
package.__path__ = [sys.argv[1]]
sys.modules["pack"] = package
for name in sys.argv[2:]:
    importlib.import_module(f"pack.nodes.core.{name}")
host = {"comfy", "comfy_api", "comfy_extras", "comfy_execution", "execution", "folder_paths", "nodes", "server"}
print("host modules:", sorted(host & {name.partition(".")[0] for name in sys.modules}))
"""


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-I", "-c", code, *arguments], capture_output=True, text=True, check=False)


def test_this_environment_has_no_comfyui():
    done = run_python("import comfy")
    assert "No module named 'comfy'" in done.stderr


def test_core_imports_without_comfyui():
    assert len(CORE) >= 20
    done = run_python(IMPORT_ALL, str(ROOT), *CORE)
    assert done.stdout == "host modules: []\n", done.stderr


def test_package_imports_without_comfyui():
    code = (
        "import importlib.util as u, sys; s = u.spec_from_file_location('pack', sys.argv[1]); m = u.module_from_spec(s)"
    )
    done = run_python(f"{code}; s.loader.exec_module(m); print(m.WEB_DIRECTORY)", str(ROOT / "__init__.py"))
    assert done.stdout == "./js\n", done.stderr


@pytest.mark.parametrize(("layer", "banned"), [("core", True), ("host", False)])
@pytest.mark.parametrize("line", ["import comfy.utils", "import nodes", "from comfy_api.latest import io"])
def test_linter_bans_comfyui_in_core_only(layer: str, banned: bool, line: str):
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--select",
        "TID251",
        "--stdin-filename",
        f"nodes/{layer}/attention/x.py",
        "-",
    ]
    done = subprocess.run(command, input=line + "\n", capture_output=True, text=True, cwd=ROOT, check=False)
    assert ("TID251" in done.stdout) is banned
    assert done.returncode == int(banned)

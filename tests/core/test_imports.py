"""Imports go down only: node files, `host`, `core`, and inside `host` and `core` from package to package."""

from __future__ import annotations

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Each imports itself and what stands before it. Runs of a sampler are below attention: captures are kept by run.
ORDER = {
    "core": ("choices", "layout_text", "words", "attention", "gradients", "maps", "methods"),
    "host": ("ui", "pauses", "families", "sampling.runs", "attention", "autograd", "features", "sampling", "editing"),
}


def module_name(file: Path) -> str:
    """`nodes.core.words.tokens` for its file, `nodes.core.words` for the package's `__init__.py`."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {module_name(file): file for file in sorted((ROOT / "nodes").rglob("*.py"))}


def imported(name: str, file: Path) -> set[str]:
    """The pack's own modules that a module imports, at its top or inside functions, but for those of types alone."""
    package = name.split(".") if file.stem == "__init__" else name.split(".")[:-1]
    tree = ast.parse(file.read_text(encoding="utf-8"))
    typing = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    found = set()
    for node in ast.walk(ast.Module([node for node in tree.body if node not in typing], [])):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1] + (node.module.split(".") if node.module else [])
            for each in node.names:
                whole = ".".join([*base, each.name])
                found.add(whole if whole in FILES else ".".join(base))
    return found


NODE_FILES = {name for name in FILES if name.count(".") == 1} - {"nodes.core", "nodes.host"}
IMPORTS = {name: imported(name, file) for name, file in FILES.items()}


def below(upper: str, lower: str) -> list[str]:
    """The imports by which something under `lower` reaches up to something under `upper`."""
    return [
        f"{name} imports {other}"
        for name, others in IMPORTS.items()
        for other in sorted(others)
        if inside(name, lower) and inside(other, upper)
    ]


def inside(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def test_every_import_is_of_a_module_there_is():
    assert len(IMPORTS) > 50
    assert [f"{name}: {other}" for name, others in IMPORTS.items() for other in others - set(FILES)] == []


def test_core_imports_neither_host_nor_node_files_and_host_no_node_files():
    assert below("nodes.host", "nodes.core") == []
    assert [line for file in NODE_FILES for lower in ("nodes.core", "nodes.host") for line in below(file, lower)] == []


def place(name: str, layer: str) -> int | None:
    """Where a module stands in the order of its layer; None for other layers and the single files of `host`."""
    found = [each for each in ORDER[layer] if inside(name, f"nodes.{layer}.{each}")]
    return ORDER[layer].index(max(found, key=len)) if found else None


@pytest.mark.parametrize("layer", ORDER)
def test_packages_import_only_packages_below_them(layer):
    root = ROOT / "nodes" / layer
    packages = {file.parent.name for file in root.glob("*/__init__.py")}
    assert packages <= set(ORDER[layer]), "a new package: give it a place in the order"
    assert all(f"nodes.{layer}.{each}" in FILES for each in ORDER[layer])
    wrong = [
        f"{name} imports {other}"
        for name, others in IMPORTS.items()
        for other in sorted(others)
        if None not in (here := place(name, layer), there := place(other, layer)) and here < there
    ]
    assert wrong == []


def test_no_modules_import_each_other_in_a_circle():
    list(TopologicalSorter({name: others - {name} for name, others in IMPORTS.items()}).static_order())


def test_node_files_do_not_import_each_other():
    """Only what they share, and the extension, which collects them."""
    shared = {
        f"nodes.{name}"
        for name in (
            "inputs",
            "appearance_inputs",
            "feature_inputs",
            "guidance_inputs",
            "prompt_inputs",
            "shaping_inputs",
            "editing_inputs",
            "sockets",
        )
    }
    files = NODE_FILES - {"nodes.extension"}
    assert [f"{name} imports {other}" for name in files for other in IMPORTS[name] & files - shared] == []


def test_node_files_touch_comfyui_by_its_node_api_alone():
    assert len(NODE_FILES) >= 8
    for name in sorted(NODE_FILES):
        for node in ast.walk(ast.parse(FILES[name].read_text(encoding="utf-8"))):
            modules = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module]
            tops = {module.partition(".")[0] for module in modules}
            assert tops <= {"comfy_api", *sys.stdlib_module_names}, f"{name}: {modules}"

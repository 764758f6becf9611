"""Tests look at what the pack does through names that it shows; ruff's SLF001 forbids attributes with an underscore."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACK = "explainable_latents"
FILES = sorted((ROOT / "tests").rglob("*.py"))


def reached(tree: ast.AST) -> Iterator[str]:
    """What a file imports or replaces though it is nobody else's: names with an underscore, functions of the pack."""
    pack = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{each.name}" for each in node.names if each.name.startswith("_"))
            if (node.module or "").startswith(PACK):
                pack |= {each.asname or each.name for each in node.names}
    for node in ast.walk(tree):
        called = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr
        if called in ("setattr", "delattr", "setitem", "delitem"):
            owner, name = node.args[0], node.args[1] if len(node.args) > 1 else None
            if isinstance(owner, ast.Constant):  # the dotted form
                module, _, replaced = owner.value.rpartition(".")
                ours = module.startswith(PACK)
            else:
                module, replaced = ast.unparse(owner), getattr(name, "value", "?")
                ours = module.partition(".")[0] in pack
            if str(replaced).startswith("_") or (ours and not str(replaced).isupper()):
                yield f"{module}.{replaced}"


def test_a_test_reaches_into_nothing_private_and_replaces_no_function_of_the_pack():
    """A public constant, in capitals, may be made smaller for a test."""
    found = {str(file.relative_to(ROOT)): list(reached(ast.parse(file.read_text(encoding="utf-8")))) for file in FILES}
    assert len(found) > 100
    assert {file: names for file, names in found.items() if names} == {}


@pytest.mark.parametrize(
    ("code", "found"),
    [
        (
            "from explainable_latents.nodes.host.tokens import _hidden",
            ["explainable_latents.nodes.host.tokens._hidden"],
        ),
        ("from explainable_latents.nodes import a\nm.setattr(a, 'work', None)", ["a.work"]),
        ("from explainable_latents.nodes import a as b\nm.setattr(b.c, name, None)", ["b.c.?"]),
        ("m.setattr('explainable_latents.nodes.a.work', None)", ["explainable_latents.nodes.a.work"]),
        ("from explainable_latents.nodes import a\nm.setattr(a, 'MOST', 3)", []),
        ("import comfy\nm.setattr(comfy.samplers, 'sample', None)", []),
        ("m.setitem(table, '_entry', 1)", ["table._entry"]),
    ],
)
def test_what_is_found(code, found):
    assert list(reached(ast.parse(code))) == found

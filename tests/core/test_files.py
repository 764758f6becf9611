"""Files of the pack are short enough to be read at once, and long enough to be worth opening."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MOST, LEAST = 250, 30

# Shorter files, and why each is one of its own. Files that say what is in a package are short by their nature.
SHORT = {
    "nodes/host/families/offers.py": "names that the families and family.py, which imports them, have in common",
    "nodes/core/methods/prompt_difference.py": "one paper, one file; its mask is made by the thresholds that there are",
    "nodes/core/choices.py": "the one check of a choice by name, for all of core and host",
    "nodes/host/editing/paused_runs.py": "joins pauses with weights of words: imports of pauses may not go up there",
}


def lines() -> dict[str, int]:
    files = sorted((ROOT / "nodes").rglob("*.py"))
    return {str(file.relative_to(ROOT)): len(file.read_text(encoding="utf-8").splitlines()) for file in files}


def test_no_file_is_longer_than_250_lines():
    found = lines()
    assert len(found) > 50
    assert {name: count for name, count in found.items() if count > MOST} == {}


def test_no_file_is_shorter_than_30_lines_without_a_reason():
    short = {name for name, count in lines().items() if count < LEAST and not name.endswith("/__init__.py")}
    assert short == set(SHORT)


def test_a_package_says_what_is_in_it_and_imports_nothing():
    for file in sorted((ROOT / "nodes").glob("*/**/__init__.py")):
        text = file.read_text(encoding="utf-8").strip()
        assert text.count('"""') == 2, file
        assert not text.partition('"""')[2].partition('"""')[2], file

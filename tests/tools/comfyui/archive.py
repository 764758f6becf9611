"""The archive that the registry hands to users, made by the rules of comfy-cli: what git keeps, less `.comfyignore`."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pathspec

from .paths import ROOT


def published_files() -> list[str]:
    """The archive's files, as paths below the repository's root."""
    ignored, left_out = _patterns(".gitignore"), _patterns(".comfyignore")
    published = []
    for folder, folders, files in os.walk(ROOT):
        below = Path(folder).relative_to(ROOT)
        folders[:] = [name for name in folders if name != ".git" and not ignored.match_file(f"{below / name}/")]
        found = [(below / name).as_posix() for name in files]
        published += [file for file in found if not ignored.match_file(file) and not left_out.match_file(file)]
    return sorted(published)


def write_archive(target: Path) -> Path:
    """Make the archive; returns its path."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in published_files():
            archive.write(ROOT / file, file)
    return target


def _patterns(name: str) -> pathspec.GitIgnoreSpec:
    return pathspec.GitIgnoreSpec.from_lines((ROOT / name).read_text().splitlines())

"""What the registry hands to users: small, whole, and nothing that only developers need."""

import re
import zipfile
from pathlib import Path

from tests.tools.comfyui.archive import write_archive
from tests.tools.comfyui.base import PACK_ENTRIES
from tests.tools.comfyui.paths import ROOT

MOST_BYTES = 1_500_000
USED = ("nodes", "js", "locales", "subgraphs", "workflows")
PICTURE = re.compile(r"images/([\w.]+)")


def published(folder: Path) -> set[str]:
    with zipfile.ZipFile(write_archive(folder / "node.zip")) as archive:
        return set(archive.namelist())


def test_an_install_is_small(tmp_path: Path):
    assert write_archive(tmp_path / "node.zip").stat().st_size <= MOST_BYTES


def test_users_get_what_the_pack_is_made_of_and_nothing_else(tmp_path: Path):
    entries = {name.partition("/")[0] for name in published(tmp_path)}
    assert entries == {*PACK_ENTRIES, "CHANGELOG.md"}


def test_only_pictures_of_the_readme_are_left_out_of_what_the_pack_uses(tmp_path: Path):
    found = (path for folder in USED for path in (ROOT / folder).rglob("*") if path.is_file())
    used = {path.relative_to(ROOT).as_posix() for path in found if path.suffix != ".pyc"}
    left_out = used - published(tmp_path)
    readme = set(PICTURE.findall((ROOT / "README.md").read_text()))
    helped = {name for page in (ROOT / "js").rglob("*.md") for name in PICTURE.findall(page.read_text())}
    assert left_out == {f"js/docs/images/{name}" for name in readme - helped}

"""What `pyproject.toml` and `.github/` promise: to the registry, to pip, to GitHub, and about the oldest Python."""

import os
import re
import subprocess
import sys
from typing import Any

import pytest
import tomllib
import yaml

from tests.tools.comfyui.oldest import oldest_version
from tests.tools.comfyui.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def read_yaml(name: str) -> dict[str, Any]:
    """A file of `.github/`; every value as the text that GitHub reads (`on` is no truth value there)."""
    return yaml.load((ROOT / ".github" / name).read_text(), Loader=yaml.BaseLoader)


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
    options = ["--no-tips", "--violations", "--eval-annotations", f"--target={oldest_version()}-"]
    command = [sys.executable, "-c", "import vermin; vermin.main()", *options, "__init__.py", "nodes"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout


def test_the_registry_knows_where_the_pack_lives():
    urls = PROJECT["project"]["urls"]
    repository = urls.pop("Repository")
    assert repository == f"https://github.com/{PROJECT['tool']['comfy']['PublisherId']}/{PROJECT['project']['name']}"
    assert set(urls) == {"Documentation", "Issues"}
    assert all(url.startswith(repository) for url in urls.values())


def test_a_push_runs_the_whole_check():
    workflow = read_yaml("workflows/test.yml")
    assert {"push", "workflow_call"} <= set(workflow["on"])
    steps = [step.get("run") for step in workflow["jobs"]["test"]["steps"]]
    assert {"make test", "make test-thorough"} <= set(steps)


def test_only_a_version_tag_whose_tests_pass_is_published():
    workflow = read_yaml("workflows/publish.yml")
    assert workflow["on"] == {"push": {"tags": ["v*"]}}
    test, publish = workflow["jobs"]["test"], workflow["jobs"]["publish"]
    assert test == {"uses": "./.github/workflows/test.yml"}
    assert publish["needs"] == "test"
    (secret,) = re.findall(r"secrets\.(\w+)", str(publish))
    assert secret in (ROOT / "CONTRIBUTING.md").read_text()


@pytest.mark.parametrize(("tag", "code"), [("v{}", 0), ("{}", 1), ("v{}.1", 1)])
def test_a_tag_of_another_version_is_not_published(tag: str, code: int):
    (check,) = (step["run"] for step in read_yaml("workflows/publish.yml")["jobs"]["publish"]["steps"] if "run" in step)
    environ = {**os.environ, "GITHUB_REF_NAME": tag.format(PROJECT["project"]["version"])}
    assert subprocess.run(["bash", "-ec", check], cwd=ROOT, env=environ, check=False).returncode == code


def test_who_reports_a_fault_is_asked_for_log_workflow_and_versions():
    form = read_yaml("ISSUE_TEMPLATE/bug.yml")
    assert form["name"]
    assert form["description"]
    required = {field["id"] for field in form["body"] if field["validations"]["required"] == "true"}
    assert {"log", "workflow", "versions"} <= required


def test_make_test_runs_every_folder_of_tests():
    done = subprocess.run(["make", "-n", "test"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    named = set(done.stdout.split())
    files = [file.relative_to(ROOT) for file in (ROOT / "tests").rglob("test_*.py")]
    assert [file for file in files if not named & {folder.as_posix() for folder in file.parents}] == []


@pytest.mark.parametrize("name", ["Makefile", "CONTRIBUTING.md", ".comfyignore"])
def test_every_file_that_is_named_is_there(name):
    text = (ROOT / name).read_text()
    paths = set(re.findall(r"(?<![\w./])(?:nodes|tests|js|locales|subgraphs|workflows)/[\w./*-]*[\w*]", text))
    paths |= set(re.findall(r"^/(js/.*)", text, re.M))
    modules = {each.replace(".", "/") for each in re.findall(r"\btests(?:\.\w+)+", text)}
    assert paths | modules
    missing = [each for each in paths if not any(ROOT.glob(each))]
    missing += [each for each in modules if not (ROOT / each).is_dir() and not (ROOT / f"{each}.py").is_file()]
    assert missing == []

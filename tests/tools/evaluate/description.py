"""The description of an evaluation: a YAML file that names pictures, prompts, categories, scenes and methods.

`README.md` in this folder lists the fields. Everything that is wrong is gathered and told at once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from ..toy_world.cases import HELD_OUT
from ..toy_world.pictures import COLOUR_NAMES, Kind
from .methods import SLOTS, Method, read_method
from .problems import Fields, Problems
from .sources import DrawnSource, FileSource, Source

READY = Path(__file__).with_name("descriptions")
KEEP = ("surroundings", "subject")
TOY = "toy"
INCEPTION_LAYERS = (64, 192, 768, 2048)

INHERITED = {"prompt", "scenes", "subjects", "keep", "masks", "count", "real"}
REFERENCES, DRAWN = "references", "drawn"  # what `real` can be, beside a pattern of files
DRAWN_REAL = 6  # pictures per case
REAL_SEED = HELD_OUT + 500_000
TOP = {"name", "data", "size", "checkpoint", "seeds", "features", "layer", "clip", "methods", "categories", *INHERITED}
CATEGORY = {"pictures", *INHERITED}
PICTURES = {"files", "draw", *INHERITED}
DRAW = {"subject", "scene", "colour", "seed"}


@dataclass(frozen=True)
class Case:
    """One reference picture with one prompt.

    keep: which part of the picture the method should keep. real: pictures that FID and KID compare the results with.
    """

    category: str
    scene: str
    subject: str
    prompt: str
    keep: str
    source: Source
    real: tuple[Source, ...]

    @property
    def name(self) -> str:
        """A name for files, unique in an evaluation."""
        return slug(f"{self.category}-{self.scene}-{self.subject}-{self.source.name}")


@dataclass(frozen=True)
class Evaluation:
    """What is run and measured; `digests` tell the reference pictures apart by their content."""

    name: str
    cases: tuple[Case, ...]
    methods: tuple[Method, ...]
    seeds: tuple[int, ...]
    checkpoint: str
    features: str | None  # TOY, or a file with a feature network
    layer: int
    clip: Path | None
    digests: Mapping[Source, str] = field(repr=False)


@dataclass(frozen=True)
class Overrides:
    """What the command line says instead of the description; None and empty leave it as it is."""

    data: Path | None = None
    checkpoint: str | None = None
    seeds: tuple[int, ...] = ()
    features: str | None = None
    layer: int | None = None
    clip: Path | None = None
    methods: Mapping[str, str] = field(default_factory=dict)  # further ones: name -> workflow
    only: tuple[str, ...] = ()  # of all the methods
    limit: int | None = None  # cases per scene


def read_description(name: str, overrides: Overrides) -> Evaluation:
    """Read and check a description: the name of a ready one, or a file; ValueError that lists all problems."""
    problems = Problems()
    file = _find(name)
    fields = Fields(_yaml(file), "", problems, TOP)
    cases = list(_limited(_cases(fields, file.parent, overrides.data, problems), overrides.limit))
    methods = _methods(fields, file.parent, overrides, problems)
    layer = overrides.layer or next(iter(fields.numbers("layer", (INCEPTION_LAYERS[-1],))))
    if layer not in INCEPTION_LAYERS:
        problems.add("layer", f"{layer} is not one of {', '.join(map(str, INCEPTION_LAYERS))}")
    features, clip = _network_files(fields, file.parent, overrides, problems)
    seeds, title = overrides.seeds or fields.numbers("seeds", (51828,)), fields.text("name", file.stem)
    checkpoint = overrides.checkpoint or fields.text("checkpoint")
    if not checkpoint:
        problems.add("checkpoint", "missing: give a name that ComfyUI's loader shows, here or with --checkpoint")
    if not cases and not problems.found:
        problems.add("categories", "no pictures")
    for twice in (n for n, count in Counter(case.name for case in cases).items() if count > 1):
        problems.add("categories", f"two cases are called {twice}: their files would be the same one")
    digests = _digests(cases, problems)
    problems.stop_if_any()
    return Evaluation(
        name=title,
        cases=tuple(cases),
        methods=methods,
        seeds=seeds,
        checkpoint=checkpoint,
        features=features,
        layer=layer,
        clip=clip,
        digests=digests,
    )


def slug(text: str) -> str:
    """Text as a part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _find(name: str) -> Path:
    ready = READY / f"{name}.yaml"
    file = ready if ready.is_file() else Path(name).expanduser()
    if not file.is_file():
        names = ", ".join(sorted(path.stem for path in READY.glob("*.yaml")))
        raise ValueError(f"{name} is neither a description file nor one of the ready ones: {names}")
    return file.resolve()


def _yaml(file: Path) -> Any:
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not a YAML file: {error}") from error


def _cases(fields: Fields, folder: Path, data: Path | None, problems: Problems) -> Iterator[Case]:
    given = data or fields.text("data")
    root = (folder / given).expanduser() if given else folder
    for name in fields.mapping("categories"):
        category = Fields(fields.mapping("categories")[name], f"categories.{name}", problems, CATEGORY)
        entries = category.raw("pictures")
        if not isinstance(entries, list) or not entries:
            problems.add(category.path("pictures"), "must be a list of entries with files or draw")
            continue
        for i, value in enumerate(entries):
            entry = Fields(value, category.path(f"pictures[{i}]"), problems, PICTURES)
            yield from _entry(str(name), (entry, category, fields), root, given is None, problems)


def _entry(
    category: str, levels: tuple[Fields, Fields, Fields], root: Path, guessed: bool, problems: Problems
) -> Iterator[Case]:
    """Every source × subject × scene of one list entry."""

    def nearest(name: str) -> Fields:
        return next((fields for fields in levels if name in fields), levels[-1])

    entry = levels[0]
    scenes = nearest("scenes").texts("scenes")
    if not scenes:
        problems.add(entry.where, "no scenes: give them here, for the category or for all")
    template = nearest("prompt").text("prompt", "{subject} on {scene}")
    keep = nearest("keep").text("keep", KEEP[0], KEEP)
    sources = list(_sources(category, levels, nearest, root, guessed, problems))
    kind, found = _real_files(nearest("real"), root, _size(levels[-1], problems), problems)
    for source in sources:
        for subject in nearest("subjects").texts("subjects", (category,)):
            for scene in scenes:
                names = {"subject": subject, "scene": scene, "category": category}
                try:
                    prompt = _filled(nearest("prompt").path("prompt"), template, names)
                    real = _real(source, subject, scene, kind, found)
                except ValueError as error:
                    problems.add(entry.where, str(error))
                    return
                yield Case(category, scene, subject, prompt, keep, source, real)


def _sources(
    category: str, levels: tuple[Fields, Fields, Fields], nearest: Any, root: Path, guessed: bool, problems: Problems
) -> Iterator[Source]:
    entry, top = levels[0], levels[-1]
    if ("files" in entry) == ("draw" in entry):
        problems.add(entry.where, "give either files (a path or pattern) or draw (a picture of the toy world)")
        return
    if "draw" in entry:
        draw = Fields(entry.raw("draw"), entry.path("draw"), problems, DRAW)
        kind = Kind(*(draw.text(name, "") for name in ("subject", "scene", "colour")))
        try:
            yield DrawnSource(kind, next(iter(draw.numbers("seed", (0,)))))
        except ValueError as error:
            problems.add(draw.where, str(error))
        return
    pattern = entry.text("files", "")
    paths = sorted(root.glob(pattern)) if pattern and not Path(pattern).is_absolute() else [Path(pattern)]
    count = next(iter(nearest("count").numbers("count")), None)
    if not paths or (count and len(paths) < count):
        hint = "; say where the pictures are with --data" if guessed else ""
        wanted = f", {count} are needed" if count else ""
        problems.add(entry.path("files"), f"{root / pattern} matches {len(paths)} files{wanted}{hint}")
        return
    masks, size = nearest("masks").text("masks"), _size(top, problems)
    for path in paths[:count]:
        names = {"stem": path.stem, "folder": path.parent.name, "category": category}
        try:
            mask = root / _filled(nearest("masks").path("masks"), masks, names) if masks else None
        except ValueError as error:
            problems.add(entry.where, str(error))
            return
        yield FileSource(path, mask, size)


def _filled(where: str, template: str, names: Mapping[str, str]) -> str:
    try:
        return template.format(**names)
    except (KeyError, IndexError, ValueError) as error:
        known = ", ".join(f"{{{name}}}" for name in names)
        raise ValueError(f"{where} {template!r} cannot be filled in ({error!r}); there is {known}") from error


def _real_files(
    fields: Fields, root: Path, size: tuple[int, int] | None, problems: Problems
) -> tuple[str, tuple[Source, ...]]:
    """What `real` says, and the files if it names some."""
    text = fields.text("real", REFERENCES)
    if text in (REFERENCES, DRAWN):
        return text, ()
    found = tuple(FileSource(path, None, size) for path in sorted(root.glob(text)))
    message = f"{root / text} matches no files; it can also be {REFERENCES} or {DRAWN}"
    if not found and not any(message in known for known in problems.found):
        problems.add(fields.path("real"), message)
    return text, found


def _real(source: Source, subject: str, scene: str, kind: str, files: tuple[Source, ...]) -> tuple[Source, ...]:
    """Pictures that FID and KID compare the results with: the references, files, or drawn ones of what is prompted."""
    if kind == DRAWN:
        kinds = [Kind(subject, scene, COLOUR_NAMES[i % len(COLOUR_NAMES)]) for i in range(DRAWN_REAL)]
        return tuple(DrawnSource(k, REAL_SEED + i) for i, k in enumerate(kinds))
    return files or (source,)


def _size(top: Fields, problems: Problems) -> tuple[int, int] | None:
    numbers = top.numbers("size")
    if len(numbers) > 2 or any(n < 16 or n % 8 for n in numbers):
        message = f"must be one side or width and height, multiples of 8, got {top.raw('size')!r}"
        if not any(message in found for found in problems.found):
            problems.add("size", message)
        return None
    return (numbers[0], numbers[-1]) if numbers else None


def _limited(cases: Iterator[Case], limit: int | None) -> Iterator[Case]:
    seen: Counter[tuple[str, str]] = Counter()
    for case in cases:
        seen[case.category, case.scene] += 1
        if limit is None or seen[case.category, case.scene] <= limit:
            yield case


def _methods(fields: Fields, folder: Path, overrides: Overrides, problems: Problems) -> tuple[Method, ...]:
    values = {**fields.mapping("methods")}
    found = [read_method(str(name), value, folder, problems) for name, value in values.items()]
    found += [read_method(name, value, Path.cwd(), problems) for name, value in overrides.methods.items()]
    names = [*map(str, values), *overrides.methods]
    if not names:
        problems.add("methods", f"none: give name: workflow, here or with --method; slots are {', '.join(SLOTS)}")
    for name in (n for n in overrides.only if n not in names):
        problems.add("--only", f"{name!r} is not one of the methods {', '.join(names)}")
    for name in (n for n, count in Counter(map(slug, names)).items() if count > 1):
        problems.add("methods", f"two methods would share the folder {name}: name them differently")
    return tuple(m for m in found if m is not None and (not overrides.only or m.name in overrides.only))


def _network_files(
    fields: Fields, folder: Path, overrides: Overrides, problems: Problems
) -> tuple[str | None, Path | None]:
    """The feature network's file (or TOY) and CLIP's folder; what the command line names is found from where we are."""
    features = overrides.features or fields.text("features")
    if features not in (None, TOY):
        path = (Path.cwd() if overrides.features else folder) / Path(features).expanduser()
        if not path.is_file():
            problems.add("features", f"{path} does not exist: give {TOY}, or a file with a feature network")
        features = str(path)
    clip = overrides.clip or (folder / named if (named := fields.text("clip")) else None)
    if clip is not None and not (clip / "config.json").is_file():
        problems.add("clip", f"{clip} is not a folder with a CLIP model in transformers' format (no config.json)")
    return features, clip


def _digests(cases: Sequence[Case], problems: Problems) -> dict[Source, str]:
    """Every picture once, opened to see whether it can be."""
    used = {source: case.category for case in cases for source in (*case.real, case.source)}
    found = {}
    for source in tqdm(used, desc="checking pictures", leave=False, disable=len(used) < 200):
        try:
            found[source] = source.load().digest
        except ValueError as error:
            problems.add(f"categories.{used[source]}", str(error))
    return found

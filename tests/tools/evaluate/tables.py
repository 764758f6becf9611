"""Measurements of groups of pictures: FID, KID and IS of sets, mean and median of the rest; as Markdown, CSV, JSON."""

from __future__ import annotations

import csv
import io
import math
import statistics
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from .measures import Measured

KID_SUBSET = 1000  # pictures; smaller sets are compared whole


@dataclass(frozen=True)
class Metric:
    """How a metric is written. `better`: 1 when more is better, -1 when less; `share`: 0 or 1 for each picture."""

    name: str
    title: str
    digits: int
    better: int
    about: str
    share: bool = False


OF_SETS = (
    Metric("fid", "FID", 2, -1, "Fréchet distance of the results' features from real pictures'"),
    Metric("kid", "KID", 3, -1, "kernel distance of the same features (polynomial kernel, unbiased)"),
    Metric("inception_score", "IS", 2, 1, "inception score in one split"),
)
OF_PICTURES = (
    Metric("ssim", "SSIM", 3, 1, "against the reference, as in Compare Images"),
    Metric("psnr", "PSNR (dB)", 2, 1, "against the reference, as in Compare Images"),
    Metric("ssim_kept", "SSIM, kept part", 3, 1, "the same where the reference should be kept"),
    Metric("psnr_kept", "PSNR, kept part (dB)", 2, 1, "the same where the reference should be kept"),
    Metric("clip_score", "CLIP score", 2, 1, "100 · cosine of picture and prompt, at least 0"),
    Metric("subject_seen", "prompted subject seen", 0, 1, "share of the results, by the judge", share=True),
    Metric("scene_seen", "prompted scene seen", 0, 1, "share of the results, by the judge", share=True),
    Metric("mask_iou", "mask IoU, reference", 3, 1, "the method's masks and the reference's subject"),
    Metric(
        "mask_iou_result",
        "mask IoU, result",
        3,
        1,
        "the method's masks and the subject that the judge sees",
    ),
    Metric("subject_iou", "subject IoU", 3, 1, "the result's subject, by the judge, and the reference's subject"),
    Metric("seconds", "seconds", 1, -1, "per picture, as the client saw it"),
)


@dataclass(frozen=True)
class Group:
    """Pictures of one category, of one scene of it, or all."""

    category: str | None = None
    scene: str | None = None

    @property
    def title(self) -> str:
        """Its name in a table."""
        return self.scene or self.category or "all"

    def holds(self, measured: Measured) -> bool:
        """Is this picture in it?"""
        case = measured.job.case
        return self.category in (None, case.category) and self.scene in (None, case.scene)


@dataclass(frozen=True)
class Summary:
    """Values of one method in one group: `set` of all its pictures, `mean` and `median` of pictures, or of scenes."""

    group: Group
    method: str
    pictures: int
    values: dict[str, dict[str, float]]


def summaries(measured: Sequence[Measured], methods: Sequence[str]) -> list[Summary]:
    """Every method in every group: all, each category, each scene of each category."""
    found = []
    for group in groups(measured):
        for method in methods:
            ours = [m for m in measured if m.job.method.name == method and group.holds(m)]
            found.append(Summary(group, method, len(ours), _values(ours)))
    for summary in found:
        if summary.group.scene is None:
            scenes = [
                other
                for other in found
                if other.method == summary.method
                and other.group.scene is not None
                and summary.group.category in (None, other.group.category)
            ]
            for metric in OF_SETS:
                values = [s.values[metric.name]["set"] for s in scenes if metric.name in s.values]
                if values and metric.name in summary.values:
                    summary.values[metric.name] |= _middle(values)
    return found


def groups(measured: Sequence[Measured]) -> list[Group]:
    """All, then the categories, then their scenes, in the order of the description."""
    categories = dict.fromkeys(m.job.case.category for m in measured)
    scenes = dict.fromkeys((m.job.case.category, m.job.case.scene) for m in measured)
    return [Group(), *map(Group, categories), *(Group(*pair) for pair in scenes)]


def comparable(measured: Sequence[Measured], methods: Sequence[str]) -> list[Measured]:
    """Those whose case and seed every method has finished."""
    done: dict[tuple[str, int], set[str]] = {}
    for m in measured:
        done.setdefault((m.job.case.name, m.job.seed), set()).add(m.job.method.name)
    return [m for m in measured if done[m.job.case.name, m.job.seed] >= set(methods)]


def fid(real: Tensor, made: Tensor) -> float:
    """FID of features [N,D]; torchmetrics with features instead of pictures."""
    metric = FrechetInceptionDistance(_given(real))
    metric.update(real, real=True)
    metric.update(made, real=False)
    return float(metric.compute())


def kid(real: Tensor, made: Tensor) -> float:
    """KID of features [N,D]: of the whole sets up to 1,000 pictures, else the mean of 100 subsets."""
    size = min(len(real), len(made), KID_SUBSET)
    whole = len(real) == len(made) == size
    metric = _quietly(KernelInceptionDistance, _given(real), subsets=1 if whole else 100, subset_size=size)
    metric.update(real, real=True)
    metric.update(made, real=False)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return float(metric.compute()[0])


def inception_score(logits: Tensor) -> float:
    """IS of class logits [N,K], in one split."""
    metric = _quietly(InceptionScore, _given(logits), splits=1)
    metric.update(logits)
    return float(_quietly(metric.compute)[0])  # it also computes a deviation, which one split does not have


def markdown(found: Sequence[Summary], methods: Sequence[str]) -> str:
    """All tables: all pictures, by category, by scene of each category."""
    parts = ["## All pictures", overview(found, methods)]
    categories = [s.group for s in found if s.group.category and not s.group.scene]
    categories = list(dict.fromkeys(categories))
    parts += ["## By category", "Values of pictures: mean / median.", _by_group(found, methods, categories, "category")]
    for category in categories:
        scenes = dict.fromkeys(s.group for s in found if s.group.scene and s.group.category == category.category)
        parts += [f"## Scenes of {category.title}", _by_group(found, methods, list(scenes), "scene")]
    return "\n\n".join(parts)


def overview(found: Sequence[Summary], methods: Sequence[str]) -> str:
    """The table of all pictures: one line per metric and kind of value."""
    lines = _head(["metric", ""], methods)
    ours = [s for s in found if s.group == Group()]
    for metric in OF_SETS:
        kinds = {"set": "all pictures", "mean": "scenes, mean", "median": "scenes, median"}
        lines += _lines(ours, metric, kinds)
    for metric in OF_PICTURES:
        lines += _lines(ours, metric, {"mean": ""} if metric.share else {"mean": "mean", "median": "median"})
    return "\n".join(lines)


def csv_text(measured: Sequence[Measured], files: dict[str, str]) -> str:
    """One line per picture, `files` by job key."""
    names = [m.name for m in OF_PICTURES if any(m.name in each.values for each in measured)]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["method", "category", "scene", "subject", "picture", "prompt", "seed", "file", *names])
    for each in measured:
        job, case = each.job, each.job.case
        told = [job.method.name, case.category, case.scene, case.subject, case.source.name, case.prompt, job.seed]
        writer.writerow([*told, files[job.key], *(each.values.get(name, "") for name in names)])
    return buffer.getvalue()


def json_values(found: Sequence[Summary]) -> list[dict[str, Any]]:
    """The summaries for JSON, which knows no infinity: it becomes the text "Infinity"."""
    return [
        {
            "category": s.group.category,
            "scene": s.group.scene,
            "method": s.method,
            "pictures": s.pictures,
            "values": {name: {k: plain(v) for k, v in kinds.items()} for name, kinds in s.values.items()},
        }
        for s in found
    ]


def plain(value: float) -> float | str:
    """A number that JSON can hold."""
    return value if math.isfinite(value) else {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")


def _values(ours: Sequence[Measured]) -> dict[str, dict[str, float]]:
    values = {}
    for metric in OF_PICTURES:
        numbers = [m.values[metric.name] for m in ours if metric.name in m.values]
        if numbers:
            values[metric.name] = _middle(numbers)
    seen = [m for m in ours if m.result is not None]
    if len(seen) > 1:
        made = torch.stack([m.result.features for m in seen])
        pictures = {source: found.features for m in seen for source, found in m.real.items()}
        if len(pictures) > 1:
            real = torch.stack(list(pictures.values()))
            values |= {"fid": {"set": fid(real, made)}, "kid": {"set": kid(real, made)}}
        if all(m.result.logits is not None for m in seen):
            values["inception_score"] = {"set": inception_score(torch.stack([m.result.logits for m in seen]))}
    return values


def _quietly(call: Callable[..., Any], *given: Any, **options: Any) -> Any:
    """Call torchmetrics without its warnings about memory and splits."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call(*given, **options)


def _middle(values: Sequence[float]) -> dict[str, float]:
    return {"mean": sum(values) / len(values), "median": statistics.median(values)}


def _given(features: Tensor) -> nn.Module:
    """Stands where torchmetrics expects the network, when it is given what the network saw."""
    network = nn.Identity()
    network.num_features = features.shape[1]
    return network


def _head(first: Sequence[str], methods: Sequence[str]) -> list[str]:
    return [f"| {' | '.join([*first, *methods])} |", "|" + "---|" * (len(first) + len(methods))]


def _lines(ours: Sequence[Summary], metric: Metric, kinds: dict[str, str]) -> Iterator[str]:
    title = _title(metric)
    for kind, label in kinds.items():
        values = [s.values.get(metric.name, {}).get(kind) for s in ours]
        if any(value is not None for value in values):
            yield f"| {title} | {label} | {' | '.join(_cells(values, metric))} |"
            title = ""


def _by_group(found: Sequence[Summary], methods: Sequence[str], wanted: Sequence[Group], heading: str) -> str:
    lines = _head([heading, "metric"], methods)
    for group in wanted:
        ours = [s for s in found if s.group == group]
        label = f"{group.title} ({ours[0].pictures})"
        for metric in (*OF_SETS, *OF_PICTURES):
            kinds = ("set",) if metric in OF_SETS else ("mean",) if metric.share else ("mean", "median")
            columns = [[s.values.get(metric.name, {}).get(kind) for s in ours] for kind in kinds]
            if any(value is not None for value in columns[0]):
                cells = zip(*(_cells(values, metric) for values in columns), strict=True)
                lines.append(f"| {label} | {_title(metric)} | {' | '.join(' / '.join(cell) for cell in cells)} |")
                label = ""
    return "\n".join(lines)


def _title(metric: Metric) -> str:
    return f"{metric.title} {'↑' if metric.better > 0 else '↓'}"


def _cells(values: Sequence[float | None], metric: Metric) -> list[str]:
    """The values in words, the best one bold when it is the only best."""
    texts = [_number(value, metric) for value in values]
    known = [value for value in values if value is not None]
    best = (max if metric.better > 0 else min)(known)
    winners = {text for value, text in zip(values, texts, strict=True) if value == best}
    return [f"**{t}**" if len(known) > 1 and t in winners and texts.count(t) == 1 else t for t in texts]


def _number(value: float | None, metric: Metric) -> str:
    if value is None:
        return "–"
    if math.isinf(value):
        return "∞"
    if metric.share:
        return f"{value:.0%}"
    return f"{round(value, metric.digits) + 0.0:.{metric.digits}f}"  # + 0.0: no minus before a zero

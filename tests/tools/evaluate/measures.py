"""What is measured of each picture: against its reference, its prompt and the true masks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor
from torchmetrics.functional.classification import binary_jaccard_index
from torchmetrics.functional.multimodal import clip_score

from ..workflows.pipelines import SUBJECT_MARGIN
from .jobs import Job
from .networks import Networks, Seen
from .sources import Reference, Source


@dataclass(frozen=True)
class Measured:
    """A finished job: its values by metric name, what the feature network saw in the result and in real pictures."""

    job: Job
    values: dict[str, float]
    result: Seen | None = field(repr=False)
    real: dict[Source, Seen] = field(repr=False)


@dataclass(frozen=True)
class Outcome:
    """What a job made: result, masks as bool [H,W] each, seconds."""

    result: Image.Image
    masks: Sequence[np.ndarray]
    seconds: float


def measure_all(
    jobs: Iterable[Job], load: Callable[[Job], Outcome], networks: Networks, margin: int = SUBJECT_MARGIN
) -> list[Measured]:
    """Measure finished jobs. The feature network looks at each real picture once.

    margin: pixels around the subjects that do not count as surroundings.
    """
    seen: dict[Source, Seen] = {}
    measured = []
    for job in jobs:
        reference, outcome = job.case.source.load(), load(job)
        for source in job.case.real if networks.features else ():
            if source not in seen:
                seen[source] = _look(networks, source.load().image)
        found = _look(networks, np.asarray(outcome.result))
        values = {"seconds": outcome.seconds}
        values |= _likeness(job, np.asarray(outcome.result), reference, found, margin)
        values |= _promptness(job, outcome.result, found, networks)
        values |= _overlaps(job, outcome.masks, reference, found)
        real = {source: seen[source] for source in job.case.real if source in seen}
        measured.append(Measured(job, values, found, real))
    return measured


def _look(networks: Networks, pixels: np.ndarray) -> Seen | None:
    return networks.features(_channels_first(pixels)) if networks.features else None


def _likeness(job: Job, pixels: np.ndarray, reference: Reference, found: Seen | None, margin: int) -> dict[str, float]:
    """PSNR and SSIM of Compare Images, over the whole picture and over the part that should be kept."""
    from explainable_latents.nodes.core.maps.measures import compare

    image, original = (torch.from_numpy(x.copy())[None].float() / 255 for x in (pixels, reference.image))
    whole = compare(image, original)
    values = {"psnr": whole.mean_psnr, "ssim": whole.mean_ssim}
    if reference.mask is None:
        return values
    kept = reference.mask
    if job.case.keep == "surroundings":
        subjects = kept if found is None or found.mask is None else kept | found.mask.numpy()
        kept = ~ndimage.binary_dilation(subjects, iterations=margin)
    with contextlib.suppress(ValueError):  # nothing is left to compare
        part = compare(image, original, torch.from_numpy(kept)[None].float())
        values |= {"psnr_kept": part.mean_psnr, "ssim_kept": part.mean_ssim}
    return values


def _promptness(job: Job, result: Image.Image, found: Seen | None, networks: Networks) -> dict[str, float]:
    """Does the picture show what was prompted?"""
    values = {}
    if networks.clip:
        with torch.no_grad():
            score = clip_score(_channels_first(np.asarray(result)), job.case.prompt, networks.clip)
        values["clip_score"] = float(score)
    if found is not None and found.subject is not None:
        values["subject_seen"] = float(found.subject == job.case.subject)
        values["scene_seen"] = float(found.scene == job.case.scene)
    return values


def _overlaps(job: Job, masks: Sequence[np.ndarray], reference: Reference, found: Seen | None) -> dict[str, float]:
    """Intersection over union of the method's masks (their mean) and of the result's subject with the true masks."""
    inverted = job.method.mask_shows == "scene"
    ours = [_fitted(mask, reference.image.shape[:2]) ^ inverted for mask in masks]
    judged = None if found is None or found.mask is None else found.mask.numpy()
    values = {}
    for name, truth in (("mask_iou", reference.mask), ("mask_iou_result", judged)):
        if ours and truth is not None:
            values[name] = float(np.mean([_iou(mask, truth) for mask in ours]))
    if judged is not None and reference.mask is not None:
        values["subject_iou"] = _iou(judged, reference.mask)
    return values


def _iou(mask: np.ndarray, truth: np.ndarray) -> float:
    return float(binary_jaccard_index(torch.from_numpy(mask), torch.from_numpy(truth)))


def _fitted(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    picture = Image.fromarray(mask.astype(np.uint8) * 255).resize(shape[::-1], Image.Resampling.NEAREST)
    return np.asarray(picture) > 127


def _channels_first(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)

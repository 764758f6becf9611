"""Thresholds: where a map is separated into inside and outside (Experiments 1 and 2, Abs-Grad-SAM)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..choices import one_of

FLAT_MAPS = ("error", "all in", "all out")  # what becomes of a map that is the same everywhere

# A float32 map whose spread is below this share of its largest value is the same everywhere, apart from rounding.
_FLAT = 1e-6


def mean_threshold(maps: Tensor, value: float) -> Tensor:
    """μ(A) of each map (Experiment 1); `value` is not used."""
    return maps.mean(dim=(-2, -1), keepdim=True)


def log_mean_threshold(maps: Tensor, value: float) -> Tensor:
    """exp(μ(log A) + λ) of each map with λ = `value` (Experiment 2: 0.2); zeros are left out of the mean."""
    positive = maps > 0
    logs = torch.where(positive, maps, 1).log()
    return (logs.sum((-2, -1), keepdim=True) / positive.sum((-2, -1), keepdim=True) + value).exp()


def mean_std_threshold(maps: Tensor, value: float) -> Tensor:
    """μ(A) + k·σ(A) of each map (of each channel, where there are channels) with k = `value` (Abs-Grad-SAM: 0.5)."""
    return maps.mean((-2, -1), keepdim=True) + value * maps.std((-2, -1), keepdim=True, correction=0)


def quantile_threshold(maps: Tensor, value: float) -> Tensor:
    """The `value` quantile of each map, in [0, 1]. Raises ValueError outside."""
    if not 0 <= value <= 1:
        raise ValueError(f"quantile {value} must lie between 0 (everything) and 1 (nothing)")
    return maps.flatten(-2).quantile(value, dim=-1, keepdim=True).unsqueeze(-1)


def otsu_threshold(maps: Tensor, value: float) -> Tensor:
    """The threshold that best separates bright from dark in each map (Otsu 1979), one of the map's own values.

    It maximises w₀ w₁ (μ₀ - μ₁)² over every split of the sorted values, w the shares of the two sides and μ their
    means; `value` is not used. It is computed on the CPU in float64, which not every device has.
    """
    ordered = maps.flatten(-2).cpu().double().sort(dim=-1).values
    n = ordered.shape[-1]
    low = torch.arange(1, n, dtype=torch.float64)
    sums = ordered.cumsum(-1)
    difference = sums[..., :-1] / low - (sums[..., -1:] - sums[..., :-1]) / (n - low)
    best = (low * (n - low) * difference**2).argmax(dim=-1, keepdim=True)
    return ordered.gather(-1, best).to(maps.dtype).to(maps.device).unsqueeze(-1)


def maximum_threshold(maps: Tensor, value: float) -> Tensor:
    """λ·max A of each map with λ = `value`, in [0, 1]. Raises ValueError outside. Prompt-to-Prompt's masks: 0.3."""
    _share("of maximum", value)
    return value * maps.amax((-2, -1), keepdim=True)


def min_max_threshold(maps: Tensor, value: float) -> Tensor:
    """min A + λ·(max A - min A) of each map with λ = `value`, in [0, 1]. Raises ValueError outside. DiffEdit: 0.5."""
    _share("min-max", value)
    low = maps.amin((-2, -1), keepdim=True)
    return low + value * (maps.amax((-2, -1), keepdim=True) - low)


def mean_factor_threshold(maps: Tensor, value: float) -> Tensor:
    """λ·μ(A) of each map with λ = `value`, not below 0. Raises ValueError for a negative one."""
    if value < 0:
        raise ValueError(f"mean × factor {value} is negative: give 0 or more; 1 is the mean itself")
    return value * maps.mean((-2, -1), keepdim=True)


def _share(rule: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{rule} {value} must lie between 0 (everything above the least) and 1 (nothing)")


# Rule -> (maps [...,h,w], value) -> the threshold of each map [...,1,1].
RULES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "mean": mean_threshold,
    "log-mean": log_mean_threshold,
    "mean + k·std": mean_std_threshold,
    "quantile": quantile_threshold,
    "otsu": otsu_threshold,
    "of maximum": maximum_threshold,
    "min-max": min_max_threshold,
    "mean × factor": mean_factor_threshold,
}


def check_rule(rule: str, flat_map: str) -> None:
    """Raise ValueError unless both are known: `rule` one of RULES, `flat_map` one of FLAT_MAPS."""
    one_of("rule", rule, RULES)
    one_of("flat_map", flat_map, FLAT_MAPS)


def above_threshold(
    maps: Tensor,
    rule: str,
    value: float,
    labels: tuple[str, ...],
    across_channels: bool = False,
    flat_map: str = "error",
) -> Tensor:
    """Boolean masks: where each map lies above its threshold, of the shape of `maps`, [S,B,h,w] or [S,B,C,h,w].

    rule, value: see `RULES`. labels: the subjects, to name them in errors. across_channels: one threshold for the C
    channels of a map together, not one for each. flat_map: whether a map that is the same everywhere is an
    `error`, `all in` or `all out`. Any positive multiple of a map has the same mask.
    Raises ValueError, which names the subject, for a map that is not finite and, with `error`, for one that is the same
    everywhere; also for a value that the rule does not allow.
    """
    check_rule(rule, flat_map)
    together = maps.flatten(2, 3).unsqueeze(2) if across_channels and maps.ndim == 5 else maps
    spread = together.amax((-2, -1), keepdim=True) - together.amin((-2, -1), keepdim=True)
    constant = spread <= _FLAT * together.abs().amax((-2, -1), keepdim=True)
    _refuse(~together.isfinite(), labels, "is not finite (NaN or infinity)", "")
    if flat_map == "error":
        _refuse(constant, labels, "has the same value everywhere", ", or let flat_map take all or nothing of it")
    return torch.where(constant, flat_map == "all in", maps > RULES[rule](together, value))


def _refuse(bad: Tensor, labels: tuple[str, ...], problem: str, remedy: str) -> None:
    """Raise ValueError that names the subjects of which some map is bad; bad: [S,...]."""
    if named := [f"'{label}'" for label, some in zip(labels, bad.flatten(1).any(1), strict=True) if some]:
        raise ValueError(
            f"the saliency map of {', '.join(named)} {problem}, so no threshold can divide it. Choose another word, "
            f"layer, step or noise level{remedy}."
        )

"""Gradients are computed in float32 whatever the user allows elsewhere, and what is allowed stays as it was."""

from __future__ import annotations

import contextlib

import pytest
import torch

from explainable_latents.nodes.host.autograd.differentiable import full_float32
from tests.host.autograd.test_gradients import saliency
from tests.host.operations import Operations
from tests.host.unets import noise, random_unet

BACKENDS = torch.backends
KINDS = {
    "cuda.matmul": BACKENDS.cuda.matmul,
    "cudnn.conv": BACKENDS.cudnn.conv,
    "cudnn.rnn": BACKENDS.cudnn.rnn,
    "mkldnn.matmul": BACKENDS.mkldnn.matmul,
    "mkldnn.conv": BACKENDS.mkldnn.conv,
}


def flags() -> dict:
    """All that says how precisely float32 is computed; `refused` where PyTorch does not tell by an older flag."""
    found = {name: kind.fp32_precision for name, kind in KINDS.items()}
    older = {
        "matmul": torch.get_float32_matmul_precision,
        "cuBLAS": lambda: BACKENDS.cuda.matmul.allow_tf32,
        "cuDNN": lambda: BACKENDS.cudnn.allow_tf32,
    }
    for name, flag in older.items():
        try:
            found[name] = flag()
        except RuntimeError:
            found[name] = "refused"
    return found


OFF = dict.fromkeys(KINDS, "ieee") | {"matmul": "highest", "cuBLAS": False, "cuDNN": False}


def as_installed():
    pass


def by_the_older_flags():
    BACKENDS.cuda.matmul.allow_tf32 = True
    BACKENDS.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("medium")


def by_the_newer_flags():
    for kind in KINDS.values():
        kind.fp32_precision = "tf32"


def for_everything():
    BACKENDS.fp32_precision = "tf32"


def nowhere():
    torch.set_float32_matmul_precision("highest")
    BACKENDS.cudnn.allow_tf32 = False


ALLOWED = [as_installed, by_the_older_flags, by_the_newer_flags, for_everything, nowhere]


@pytest.fixture(params=ALLOWED, ids=lambda f: f.__name__)
def allowed(request):
    """The user's settings; those of a fresh process come back afterwards."""
    request.param()
    yield flags()
    BACKENDS.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")
    BACKENDS.cudnn.allow_tf32 = True
    for name, precision in FRESH.items():
        KINDS[name].fp32_precision = precision


FRESH = {name: kind.fp32_precision for name, kind in KINDS.items()}


@pytest.mark.parametrize("ending", ["done", "failed"])
def test_float32_is_not_rounded_inside_and_allowed_again_behind(allowed, ending):
    with pytest.raises(OverflowError) if ending == "failed" else contextlib.nullcontext(), full_float32():
        assert flags() == OFF
        if ending == "failed":
            raise OverflowError
    assert flags() == allowed


@pytest.mark.parametrize("how", [{}, {"solver": "exact"}, {"definition": "aggregated"}], ids=str)
@pytest.mark.parametrize("ending", ["done", "failed"])
def test_gradients_are_computed_without_tf32(comfy, how, ending):
    """Every product of matrices from first to last, and also after an error the user's choice is back."""
    seen, by_the_model = [], []

    def look(name: str) -> None:
        if any(kind in name for kind in ("mm", "convolution", "scaled_dot_product")):
            seen.append(flags())
        if ending == "failed" and "backward" in name:
            raise OverflowError

    model = random_unet("SD15", seed=1).clone()
    model.set_model_attn2_output_patch(lambda n, options: by_the_model.append(flags()) or n)
    torch.set_float32_matmul_precision("high")
    try:
        before = flags()
        with pytest.raises(OverflowError) if ending == "failed" else contextlib.nullcontext(), Operations(look):
            saliency(model, start=noise(1, (4, 4)), **how)
        assert flags() == before
    finally:
        torch.set_float32_matmul_precision("highest")
    assert len(seen) > 100
    assert by_the_model
    assert all(each == OFF for each in seen + by_the_model)

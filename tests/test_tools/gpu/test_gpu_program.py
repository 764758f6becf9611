"""`make gpu`, tried on the CPU: it runs to its end, and a check that fails is seen."""

import itertools
import json
import os
import subprocess
import sys

import pytest
import torch

from tests.host.unets import random_unet
from tests.tools.comfyui.paths import ROOT
from tests.tools.gpu.rows import Row, Settings
from tests.tools.thorough import THOROUGH

numbers = itertools.count(1)
SMALL = ["--channels", "64", "--side", "8", "--steps", "2", "--turns", "1", "--compiler", "eager"]
CHECKED = (
    *("attention pytorch", "attention sub_quad", "attention split", "float32", "float16", "bfloat16", "float8 weights"),
    "torch.compile, eager",
)
MEASURED = (
    *("a plain call of the model", "Abs-Grad-SAM of a picture", "stock run, euler", "the same with capture"),
    *("stock run, ddpm", "masked latent, aggregated attention", "masked latent, Abs-Grad-SAM"),
)


def gpu(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it where no GPU is to be seen."""
    environ = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "tests.tools.gpu", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)


@THOROUGH
def test_it_checks_measures_prints_and_saves(tmp_path):
    done = gpu("--device", "cpu", *SMALL, "--out", str(tmp_path / "gpu.json"))
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    saved = json.loads((tmp_path / "gpu.json").read_text())
    assert saved["device"] == "CPU (a try of the program, no GPU)"
    rows = {row["name"]: row for row in saved["rows"]}
    assert {name: rows[name]["result"] for name in CHECKED} == dict.fromkeys(CHECKED, "same bit for bit")
    assert all(rows[name]["seconds"] > 0 for name in MEASURED)
    assert rows["stock run, ddpm"]["times"] == 1
    printed = done.stdout.split("| what |")[1]
    assert all(Row(**row).text() in printed for row in saved["rows"])


@pytest.mark.parametrize(("arguments", "code"), [((), 1), (("--allow-none",), 0)])
def test_without_a_gpu_it_says_so(arguments, code):
    done = gpu(*arguments)
    assert (done.returncode, done.stdout.strip()) == (
        code,
        "there is no NVIDIA GPU here that PyTorch can use: nothing was checked or measured",
    )


def depends_on_being_observed(used, q, *args, **kwargs):
    observed = "optimized_attention_override" in kwargs["transformer_options"]
    return used(q, *args, **kwargs) * (0.9 if observed else 1.0)


def never_the_same(used, q, *args, **kwargs):
    return used(q, *args, **kwargs) + 0.01 * next(numbers)


def not_built(used, *args, **kwargs):
    raise NotImplementedError("no kernel\nfor this device")


@pytest.mark.parametrize(
    ("attention", "wrapped", "result", "failed"),
    [
        (depends_on_being_observed, True, "differs by ", True),
        (never_the_same, True, "the host's own runs differ by ", False),
        (not_built, True, "the host cannot: no kernel", False),
        (lambda used, *args, **kwargs: used(*args, **kwargs), False, "no attention to ", True),
    ],
)
def test_what_an_attention_can_do_wrong(comfy, monkeypatch, attention, wrapped, result, failed):
    from comfy.ldm.modules import attention as module

    from tests.tools.gpu import checks

    used = module.attention_pytorch.__wrapped__

    def backend(*args, **kwargs):
        return attention(used, *args, **kwargs)

    monkeypatch.setattr(module, "optimized_attention", module.wrap_attn(backend) if wrapped else backend)
    monkeypatch.setattr(checks, "run", lambda model, steps, side: sample(model, steps, side))
    settings = Settings(torch.device("cpu"), 64, 8, 2, 1, "eager")
    row = checks.same_picture("attention", random_unet(), settings)
    assert row.result.startswith(result)
    assert row.failed is failed
    assert ("**FAILED**" in row.text()) is failed


def sample(model, steps, side):
    from tests.host import unets

    return unets.sample(model, steps, grid=(side, side))

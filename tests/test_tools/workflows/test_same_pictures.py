"""The comparison of two versions notices what differs."""

import numpy as np
import pytest
from safetensors.numpy import save

from tests.tools.comfyui.client import File
from tests.tools.workflows.same_pictures import SHEET_NOTE, checkout, difference, filled, verdict


def test_it_measures_how_far_two_latents_are_apart():
    latent = np.zeros((1, 4, 2, 3), np.float32)
    other = latent.copy()
    other[0, 3, 1, 2] = -0.25
    assert difference(_latent(latent), _latent(latent)) == 0.0
    assert difference(_latent(latent), _latent(other)) == 0.25


def test_other_sizes_and_numbers_that_are_none_differ():
    latent = np.zeros((1, 4, 2, 3), np.float32)
    assert difference(_latent(latent), _latent(latent[..., :2])) == float("inf")
    assert np.isnan(difference(_latent(latent), _latent(latent * np.nan)))
    assert verdict(float("nan"), sheet=False) == "DIFFER by nan"


def test_only_a_sheet_may_differ():
    assert verdict(0.0, sheet=False) == verdict(0.0, sheet=True) == "the same"
    assert verdict(1e-9, sheet=False) == "DIFFER by 1e-09"
    assert verdict(1e-9, sheet=True) == SHEET_NOTE


def test_every_output_with_numbers_is_saved_and_only_heat_map_sheets_are_sheets():
    info = {
        "ELProbeAttention": {"output": ["EL_SALIENCY"], "output_name": ["saliency"]},
        "ELSaliencyOverlay": {"output": ["IMAGE", "IMAGE", "MASK"], "output_name": ["sheet", "overlays", "maps"]},
        "ELParseSubjects": {"output": ["EL_SUBJECTS", "STRING"], "output_name": ["subjects", "subject text"]},
        "LoadImage": {"output": ["IMAGE"], "output_name": ["IMAGE"]},
        "VAEEncode": {"output": ["LATENT"], "output_name": ["LATENT"]},
        "ELMaskedLatentReport": {"output": ["EL_SALIENCY"], "output_name": ["saliency"]},
        "ELPromptWords": {"output": ["CONDITIONING"], "output_name": ["conditioning"]},
    }
    workflow = {
        str(i): {"class_type": kind, "inputs": {"image": "shipped.png"}, "_meta": {"title": kind}}
        for i, kind in enumerate(info)
    }
    workflow["1"]["inputs"]["saliency"] = ["5", 0]
    workflow["7"] = workflow["5"]
    graph, saved = filled(workflow, info, "other.png", "a prompt")
    assert graph["3"]["inputs"] == {"image": "other.png"}
    assert graph["6"]["inputs"]["text"] == "a prompt"
    assert saved == {
        "saved 0.0": ("ELProbeAttention: saliency", False),
        "saved 1.0": ("ELSaliencyOverlay: sheet", True),
        "saved 1.1": ("ELSaliencyOverlay: overlays", False),
        "saved 1.2": ("ELSaliencyOverlay: maps", False),
        "saved 3.0": ("LoadImage: IMAGE", False),
        "saved 4.0": ("VAEEncode: LATENT", False),
        "saved 5.0": ("ELMaskedLatentReport: saliency", False),
    }
    assert graph["saved 4.0"]["inputs"]["samples"] == ["4", 0]
    assert graph[graph["saved 1.2"]["inputs"]["samples"][0]]["inputs"] == {"value": ["1", 2]}


def test_a_revision_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="no revision 'no-such-version'"), checkout("no-such-version"):
        pass


def _latent(values):
    return File("latents", "a.latent", save({"latent_tensor": values}))

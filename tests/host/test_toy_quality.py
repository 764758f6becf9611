"""The measurements of attention for the model cards."""

from __future__ import annotations

import pytest
import torch

from explainable_latents.nodes.core.words.parsing import parse
from explainable_latents.nodes.host.attention.observer import observe
from explainable_latents.nodes.host.tokens import tokenize
from tests.tools.toy_world.loaded import Toy
from tests.tools.toy_world.quality_attention import layer_maps, mean_overlap, one_call, overlaps, single_pictures


@pytest.fixture(scope="module")
def loaded(comfy, toy_checkpoint) -> Toy:
    return Toy(toy_checkpoint)


@torch.inference_mode()
@pytest.mark.parametrize("layers", ["all", "16x16", "8x8"])
def test_the_measured_maps_are_what_capture_attention_gives_with_these_layers(loaded, layers):
    (picture,) = single_pictures(1)
    patched = loaded.model.clone()
    subjects = parse(picture.prompt, tokenize(loaded.clip, picture.prompt)).with_role("subject")
    capture = observe(patched, subjects, layers=layers)
    one_call(patched, loaded, picture, 0.25)
    torch.testing.assert_close(layer_maps(loaded, picture, 0.25)[layers], capture.latest().maps[:, 0])


@torch.inference_mode()
def test_attention_covers_the_subjects_of_pictures(loaded):
    """The model card says 0.59 of 200 pictures at a quarter of the noise; a random map has 0.12."""
    found = overlaps(loaded, single_pictures(6), [0.25])
    assert {overlap.word for overlap in found} == {word for shown in single_pictures(6) for word in shown.masks}
    assert float(mean_overlap(found, layer="all", level=0.25).split()[0]) > 0.45

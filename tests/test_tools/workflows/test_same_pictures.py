"""The comparison of two versions notices what differs."""

import io

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save

from tests.tools.comfyui.client import File
from tests.tools.workflows.same_pictures import checkout, difference


def test_it_measures_how_far_two_latents_are_apart():
    latent = np.zeros((1, 4, 2, 3), np.float32)
    other = latent.copy()
    other[0, 3, 1, 2] = -0.25
    assert difference(_latent(latent), _latent(latent)) == 0.0
    assert difference(_latent(latent), _latent(other)) == 0.25


def test_it_measures_how_far_two_pictures_are_apart():
    white, grey = _picture((3, 2), 255), _picture((3, 2), 254)
    assert difference(white, grey) == 1.0
    assert difference(white, _picture((2, 3), 255)) == float("inf")


def test_a_revision_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="no revision 'no-such-version'"), checkout("no-such-version"):
        pass


def _latent(values):
    return File("latents", "a.latent", save({"latent_tensor": values}))


def _picture(size, value):
    buffer = io.BytesIO()
    Image.new("RGB", size, (value,) * 3).save(buffer, "PNG")
    return File("images", "a.png", buffer.getvalue())

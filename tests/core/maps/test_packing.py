"""Packed maps: everything the browser shows comes back within the quantisation."""

import json
import struct

import numpy as np
import pytest
import torch

from explainable_latents.nodes.core.maps import packing
from explainable_latents.nodes.core.maps.colours import colormap
from explainable_latents.nodes.core.maps.packing import pack
from explainable_latents.nodes.core.maps.saliency import Saliency, intensity


def saliency(labels: tuple[str, ...], batch: int = 1, size: tuple[int, int] = (5, 7)) -> Saliency:
    maps = torch.rand(len(labels), batch, *size, generator=torch.Generator().manual_seed(1))
    return Saliency(maps, labels, 1.0, None, size)


def unpack(data: bytes) -> tuple[dict, np.ndarray, bytes]:
    (length,) = struct.unpack_from("<I", data)
    header = json.loads(data[4 : 4 + length])
    size = int(np.prod(header["shape"]))
    maps = np.frombuffer(data, np.uint8, size, 4 + length).reshape(header["shape"])
    return header, maps, data[4 + length + size :]


def test_values_come_back():
    given = saliency(("dog, step 5", "Strand 🏖, step 5", "dog, step 18", "Strand 🏖, step 18"), batch=2)
    header, maps, pictures = unpack(pack(given, "sea", True, [b"one", b"three"]))
    peaks = np.array(header["peaks"])
    assert (header["words"], header["frames"]) == (["dog", "Strand 🏖"], ["step 5", "step 18"])
    assert header["maps"] == [[0, 1], [2, 3]]
    assert header["shared"] is True
    assert header["spatial_scale"] == 8
    error = np.abs(maps / 255 * peaks[..., None, None] - intensity(given).numpy())
    assert (error <= peaks[..., None, None] / 510 + 1e-6).all()
    assert maps.max(axis=(2, 3)).min() == 255
    assert header["pictures"] == [3, 5]
    assert pictures == b"onethree"
    colours = np.frombuffer(bytes.fromhex(header["colours"]), np.uint8).reshape(256, 3)
    assert np.abs(colours / 255 - colormap("sea").numpy()).max() <= 0.5 / 255 + 1e-6


def test_less_refined_maps_come_first_each_with_its_own_peaks():
    powers = [saliency(("dog", "beach"), batch=2).maps ** power for power in (1, 2, 3)]
    given = Saliency(powers[-1], ("dog", "beach"), 1.0, None, (5, 7), 8, 2, tuple(powers[:-1]))
    header, maps, _ = unpack(pack(given, "fire", False))
    assert header["powers"] == [0, 1, 2]
    assert header["shape"] == [6, 2, 5, 7]
    assert header["maps"] == [[0, 1]]
    for i, power in enumerate(header["powers"]):
        alone, levels, _ = unpack(pack(given.at_power(power), "fire", False))
        assert alone["powers"] == [power]
        assert alone["peaks"] == header["peaks"][2 * i : 2 * i + 2]
        assert np.array_equal(maps[2 * i : 2 * i + 2], levels)


def test_words_that_come_twice_or_are_missing_in_a_frame():
    header, _, _ = unpack(pack(saliency(("dog", "dog", "cat, step 2")), "fire", False))
    assert header["words"] == ["dog", "dog", "cat"]
    assert header["frames"] == ["", "step 2"]
    assert header["maps"] == [[0, 1, None], [None, None, 2]]


class Counted(str):
    """Text that counts how often it is compared."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__

    def partition(self, separator: str) -> tuple[str, str, str]:
        before, found, behind = str.partition(self, separator)
        return Counted(before), found, Counted(behind)


def test_many_maps_take_no_longer_each_than_a_few():
    """Words and steps are compared a few times per map, however many maps there are."""
    steps, words = 1000, 8
    labels = tuple(Counted(f"word {w}, step {s}") for s in range(steps) for w in range(words))
    Counted.compared = 0
    header, _, _ = unpack(pack(saliency(labels, size=(2, 2)), "fire", False))
    assert header["words"] == [f"word {w}" for w in range(words)]
    assert header["frames"] == [f"step {s}" for s in range(steps)]
    assert header["maps"] == [[s * words + w for w in range(words)] for s in range(steps)]
    assert Counted.compared <= 16 * steps * words


def test_a_map_of_nothing():
    empty = Saliency(torch.zeros(1, 1, 4, 4), ("dog",), 1.0, None, (4, 4))
    header, maps, _ = unpack(pack(empty, "grey", False))
    assert header["peaks"] == [[0.0]]
    assert not maps.any()


def test_maps_of_latent_channels_are_averaged():
    channels = Saliency(torch.rand(1, 1, 4, 6, 6), ("dog",), 1.0, None, (6, 6))
    header, maps, _ = unpack(pack(channels, "fire", False))
    mean = channels.maps.mean(2).numpy()
    peak = header["peaks"][0][0]
    assert maps.shape == mean.shape
    assert np.abs(maps / 255 * peak - mean / mean.mean()).max() <= peak / 510 + 1e-5  # half a level


def test_too_many_values_are_reduced(monkeypatch):
    monkeypatch.setattr(packing, "MOST_VALUES", 2 * 36)
    given = saliency(("a", "b"), size=(12, 12))
    header, maps, _ = unpack(pack(given, "fire", False))
    assert header["shape"] == [2, 1, 6, 6]
    mean = (maps / 255 * np.array(header["peaks"])[..., None, None]).mean()
    assert mean == pytest.approx(1, abs=0.02)

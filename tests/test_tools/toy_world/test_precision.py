"""The number format of the toys' trainings."""

import pytest
import torch

from tests.tools.toy_world.precision import mixed


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        ({}, torch.float32),
        ({"avx512_f": True, "avx512_bf16": False}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
    ],
)
def test_products_are_computed_in_bfloat16_only_where_the_processor_has_units_for_it(units, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units)
    with mixed(torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == expected

"""What is painted over a mask, and what of it is carried over to the next one; by small masks written down."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from explainable_latents.nodes.core.methods.masking import ImageMasking, PaintedMasking
from explainable_latents.nodes.core.methods.painted_mask import Difference, painted_over, shown

FOUND = torch.tensor([[[1.0, 1.0, 0.0, 0.0]]])


def test_a_mask_is_shown_in_256_levels_and_several_channels_as_their_mean():
    assert shown(torch.tensor([[[0.0, 0.3, 1.0]]])).tolist() == [[[0, 76, 255]]]
    channels = torch.tensor([[[[1.0]], [[1.0]], [[0.0]], [[0.0]]]], dtype=torch.float16)
    assert shown(channels).tolist() == [[[128]]]
    assert shown(channels).dtype == torch.uint8


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_painted_pictures_have_the_painted_levels_and_the_others_stay(dtype):
    mask = torch.full((2, 1, 3), 0.3, dtype=dtype)
    out = painted_over(mask, [None, torch.tensor([[0, 51, 255]], dtype=torch.uint8)])
    assert torch.equal(out[0], mask[0])
    assert torch.equal(out[1], torch.tensor([[0.0, 0.2, 1.0]], dtype=dtype))
    assert (mask == mask[0, 0, 0]).all()  # the given one is not written into
    assert painted_over(mask, [None, None]) is mask


def test_what_is_painted_holds_for_all_channels():
    out = painted_over(torch.zeros(1, 4, 1, 2), [torch.tensor([[255, 0]], dtype=torch.uint8)])
    assert torch.equal(out, torch.tensor([[1.0, 0.0]]).expand(1, 4, 1, 2))


def test_the_next_mask_is_the_union_with_what_was_added_less_what_was_removed():
    painted = torch.tensor([[[1.0, 0.0, 1.0, 0.0]]])  # the second was removed, the third added
    difference = Difference.between(FOUND, painted)
    for found, expected in (
        ([0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]),
        ([1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 1.0, 1.0]),
        ([0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 1.0, 1.0]),
    ):
        assert difference.applied(torch.tensor([[found]])).tolist() == [[expected]]
    assert torch.equal(difference.applied(FOUND), painted)


def test_values_between_are_the_least_where_more_was_painted_and_the_most_where_less_was():
    difference = Difference.between(torch.tensor([[[0.5, 0.5, 0.5]]]), torch.tensor([[[0.75, 0.25, 0.5]]]))
    assert difference.applied(torch.tensor([[[0.0, 1.0, 0.1]]])).tolist() == [[[0.75, 0.25, pytest.approx(0.1)]]]
    assert difference.applied(torch.tensor([[[0.9, 0.1, 0.9]]])).tolist() == [[pytest.approx([0.9, 0.1, 0.9])]]


def test_a_difference_holds_for_all_channels_and_the_type_of_the_mask():
    difference = Difference.between(FOUND[:, None].expand(1, 4, 1, 4), torch.zeros(1, 1, 4))
    out = difference.applied(torch.ones(1, 4, 1, 4, dtype=torch.bfloat16))
    assert out.dtype == torch.bfloat16
    assert torch.equal(out.float(), torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(1, 4, 1, 4))


def test_wrong_choices_are_errors():
    masking = ImageMasking(torch.ones(1, 2, 2))
    painted = PaintedMasking(masking, "first manipulated step")
    with pytest.raises(ValueError, match="painted over already"):
        PaintedMasking(painted, "first manipulated step")
    for wrong, name in (({"ask_at": "never"}, "ask_at"), ({"start": "x"}, "start_from"), ({"then": "x"}, "when_over")):
        with pytest.raises(ValueError, match=name):
            PaintedMasking(masking, **{"ask_at": "first manipulated step", **wrong})


def test_masks_on_a_gpu_stay_there_and_what_is_shown_comes_from_it():
    """Pretended devices: any mix of them would be an error."""
    with FakeTensorMode():
        mask = torch.empty(2, 4, 6, 6, device="cuda")
        painted = painted_over(mask, [None, torch.empty(6, 6, dtype=torch.uint8)])
        later = Difference.between(mask, painted).applied(torch.empty(2, 6, 6, device="cuda", dtype=torch.float16))
        assert (painted.device.type, later.device.type, shown(painted).device.type) == ("cuda", "cuda", "cpu")
        assert (later.dtype, later.shape, shown(painted).shape) == (torch.float16, (2, 6, 6), (2, 6, 6))

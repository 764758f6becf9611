"""Half-precision tensors that a network writes a recorded one into."""

from __future__ import annotations

import operator

import pytest
import torch

HALVES = [torch.float16, torch.bfloat16]


@pytest.fixture
def stream(comfy):
    from explainable_latents.nodes.host.autograd.float32_stream import Float32Stream

    return Float32Stream()


# Each writes y into x, with the derivative 1 by y.
WRITES = {
    "operator": operator.iadd,
    "method": lambda x, y: x.add_(y),
    "product": lambda x, y: x.addcmul_(y, torch.ones((), dtype=x.dtype)),
    "copy": lambda x, y: operator.setitem(x, slice(None), y),
}


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("write", WRITES)
def test_what_is_written_is_not_rounded(stream, write, dtype):
    """The tensor itself is float32 then: a statement `x.add_(y)` has no other result."""
    x, y = torch.ones(3, dtype=dtype), torch.full((3,), 1e-5, requires_grad=True)
    with stream:
        WRITES[write](x, y)
        (gradient,) = torch.autograd.grad((x * 1e-5).sum(), y)
    assert x.dtype == gradient.dtype == torch.float32
    assert torch.equal(x.detach(), y.detach() + (0.0 if write == "copy" else 1.0))
    assert torch.equal(gradient, torch.full((3,), 1e-5))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_a_write_into_a_part_of_a_half_precision_tensor_is_refused(stream, dtype):
    """It cannot become float32 without the rest of it."""
    x, y = torch.ones(3, dtype=dtype), torch.ones(2, requires_grad=True)
    with (
        stream,
        pytest.raises(ValueError, match=rf"{dtype}.*writes into a part of a tensor.*Load the model in float32"),
    ):
        x[1:] += y
    assert x.dtype == dtype


def test_a_float32_tensor_is_written_into_as_ever(stream):
    x, y = torch.ones(3), torch.ones(2, requires_grad=True)
    with stream:
        x[1:] += y
    assert x.tolist() == [1.0, 2.0, 2.0]

"""How every gradient is taken, so that small ones survive other nodes' code in half precision.

float16 has no numbers below 6e-8 and full precision only above 6e-5; the gradients of single elements are often
smaller. So the loss is multiplied by a power of two and the gradients are divided by it (Micikevicius et al. 2018,
arXiv 1710.03740, section 3.2). In float32 and bfloat16 that changes exponents on the way and no bit of the result, as
long as no number on the way is below 1e-38.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# Exponent of the power of two that is tried first, and how many are tried, each half of the one before.
FIRST, TRIES = 16, 12


class LossScale:
    """The power of two by which losses are multiplied, and the gradients of these losses.

    With the first power the gradient with respect to the model's output is a vector of length about 2^16. Where that
    overflows the power is halved, for all later passes too. slope: the size of d loss / d output for a single element
    (small at low noise), where known. passed: names of other nodes' code that the gradients pass, for the error.
    """

    def __init__(self, slope: float = 1.0) -> None:
        self._exponent = FIRST - math.frexp(slope)[1]
        self.passed: list[str] = []

    def gradients(
        self,
        output: Tensor,
        variables: Sequence[Tensor],
        seed: Tensor | None = None,
        *,
        terms: int = 1,
        batched: bool = False,
    ) -> tuple[Tensor, ...]:
        """d (sum of seed times output) / d each of the variables, of their shapes and finite; keeps the record.

        output: recorded as a function of the variables. seed: of its shape, None for ones. terms: how many elements of
        the model's output the loss adds up, because the gradient of many is larger. batched: the seed has one more
        dimension in front, and so have the gradients. Raises ValueError where no power makes them finite.
        """
        seed = torch.ones_like(output) if seed is None else seed
        for _ in range(TRIES):
            power = 2.0 ** (self._exponent - math.ceil(math.log2(terms) / 2))
            scaled = torch.autograd.grad(output, variables, seed * power, retain_graph=True, is_grads_batched=batched)
            if all(bool(each.isfinite().all()) for each in scaled):
                return tuple(each / power for each in scaled)
            self._exponent -= 1
        culprits = f" They pass what {' and '.join(dict.fromkeys(self.passed))} computes." if self.passed else ""
        raise ValueError(
            f"the gradients are not finite, also with the loss times {power:g}, the smallest of {TRIES} powers of two "
            f"that were tried.{culprits} Connect the model without nodes that compute in half precision (an optimised "
            "attention, for instance); if there are none, the model's own numbers are too large for float16: start "
            "ComfyUI with --fp32-unet or --bf16-unet"
        )

    def of_rows(self, loss: Tensor, variable: Tensor, counted: Sequence[int]) -> Tensor:
        """d loss / d variable [R,...], at least float32; keeps the record.

        loss: a sum over rows that do not depend on each other. counted: the rows whose own loss is finite and not 0. A
        smaller power is tried where the gradient of one of these is not finite, a larger one where it is 0 in all of
        them. What no power makes finite stays as it is, for the caller to leave out.
        """
        first, tried = self._exponent, set()
        while True:
            power = 2.0**self._exponent
            (scaled,) = torch.autograd.grad(loss * power, [variable], retain_graph=True)
            found = scaled.to(torch.promote_types(scaled.dtype, torch.float32)) / power
            tried.add(self._exponent)
            own = found[list(counted)]
            overflows, vanishes = not bool(own.isfinite().all()), bool(counted) and not bool(own.any())
            following = self._exponent + vanishes - overflows
            if following in tried or len(tried) == TRIES:
                self._exponent = first if vanishes else self._exponent
                return found
            self._exponent = following

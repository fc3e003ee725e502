"""CompactBilinear (gy20073/compact_bilinear_pooling, compact_bilinear_layer.cpp and .cu)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import count, islice
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.loss import precise
from ...layers.registry import register
from ...tables import dims


@register("CompactBilinear", fork="compact_bilinear")
class CompactBilinear(Layer):
    """Products of all pairs of channels of two bottoms (N, C, H, W), each added to one of ``num_output`` with a sign.

    The places and signs are those of the fork, which draws them anew from C's ``rand`` with seed 1. Channels i and j go
    to place (p(i) + q(j)) modulo ``num_output``: a convolution around a circle, done by Fourier transforms. Neither of
    the fork's inverse transforms divides, so the top is ``num_output`` times that sum. ``sum_pool`` sums the plane.
    """

    bottoms = (2, 2)
    differentiable = (True, True)
    places0: Tensor
    signs0: Tensor
    places1: Tensor
    signs1: Tensor

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.compact_bilinear_param
        self.size: int = options.num_output
        self.sums: bool = options.sum_pool
        if self.size < 1:
            raise self.error("compact_bilinear_param.num_output must be given, at least 1")
        a, b = bottom_shapes
        if len(a) != 4 or len(b) != 4 or (a[0], *a[2:]) != (b[0], *b[2:]):
            raise self.error(f"takes two bottoms (N, C, H, W) that differ at most in C, not {dims(a)} and {dims(b)}")
        draws = _c_rand()
        for i, channels in enumerate((a[1], b[1])):
            places = torch.tensor([draw % self.size for draw in islice(draws, channels)], dtype=torch.long)
            signs = torch.tensor([draw % 2 * 2.0 - 1 for draw in islice(draws, channels)])
            self.register_buffer(f"places{i}", places, persistent=False)
            self.register_buffer(f"signs{i}", signs, persistent=False)

    def sketch(self, x: Tensor, places: Tensor, signs: Tensor) -> Tensor:
        """The Fourier transform, along the channels, of the signed channels of ``x`` added up at their places."""
        signed = x * signs.to(x.dtype).view(1, -1, 1, 1)
        sums = x.new_zeros((x.shape[0], self.size, *x.shape[2:])).index_add(1, places, signed)
        return torch.fft.rfft(sums, dim=1)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return (N, num_output, H, W), or (N, num_output, 1, 1) with ``sum_pool``."""
        product = self.sketch(precise(a), self.places0, self.signs0) * self.sketch(
            precise(b), self.places1, self.signs1
        )
        if self.sums:
            product = product.sum((2, 3), keepdim=True)
        return torch.fft.irfft(product, n=self.size, dim=1, norm="forward").to(a.dtype)


def _c_rand() -> Iterator[int]:
    """What ``rand`` of the GNU C library gives after ``srand(1)``: sums of the numbers 3 and 31 draws before."""
    first = [1]
    while len(first) < 31:
        first.append(16807 * first[-1] % (2**31 - 1))
    state = deque([*first, *first[:3]], maxlen=31)
    for number in count():
        state.append((state[0] + state[-3]) % 2**32)
        if number >= 310:
            yield state[-1] >> 1

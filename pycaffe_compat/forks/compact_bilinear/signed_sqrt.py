"""SignedSqrt (gy20073/compact_bilinear_pooling, signed_sqrt_layer.cpp and .hpp)."""

from __future__ import annotations

from torch import Tensor

from ...layers.base import Layer
from ...layers.registry import register
from ...layers.slope import WithSlope

EPSILON = 0.03  # the fork's, in the gradient


@register("SignedSqrt", fork="compact_bilinear")
class SignedSqrt(Layer):
    """The square root of each absolute value, with the sign of the value: y. Its slope is the fork's, 0.5 / (|y| + 0.03)."""

    options = ()

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the shape of ``x``."""
        value = x.detach()
        size = value.abs().sqrt()
        return WithSlope.apply(x, size.copysign(value), 0.5 / (size + EPSILON))

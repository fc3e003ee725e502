"""Normalize over the channels, as happynear's Caffe has it (happynear/caffe-windows, normalize_layer.cpp and .cu)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.registry import register
from ...layers.slope import WithSlope
from ...tables import dims

EPS = 1e-6
NORMS = ("L1", "L2")


@register("Normalize", fork=("happynear", "sphereface_plus"))
class ChannelNormalize(Layer):
    """Each place divided by the L2 (or L1) norm of its channels, without a scale; a second top is that norm.

    The tops have four axes. ``fix_gradient`` leaves the division by the norm out of the gradient (as the fork does on a GPU).
    The norm has a gradient only with ``bp_norm``.
    """

    options = ("normalize_param",)
    tops = (1, 2)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options, shape = param.normalize_param, bottom_shapes[0]
        self.norm = options.normalize_type
        if self.norm not in NORMS:
            raise self.error(f'normalize_param.normalize_type: "{self.norm}" is not one of {", ".join(NORMS)}')
        if not 2 <= len(shape) <= 4:
            raise self.error(f"needs a bottom with 2 to 4 axes (N, C, H, W), not of shape {dims(shape)}")
        self.fixed, self.norm_learns = options.fix_gradient, options.bp_norm

    @classmethod
    def fits(cls, param: Any) -> bool:
        return not param.HasField("norm_param")

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = x.reshape(*x.shape, *(1,) * (4 - x.dim()))
        if self.norm == "L2":
            norm = (x.square().sum(1, keepdim=True) + EPS).sqrt()
        else:
            norm = x.abs().sum(1, keepdim=True) + EPS
        y = x / norm
        if self.fixed:
            y = WithSlope.apply(y, y.detach(), norm.detach())
        if self.n_tops == 1:
            return y
        if not self.norm_learns:
            return y, norm.detach()
        return y, norm

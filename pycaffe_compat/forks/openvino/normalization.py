"""GRN and ScaleFilter of OpenVINO's training toolbox (openvinotoolkit/training_toolbox_caffe: grn_layer, scale_filter_layer)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.registry import register
from ...layers.slope import WithSlope
from ...tables import dims


@register("GRN", fork="openvino")
class GRN(Layer):
    """At each place of each item, ``x / sqrt(sum of x^2 over the channels + bias)``.

    With ``dummy_backward`` the gradient passes unchanged. ``x`` is (N, C), (N, C, H) or (N, C, H, W).
    """

    options = ("grn_param",)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.bias: float = param.grn_param.bias
        self.dummy: bool = param.grn_param.dummy_backward
        if not self.bias >= 0:
            raise self.error(f"grn_param.bias: {self.bias:g} must not be negative")
        if not 2 <= len(bottom_shapes[0]) <= 4:
            raise self.error(f"takes a bottom of 2 to 4 axes, not of shape {dims(bottom_shapes[0])}")

    def forward(self, x: Tensor) -> Tensor:
        y = x / (x.square().sum(1, keepdim=True) + self.bias).sqrt()
        return WithSlope.apply(x, y.detach(), None) if self.dummy else y


@register("ScaleFilter", fork="openvino")
class ScaleFilter(Layer):
    """In training, each plane of ``x`` (N, C, H, W) times a number drawn between ``min_scale`` and ``max_scale``. Else a copy."""

    options = ("scale_filter_param",)
    random = True
    keeps_positive = True
    passes_places = True

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.low: float = param.scale_filter_param.min_scale
        self.high: float = param.scale_filter_param.max_scale
        if not 0 < self.low < self.high < math.inf:
            raise self.error(
                f"scale_filter_param: min_scale: {self.low:g} must be above 0 and below max_scale: {self.high:g}, which is finite"
            )
        if len(bottom_shapes[0]) != 4:
            raise self.error(f"takes a bottom of 4 axes, not of shape {dims(bottom_shapes[0])}")

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return x * torch.empty_like(x[:, :, :1, :1]).uniform_(self.low, self.high)

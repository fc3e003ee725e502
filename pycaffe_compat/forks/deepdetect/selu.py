"""SeLu and SeLuDropout, as DeepDetect's Caffe has them (jolibrain/caffe, selu_layer.cpp and selu_dropout_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.neuron import Overwritten
from ...layers.registry import register


@register("SeLu", fork="deepdetect")
class SeLu(Overwritten):
    """``lambda * x`` above 0, else ``lambda * alpha * (exp(x) - 1)`` (Klambauer et al., 2017)."""

    options = ("selu_param",)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.scale, self.alpha = getattr(param.selu_param, "lambda"), param.selu_param.alpha

    def function(self, x: Tensor) -> Tensor:
        return self.scale * torch.where(x > 0, x, self.alpha * x.clamp(max=0).expm1())

    def slope(self, bottom: Tensor, top: Tensor) -> Tensor:
        return self.scale * torch.where(bottom > 0, 1, self.alpha * bottom.clamp(max=0).exp())


@register("SeLuDropout", fork="deepdetect")
class SeLuDropout(Layer):
    """In training ``a * alpha + b`` with probability ``dropout_ratio``, else ``a * x + b``; outside training ``x``.

    ``a`` and ``b`` keep a mean of 0 and a variance of 1 (Klambauer et al., 2017).
    """

    options = ("selu_dropout_param",)
    random = True
    passes_places = True

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.selu_dropout_param
        ratio = options.dropout_ratio
        if not 0 < ratio < 1:
            raise self.error(f"selu_dropout_param.dropout_ratio: {ratio:g} must be between 0 and 1")
        self.kept, self.alpha = 1 - ratio, options.alpha
        self.factor = (self.kept * (1 + self.alpha**2 * ratio)) ** -0.5
        self.shift = -self.factor * ratio * self.alpha

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x.clone()
        kept = torch.rand_like(x) < self.kept
        return self.factor * torch.where(kept, x, self.alpha) + self.shift

"""InnerProduct with normalised weights, as happynear's Caffe has it (happynear/caffe-windows, inner_product_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Shape
from ...layers.linear import InnerProduct
from ...layers.registry import register
from ...layers.slope import rewritten

EPS = 1e-6


@register("InnerProduct", fork=("happynear", "sphereface_plus", "openvino"))
class NormalizedInnerProduct(InnerProduct):
    """BVLC's InnerProduct; with ``normalize`` the weights of each output are divided by their length in every pass.

    The blob itself is divided, and the gradient is that of an inner product with what is then in it.
    """

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.normalize = param.inner_product_param.normalize
        if self.normalize and self.transpose:
            raise self.error(
                "inner_product_param: normalize does not go with transpose, in the fork neither; give one of them"
            )

    @classmethod
    def fits(cls, param: Any) -> bool:
        return bool(param.inner_product_param.HasField("normalize"))

    def forward(self, x: Tensor) -> Tensor:
        if not self.normalize or x.is_meta:
            return super().forward(x)
        rows = self.weight.detach()
        weight = rewritten(self.weight, rows / (rows.square().sum(1, keepdim=True) + EPS).sqrt())
        return F.linear(x.flatten(self.axis), weight, self.bias)

"""InnerProduct with normalised weights or those of another layer (happynear/caffe-windows, inner_product_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Layer, Shape, count
from ...layers.linear import InnerProduct
from ...layers.registry import register
from ...layers.slope import rewritten
from ...tables import dims

EPS = 1e-6


@register("InnerProduct", fork=("happynear", "sphereface_plus", "openvino"))
class NormalizedInnerProduct(InnerProduct):
    """BVLC's InnerProduct; with ``normalize``, every pass divides each output's weights by their length.

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
        return bool(param.inner_product_param.HasField("normalize")) and len(param.bottom) < 2

    def forward(self, x: Tensor) -> Tensor:
        if not self.normalize or x.is_meta:
            return super().forward(x)
        rows = self.weight.detach()
        weight = rewritten(self.weight, rows / (rows.square().sum(1, keepdim=True) + EPS).sqrt())
        return F.linear(x.flatten(self.axis), weight, self.bias)


@register("InnerProduct", fork=("happynear", "openvino"))
class GivenInnerProduct(Layer):
    """The bottom, flattened from ``axis`` on, times the rows of the second bottom, plus the third bottom. It has no blobs.

    ``num_output`` and ``normalize`` are not read then. Two bottoms need ``bias_term: false``, without which the fork crashes.
    """

    bottoms = (2, 3)
    options = ("inner_product_param",)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.inner_product_param
        x, weight = bottom_shapes[:2]
        self.axis = self.canonical_axis(options.axis, len(x), "inner_product_param.axis")
        self.biased = options.bias_term
        if options.transpose:
            raise self.error(
                "inner_product_param.transpose: true does not go with weights of another layer; leave it out"
            )
        if self.biased and len(bottom_shapes) < 3:
            raise self.error(
                "takes weights from its second bottom, as in happynear's Caffe and OpenVINO's, and so needs a third for the "
                "bias, or bias_term: false"
            )
        if not weight or count(weight, 1) != count(x, self.axis):
            raise self.error(f"takes weights (outputs, {count(x, self.axis)}) for {dims(x)}, not {dims(weight)}")
        if self.biased and count(bottom_shapes[2]) != weight[0]:
            raise self.error(f"takes a bias for each of {weight[0]} outputs, not {dims(bottom_shapes[2])}")

    @classmethod
    def fits(cls, param: Any) -> bool:
        return len(param.bottom) > 1

    def flops(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        return 2 * count(bottoms[0], 0, self.axis) * count(bottoms[1])

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        given = bias.reshape(-1) if bias is not None and self.biased else None
        return F.linear(x.flatten(self.axis), weight.flatten(1), given)

"""Convolution and InnerProduct that apply a ReLU themselves, as Intel's Caffe writes them (mkldnn_convolution_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Shape
from ...layers.convolution import Convolution
from ...layers.linear import InnerProduct
from ...layers.registry import register
from ...proto import caffe_pb2
from ...tables import dims

SUM = caffe_pb2.ConvolutionParameter.SUM_FUSION


@register("Convolution", fork="intel")
class FusedConvolution(Convolution):
    """BVLC's Convolution; ``relu`` applies a ReLU with ``negative_slope``.

    ``fusion_type: SUM_FUSION`` adds a second bottom before. ``coeff`` has no effect, as in the fork's single precision.
    """

    inert_options = Convolution.inert_options | {"coeff"}
    fresh_top = False

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        options = param.convolution_param
        self.adds = options.fusion_type == SUM and len(bottom_shapes) > 1
        super().__init__(param, bottom_shapes[:1] if self.adds else bottom_shapes)
        self.relu, self.negative_slope = options.relu, options.negative_slope
        if self.adds:
            self.check_count("bottom", len(bottom_shapes), (2, 2))

    @classmethod
    def fits(cls, param: Any) -> bool:
        options = param.convolution_param
        return options.HasField("relu") or options.HasField("fusion_type")

    def forward(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        if not self.adds:
            return super().forward(*bottoms)
        x, other = bottoms
        y = self._top(x)
        if y.shape != other.shape:
            raise self.error(
                f"fusion_type: SUM_FUSION adds {dims(other.shape)} to its {dims(y.shape)}, which must be equal"
            )
        return self._rectified(y + other)

    def function(self, x: Tensor) -> Tensor:
        y = super().function(x)
        return y if self.adds else self._rectified(y)

    def _rectified(self, y: Tensor) -> Tensor:
        return F.leaky_relu(y, self.negative_slope) if self.relu else y


@register("InnerProduct", fork="intel")
class FusedInnerProduct(InnerProduct):
    """BVLC's InnerProduct; ``relu`` applies a ReLU with ``negative_slope``."""

    inert_options = InnerProduct.inert_options | {"engine"}
    fresh_top = False

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.relu, self.negative_slope = param.inner_product_param.relu, param.inner_product_param.negative_slope

    @classmethod
    def fits(cls, param: Any) -> bool:
        return bool(param.inner_product_param.HasField("relu"))

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return F.leaky_relu(y, self.negative_slope) if self.relu else y

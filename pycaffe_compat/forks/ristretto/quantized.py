"""The layers of Ristretto's Caffe, as they compute on a GPU (pmgysel/caffe, src/caffe/ristretto/layers)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Shape
from ...layers.convolution import (
    CONVOLUTIONS,
    TRANSPOSED,
    Convolution,
    Deconvolution,
    Filters,
    add_bias,
    convolve,
    convolve_transposed,
)
from ...layers.linear import InnerProduct
from ...layers.normalization import LRN
from ...layers.registry import register
from ...proto import caffe_pb2
from ...tables import dims
from .quantization import OPTIONS, Quantized, minifloat, read_minifloat


class _QuantizedFilters(Quantized, Filters):
    """A convolution with quantised numbers."""

    options = ("convolution_param", "quantization_param")
    fresh_top = False

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.read_precision(param.quantization_param)

    def function(self, x: Tensor) -> Tensor:
        y = self.convolved(self.round_bottom(x), self.round_weights(self.weight))
        bias = None if self.bias is None else self.round_weights(self.bias, is_bias=True)
        return self.round_top(add_bias(y, bias))

    def convolved(self, x: Tensor, weight: Tensor) -> Tensor:
        """The convolution without its bias."""
        raise NotImplementedError


@register("ConvolutionRistretto", fork="ristretto")
class QuantizedConvolution(_QuantizedFilters, Convolution):
    """Convolution with quantised numbers: see :class:`.quantization.Quantized`."""

    def convolved(self, x: Tensor, weight: Tensor) -> Tensor:
        if conv := CONVOLUTIONS.get(self.spatial):
            return conv(x, weight, None, self.stride, self.pad, self.dilation, self.groups)
        return convolve(x, weight, self.stride, self.pad, self.dilation, self.groups)


@register("DeconvolutionRistretto", fork="ristretto")
class QuantizedDeconvolution(_QuantizedFilters, Deconvolution):
    """Deconvolution with quantised numbers: see :class:`.quantization.Quantized`."""

    def convolved(self, x: Tensor, weight: Tensor) -> Tensor:
        if conv := TRANSPOSED.get(self.spatial):
            return conv(x, weight, None, self.stride, self.pad, 0, self.groups, self.dilation)
        return convolve_transposed(x, weight, self.stride, self.pad, self.dilation, self.groups)


@register("FcRistretto", fork="ristretto")
class QuantizedInnerProduct(Quantized, InnerProduct):
    """InnerProduct with quantised numbers: see :class:`.quantization.Quantized`."""

    options = ("inner_product_param", "quantization_param")
    fresh_top = False

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.read_precision(param.quantization_param)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.round_weights(self.weight)
        bias = None if self.bias is None else self.round_weights(self.bias, is_bias=True)
        x = self.round_bottom(x).flatten(self.axis)
        return self.round_top(F.linear(x, weight.t() if self.transpose else weight, bias))


@register("LRNRistretto", fork="ristretto")
class QuantizedLRN(LRN):
    """LRN across channels, with every intermediate value rounded to a floating-point number with few bits.

    Sums over a window are those of the window before, plus a square, minus one. The gradient is LRN's, with the rounded sums
    and tops.
    """

    options = ("lrn_param", "quantization_param")

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.quantization_param
        if options.precision != OPTIONS.MINIFLOAT:
            raise self.error("quantization_param.precision: only MINIFLOAT; the fork has no other LRN")
        if param.lrn_param.norm_region != caffe_pb2.LRNParameter.ACROSS_CHANNELS:
            raise self.error("lrn_param.norm_region: only ACROSS_CHANNELS; the fork has no other")
        self.mini = read_minifloat(self, options)
        self.check_bottom(bottom_shapes[0])

    def check_bottom(self, shape: Shape) -> None:
        """Raise unless the bottom has four axes, and a channel."""
        if len(shape) != 4 or not shape[1]:
            raise self.error(f"needs a bottom (num, channels, height, width), a channel at least, not {dims(shape)}")

    def round(self, x: Tensor) -> Tensor:
        """The nearest numbers that there are."""
        return minifloat(x, *self.mini, False)

    def forward(self, x: Tensor) -> Tensor:
        self.check_bottom(x.shape)
        with torch.no_grad():
            scale = self._scale(x).to(x.dtype)
            y = self.round(self.round(x) * self.round(scale.pow(-self.beta))).to(x.dtype)
        return _Normalised.apply(x, y, scale, self) if x.requires_grad else y

    def _scale(self, x: Tensor) -> Tensor:
        channels, after = x.shape[1], self.size // 2
        square = self.round(self.round(x).square())
        total, scales = torch.zeros_like(square[:, 0]), []
        for head in range(channels + after):
            if head < channels:
                total = self.round(total + square[:, head])
            if 0 <= head - self.size < channels:
                total = self.round(total - square[:, head - self.size])
            if head >= after:
                scales.append(self.round(self.k + self.round(total * (self.alpha / self.size))))
        return torch.stack(scales, 1)


class _Normalised(torch.autograd.Function):
    """``y``, with the gradient by ``x`` of an LRN whose sums are ``scale``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, scale: Tensor, layer: QuantizedLRN) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x, y, scale)
        ctx.layer = layer
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        (x, y, scale), layer = ctx.saved_tensors, ctx.layer
        reach = layer.size // 2
        ratio = F.pad(grad * y / scale, (0, 0, 0, 0, reach, reach))
        total = ratio.unfold(1, layer.size, 1).sum(-1)
        factor = 2 * layer.alpha * layer.beta / layer.size
        return grad * scale.pow(-layer.beta) - factor * x * total, None, None, None

"""Inner products, embeddings, and products and sums that are broadcast over axes.

Source: Caffe's layers of these names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..proto import caffe_pb2
from ..tables import dims
from .base import Layer, Shape, count
from .registry import register


@register("InnerProduct")
class InnerProduct(Layer):
    """The bottom, flattened from ``axis`` on, times ``weight`` (num_output, inputs; swapped by ``transpose``), plus ``bias``."""

    blobs_declared = ("weight", "bias")
    blobs_optional = frozenset({"bias"})
    fresh_top = True
    weight: Tensor
    bias: Tensor | None

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.inner_product_param
        self.axis = self.canonical_axis(options.axis, len(bottom_shapes[0]))
        self.transpose = options.transpose
        if options.num_output < 1:
            raise self.error(f"inner_product_param.num_output: {options.num_output} must be at least 1")
        shape = (options.num_output, count(bottom_shapes[0], self.axis))
        self.add_blob("weight", shape[::-1] if self.transpose else shape, options.weight_filler)
        self.add_bias((options.num_output,), options)

    @classmethod
    def fits(cls, param: Any) -> bool:
        return len(param.bottom) < 2  # happynear's may take weights from the second

    def flops(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        return self.multiply_adds(count(bottoms[0], 0, self.axis))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.flatten(self.axis), self.weight.t() if self.transpose else self.weight, self.bias)


@register("Embed")
class Embed(Layer):
    """For each element of the bottom, the row of ``weight`` (input_dim, num_output) with that index, plus ``bias``."""

    blobs_declared = ("weight", "bias")
    blobs_optional = frozenset({"bias"})
    differentiable = (False,)
    weight: Tensor
    bias: Tensor | None

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.embed_param
        for field in ("num_output", "input_dim"):
            if getattr(options, field) < 1:
                raise self.error(f"embed_param.{field}: {getattr(options, field)} must be at least 1")
        self.rows = options.input_dim
        self.add_blob("weight", (options.input_dim, options.num_output), options.weight_filler)
        self.add_bias((options.num_output,), options)

    def forward(self, x: Tensor) -> Tensor:
        try:
            y = F.embedding(x.long(), self.weight)
        except IndexError:
            raise self.outside(x, self.rows, f"embed_param.input_dim: {self.rows}") from None
        return y if self.bias is None else y + self.bias


class _Broadcast(Layer):
    """What ``Scale`` and ``Bias`` share: an operand (a blob or the second bottom) aligned with axes of the first bottom."""

    bottoms = (1, 2)

    def _line_up(self, options: Any, bottom_shapes: Sequence[Shape]) -> Shape:
        """Set ``axis``, the operand's first axis, and return the operand's shape."""
        shape = tuple(bottom_shapes[0])
        if len(bottom_shapes) == 2:
            operand = tuple(bottom_shapes[1])
            self.axis = self.canonical_axis(options.axis, len(shape)) if operand else 0
        else:
            self.axis = self.canonical_axis(options.axis, len(shape))
            if options.num_axes < -1:
                raise self.error(f"num_axes: {options.num_axes} must be at least -1, for all axes from axis on")
            end = len(shape) if options.num_axes == -1 else self.axis + options.num_axes
            if end > len(shape):
                raise self.error(
                    f"axis: {options.axis} and num_axes: {options.num_axes} reach past the bottom's {len(shape)} axes"
                )
            operand = shape[self.axis : end]
        self._check_fit(shape, operand)
        return operand

    def _check_fit(self, shape: Shape, operand: Shape) -> None:
        """Raise unless ``operand`` equals ``shape`` from ``axis`` on; broadcasting would accept other shapes."""
        if shape[self.axis : self.axis + len(operand)] != operand:
            raise self.error(f"its bottom {dims(shape)} is not {dims(operand)} from axis {self.axis} on")

    def _spread(self, operand: Tensor, x: Tensor) -> Tensor:
        """Append axes of size 1 to ``operand``, so that it broadcasts over ``x``."""
        self._check_fit(x.shape, operand.shape)
        after = x.dim() - self.axis - operand.dim()
        return operand.reshape(*operand.shape, *(1,) * after) if after else operand


@register("Bias")
class Bias(_Broadcast):
    """``x`` plus a bias (a blob, or the second bottom) that covers ``num_axes`` axes from ``axis`` on."""

    blobs_declared = ("bias",)
    bias: Tensor

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        shape = self._line_up(param.bias_param, bottom_shapes)
        if len(bottom_shapes) == 1:
            self.add_blob("bias", shape, param.bias_param.filler)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return x + self._spread(self.bias if bias is None else bias, x)


@register("Scale")
class Scale(_Broadcast):
    """``x`` times a scale (a blob, or the second bottom) over ``num_axes`` axes from ``axis`` on, plus ``bias``."""

    blobs_declared = ("weight", "bias")
    blobs_optional = frozenset({"bias"})
    weight: Tensor
    bias: Tensor | None

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.scale_param
        shape = self._line_up(options, bottom_shapes)
        if len(bottom_shapes) == 1:
            filler = options.filler if options.HasField("filler") else caffe_pb2.FillerParameter(value=1)
            self.add_blob("weight", shape, filler)
        self.add_bias(shape, options)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        scale = self._spread(self.weight if scale is None else scale, x)
        if self.bias is None:
            return x * scale
        return torch.addcmul(self._spread(self.bias, x), x, scale)

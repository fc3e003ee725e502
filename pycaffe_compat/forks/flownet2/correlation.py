"""Correlation and Correlation1D, as FlowNet2's Caffe has them.

Sources: lmb-freiburg/flownet2, correlation_layer.cu and correlation_layer1d.cu.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.registry import register
from ...layers.slope import TracedFunction
from ...proto import caffe_pb2
from ...tables import dims


@register("Correlation", fork=("flownet2", "liteflownet", "pwcnet"))
class Correlation(Layer):
    """The correlation of patches around each place of two feature maps, for many displacements of the second map.

    Both bottoms are (N, C, H, W). They are padded by ``pad`` zeros; the windows of ``kernel_size`` (odd) of the first stand
    ``stride_1`` apart, as far as ``max_displacement`` from the borders. Each is multiplied with the windows of the second that
    are displaced by up to ``max_displacement`` in steps of ``stride_2``. The top has a channel for each displacement, rows
    first, and holds the mean over window and channels. ``correlation_type: SUBTRACT`` takes the absolute difference instead of
    the product. Its gradient is the fork's, which compares both maps at the *displaced* place for the first bottom, and at
    the place that is not displaced for the second. ``do_abs`` is read by nothing in the fork.
    """

    options = ("correlation_param",)
    inert_options = frozenset({"do_abs", "single_direction"})
    bottoms: ClassVar[tuple[int, int | None]] = (2, 2)
    planes_traceable = False
    both_axes: ClassVar[bool] = True

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.correlation_param
        self.kernel, self.reach, self.pad = options.kernel_size, options.max_displacement, options.pad
        self.strides = (options.stride_1, options.stride_2)
        self.subtracts = options.correlation_type == caffe_pb2.CorrelationParameter.SUBTRACT
        for field in ("kernel_size", "max_displacement"):
            if not options.HasField(field):
                raise self.error(f"needs correlation_param.{field}")
        if self.kernel % 2 == 0:
            raise self.error(f"correlation_param.kernel_size: {self.kernel} must be odd")
        if min(self.strides) < 1:
            raise self.error("correlation_param.stride_1 and stride_2 must be at least 1")
        first, second = bottom_shapes
        if len(first) != 4 or first != second:
            raise self.error(f"needs two bottoms (N, C, H, W) of one shape, not of {dims(first)} and {dims(second)}")
        self.places(first)

    def places(self, shape: Shape) -> tuple[int, int]:
        """The height and the width of the top.

        Raises:
            LayerError: the options do not fit into the planes.
        """
        height = shape[2] + (2 * (self.pad - self.reach) if self.both_axes else 0) - self.kernel + 1
        width = shape[3] + 2 * (self.pad - self.reach) - self.kernel + 1
        if min(height, width) < 1:
            raise self.error(
                f"max_displacement: {self.reach} and kernel_size: {self.kernel} do not fit into planes of "
                f"{dims(shape[2:])} with pad: {self.pad}"
            )
        return math.ceil(height / self.strides[0]), math.ceil(width / self.strides[0])

    def displacements(self) -> tuple[list[int], list[int]]:
        """Those of rows, and those of columns."""
        steps = self.reach // self.strides[1]
        each = [self.strides[1] * i for i in range(-steps, steps + 1)]
        return each, each

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return (N, displacements, H', W')."""
        rows, columns = self.displacements()
        height, width = self.places(tuple(first.shape))
        stride = self.strides[0]
        if first.is_meta:
            return first.new_empty(first.shape[0], len(rows) * len(columns), height, width)
        beyond = max(
            0, -columns[0] - self.reach
        )  # displacements to the left alone go one step further than the fork pads
        top = self.pad if self.both_axes else 0
        first, second = (F.pad(x, (self.pad + beyond, self.pad, top, top)) for x in (first, second))
        geometry = _Geometry(
            rows=tuple(rows),
            columns=tuple(columns),
            corner=(self.reach if self.both_axes else 0, self.reach + beyond),
            size=((height - 1) * stride + self.kernel, (width - 1) * stride + self.kernel),
        )
        compare = _Differences.apply if self.subtracts else _products
        maps = compare(first, second, geometry)
        return F.avg_pool2d(maps, self.kernel, stride) / first.shape[1]


@register("Correlation1D", fork=("flownet2", "liteflownet", "pwcnet"))
class RowCorrelation(Correlation):
    """Correlation with displacements along rows only, and ``pad`` only at the left and right.

    ``single_direction: -1`` takes the displacements to the left, from ``stride_2`` on and one step further than
    ``max_displacement``, where the fork reads what lies before the row: its padding, which is 0. 1 takes those to the right,
    from 0 on.
    """

    inert_options = frozenset({"do_abs"})
    both_axes = False

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.direction = param.correlation_param.single_direction
        if self.direction not in (-1, 0, 1):
            raise self.error(f"correlation_param.single_direction: {self.direction} must be -1, 0 or 1")
        if self.direction < 0 and self.pad < self.strides[1]:
            raise self.error(
                f"correlation_param.pad: {self.pad} must be at least stride_2: {self.strides[1]} with single_direction: -1; "
                "the fork reads outside of the rows otherwise"
            )

    def displacements(self) -> tuple[list[int], list[int]]:
        step = self.strides[1]
        steps = self.reach // step
        least, most = {-1: (-steps - 1, -1), 0: (-steps, steps), 1: (0, steps)}[self.direction]
        return [0], [step * i for i in range(least, most + 1)]


class _Geometry:
    """Which displacements are compared, and the part of the first map that is: its upper left corner and its size."""

    def __init__(
        self, rows: tuple[int, ...], columns: tuple[int, ...], corner: tuple[int, int], size: tuple[int, int]
    ) -> None:
        self.rows, self.columns, self.corner, self.size = rows, columns, corner, size

    def part(self, x: Tensor, row: int = 0, column: int = 0) -> Tensor:
        """The part of ``x`` (N, C, H, W), displaced by so much."""
        top, left = self.corner[0] + row, self.corner[1] + column
        return x[:, :, top : top + self.size[0], left : left + self.size[1]]


def _products(first: Tensor, second: Tensor, at: _Geometry) -> Tensor:
    """The sums over channels of the products of ``first`` with ``second`` displaced: (N, displacements, height, width)."""
    height, width = at.size
    lines = at.part(first).permute(0, 2, 3, 1)
    columns = torch.tensor(at.columns, device=first.device) + at.corner[1]
    index = torch.arange(width, device=first.device)[:, None] + columns
    index = index.expand(first.shape[0], height, -1, -1)
    tops = []
    for (
        row
    ) in at.rows:  # all pairs of places of two lines by one matrix product, of which those with a displacement stay
        top = at.corner[0] + row
        others = second[:, :, top : top + height].transpose(1, 2)
        tops.append((lines @ others).gather(3, index).permute(0, 3, 1, 2))
    return torch.cat(tops, 1)


class _Differences(TracedFunction):
    """The sums over channels of ``|first - second displaced|``, with the fork's gradients."""

    @staticmethod
    def forward(first: Tensor, second: Tensor, at: _Geometry) -> Tensor:
        here = at.part(first)
        return torch.stack(
            [(here - at.part(second, row, column)).abs().sum(1) for row in at.rows for column in at.columns], 1
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        first, second, ctx.at = inputs
        ctx.save_for_backward(torch.where(first >= second, 1, -1).to(first.dtype))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        (sign,) = ctx.saved_tensors
        with torch.enable_grad():  # the gradients of a product, with signs where the other factor would stand
            first, second = (-sign).requires_grad_(), sign.clone().requires_grad_()
            products = _products(first, second, ctx.at)
        to_first, to_second = torch.autograd.grad(products, (first, second), grad)
        return to_first, to_second, None

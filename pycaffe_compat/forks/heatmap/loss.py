"""EuclideanLossHeatmap, as Caffe-heatmap has it (tpfister/caffe-heatmap, euclidean_loss_heatmap_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from ...layers.base import Layer, Shape
from ...layers.registry import register
from ...tables import dims


@register("EuclideanLossHeatmap", fork="heatmap")
class EuclideanLossHeatmap(Layer):
    """The mean of the squared differences of two bottoms; a third one is only for display.

    The gradient of either bottom is the difference itself, whatever the loss weight, as in the fork.
    """

    options = ()
    bottoms = (3, 3)
    differentiable = (True, True, False)
    loss = True
    head = True

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        if tuple(bottom_shapes[0]) != tuple(bottom_shapes[1]):
            raise self.error(
                f"compares bottoms of one shape, not {dims(bottom_shapes[0])} and {dims(bottom_shapes[1])}"
            )

    def forward(self, x: Tensor, target: Tensor, picture: Tensor) -> Tensor:
        return _Loss.apply(x, target)


class _Loss(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, target: Tensor) -> Tensor:
        difference = x - target
        ctx.save_for_backward(difference)
        return difference.square().mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        (difference,) = ctx.saved_tensors
        return difference, difference

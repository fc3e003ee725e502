"""Permute, as SSD's Caffe has it (weiliu89/caffe, permute_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.registry import register


@register(
    "Permute",
    fork=(
        "ssd",
        "ssd_focal",
        "textboxes",
        "textboxes_plus",
        "faceboxes",
        "refinedet",
        "nvidia",
        "intel",
        "happynear",
        "yolo",
        "openvino",
        "synopsys",
        "warpctc",
        "xilinx",
    ),
)
class Permute(Layer):
    """Reorders the axes: first those in ``order``, then the others as they are."""

    options = ("permute_param",)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        order, axes = list(param.permute_param.order), len(bottom_shapes[0])
        for axis in order:
            if axis >= axes:
                raise self.error(
                    f"permute_param.order: {axis} is not one of the {axes} axes of its bottom, 0 … {axes - 1}"
                )
            if order.count(axis) > 1:
                raise self.error(f"permute_param.order names axis {axis} {order.count(axis)} times; name each once")
        self.order = (*order, *(axis for axis in range(axes) if axis not in order))

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.order).contiguous()

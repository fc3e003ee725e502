"""Normalize over whole items, as the Caffe of temporal segment networks has it (yjxiong/caffe, normalize_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.registry import register
from ...tables import dims


@register("Normalize", fork=("tsn", "person_search"))
class ItemNormalize(Layer):
    """Each item (all axes but the first) divided by its L2 norm, without a scale and without options.

    The top has four axes, those that the bottom lacks being 1.
    """

    options = ()

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        if len(bottom_shapes[0]) > 4:
            raise self.error(f"needs a bottom with at most 4 axes, not of shape {dims(bottom_shapes[0])}")

    @classmethod
    def fits(cls, param: Any) -> bool:
        return len(param.top) < 2 and not param.HasField("norm_param") and not param.HasField("normalize_param")

    def forward(self, x: Tensor) -> Tensor:
        x = x.reshape(*x.shape, *(1,) * (4 - x.dim()))
        return x / x.square().sum((1, 2, 3), keepdim=True).sqrt()

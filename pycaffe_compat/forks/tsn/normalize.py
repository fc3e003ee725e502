"""Normalize over whole items, as the Caffe of temporal segment networks has it (yjxiong/caffe, normalize_layer.cpp)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...layers.base import Layer, register


@register("Normalize", fork="tsn")
class ItemNormalize(Layer):
    """Each item (all axes but the first) divided by its L2 norm, without a scale and without options."""

    options = ()

    @classmethod
    def fits(cls, param: Any) -> bool:
        return len(param.top) < 2 and not param.HasField("norm_param") and not param.HasField("normalize_param")

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        return (flat / flat.square().sum(1, keepdim=True).sqrt()).view_as(x)

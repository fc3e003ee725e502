"""Concat that permutes and flattens first, as Intel's Caffe has it (intel/caffe, mkldnn_concat_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.registry import register
from ...tables import dims


@register("Concat", fork="intel")
class FlatConcat(Layer):
    """With ``per_fla_fuse``: the bottoms (N, C, H, W) with channels last, flattened, one after another: (N, numbers, 1, 1).

    Permute, Flatten and Concat make the same of the heads of SSD's nets, which Intel's Caffe has in this order in memory.
    """

    options = ("concat_param",)
    fork_options = frozenset({"concat_param.per_fla_fuse"})
    bottoms = (1, None)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        axis = param.concat_param.concat_dim if param.concat_param.HasField("concat_dim") else param.concat_param.axis
        if axis != 1:
            raise self.error(f"concat_param.per_fla_fuse joins bottoms on axis 1, not {axis}")
        for shape in bottom_shapes:
            if len(shape) != 4 or shape[0] != bottom_shapes[0][0]:
                raise self.error(
                    "concat_param.per_fla_fuse takes bottoms of 4 axes and of one number of items, not of shape "
                    f"{dims(shape)}"
                )

    @classmethod
    def fits(cls, param: Any) -> bool:
        return bool(param.concat_param.per_fla_fuse)

    def forward(self, *bottoms: Tensor) -> Tensor:
        return torch.cat([x.permute(0, 2, 3, 1).flatten(1) for x in bottoms], 1)[:, :, None, None]

"""DropoutChannel, as DeconvNet's Caffe has it (HyeonwooNoh/caffe, dropout_channel_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.registry import register
from ...tables import dims


@register("DropoutChannel", fork="deconvnet")
class DropoutChannel(Layer):
    """In training, whole channels are 0 with probability ``dropout_ratio``; the others are divided by ``1 - dropout_ratio``."""

    options = ("dropout_param",)
    random = True

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.ratio: float = param.dropout_param.dropout_ratio
        if not 0 <= self.ratio < 1:
            raise self.error(f"dropout_param.dropout_ratio: {self.ratio:g} must be at least 0 and below 1")
        if len(bottom_shapes[0]) != 4:
            raise self.error(f"needs a bottom (num, channels, height, width), not of shape {dims(bottom_shapes[0])}")

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout2d(x, self.ratio) if self.training else x

"""What happynear's Caffe makes of whole planes: Gram matrices, coordinates (happynear/caffe-windows)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.registry import register
from ...tables import dims


class _Planes(Layer):
    options = ()

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        if len(bottom_shapes[0]) != 4:
            raise self.error(f"needs a bottom with 4 axes (N, C, H, W), not of shape {dims(bottom_shapes[0])}")


@register("Gram", fork="happynear")
class Gram(_Planes):
    """(N, C, H, W) to (N, C, C, 1): the products of all pairs of channels, summed over places and divided by C * H * W."""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        return (flat @ flat.transpose(1, 2) / (flat.shape[1] * flat.shape[2])).unsqueeze(3)


@register("Slope", fork="happynear")
class Slope(_Planes):
    """Appends two channels to the bottom: the row of each place divided by H, and its column divided by W."""

    def forward(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        rows = (torch.arange(height, dtype=x.dtype, device=x.device) / height)[:, None].expand(height, width)
        columns = (torch.arange(width, dtype=x.dtype, device=x.device) / width).expand(height, width)
        return torch.cat([x, torch.stack([rows, columns]).expand(n, 2, height, width)], 1)

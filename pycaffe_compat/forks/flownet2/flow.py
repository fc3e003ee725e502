"""FlowWarp, ChannelNorm and NegReLU, as FlowNet2's Caffe has them.

Sources: lmb-freiburg/flownet2, flow_warp_layer.cu, channel_norm_layer.cu, neg_relu_layer.cpp.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.registry import register
from ...layers.slope import WithSlope
from ...proto import caffe_pb2
from ...tables import dims


@register("FlowWarp", fork=("flownet2", "pwcnet"))
class FlowWarp(Layer):
    """The image (N, C, H, W) warped by a flow (N, 2, H, W), the offset (x, then y) at which each place reads.

    Between four places the value is interpolated; beyond the last row and column these go on. Outside of
    0 <= x < W, 0 <= y < H the top is ``fill_value``, 0 or not a number, without a gradient.
    """

    options: ClassVar[tuple[str, ...] | None] = ("flow_warp_param",)
    bottoms: ClassVar[tuple[int, int | None]] = (2, 2)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        nothing = param.flow_warp_param.fill_value == caffe_pb2.FlowWarpParameter.NOT_A_NUMBER
        self.fill = math.nan if nothing else 0.0
        image, flow = bottom_shapes
        if len(image) != 4 or flow != (image[0], 2, *image[2:]):
            raise self.error(
                f"needs an image (N, C, H, W) and a flow (N, 2, H, W), not bottoms of {dims(image)} and {dims(flow)}"
            )

    def forward(self, image: Tensor, flow: Tensor) -> Tensor:
        """Return a tensor of the image's shape."""
        height, width = image.shape[2:]
        x = torch.arange(width, device=flow.device, dtype=flow.dtype) + flow[:, 0]
        y = torch.arange(height, device=flow.device, dtype=flow.dtype)[:, None] + flow[:, 1]
        inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
        x, y = (torch.where(inside, each, 0) for each in (x, y))
        left, top = x.detach().long(), y.detach().long()
        right, bottom = (left + 1).clamp(max=width - 1), (top + 1).clamp(max=height - 1)
        a, b = (x - left)[:, None], (y - top)[:, None]
        value = (
            (1 - a) * (1 - b) * values_at(image, top, left)
            + a * (1 - b) * values_at(image, top, right)
            + (1 - a) * b * values_at(image, bottom, left)
            + a * b * values_at(image, bottom, right)
        )
        return torch.where(inside[:, None], value, self.fill)


def values_at(image: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """The values of an image (N, C, H, W) at whole places in it (N, H', W'): (N, C, H', W')."""
    n, channels, _, width = image.shape
    index = (row * width + column).long().flatten(1)[:, None].expand(-1, channels, -1)
    return image.flatten(2).gather(2, index).view(n, channels, *row.shape[1:])


@register("ChannelNorm", fork=("flownet2", "liteflownet", "pwcnet"))
class ChannelNorm(Layer):
    """The L2 norm over the channels of each place: (N, C, H, W) to (N, 1, H, W). Its gradient is ``x / (norm + 1e-9)``."""

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        if len(bottom_shapes[0]) != 4:
            raise self.error(f"needs a bottom (N, C, H, W), not of shape {dims(bottom_shapes[0])}")

    def forward(self, x: Tensor) -> Tensor:
        norm = x.detach().square().sum(1, keepdim=True).sqrt()
        return WithSlope.apply(x, norm, x.detach() / (norm + 1e-9))


@register("NegReLU", fork=("flownet2", "liteflownet", "pwcnet"))
class NegReLU(Layer):
    """``x`` below 0, else ``negative_slope * x``; the gradient at 0 is ``negative_slope``."""

    options = ("relu_param",)
    inert_options = frozenset({"engine"})
    passes_places = True

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.slope = param.relu_param.negative_slope

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x < 0, x, self.slope * x)

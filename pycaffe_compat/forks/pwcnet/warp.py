"""Warp, as PWC-Net adds it to FlowNet2's Caffe (NVlabs/PWC-Net, Caffe/warping_code/warp_layer.cu)."""

from __future__ import annotations

import torch
from torch import Tensor

from ...layers.registry import register
from ..flownet2.flow import FlowWarp, values_at


@register("Warp", fork="pwcnet")
class WarpBy(FlowWarp):
    """FlowWarp without options: the top is 0 outside of 0 <= x <= W - 1, 0 <= y <= H - 1.

    At a whole number the gradient by the flow is the mean of the slopes on both sides, of which one outside counts as 0.
    """

    options = ()

    def forward(self, image: Tensor, flow: Tensor) -> Tensor:
        """Return a tensor of the image's shape."""
        height, width = image.shape[2:]
        x = torch.arange(width, device=flow.device, dtype=flow.dtype) + flow[:, 0]
        y = torch.arange(height, device=flow.device, dtype=flow.dtype)[:, None] + flow[:, 1]
        inside = (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)
        x, y = (torch.where(inside, each, 0) for each in (x, y))
        left, right, top, bottom = x.detach().floor(), x.detach().ceil(), y.detach().floor(), y.detach().ceil()
        a, b = (x - left)[:, None], (y - top)[:, None]
        upper = (1 - a) * values_at(image, top, left) + a * values_at(image, top, right)
        lower = (1 - a) * values_at(image, bottom, left) + a * values_at(image, bottom, right)
        value = (1 - b) * upper + b * lower
        if flow.requires_grad:
            with torch.no_grad():
                across = (1 - b) * _slope(image, top, left, 1) + b * _slope(image, bottom, left, 1)
                down = (1 - a) * _slope(image, top, left, 0) + a * _slope(image, top, right, 0)
                across = torch.where((left == right)[:, None], across, 0)
                down = torch.where((top == bottom)[:, None], down, 0)
            value = value + across * (x - x.detach())[:, None] + down * (y - y.detach())[:, None]
        return torch.where(inside[:, None], value, 0)


def _slope(image: Tensor, row: Tensor, column: Tensor, along: int) -> Tensor:
    """Half the step from the place before to that behind, along rows (0) or columns (1); steps that lead outside are 0."""
    here, at, side = values_at(image, row, column), (row, column)[along], image.shape[2 + along]
    total = torch.zeros_like(here)
    for step in (-1, 1):
        inside = (at + step >= 0) & (at + step < side)
        moved = torch.where(inside, at + step, at)
        there = values_at(image, moved, column) if along == 0 else values_at(image, row, moved)
        total = total + step * (there - here)
    return total / 2

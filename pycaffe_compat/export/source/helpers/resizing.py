"""Planes of other sizes, and places for channels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def place_at_mask(x: Tensor, mask: Tensor, height: int, width: int) -> Tensor:
    """Put each value where its mask points; of several at one place the last stands."""
    index = mask.long().flatten(2)
    order = torch.arange(index.shape[2], device=x.device).expand_as(index)
    last = index.new_full((x.shape[0], x.shape[1], height * width), -1)
    last = last.scatter_reduce(2, index, order, "amax")
    y = torch.where(last < 0, 0, x.flatten(2).gather(2, last.clamp(min=0)))
    return y.reshape(x.shape[0], x.shape[1], height, width)


def reorg(x: Tensor, stride: int, reverse: bool = False) -> Tensor:
    """Darknet's exchange of places for channels."""
    n, c, h, w = x.shape
    few = c // stride**2
    if reverse:
        x = x.reshape(n, stride, stride, few, h, w).permute(0, 3, 4, 1, 5, 2)
        return x.reshape(n, few, h * stride, w * stride)
    x = x.reshape(n, few, h, stride, w, stride).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(n, c * stride**2, h // stride, w // stride)


def squares_to_channels(x: Tensor, side: int, reverse: bool = False) -> Tensor:
    """Squares of places to channels, those of a place side by side; or back."""
    n, c, h, w = x.shape
    if reverse:
        few = c // side**2
        x = x.reshape(n, side, side, few, h, w).permute(0, 3, 4, 1, 5, 2)
        return x.reshape(n, few, h * side, w * side)
    h, w = h // side, w // side
    x = x.reshape(n, c, h, side, w, side).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(n, c * side**2, h, w)


def resize_nearest(x: Tensor, size: tuple[int, int]) -> Tensor:
    """The value at the left and above of each place, as OpenCV finds it."""
    for axis, after in enumerate(size, 2):
        step = 1 / (after / x.shape[axis])
        places = [min(int(place * step), x.shape[axis] - 1) for place in range(after)]
        x = x.index_select(axis, torch.tensor(places, device=x.device))
    return x


def resize(x: Tensor, shrink: int, zoom: int) -> Tensor:
    """Bilinear interpolation with aligned corners, by factors."""
    height, width = ((n - 1) // shrink + 1 for n in x.shape[2:])
    size = (height + (height - 1) * (zoom - 1), width + (width - 1) * (zoom - 1))
    return F.interpolate(x, size, mode="bilinear", align_corners=True)

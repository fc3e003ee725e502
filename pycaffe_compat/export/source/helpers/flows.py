"""Optical flow."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def warp(
    image: Tensor,
    flow: Tensor,
    fill: float = 0,
    past_last: bool = True,
) -> Tensor:
    """The image as seen along a flow, x and y for each place; outside it is fill.

    With past_last it ends one step after its last row and column.
    """
    height, width = image.shape[2:]
    x = torch.arange(width, device=flow.device) + flow[:, :1]
    y = torch.arange(height, device=flow.device)[:, None] + flow[:, 1:]
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    if not past_last:
        inside = inside & (x <= width - 1) & (y <= height - 1)
    x, y = torch.where(inside, x, 0), torch.where(inside, y, 0)
    left, top = x.long(), y.long()
    right, bottom = (left + 1).clamp(max=width - 1), (top + 1).clamp(max=height - 1)
    a, b = x - left, y - top
    planes = image.flatten(2)
    corners = [
        ((1 - a) * (1 - b), top, left),
        (a * (1 - b), top, right),
        ((1 - a) * b, bottom, left),
        (a * b, bottom, right),
    ]
    value = torch.zeros_like(image)
    for share, row, column in corners:
        index = (row * width + column).flatten(2).expand(-1, planes.shape[1], -1)
        value = value + share * planes.gather(2, index).view_as(image)
    return torch.where(inside, value, fill)


def read_at(image: Tensor, places: Tensor) -> Tensor:
    """The image at places, x and y for each; what lies outside counts as 0."""
    height, width = image.shape[2:]
    x, y = places[:, :1], places[:, 1:]
    planes = image.flatten(2)
    value = torch.zeros_like(image)
    for row in (y.floor(), y.floor() + 1):
        for column in (x.floor(), x.floor() + 1):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            share = (1 - (row - y).abs()) * (1 - (column - x).abs())
            index = torch.where(inside, row * width + column, 0).long().flatten(2)
            found = planes.gather(2, index.expand(-1, planes.shape[1], -1))
            value = value + torch.where(inside, share * found.view_as(image), 0)
    return value


def place_grid(x: Tensor) -> Tensor:
    """Where each place of planes is, x and y: (N, 2, H, W)."""
    rows = torch.arange(x.shape[2], dtype=x.dtype, device=x.device)
    columns = torch.arange(x.shape[3], dtype=x.dtype, device=x.device)
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"))
    return grid.expand(x.shape[0], -1, -1, -1)


def exp_max(x: Tensor, inner: float, outer: float) -> Tensor:
    """Scaled exponentials; the first item's less its largest channel."""
    most = x.amax(1, keepdim=True)
    most = torch.cat([most[:1], torch.zeros_like(most[1:])])
    return outer * (inner * (x - most)).exp()


def mean_of_known(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Weighted means of planes without what is no number; nan where much is missing."""
    missing = x.isnan()
    values = rows @ torch.where(missing, 0, x) @ columns
    known = rows @ (~missing).to(x.dtype) @ columns
    unknown = rows @ missing.to(x.dtype) @ columns
    return torch.where(unknown / known > 0.5, float("nan"), values / known)


def stack_resized(inputs: tuple[Tensor, ...], size: tuple[int, int]) -> Tensor:
    """The channels of all, with planes of one size."""
    planes = []
    for x in inputs:
        planes.append(F.interpolate(x, size, mode="bilinear", align_corners=True))
    return torch.cat(planes, 1)


def correlate(
    first: Tensor,
    second: Tensor,
    rows: range,
    columns: range,
    reach: tuple[int, int],
    padding: tuple[int, int],
    kernel: int = 1,
    stride: int = 1,
    subtract: bool = False,
) -> Tensor:
    """The mean product (or difference) of windows with displaced ones of the second."""
    beyond = max(0, -columns[0] - reach[1])
    pads = [padding[1] + beyond, padding[1] + beyond, padding[0], padding[0]]
    first, second = F.pad(first, pads), F.pad(second, pads)
    top, left = reach[0], reach[1] + beyond
    height = first.shape[2] - 2 * top
    width = first.shape[3] - 2 * left
    here = first[:, :, top : top + height, left : left + width]
    maps = []
    for row in rows:
        for column in columns:
            y, x = top + row, left + column
            there = second[:, :, y : y + height, x : x + width]
            each = (here - there).abs() if subtract else here * there
            maps.append(each.mean(1))
    return F.avg_pool2d(torch.stack(maps, 1), kernel, stride)

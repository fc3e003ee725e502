"""Boxes as MobileNet-YOLO's Caffe computes with them (eric612/MobileNet-YOLO, bbox_util.cpp).

A box is its centre, width and height: x, y, w, h on the last axis, in parts of the image.
"""

from __future__ import annotations

import torch
from torch import Tensor


def overlaps(a: Tensor, b: Tensor) -> Tensor:
    """The intersection over union of each box of ``a`` (…, n, 4) with each of ``b`` (…, m, 4), as (…, n, m).

    Two boxes without any area give NaN, as in the fork.
    """
    a, b = a.unsqueeze(-2), b.unsqueeze(-3)
    low = torch.maximum(a[..., :2] - a[..., 2:] / 2, b[..., :2] - b[..., 2:] / 2)
    high = torch.minimum(a[..., :2] + a[..., 2:] / 2, b[..., :2] + b[..., 2:] / 2)
    sides = high - low
    common = sides.prod(-1).masked_fill((sides < 0).any(-1), 0)
    return common / (a[..., 2:].prod(-1) + b[..., 2:].prod(-1) - common)


def by_cell(x: Tensor, anchors: int) -> Tensor:
    """The numbers of each anchor (N, anchors, numbers, H, W) of a map (N, anchors * numbers, H, W)."""
    n, channels, height, width = x.shape
    return x.reshape(n, anchors, channels // anchors, height, width)


def decode(offsets: Tensor, exponents: Tensor, anchors: Tensor) -> Tensor:
    """The boxes (N, A, 4, H, W) that a map predicts.

    Args:
        offsets: of x and y in their cells (N, A, 2, H, W), 0 to 1.
        exponents: of widths and heights (N, A, 2, H, W).
        anchors: widths and heights (A, 2) in parts of the image.
    """
    height, width = offsets.shape[-2:]
    y, x = (torch.arange(side, device=offsets.device, dtype=offsets.dtype) for side in (height, width))
    centre = torch.stack(((x + offsets[:, :, 0]) / width, (y[:, None] + offsets[:, :, 1]) / height), 2)
    return torch.cat((centre, exponents.exp() * anchors[:, :, None, None]), 2)

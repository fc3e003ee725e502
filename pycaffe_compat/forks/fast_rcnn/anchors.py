"""Anchors, the boxes at every place of a map that region proposals start from, as in Faster R-CNN.

A box is x1, y1, x2, y2 in pixels, and holds its last row and column.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def placed(anchors: np.ndarray, stride: int, height: int, width: int, like: Tensor) -> Tensor:
    """The ``anchors`` (A, 4) at every place of a map, by row, column and anchor, as (height * width * A, 4).

    Args:
        stride: how many pixels are between two places.
        like: has the type and the device that are wanted.
    """
    y, x = (torch.arange(side, device=like.device, dtype=like.dtype) * stride for side in (height, width))
    y, x = torch.meshgrid(y, x, indexing="ij")
    return (torch.stack((x, y, x, y), -1)[:, :, None] + torch.from_numpy(anchors).to(like)).reshape(-1, 4)


def moved(anchors: Tensor, codes: Tensor) -> Tensor:
    """Anchors (n, 4), shifted by parts of their sides and scaled by exponents, as ``codes`` (…, n, 4) say."""
    size = anchors[..., 2:] - anchors[..., :2] + 1
    centre = codes[..., :2] * size + (anchors[..., :2] + 0.5 * size)
    half = 0.5 * (codes[..., 2:].exp() * size)
    return torch.cat((centre - half, centre + half), -1)

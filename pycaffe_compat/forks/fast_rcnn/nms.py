"""Non-maximum suppression of regions in pixels, as in Faster R-CNN: a box holds its last row and column."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

_BLOCK = 256  # boxes that are compared each with each at once


def overlaps(a: Tensor, b: Tensor, touching: bool = False) -> Tensor:
    """The intersection over union of each box of ``a`` (n, 4) with each of ``b`` (m, 4), as (n, m).

    Args:
        touching: boxes less than a pixel apart overlap, too.
    """
    (x1, y1, x2, y2), (left, top, right, bottom) = a.T[..., None], b.T
    width = torch.minimum(x2, right).sub_(torch.maximum(x1, left))
    height = torch.minimum(y2, bottom).sub_(torch.maximum(y1, top))
    common = (width + 1).clamp_(min=0).mul_((height + 1).clamp_(min=0))
    if not touching:
        common.masked_fill_((width < 0) | (height < 0), 0)
    areas = (x2 - x1 + 1) * (y2 - y1 + 1) + (right - left + 1) * (bottom - top + 1)
    return common / areas.sub_(common)


def suppress(boxes: Tensor, threshold: float, most: int, touching: bool = False) -> Tensor:
    """Which boxes stay: from the first to the last, each that overlaps none that stays by more than ``threshold``.

    Args:
        boxes: (n, 4) of x1, y1, x2, y2, the best first.
        most: how many may stay.
        touching: as for :func:`overlaps`.

    Returns:
        their numbers in order, int64, at most ``most``.
    """
    return suppress_by(lambda a, b: overlaps(a, b, touching) > threshold, boxes, most)


def suppress_by(near: Callable[[Tensor, Tensor], Tensor], boxes: Tensor, most: int | None = None) -> Tensor:
    """As :func:`suppress`, of boxes (n, …) of any kind.

    Args:
        near: says of some boxes (n, …) and others (m, …) which suppress each other, as (n, m).
        most: how many may stay; None for all.
    """
    rest = torch.arange(len(boxes), device=boxes.device)
    kept, number = [rest[:0]], 0
    while len(rest) and (most is None or number < most):
        block, rest = rest[:_BLOCK], rest[_BLOCK:]
        free = np.ones(len(block), dtype=bool)
        for i, row in enumerate(near(boxes[block], boxes[block]).cpu().numpy()):
            if free[i]:
                free[i + 1 :] &= ~row[i + 1 :]
        kept.append(block[torch.from_numpy(free).to(block.device)])
        number += len(kept[-1])
        rest = rest[~near(boxes[kept[-1]], boxes[rest]).any(0)]
    return torch.cat(kept)[:most]

"""Which boxes stand for which ground truth, as in SSD's Caffe (weiliu89/caffe, branch ssd, bbox_util.cpp)."""

from __future__ import annotations

import torch
from torch import Tensor

from . import boxes as bx

LEAST_OVERLAP = 1e-6
UNMATCHED, LEFT_OUT = -1, -2


def match(
    boxes: Tensor, truth: Tensor, exists: Tensor, threshold: float | None, inside_only: bool = False
) -> tuple[Tensor, Tensor]:
    """Which true box each of the boxes stands for, in groups that are independent of each other.

    First each true box takes, the largest overlap of all going first, the box that it overlaps most and that is free. Then
    each free box takes the true box that it overlaps most. Overlaps of 1e-6 or less are none.

    Args:
        boxes: (G, P, 4), or (1, P, 4) for the same in all groups.
        truth: (G, M, 4), M being 1 or more.
        exists: (G, M), whether there is such a true box.
        threshold: the least overlap of the second step; None leaves it out.
        inside_only: whether boxes that reach out of the picture are left out.

    Returns:
        The index of the true box, (G, P), or :data:`UNMATCHED`, or :data:`LEFT_OUT`; and the largest overlap of each box
        with a true one, (G, P).
    """
    overlap = bx.overlaps(boxes, truth)
    usable = (overlap > LEAST_OVERLAP) & exists[:, None]
    index = torch.full(overlap.shape[:2], UNMATCHED, device=overlap.device)
    if inside_only:
        outside = bx.cross_boundary(boxes).expand(index.shape)
        usable &= ~outside[..., None]
        index.masked_fill_(outside, LEFT_OUT)
    overlap = overlap.masked_fill_(~usable, 0)
    most, favourite = overlap.max(2)
    open_ = overlap.transpose(1, 2).contiguous()
    number = torch.arange(truth.shape[1], device=overlap.device)
    while True:
        # a pair that is the best for both is taken by whoever goes through all pairs from the largest overlap on
        best, place = open_.max(2)
        rival = open_.gather(2, place[:, None].expand(-1, len(number), -1)).max(1).indices
        group, true = ((best > 0) & (rival == number)).nonzero(as_tuple=True)
        if not len(group):
            break
        place = place[group, true]
        index[group, place] = true
        open_[group, :, place] = 0
        open_[group, true] = 0
    if threshold is not None:
        takes = (most >= threshold) & (most > 0) & (index == UNMATCHED)
        index = torch.where(takes, favourite, index)
    return index, most

"""Overlaps that tell how far apart boxes are, and their gradients (eric612/MobileNet-YOLO, bbox_util.cpp and yolov3_layer.cpp).

The fork has them from Darknet: generalized IoU (Rezatofighi et al., 2019), distance IoU and complete IoU (Zheng et al., 2020).
A box is x, y, w, h on the last axis. Gradients are not quite derivatives: that of a width or height is not halved, and what
pulls centres together keeps the fork's signs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

KINDS = ("IOU", "GIOU", "DIOU", "CIOU")


def similarity(kind: str, a: Tensor, b: Tensor) -> Tensor:
    """How alike boxes are, 1 at most: the IoU less what ``kind``, one of :data:`KINDS`, takes off for their distance.

    Args:
        a, b: (…, 4), broadcast against each other.
    """
    low, high = _corners(a)
    b_low, b_high = _corners(b)
    inner = torch.minimum(high, b_high) - torch.maximum(low, b_low)
    common = inner.prod(-1).masked_fill((inner < 0).any(-1), 0)
    union = a[..., 2:].prod(-1) + b[..., 2:].prod(-1) - common
    iou = common / union
    if kind == "IOU":
        return iou
    hull = torch.maximum(high, b_high) - torch.minimum(low, b_low)
    if kind == "GIOU":
        area = hull.prod(-1)
        return torch.where(area == 0, iou, iou - (area - union) / area)
    diagonal = hull.square().sum(-1)
    apart = (a[..., :2] - b[..., :2]).square().sum(-1) / diagonal
    if kind == "DIOU":
        return torch.where(diagonal == 0, iou, iou - apart**0.6)
    shape = 4 / math.pi**2 * _angle(a, b).square()
    return torch.where(diagonal == 0, iou, iou - apart - shape / (1 - iou + shape + 1e-6) * shape)


def gradient(kind: str, box: Tensor, true: Tensor) -> Tensor:
    """What the fork takes for the gradient of :func:`similarity` by x, y, w and h of ``box``, as (…, 4).

    Args:
        box, true: (…, 4), of one shape.
    """
    (low, high), (true_low, true_high) = _corners(box), _corners(true)
    size = high - low
    inner = torch.minimum(high, true_high) - torch.maximum(low, true_low)
    hull = torch.maximum(high, true_high) - torch.minimum(low, true_low)
    common = inner.prod(-1, keepdim=True)
    union = size.prod(-1, keepdim=True) + (true_high - true_low).prod(-1, keepdim=True) - common
    apart = (inner <= 0).any(-1, keepdim=True)

    # by the low and the high edges on each axis: the other side of a rectangle is what it gains
    of_inner = torch.where(low > true_low, -inner.flip(-1), 0), torch.where(high < true_high, inner.flip(-1), 0)
    of_union = -size.flip(-1) - of_inner[0], size.flip(-1) - of_inner[1]
    edges = [
        torch.where(union > 0, (union * i - common * u) / union.square(), 0)
        for i, u in zip(of_inner, of_union, strict=True)
    ]
    if kind == "GIOU":
        area = hull.prod(-1, keepdim=True)
        of_hull = torch.where(low < true_low, -hull.flip(-1), 0), torch.where(high > true_high, hull.flip(-1), 0)
        pull = [(area * u - union * c) / area.square() for u, c in zip(of_union, of_hull, strict=True)]
        edges = [
            torch.where(apart, 0, edge) + torch.where((area > 0) | apart, p, 0)
            for edge, p in zip(edges, pull, strict=True)
        ]
    centre, side = edges[0] + edges[1], edges[1] - edges[0]
    if kind in ("DIOU", "CIOU"):
        diagonal = hull.square().sum(-1, keepdim=True)
        between = (box[..., :2] - true[..., :2]).square().sum(-1, keepdim=True)
        grows = (high > true_high).to(box) - (low < true_low).to(box)
        widens = 0.5 * ((high > true_high).to(box) + (low < true_low).to(box))
        pull_centre = (2 * (true[..., :2] - box[..., :2]) * diagonal - 2 * hull * grows * between) / diagonal.square()
        pull_side = 2 * hull * widens * between / diagonal.square()
        if kind == "CIOU":
            angle = _angle(box, true)[..., None]
            shape = 4 / math.pi**2 * angle.square()
            weight = shape / (1 - common / union + shape + 1e-6)
            turn = torch.cat((box[..., 3:], -box[..., 2:3]), -1) * (8 / math.pi**2) * angle
            pull_side = pull_side + weight * turn
        centre = torch.where(apart, 0, centre) + torch.where((diagonal > 0) | apart, pull_centre, 0)
        side = torch.where(apart, 0, side) + torch.where((diagonal > 0) | apart, pull_side, 0)
    return torch.cat((centre, side), -1)


def _corners(box: Tensor) -> tuple[Tensor, Tensor]:
    return box[..., :2] - box[..., 2:] / 2, box[..., :2] + box[..., 2:] / 2


def _angle(box: Tensor, true: Tensor) -> Tensor:
    """The angle between the diagonals of two boxes."""
    return (true[..., 2] / true[..., 3]).atan() - (box[..., 2] / box[..., 3]).atan()

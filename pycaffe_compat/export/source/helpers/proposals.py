"""Regions that R-CNN's nets propose."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def keep_best(
    boxes: Tensor,
    near: Callable[[Tensor, Tensor], Tensor],
    most: int | None = None,
) -> list[int]:
    """Boxes, the best first: those that no better one that stays is near to."""
    kept: list[int] = []
    free = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    for i in range(len(boxes)):
        if free[i]:
            kept.append(i)
            free = free & ~near(boxes[i], boxes)
        if len(kept) == most:
            break
    return kept


def pixel_overlaps(box: Tensor, boxes: Tensor, touching: bool = False) -> Tensor:
    """The intersection over union of one box and others, which hold their last pixels.

    With touching, boxes less than a pixel apart overlap, too.
    """
    low = torch.maximum(box[:2], boxes[:, :2])
    side = torch.minimum(box[2:], boxes[:, 2:]) - low
    common = (side + 1).clamp(min=0).prod(1)
    if not touching:
        common = torch.where((side < 0).any(1), 0, common)
    areas = (boxes[:, 2:] - boxes[:, :2] + 1).prod(1)
    return common / ((box[2:] - box[:2] + 1).prod() + areas - common)


def move_anchors(anchors: Tensor, codes: Tensor) -> Tensor:
    """Boxes by how their centres and sizes differ from those of anchors."""
    size = anchors[:, 2:] - anchors[:, :2] + 1
    centre = codes[..., :2] * size + (anchors[:, :2] + 0.5 * size)
    half = 0.5 * (codes[..., 2:].exp() * size)
    return torch.cat([centre - half, centre + half], -1)


def propose(
    scores: Tensor,
    codes: Tensor,
    sizes: Tensor,
    anchors: Tensor,
    min_size: float,
    overlap: float,
    before: int,
    after: int,
) -> tuple[Tensor, Tensor]:
    """Regions of interest (R, 5), image, left, top, right, bottom, and their scores."""
    n, a = len(scores), scores.shape[1] // 2
    scores = scores[:, a:].permute(0, 2, 3, 1).reshape(n, -1)
    codes = codes.unflatten(1, (a, 4)).permute(0, 3, 4, 1, 2).reshape(n, -1, 4)
    height, width, *factors = sizes.flatten().tolist()
    last = codes.new_tensor([width, height, width, height]) - 1
    boxes = move_anchors(anchors, codes)
    boxes = torch.where(boxes.isnan(), 0, boxes).minimum(last).clamp(min=0)
    sides = boxes[..., 2:] - boxes[..., :2] + 1
    tall, wide = factors[:2] if len(factors) > 1 else (1, 1)
    least = sides.new_tensor([min_size * wide, min_size * tall])
    scores = (sides >= least).all(-1) * scores  # a box that is too small stays
    regions, values = [], []
    for image in range(n):
        score, order = scores[image].sort(descending=True, stable=True)
        box = boxes[image, order[:before]]
        kept = keep_best(box, lambda a, b: pixel_overlaps(a, b) > overlap, after)
        regions.append(torch.cat([box.new_full((len(kept), 1), image), box[kept]], 1))
        values.append(score[kept])
    return torch.cat(regions), torch.cat(values)


def propose_of_one(
    scores: Tensor,
    codes: Tensor,
    sizes: Tensor,
    anchors: Tensor,
    min_size: float,
    overlap: float,
    most: int,
) -> tuple[Tensor, Tensor]:
    """Regions of interest of one image, (R, 5): 0, left, top, right, bottom; scores."""
    a = scores.shape[1] // 2
    scores = scores[0, a:].flatten()
    codes = codes.reshape(a, 4, -1).transpose(1, 2).reshape(-1, 4)
    height, width, scale = sizes.flatten().tolist()[:3]
    last = codes.new_tensor([int(width), int(height)] * 2) - 1
    boxes = move_anchors(anchors, codes)
    boxes = torch.where(boxes < last, boxes, last).clamp(min=0)
    stays = (boxes[:, 2:] - boxes[:, :2] + 1 >= min_size * scale).all(1)
    stays[-1] = True
    scores, boxes = scores[stays].flip(0), boxes[stays].flip(0)
    scores, order = scores.sort(descending=True, stable=True)
    boxes = boxes[order]
    kept = keep_best(boxes, lambda a, b: pixel_overlaps(a, b, True) > overlap, most)
    return F.pad(boxes[kept], (1, 0)), scores[kept, None]


def propose_large(
    scores: Tensor,
    codes: Tensor,
    sizes: Tensor,
    anchors: Tensor,
    min_size: float,
    overlap: float,
    before: int,
    after: int,
) -> tuple[Tensor, Tensor]:
    """Regions of interest as Faster R-CNN proposes them, (R, 5), and their scores."""
    scores = scores[0, scores.shape[1] // 2 :].permute(1, 2, 0).flatten()
    codes = codes[0].permute(1, 2, 0).reshape(-1, 4)
    height, width, scale = sizes.flatten().tolist()[:3]
    last = codes.new_tensor([width, height, width, height]) - 1
    boxes = move_anchors(anchors, codes).minimum(last).clamp(min=0)
    large = (boxes[:, 2:] - boxes[:, :2] + 1 >= min_size * scale).all(1)
    scores, boxes = scores[large], boxes[large]
    scores, order = scores.sort(descending=True, stable=True)
    boxes = boxes[order[:before]]
    kept = keep_best(boxes, lambda a, b: pixel_overlaps(a, b, True) > overlap, after)
    return F.pad(boxes[kept], (1, 0)), scores[kept, None]

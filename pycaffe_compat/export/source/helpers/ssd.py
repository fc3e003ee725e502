"""SSD's detections."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def decode_corners(code: Tensor, prior: Tensor) -> Tensor:
    """Boxes by how far their corners are from those of the priors."""
    return prior + code


def decode_corner_size(code: Tensor, prior: Tensor) -> Tensor:
    """The same, by the size of the priors."""
    size = prior[..., 2:] - prior[..., :2]
    return prior + code * torch.cat([size, size], -1)


def decode_centre_size(code: Tensor, prior: Tensor) -> Tensor:
    """Boxes by how their centres and sizes differ from those of the priors."""
    size = prior[..., 2:] - prior[..., :2]
    centre = code[..., :2] * size + (prior[..., :2] + prior[..., 2:]) / 2
    half = (code[..., 2:].double().exp() * size).to(code.dtype) / 2
    return torch.cat([centre - half, centre + half], -1)


def box_areas(boxes: Tensor) -> Tensor:
    """Width times height; 0 where a box ends before it begins."""
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    return torch.where((width < 0) | (height < 0), 0, width * height)


def overlaps(box: Tensor, boxes: Tensor) -> Tensor:
    """The intersection over union of one box (1, 4) and others."""
    low = torch.maximum(box[:, :2], boxes[:, :2])
    high = torch.minimum(box[:, 2:], boxes[:, 2:])
    width, height = (high - low).clamp(min=0).unbind(1)
    common = width * height
    union = box_areas(box) + box_areas(boxes) - common
    return common / union.clamp(min=torch.finfo(boxes.dtype).tiny)


def suppress(boxes: Tensor, overlap: float, eta: float) -> list[int]:
    """Non-maximum suppression of boxes, the best first: those that stay."""
    kept, most = [], boxes.new_zeros(len(boxes))
    for i in range(len(boxes)):
        if most[i] <= overlap:
            kept.append(i)
            most = torch.maximum(most, overlaps(boxes[i : i + 1], boxes))
            overlap *= eta if overlap > 0.5 else 1
    return kept


def detect(
    loc: Tensor,
    conf: Tensor,
    prior: Tensor,
    decode: Callable[[Tensor, Tensor], Tensor],
    classes: int,
    background: int,
    overlap: float,
    least_score: float,
    top_k: int = -1,
    keep_top_k: int = -1,
    eta: float = 1,
    use_variances: bool = True,
    one_row: bool = False,
) -> Tensor:
    """SSD's detections, (1, 1, K, 7): image, label, score, xmin, ymin, xmax, ymax.

    Without any they are (1, 1, N, 7): the image and -1. With ``one_row`` they are
    then one row of -1.
    """
    images, priors = len(loc), prior.shape[2] // 4
    prior, variance = prior.reshape(-1, 2, priors, 1, 4).unbind(1)
    codes = loc.reshape(images, priors, -1, 4)
    boxes = decode(variance * codes if use_variances else codes, prior)
    boxes = boxes.expand(images, priors, classes, 4)
    scores = conf.reshape(images, priors, classes)
    found = []
    for image in range(images):
        rows = []
        for label in (label for label in range(classes) if label != background):
            chosen = (scores[image, :, label] > least_score).nonzero().flatten()
            score = scores[image, chosen, label]
            order = score.argsort(descending=True, stable=True)
            order = order if top_k < 0 else order[:top_k]
            box, score = boxes[image, chosen[order], label], score[order, None]
            kept = suppress(box, overlap, eta)
            head = score.new_tensor([image, label]).expand(len(kept), 2)
            rows.append(torch.cat([head, score[kept], box[kept]], 1))
        best = torch.cat(rows)
        if -1 < keep_top_k < len(best):
            order = best[:, 2].argsort(descending=True, stable=True)[:keep_top_k]
            best = best[order.sort().values]
        found.append(best)
    made = torch.cat(found)
    if not len(made):
        made = loc.new_full((1 if one_row else images, 7), -1)
        if not one_row:
            made[:, 0] = torch.arange(images)
    return made[None, None]


def move_priors(
    moves: Tensor,
    prior: Tensor,
    decode: Callable[[Tensor, Tensor], Tensor],
    use_variances: bool = True,
) -> Tensor:
    """The priors of each image, which codes move: (N, 2, priors * 4)."""
    boxes, variances = prior.reshape(2, -1, 4)
    codes = moves.reshape(len(moves), -1, 4)
    moved = decode(variances * codes if use_variances else codes, boxes)
    return torch.stack([moved, variances.expand_as(moved)], 1).flatten(2)


def drop_weak(conf: Tensor, objects: Tensor, classes: int, least: float) -> Tensor:
    """The scores of priors, where those that hold no object count as class 0."""
    scores = conf.reshape(len(conf), -1, classes)
    weak = objects.reshape(len(conf), -1, 2)[..., 1:] < least
    nothing = F.one_hot(torch.zeros_like(weak, dtype=torch.long), classes)[..., 0, :]
    return torch.where(weak, nothing.to(conf.dtype), scores).flatten(1)

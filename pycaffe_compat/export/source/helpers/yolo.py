"""YOLO's detections."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .proposals import keep_best


def centre_overlaps(box: Tensor, boxes: Tensor) -> Tensor:
    """The intersection over union of one box and others: x, y, width, height."""
    low = torch.maximum(box[:2] - box[2:] / 2, boxes[:, :2] - boxes[:, 2:] / 2)
    high = torch.minimum(box[:2] + box[2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2)
    common = torch.where((high < low).any(1), 0, (high - low).prod(1))
    return common / (box[2:].prod() + boxes[:, 2:].prod(1) - common)


def grid_boxes(offsets: Tensor, exponents: Tensor, anchors: Tensor) -> Tensor:
    """The boxes of the cells of maps (N, H, W, anchors, 2), in parts of the image."""
    height, width = offsets.shape[1:3]
    y, x = torch.meshgrid(
        torch.arange(height, device=offsets.device),
        torch.arange(width, device=offsets.device),
        indexing="ij",
    )
    centre = torch.stack([x, y], -1)[:, :, None] + offsets
    centre = centre / offsets.new_tensor([width, height])
    return torch.cat([centre, exponents.exp() * anchors], -1)


def read_yolo_v2(
    cells: Tensor,
    anchors: Tensor,
    least_score: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The boxes of cells (N, H, W, anchors, numbers), their best classes and scores."""
    boxes = grid_boxes(cells[..., :2].sigmoid(), cells[..., 2:4], anchors)
    best, classes = cells[..., 5:].softmax(-1).max(-1)
    scores = cells[..., 4].sigmoid() * best
    found = scores >= least_score
    return boxes[found], classes[found], scores[found]


def read_yolo_v3(
    cells: Tensor,
    anchors: Tensor,
    least_score: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The same; a box counts for every class that is likely enough."""
    boxes = grid_boxes(cells[..., :2].sigmoid(), cells[..., 2:4], anchors)
    scores = cells[..., 5:].sigmoid() * cells[..., 4:5].sigmoid()
    found = scores > least_score
    *place, classes = found.nonzero().unbind(1)
    return boxes[tuple(place)], classes, scores[found]


def read_gaussian_yolo(
    cells: Tensor,
    anchors: Tensor,
    least_score: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The same, of boxes that say how far each of their numbers may be off."""
    boxes = grid_boxes(cells[..., 0:3:2].sigmoid(), cells[..., 4:7:2], anchors)
    spread = cells[..., 1:8:2].sigmoid()
    certain = 4 - spread.sum(-1) - spread[..., 0]
    objects = cells[..., 8].sigmoid() * certain / 4
    scores = cells[..., 9:].sigmoid() * objects[..., None]
    found = scores > least_score
    *place, classes = found.nonzero().unbind(1)
    return boxes[tuple(place)], classes, scores[found]


def detect_in_grids(
    maps: tuple[Tensor, ...],
    read: Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor, Tensor]],
    anchors: tuple[tuple[tuple[float, float], ...], ...],
    images: tuple[tuple[int, int], ...],
    least_score: float,
    overlap: float,
) -> Tensor:
    """YOLO's detections, (1, 1, K, 7): 0, label, score, xmin, ymin, xmax, ymax.

    Anchors are in pixels of images of a width and height. Without any detection the
    rows are (1, 1, N, 7): the image and -1.
    """
    found = []
    for x, pairs, image in zip(maps, anchors, images, strict=True):
        cells = x.unflatten(1, (len(pairs), -1)).permute(0, 3, 4, 1, 2)
        sizes = x.new_tensor(pairs) / x.new_tensor(image)
        found.append(read(cells, sizes, least_score))
    boxes, classes, scores = map(torch.cat, zip(*found, strict=True))
    scores, order = scores.sort(descending=True, stable=True)
    boxes, classes = boxes[order], classes[order]
    kept = keep_best(boxes, lambda a, b: centre_overlaps(a, b) >= overlap)
    if not kept:
        made = maps[0].new_full((len(maps[0]), 7), -1)
        made[:, 0] = torch.arange(len(made))
        return made[None, None]
    centre, half = boxes[kept, :2], boxes[kept, 2:] / 2
    head = [torch.zeros_like(scores[kept]), classes[kept] + 1, scores[kept]]
    rows = [torch.stack(head, 1), centre - half, centre + half]
    return torch.cat(rows, 1)[None, None]

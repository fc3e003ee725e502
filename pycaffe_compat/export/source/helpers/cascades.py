"""Boxes of MS-CNN and Cascade R-CNN."""

from __future__ import annotations

import torch
from torch import Tensor

from .proposals import keep_best


def boxes_of_regions(
    codes: Tensor,
    regions: Tensor,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Tensor:
    """The boxes (R, K, 4) that codes make of regions (R, 4), with their last pixels."""
    codes = codes.reshape(len(codes), -1, 4)
    codes = codes * codes.new_tensor(std) + codes.new_tensor(mean)
    size = (regions[:, 2:] - regions[:, :2] + 1)[:, None]
    centre = (0.5 * (regions[:, 2:] + regions[:, :2]))[:, None]
    sides = size * codes[..., 2:].exp()
    low = codes[..., :2] * size + centre - (sides - 1) / 2
    return torch.cat([low, low + sides - 1], -1)


def next_regions(
    codes: Tensor,
    regions: Tensor,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Tensor:
    """The regions (R, 5, 1, 1) of the next stage: by the second code of each."""
    rows = regions.reshape(-1, 5)
    boxes = boxes_of_regions(codes, rows[:, 1:], mean, std)[:, 1]
    return torch.cat([rows[:, :1], boxes], 1)[..., None, None]


def route_by_scale(
    inputs: tuple[Tensor, ...],
    low: float,
    high: float,
    middle: float,
) -> tuple[Tensor, ...]:
    """The items of the regions, the first input, of a scale between low and high.

    Where there is none, the one next to the middle stays.
    """
    rows = inputs[0].reshape(-1, 5)
    sides = rows[:, 3:] - rows[:, 1:3]
    scale = ((sides + 1).prod(1) * (sides >= 0).all(1)).sqrt()
    chosen = ((scale >= low) & (scale < high)).nonzero().flatten()
    if not len(chosen):
        chosen = (scale / middle).log2().abs().argmin().reshape(1)
    return tuple(x[chosen] for x in inputs)


def field_boxes(
    codes: Tensor,
    field: tuple[float, float],
    stride: float,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    far: float,
    large: float,
) -> tuple[Tensor, Tensor]:
    """The first corners and the sides, (N, H W, 2), of boxes around places of a map."""
    rows, columns = codes.shape[2:]
    codes = codes.flatten(2).mT * codes.new_tensor(std) + codes.new_tensor(mean)
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    places = torch.stack([x, y], -1).reshape(-1, 2).to(codes)
    centre = codes[..., :2].clamp(-far, far) * codes.new_tensor(field)
    centre = centre + (places + 0.5) * stride
    sides = codes.new_tensor(field) * codes[..., 2:].clamp(-large, large).exp()
    return centre - sides / 2, sides


def boxes_of_maps(
    maps: tuple[Tensor, ...],
    fields: tuple[tuple[float, float, float], ...],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    far: float,
    large: float,
) -> tuple[Tensor, Tensor]:
    """Boxes (N, n, 4) of maps (classes + 4), cut to the picture, and their scores.

    Of equal scores the last counts, so that they come from the last to the first.
    """
    boxes, scores = [], []
    for x, (width, height, stride) in zip(maps, fields, strict=True):
        field = width, height
        low, sides = field_boxes(x[:, -4:], field, stride, mean, std, far, large)
        low = low.clamp(min=0)
        picture = low.new_tensor([x.shape[3] * stride, x.shape[2] * stride])
        boxes.append(torch.cat([low, low + sides.minimum(picture - low)], -1))
        classes = x[:, :-4].flatten(2)
        scores.append(classes[:, 1:].amax(1) - classes[:, 0])
    return torch.cat(boxes, 1).flip(1), torch.cat(scores, 1).flip(1)


def boxes_of_groups(
    maps: tuple[Tensor, ...],
    groups: tuple[tuple[tuple[tuple[float, float], ...], float], ...],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    far: float,
    large: float,
) -> tuple[Tensor, Tensor]:
    """Boxes (N, n, 4) of pairs of maps, probabilities and codes, and their scores."""
    boxes, scores = [], []
    pairs = zip(maps[::2], maps[1::2], groups, strict=True)
    for probabilities, codes, (fields, stride) in pairs:
        size = codes.shape[3] * stride, codes.shape[2] * stride
        for k, field in enumerate(fields):
            own = codes[k :: len(fields)]
            low, sides = field_boxes(own, field, stride, mean, std, far, large)
            high = (low + sides - 1).minimum(low.new_tensor(size))
            boxes.append(torch.cat([low.clamp(min=0), high], -1))
            scores.append(1 - probabilities[k :: len(fields), 0].flatten(1))
    return torch.cat(boxes, 1), torch.cat(scores, 1)


def is_near(
    box: Tensor,
    boxes: Tensor,
    kind: str,
    overlap: float,
    pixel: int = 0,
) -> Tensor:
    """Whether the area that boxes share with one box is too large a part.

    It is a part of both (IOU), the smaller (IOMU) or the first (IOFU). With pixel 1 the
    corners are last pixels.
    """
    low = torch.maximum(box[:2], boxes[:, :2])
    side = torch.minimum(box[2:], boxes[:, 2:]) - low
    apart = (side[:, 1] <= 0) | ((side[:, 0] < 0) if pixel else (side[:, 0] <= 0))
    common = torch.where(apart, 0, (side + pixel).prod(1))
    sides = boxes[:, 2:] - boxes[:, :2]
    first, second = (box[2:] - box[:2] + pixel).prod(), (sides + pixel).prod(1)
    if kind == "IOMU":
        whole = torch.minimum(first, second)
    else:
        whole = first if kind == "IOFU" else first + second - common
    own = torch.cat([sides, (box[2:] - box[:2]).expand_as(sides)], 1)
    valid = (own >= 0).all(1) if pixel else (own > 0).all(1)
    return (common / whole > overlap) & valid


def keep_regions(
    found: tuple[Tensor, Tensor],
    least_score: float,
    min_size: float,
    before: int | None = None,
    after: int | None = None,
    kind: str = "IOU",
    overlap: float = 0.5,
    pixel: int = 0,
) -> tuple[Tensor, Tensor]:
    """Of boxes that overlap the best: regions (R, 5, 1, 1); with scores (R, 6, 1, 1).

    Without any there is a region 0, 1, 1, 10, 10 of score 0.
    """
    rows = []
    for image, (boxes, scores) in enumerate(zip(*found, strict=True)):
        large = (boxes[:, 2:] - boxes[:, :2] + pixel >= min_size).all(1)
        chosen = (large & (scores >= least_score)).nonzero().flatten()
        chosen = chosen[scores[chosen].argsort(descending=True, stable=True)[:before]]
        box, score = boxes[chosen], scores[chosen, None]
        kept = keep_best(box, lambda a, b: is_near(a, b, kind, overlap, pixel), after)
        first = box.new_full((len(kept), 1), image)
        rows.append(torch.cat([first, box[kept], score[kept]], 1))
    made = torch.cat(rows)[..., None, None]
    if len(made):
        return made[:, :5], made
    nothing = made.new_tensor([0, 1, 1, 10, 10]).reshape(1, 5, 1, 1)
    return nothing, made.new_zeros(1, 6, 1, 1)


def detect_in_regions(
    scores: Tensor,
    codes: Tensor,
    regions: Tensor,
    size: Tensor,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    least_score: float,
    kind: str,
    overlap: float,
    most: int | None = None,
) -> Tensor:
    """Detections (D + 1, 7, 1, 1): 0, left, top, right, bottom, label, score.

    The first row is -1 but for 0.
    """
    scores, regions = scores.flatten(1), regions.flatten(1)[:, 1:5]
    boxes = boxes_of_regions(codes.flatten(1), regions, mean, std)
    high = boxes[..., 2:].minimum(size.reshape(1, 2).flip(1))
    boxes = torch.cat([boxes[..., :2].clamp(min=0), high], -1)
    rows = [scores.new_tensor([[0, -1, -1, -1, -1, -1, -1]])]
    for label in range(1, scores.shape[1]):
        best, order = scores[:, label].sort(descending=True, stable=True)
        order = order[best >= least_score]
        box = boxes[order, label if boxes.shape[1] == scores.shape[1] else 1]
        kept = keep_best(box, lambda a, b: is_near(a, b, kind, overlap, 1))
        head = box.new_full((len(kept), 1), 0)
        score = scores[order[kept], label, None]
        rows.append(torch.cat([head, box[kept], head + label, score], 1))
    found = torch.cat(rows[1:])
    order = found[:, 6].argsort(descending=True, stable=True)[:most]
    found = found[order.sort().values]
    return torch.cat([rows[0], found])[..., None, None]

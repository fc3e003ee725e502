"""Peaks of maps, paths through sequences, and scores that labels raise."""

from __future__ import annotations

import torch
from torch import Tensor


def cubic_places(
    side: int,
    border: int,
    target: int,
    like: Tensor,
) -> tuple[list[Tensor], Tensor]:
    """The four places that each of target places lies between, and how far."""
    inside = side - 2 * border
    ratio = torch.tensor(target / inside, device=like.device)
    places = torch.arange(target, dtype=torch.float32, device=like.device)
    at = (places - (ratio / 2 - 0.5)) * torch.tensor(inside / target)
    second = (at + 1e-5).trunc().long().clamp(min=0)
    third = (second + 1).clamp(max=inside - 1)
    four = (second - 1).clamp(min=0), second, third, (third + 1).clamp(max=inside - 1)
    return [each + border for each in four], (at - second).to(like.dtype)


def cubic(values: list[Tensor], t: Tensor) -> Tensor:
    """Cubic interpolation between the second and the third of four values."""
    a, b, c, d = values
    y = (-0.5 * a + 1.5 * b - 1.5 * c + 0.5 * d) * t * t * t
    return y + (a - 2.5 * b + 2 * c - 0.5 * d) * t * t + (-0.5 * a + 0.5 * c) * t + b


def mean_of_scales(
    x: Tensor,
    size: tuple[int, int],
    borders: tuple[tuple[int, int], ...],
) -> Tensor:
    """The mean of all items, resized without their borders, (1, C, H, W)."""
    total = x.new_zeros(())
    for planes, (high, wide) in zip(x.chunk(len(borders)), borders, strict=True):
        rows, down = cubic_places(x.shape[2], high, size[0], x)
        columns, right = cubic_places(x.shape[3], wide, size[1], x)
        across = cubic([planes[..., at] for at in columns], right)
        total = total + cubic([across[:, :, at] for at in rows], down[:, None]).sum(0)
    return (total / len(x))[None]


def find_peaks(x: Tensor, parts: int, threshold: float, most: int) -> Tensor:
    """The peaks of the first planes, (N, parts, 1 + most, 3).

    Row 0 holds their number, the others x, y and the value of each. The place is the
    mean of the places around it, weighted by their values.
    """
    n, _, height, width = x.shape
    flat, planes = x.flatten(), x.flatten(0, 1)[: n * parts]
    inner = planes[:, 1:-1, 1:-1]
    peaks = inner > threshold
    for down in (0, 1, 2):
        for right in (0, 1, 2):
            if (down, right) != (1, 1):
                other = planes[:, down : height - 2 + down, right : width - 2 + right]
                peaks = peaks & (inner > other)
    peaks, size = peaks.flatten(1), (height - 2) * (width - 2)
    order = torch.arange(size, 0, -1, device=x.device)
    first, place = (peaks * order).topk(min(most, size), 1)
    row, column = place // (width - 2) + 1, place % (width - 2) + 1
    steps = torch.arange(-3, 4, device=x.device)
    ys, xs = row[..., None, None] + steps[:, None], column[..., None, None] + steps
    plane = torch.arange(len(planes), device=x.device)[:, None]
    at = (plane[..., None, None] * height + ys) * width + xs
    counted = (ys > 0) & (ys < width) & (xs > 0) & (xs < width) & (at < len(flat))
    values = flat[at.clamp(0, len(flat) - 1)]
    weights = torch.where(counted, values, 0).clamp(min=0)
    total = weights.sum((2, 3))
    means = [(where * weights).sum((2, 3)) / total for where in (xs, ys)]
    found = torch.stack([*means, planes[plane, row, column]], 2)
    found = torch.where(first[..., None] > 0, found, 0)
    made = x.new_zeros(len(planes), 1 + most, 3)
    made[:, 1 : 1 + found.shape[1]] = found
    made[:, 0, 0] = peaks.sum(1).to(x.dtype)
    return made.reshape(n, parts, 1 + most, 3)


def best_path(
    scores: Tensor,
    going: Tensor | None = None,
    blank: int = -1,
    merge: bool = True,
) -> tuple[Tensor, Tensor]:
    """The labels (N, T, 1, 1) of sequences (T, N, C), -1 after their end, and scores.

    Where going (T, N) is 0, from the second step on, a sequence has ended.
    """
    scores = scores.flatten(2)
    steps, _, classes = scores.shape
    best, label = scores.max(2)
    alive = torch.ones_like(label)
    if going is not None:
        alive[1:] = (going.reshape(label.shape)[1:] != 0).long().cumprod(0)
    keep = (alive != 0) & (label != blank % classes)
    if merge:
        keep[1:] &= label[1:] != label[:-1]
    place = keep * keep.cumsum(0)  # what is left out goes before all others
    found = scores.new_full((scores.shape[1], steps + 1), -1)
    found = found.scatter(1, place.T, label.T.to(scores.dtype))[:, 1:]
    return found[..., None, None], -(best * alive).sum(0)[:, None, None, None]


def favour_labels(
    scores: Tensor,
    label: Tensor,
    bias: float,
    background_bias: float,
    ignored: tuple[int, ...],
) -> Tensor:
    """Add to the scores of the labels that an image has, as often as it has them."""
    index = label.long().transpose(1, 2)
    keep = ~torch.isin(index, torch.tensor(ignored, device=index.device))
    classes = torch.arange(scores.shape[1], device=index.device)[:, None, None]
    biases = torch.where(classes == 0, background_bias, bias).to(scores.dtype)
    own = (keep & (index == classes)).to(scores.dtype)
    return scores + (own * biases).sum(2, keepdim=True)


def favour_places(
    scores: Tensor,
    label: Tensor,
    bias: float,
    background: int | None = None,
    everywhere: float | None = None,
    ignored: tuple[int, ...] = (-1,),
) -> Tensor:
    """Add to the scores of the labels of places, and to those of a background."""
    index = label.long()
    keep = ~torch.isin(index, torch.tensor(ignored, device=index.device))
    classes = torch.arange(scores.shape[1], device=index.device)[:, None, None]
    own = keep & (index == classes)
    if background is None or everywhere is None:
        return scores + own * bias
    back = classes == background
    return scores + (own & ~back) * bias + (keep & back) * everywhere

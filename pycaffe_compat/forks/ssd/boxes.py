"""Boxes as SSD's Caffe computes with them (weiliu89/caffe, branch ssd, bbox_util.cpp).

A box is xmin, ymin, xmax, ymax, on the last axis. All axes before it are free: a batch is computed at once. The order of the
arithmetic is the fork's, so that a threshold decides as it does there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...proto import caffe_pb2

CORNER = caffe_pb2.PriorBoxParameter.CORNER
CENTER_SIZE = caffe_pb2.PriorBoxParameter.CENTER_SIZE
CORNER_SIZE = caffe_pb2.PriorBoxParameter.CORNER_SIZE
COMPACT_EVERY = 16  # steps of a suppression


def sizes(boxes: Tensor, normalized: bool = True) -> Tensor:
    """The area of boxes (…, 4) as (…); 0 for a box that ends before it begins.

    Boxes that are not ``normalized`` are in pixels and hold their last row and column: each side counts 1 more.
    """
    xmin, ymin, xmax, ymax = boxes.unbind(-1)
    more = 0 if normalized else 1
    size = (xmax - xmin + more) * (ymax - ymin + more)
    return size.masked_fill((xmax < xmin) | (ymax < ymin), 0)


def have_area(boxes: Tensor) -> Tensor:
    """Whether width and height of boxes (…, 4) are above 0, as (…); the codes by size need it of priors and of truth."""
    return (boxes[..., 2:] > boxes[..., :2]).all(-1)


def cross_boundary(boxes: Tensor) -> Tensor:
    """Whether boxes (…, 4) reach out of the picture, 0 to 1, as (…)."""
    return ((boxes < 0) | (boxes > 1)).any(-1)


def clip(boxes: Tensor, height: float = 1.0, width: float = 1.0) -> Tensor:
    """Boxes (…, 4) limited to the picture."""
    return torch.minimum(boxes, boxes.new_tensor((width, height, width, height))).clamp(min=0)


def overlaps(a: Tensor, b: Tensor, normalized: bool = True, areas: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """The intersection over union of each box of ``a`` (…, n, 4) with each of ``b`` (…, m, 4), as (…, n, m).

    Boxes that do not meet have 0; where they are not ``normalized``, the fork gives them an intersection of one pixel. A box
    with a NaN in ``a`` has 0; one in ``b`` gives NaN where the rest of it meets.

    Args:
        areas: the sizes of the boxes, (…, n) and (…, m), where they are not what :func:`sizes` says.
    """
    size_a, size_b = areas or (sizes(a, normalized), sizes(b, normalized))
    sides_a, sides_b = a.unsqueeze(-2).unbind(-1), b.unsqueeze(-3).unbind(-1)
    return _overlap(sides_a, sides_b, size_a[..., None], size_b[..., None, :], normalized)


def _overlap(
    a: Sequence[Tensor], b: Sequence[Tensor], size_a: Tensor, size_b: Tensor, normalized: bool = True
) -> Tensor:
    """What :func:`overlaps` says, of coordinates and sizes that are broadcast against each other."""
    # the fork's max(x, NaN) is x, but its max(NaN, x) is NaN
    no_bound = (-math.inf, -math.inf, math.inf, math.inf)
    met = [side.nan_to_num(bound, math.inf, -math.inf) for side, bound in zip(b, no_bound, strict=True)]
    width = torch.minimum(a[2], met[2]).sub_(torch.maximum(a[0], met[0]))
    height = torch.minimum(a[3], met[3]).sub_(torch.maximum(a[1], met[1]))
    if not normalized:
        apart = (b[0] > a[2]) | (b[2] < a[0]) | (b[1] > a[3]) | (b[3] < a[1])
        width, height = (side.add_(1).masked_fill_(apart, 1) for side in (width, height))
    none = ~(torch.minimum(width, height) > 0)  # a NaN too
    common = width.mul_(height)
    union = (size_a + size_b).sub_(common)
    return common.div_(union).masked_fill_(none, 0)


def suppress(
    boxes: Tensor,
    candidates: Tensor,
    threshold: float,
    eta: float = 1.0,
    wanted: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Non-maximum suppression: which boxes stay, as a bool tensor (groups, n).

    From the first to the last, a box stays unless it overlaps one that stays by more than the threshold. Groups are
    independent of each other, and computed at once; the time goes with the most boxes that stay in a group.

    Args:
        boxes: (groups, n, 4), normalized; in each group the best comes first.
        candidates: (groups, n), bool; the other boxes never stay.
        threshold: the largest overlap that is allowed.
        eta: below 1, each box that stays multiplies its group's threshold by it as long as that is above 0.5.
        wanted: called now and then with what stays so far, it says which boxes may still matter. The others need not be
            decided.
    """
    groups, number = candidates.shape
    keep = torch.zeros((groups, number), dtype=torch.bool, device=boxes.device)
    limit = boxes.new_full((groups, 1), threshold)
    planes = torch.stack((*boxes.unbind(-1), sizes(boxes)))
    overlap = _plain_overlap if bool(planes.isfinite().all()) else _odd_overlap
    place = torch.arange(number, device=boxes.device).expand(groups, -1)
    # what each box overlaps those that stay by, at most; boxes that are done with are at infinity
    most = boxes.new_zeros((groups, number)).masked_fill_(~candidates, math.inf)
    for step in range(number):
        free = most <= limit
        if step % COMPACT_EVERY == 0:  # limits only sink, so what is not free stays so
            if wanted is not None and step:
                free &= wanted(keep).gather(1, place)
            order, free = in_front(free)
            if free.shape[1] == 0:
                break
            place, planes = place.gather(1, order), planes.gather(2, order.expand(5, -1, -1))
            most = most.gather(1, order).masked_fill_(~free, math.inf)
        stays, first = free.max(1, keepdim=True)
        at = place.gather(1, first)
        keep.scatter_(1, at, stays | keep.gather(1, at))
        best = planes.gather(2, first.expand(5, -1, -1))
        most = torch.maximum(most, overlap(planes, best)).scatter_(1, first, math.inf)
        if eta < 1:
            limit = torch.where(stays & (limit > 0.5), limit * eta, limit)
    return keep


def in_front(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Where the ``chosen`` (groups, n) are, in order, as (groups, most chosen of a group); and which entries are filled."""
    group, place = chosen.nonzero(as_tuple=True)
    numbers = chosen.sum(1)
    rank = torch.arange(len(group), device=chosen.device) - (numbers.cumsum(0) - numbers)[group]
    width = int(numbers.max()) if len(numbers) else 0
    places = group.new_zeros((len(chosen), width))
    places[group, rank] = place
    return places, torch.arange(width, device=chosen.device) < numbers[:, None]


def _plain_overlap(a: Tensor, b: Tensor) -> Tensor:
    """:func:`_overlap` of planes of coordinates and sizes that are all finite, without conditions: much faster."""
    (left, top, right, bottom, size), (b_left, b_top, b_right, b_bottom, b_size) = a.unbind(), b.unbind()
    width = torch.minimum(right, b_right).sub_(torch.maximum(left, b_left)).clamp_(min=0)
    height = torch.minimum(bottom, b_bottom).sub_(torch.maximum(top, b_top)).clamp_(min=0)
    common = width.mul_(height)
    union = (size + b_size).sub_(common).clamp_(min=torch.finfo(a.dtype).tiny)
    return common.div_(union)


def _odd_overlap(a: Tensor, b: Tensor) -> Tensor:
    """:func:`_overlap` of any planes; NaN, which the fork takes for too much, is infinite."""
    *sides, size = a.unbind()
    *b_sides, b_size = b.unbind()
    return _overlap(sides, b_sides, size, b_size).nan_to_num_(math.inf)


def encode(code_type: int, variance_in_target: bool, prior: Tensor, variance: Tensor, box: Tensor) -> Tensor:
    """The code of boxes against priors: what a net is to predict; (…, 4).

    Args:
        code_type: :data:`CORNER`, :data:`CENTER_SIZE` or :data:`CORNER_SIZE`.
        variance_in_target: the code is not divided by the variances.
        prior, variance, box: (…, 4), broadcast against each other. Codes by size need :func:`have_area` of the priors, and
            :data:`CENTER_SIZE` of the boxes too; other ones give infinities and NaNs.
    """
    if code_type == CENTER_SIZE:
        (centre, size), (box_centre, box_size) = _centre_size(prior), _centre_size(box)
        ratio = (box_size / size).double().log()  # the fork's log and exp are those of doubles
        if variance_in_target:
            return torch.cat(((box_centre - centre) / size, ratio.to(box.dtype)), -1)
        scaled = (ratio / variance[..., 2:]).to(box.dtype)
        return torch.cat(((box_centre - centre) / size / variance[..., :2], scaled), -1)
    code = box - prior
    if code_type == CORNER_SIZE:
        code = code / _both(_size(prior))
    return code if variance_in_target else code / variance


def decode(code_type: int, variance_in_target: bool, prior: Tensor, variance: Tensor, code: Tensor) -> Tensor:
    """The boxes of codes: the inverse of :func:`encode`, with the same arguments; (…, 4)."""
    scaled = code if variance_in_target else variance * code
    if code_type == CENTER_SIZE:
        centre, size = _centre_size(prior)
        box_centre = scaled[..., :2] * size + centre
        half = (scaled[..., 2:].double().exp() * size).to(code.dtype) / 2
        return torch.cat((box_centre - half, box_centre + half), -1)
    if code_type == CORNER_SIZE:
        scaled = scaled * _both(_size(prior))
    return prior + scaled


def in_picture(boxes: Tensor, height: int, width: int, resize: Any = None) -> tuple[Tensor, Tensor]:
    """Boxes (…, 4) of 0 to 1 in the pixels of the picture that a net saw resized, and their sizes (…).

    Args:
        height, width: of the picture, before it was resized.
        resize: the ``ResizeParameter`` that says how it was, with height and width above 0; None if it was warped.
    """
    mode = None if resize is None else resize.resize_mode
    if mode == caffe_pb2.ResizeParameter.FIT_SMALL_SIZE and resize.height_scale and resize.width_scale:
        boxes = clip(_scale(boxes, resize.height_scale, resize.width_scale), height, width)
        return boxes, sizes(boxes)
    if mode == caffe_pb2.ResizeParameter.FIT_LARGE_SIZE_AND_PAD:
        boxes = _without_padding(boxes, height, width, resize)
    scaled = _scale(clip(boxes), height, width)
    return scaled, sizes(scaled, normalized=height <= 1 and width <= 1)


def _without_padding(boxes: Tensor, height: int, width: int, resize: Any) -> Tensor:
    """Boxes of a picture that was padded to fit, in its part without the padding; one that lies outside stays as it is."""
    tall, wide, aspect = np.float32(resize.height), np.float32(resize.width), np.float32(width) / np.float32(height)
    top = left = np.float32(0)
    if aspect > wide / tall:
        top = (tall - wide / aspect) / 2 / tall
    else:
        left = (wide - tall * aspect) / 2 / wide
    part = boxes.new_tensor([float(side) for side in (left, top, 1 - left, 1 - top)])
    outside = (boxes[..., :2] >= part[2:]).any(-1) | (boxes[..., 2:] <= part[:2]).any(-1)
    moved = clip((boxes - _both(part[:2])) / _both(_size(part)))
    return torch.where(outside[..., None], boxes, moved)


def _scale(boxes: Tensor, height: int, width: int) -> Tensor:
    return boxes * boxes.new_tensor((width, height, width, height))


def _size(boxes: Tensor) -> Tensor:
    return boxes[..., 2:] - boxes[..., :2]


def _both(pair: Tensor) -> Tensor:
    """A pair (…, 2) of x and y for both corners of a box (…, 4)."""
    return torch.cat((pair, pair), -1)


def _centre_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    return (boxes[..., :2] + boxes[..., 2:]) / 2, _size(boxes)

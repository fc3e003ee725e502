"""ProposalTarget of MS-CNN (zhaoweicai/mscnn, proposal_target_layer.cpp), and what Cascade R-CNN's has in common with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ...layers.base import Layer, Shape, count, untraced
from ...layers.registry import register
from ...tables import dims
from .boxes import overlaps, read_normalization

SMALLEST = 32  # the sides of a region that is drawn
TRIES = 100


@register("ProposalTarget", fork="mscnn")
class ProposalTarget(Layer):
    """The regions that a region network trains on, and its targets for them.

    The bottoms are proposals (R, 5), image and corners, and true boxes (G, 7), image, corners, label and whether to ignore
    it, which become proposals too. Of the proposals that overlap a true box of their image by ``fg_thr`` or more, and of those
    from ``bg_thr_lw`` to below ``bg_thr_hg``, ``batch_size`` are drawn, a share of ``fg_fraction`` of the former at most; where
    there are too few, others fill up, and then regions drawn at random. With -1 all of both kinds are taken. The tops have a
    row for each: region (5), label (1), codes of the box and the two weights for SmoothL1Loss (4 for each class, or 8 without
    ``cls_aware``), the matched true box, label, corners and overlap (6), and a weight for each label (1). No gradient flows.

    Attributes:
        inclusive: how boxes overlap; see :func:`.boxes.overlaps`.
        true_columns: how many numbers a true box may have.
        takes_true_boxes: whether they become proposals.
        fills_up: whether proposals that are neither of an object nor background fill up.
    """

    options = ("proposal_target_param", "bbox_reg_param")
    bottoms = (2, 2)
    tops = (6, 7)
    differentiable = (False,)
    open_axes = (0,)
    random = True
    traceable = False
    inclusive: ClassVar[bool] = False
    true_columns: ClassVar[tuple[int, ...]] = (7,)
    takes_true_boxes: bool = True
    fills_up: bool = True

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.proposal_target_param
        self.classes, self.size, self.images = options.cls_num, options.batch_size, options.num_img_per_batch
        self.share, self.object_from = options.fg_fraction, options.fg_thr
        self.background = (options.bg_thr_lw, options.bg_thr_hg)
        self.picture, self.by_overlap = (options.img_width, options.img_height), options.iou_weighted
        self.mean, self.std = read_normalization(self, param.bbox_reg_param)
        self.aware = param.bbox_reg_param.cls_aware
        self.wide = 4 * self.classes if self.aware else 8
        if self.aware and self.classes < 2:
            raise self.error(f"cls_num: {self.classes} must be at least 2, with the background")
        if self.size < 1 and self.size != -1:
            raise self.error(f"batch_size: {self.size} must be at least 1, or -1 for all")
        if not 0 <= self.share <= 1:
            raise self.error(f"fg_fraction: {self.share:g} must be 0 to 1")
        if self.object_from < options.bg_thr_hg:
            raise self.error(f"fg_thr: {self.object_from:g} must not be below bg_thr_hg: {options.bg_thr_hg:g}")
        proposals, true = bottom_shapes
        if count(proposals, 1) != 5 or count(true, 1) not in self.true_columns:
            raise self.error(
                f"needs proposals R×5 and true boxes G×{' or '.join(map(str, self.true_columns))}, not {dims(proposals)} and "
                f"{dims(true)}"
            )

    def forward(self, proposals: Tensor, true: Tensor) -> tuple[Tensor, ...]:
        """Return rows of each kind, as many as there are regions, with two further axes of 1.

        Raises:
            LayerError: a region is of no image of the batch, or a true box of no class; or no regions can be drawn.
        """
        if proposals.is_meta:
            rows = max(len(proposals), 1) if self.size == -1 else self.size
            widths = (5, 1, self.wide, self.wide, self.wide, 6, 1)
            return tuple(proposals.new_empty((rows, n, 1, 1)) for n in widths[: self.n_tops])
        return self.choose(proposals.detach().flatten(1), true.detach().to(proposals.dtype).flatten(1))

    @untraced
    def choose(self, proposals: Tensor, true: Tensor) -> tuple[Tensor, ...]:
        """As :meth:`forward`, of proposals (R, 5) and true boxes (G, 7).

        Raises:
            LayerError: a region is of no image of the batch.
        """
        true = self.usable(true)
        rows = torch.cat((proposals, true[:, :5])) if self.takes_true_boxes else proposals
        image = rows[:, 0]
        wrong = (image < 0) | (image >= self.images)
        if bool(wrong.any()):
            raise self.error(f"has a region of image {image[wrong][0]:g}, but num_img_per_batch: {self.images}")
        boxes, true_boxes = _sized(rows), _sized(true)
        overlap, match = self.match(image, boxes, true)
        chosen, objects = self.sample(overlap, match, true)
        if drawn := self.lacking(len(chosen)):
            more = self.draw(drawn, true)
            chosen = torch.cat((chosen, torch.arange(len(rows), len(rows) + drawn, device=rows.device)))
            image, boxes = torch.cat((image, more[:, 0])), torch.cat((boxes, more[:, 1:]))
            overlap = torch.cat((overlap, overlap.new_zeros(drawn)))
            match = torch.cat((match, match.new_full((drawn,), -1)))
        box, low = boxes[chosen], boxes[chosen, :2]
        regions = torch.cat((image[chosen, None], low, low + box[:, 2:] - 1), 1)
        label, matched = box.new_zeros(len(chosen)), box.new_zeros((len(chosen), 6))
        targets = box.new_zeros((len(chosen), self.wide // 4, 4))
        weights = torch.zeros_like(targets)
        if objects:
            of, part = match[chosen[:objects]], overlap[chosen[:objects]]
            label[:objects] = true[of, 5].trunc()
            corners = torch.cat((true_boxes[of, :2], true_boxes[of, :2] + true_boxes[of, 2:] - 1), 1)
            matched[:objects] = torch.cat((label[:objects, None], corners, part[:, None]), 1)
            at = torch.arange(objects, device=box.device)
            to = label[:objects].long() if self.aware else torch.ones_like(at)
            targets[at, to] = self.encode(box[:objects], true_boxes[of])
            weights[at, to] = self.counts(part).to(box.dtype)[:, None]
        made = [regions, label[:, None], targets.flatten(1), weights.flatten(1), weights.flatten(1).clone(), matched]
        if self.n_tops == 7:
            made.append(self.weigh(label, matched[:, 5])[:, None])
        return tuple(x[..., None, None] for x in made)

    def usable(self, true: Tensor) -> Tensor:
        """The true boxes that are some.

        Raises:
            LayerError: one is of no image of the batch, or its label is no class.
        """
        image = true[:, 0]
        wrong = (image < 0) | (image >= self.images)
        if bool(wrong.any()):
            raise self.error(f"has a true box of image {image[wrong][0]:g}, but num_img_per_batch: {self.images}")
        label, most = true[:, 5].trunc(), self.classes - 1 if self.aware else math.inf
        wrong = (label < 1) | (label > most)
        if bool(wrong.any()):
            upto = f" to {most}, by cls_num" if self.aware else " on"
            raise self.error(f"has a true box with label {label[wrong][0]:g}; labels are from 1{upto}")
        return true

    def match(self, image: Tensor, boxes: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
        """How far each region overlaps the true box of its image that it overlaps most, the first of equal ones; and which."""
        if not len(true):
            return boxes.new_zeros(len(boxes)), torch.full_like(image, -1, dtype=torch.long)
        part = overlaps(boxes[:, None], _sized(true), self.inclusive)
        overlap, match = part.masked_fill(image[:, None] != true[:, 0], -1).max(1)
        return overlap.clamp(min=0), torch.where(overlap < 0, -1, match)

    def sample(self, overlap: Tensor, match: Tensor, true: Tensor) -> tuple[Tensor, int]:
        """The regions to take, those with an object first, and how many have one."""
        low, high = self.background
        near = overlap >= self.object_from
        ignored = near & (true[match, 6] != 0) if len(true) else torch.zeros_like(near)
        between = (overlap >= low) & (overlap < high) & ~near
        objects, others, rest = (kind.nonzero().squeeze(1) for kind in (near & ~ignored, between, ~near & ~between))
        size = len(objects) + len(others) if self.size == -1 else self.size
        most = len(objects) if self.size == -1 else math.floor(float(np.float32(self.share) * np.float32(size)) + 0.5)
        objects = _drawn(objects, most)
        others = _drawn(others, size - len(objects))
        if self.fills_up:
            others = torch.cat((others, rest[: size - len(objects) - len(others)]))
        return torch.cat((objects, others)), len(objects)

    def lacking(self, taken: int) -> int:
        """How many regions are to be drawn at random, besides those taken."""
        return max(self.size - taken, 0)

    def draw(self, number: int, true: Tensor) -> Tensor:
        """Regions of any image of the batch that overlap no true box by ``fg_thr``, (number, 5): image, corner and sides.

        Raises:
            LayerError: no such region is found, or the images are too small to draw one.
        """
        width, height = self.picture
        if min(self.picture) <= SMALLEST:
            raise self.error(
                f"has too few regions, and draws some of at least {SMALLEST}×{SMALLEST} pixels, for which img_width: {width} "
                f"and img_height: {height} are too small"
            )
        found = []
        for _ in range(TRIES):
            rows = torch.empty((max(number, 16), 5), device=true.device, dtype=true.dtype)
            rows[:, 0] = torch.randint(self.images, (len(rows),), device=true.device)
            for at, side in ((1, width), (2, height)):
                rows[:, at] = torch.randint(side - SMALLEST, (len(rows),), device=true.device)
                rows[:, at + 2] = (torch.rand(len(rows), device=true.device) * (side - rows[:, at])).floor()
                rows[:, at + 2].clamp_(min=SMALLEST)
            found.append(rows[self.match(rows[:, 0], rows[:, 1:], true)[0] < self.object_from])
            number_found = sum(map(len, found))
            if number_found >= number:
                return torch.cat(found)[:number]
        raise self.error(f"finds no region that overlaps no true box by fg_thr: {self.object_from:g}")

    def encode(self, boxes: Tensor, true: Tensor) -> Tensor:
        """The codes (R, 4) that make ``true`` of ``boxes``."""
        centre, true_centre = (x[:, :2] + 0.5 * x[:, 2:] for x in (boxes, true))
        codes = torch.cat(((true_centre - centre) / boxes[:, 2:], (true[:, 2:] / boxes[:, 2:]).log()), 1)
        return (codes - codes.new_tensor(self.mean)) / codes.new_tensor(self.std)

    def counts(self, overlap: Tensor) -> Tensor:
        """Whether boxes that overlap this much learn, (R,)."""
        return torch.ones_like(overlap, dtype=torch.bool)

    def weigh(self, label: Tensor, overlap: Tensor) -> Tensor:
        """A weight for each label, so that objects have a share of ``fg_fraction``; 1 each without objects."""
        there = label > 0
        weight = torch.where(there, overlap, 1) if self.by_overlap else torch.ones_like(overlap)
        objects, others = weight[there].sum(), weight[~there].sum()
        if not float(objects):
            return weight
        return weight * torch.where(there, self.share / objects, (1 - self.share) / others) * len(label)


def _sized(rows: Tensor) -> Tensor:
    """First corner, width and height, (R, 4), of rows of an image and corners."""
    return torch.cat((rows[:, 1:3], rows[:, 3:5] - rows[:, 1:3] + 1), 1)


def _drawn(at: Tensor, number: int) -> Tensor:
    """``number`` of ``at`` at random; all, in their order, where there are no more."""
    return at if len(at) <= number else at[torch.randperm(len(at), device=at.device)[:number]]

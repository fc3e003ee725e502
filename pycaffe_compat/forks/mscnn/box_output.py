"""BoxOutput of MS-CNN (zhaoweicai/mscnn, box_output_layer.cpp), and what Cascade R-CNN's BoxGroupOutput has in common with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...layers.base import Layer, Shape, untraced
from ...layers.registry import register
from ...tables import dims
from ..fast_rcnn.nms import suppress_by
from .boxes import Fields, ranked, read_normalization, read_suppression

NO_BOX = (0, 1, 1, 10, 10)  # the region where there is none


class RegionOutput(Layer):
    """The base class of layers that make regions of maps: the best boxes at their places that do not overlap.

    The tops are regions (R, 5, 1, 1), image, x1, y1, x2, y2, and the same with the score, (R, 6, 1, 1). A subclass says what
    boxes there are in :meth:`candidates`, and in what order equal scores come in :meth:`best_first`.

    Attributes:
        inclusive: corners are pixels of the box; see :func:`.boxes.shares`.
    """

    tops = (1, 2)
    differentiable = (False,)
    open_axes = (0,)
    traceable = False
    inclusive: ClassVar[bool]

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = getattr(param, self.option_fields()[0])
        self.fields = Fields(self, options, *read_normalization(self, param.bbox_reg_param))
        self.threshold, self.min_size = options.fg_thr, options.min_size
        self.before, self.after = options.max_nms_num or None, options.max_post_nms_num or None
        self.near = read_suppression(self, self.option_fields()[0], options, self.inclusive)
        self.nms_type, self.overlap = options.nms_type, options.iou_thr

    def forward(self, *maps: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return the regions, and with their scores if there is a top for them."""
        if maps[0].is_meta:
            regions = maps[0].new_empty((1, 5, 1, 1))
            return regions if self.n_tops == 1 else (regions, maps[0].new_empty((1, 6, 1, 1)))
        return self.find([x.detach() for x in maps])

    @untraced
    def find(self, maps: Sequence[Tensor]) -> Tensor | tuple[Tensor, Tensor]:
        """As :meth:`forward`, for tensors with memory."""
        found = []
        for image, (corners, score) in enumerate(zip(*self.candidates(maps), strict=True)):
            at = self.best_first(score)[: self.before]
            at = at[suppress_by(self.near, corners[at], self.after)]
            found.append(torch.cat((score.new_full((len(at), 1), image), corners[at], score[at, None]), 1))
        rows = torch.cat(found).to(maps[0].dtype)
        regions = rows[:, :5] if len(rows) else rows.new_tensor([NO_BOX])
        regions = regions.reshape(-1, 5, 1, 1).contiguous()
        if self.n_tops == 1:
            return regions
        return regions, (rows if len(rows) else rows.new_zeros((1, 6))).reshape(-1, 6, 1, 1)

    def candidates(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The corners (N, P, 4) of the boxes of each image, and their scores (N, P), ``-inf`` for those that do not count."""
        raise NotImplementedError

    def best_first(self, scores: Tensor) -> Tensor:
        """The numbers of the boxes that count, by their scores (P,), the best first."""
        raise NotImplementedError


@register("BoxOutput", fork="mscnn")
class BoxOutput(RegionOutput):
    """Regions from maps of several scales; each map (N, classes + 4, H, W) has class scores and a box for every place.

    A place with a score ``fg_thr`` or more, the best of a class less the background's, gives a box around it, of about the
    size ``field_w`` x ``field_h`` of its map, ``downsample_rate`` pixels from the next. Boxes are cut to the picture, those
    with a side below ``min_size`` are left out, and of those that overlap by more than ``iou_thr`` the best stay. The tops
    are (R, 5, 1, 1), image, x1, y1, x2, y2, and the same with the score, (R, 6, 1, 1). Without any box there is a region
    (0, 1, 1, 10, 10), of score 0. No gradient flows.
    """

    options = ("box_output_param", "bbox_reg_param")
    bottoms = (1, None)
    inclusive = False

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.box_output_param
        for field in ("field_h", "field_w", "downsample_rate"):
            if len(getattr(options, field)) != len(bottom_shapes):
                raise self.error(
                    f"box_output_param.{field} is given {len(getattr(options, field))} times; give it for each of the "
                    f"{len(bottom_shapes)} bottoms"
                )
        self.maps = list(zip(options.field_w, options.field_h, options.downsample_rate, strict=True))
        for shape in bottom_shapes:
            if len(shape) != 4 or shape[1] < 6 or shape[:2] != bottom_shapes[0][:2]:
                raise self.error(
                    "needs bottoms N×(classes + 4)×H×W with the background and at least one class, all of the same N and "
                    f"classes, not {', '.join(map(dims, bottom_shapes))}"
                )

    def candidates(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        boxes, scores = [], []
        for x, (width, height, stride) in zip(maps, self.maps, strict=True):
            low, sides = self.fields.decode(x[:, -4:], width, height, stride)
            low = low.clamp(min=0)
            picture = low.new_tensor((x.shape[3] * stride, x.shape[2] * stride))
            sides = torch.minimum(sides, picture - low)
            classes = x[:, :-4].flatten(2)
            score = classes[:, 1:].amax(1) - classes[:, 0]
            keep = (score >= self.threshold) & (sides >= self.min_size).all(-1)
            boxes.append(torch.cat((low, low + sides), -1))
            scores.append(torch.where(keep, score, -torch.inf))
        return torch.cat(boxes, 1), torch.cat(scores, 1)

    def best_first(self, scores: Tensor) -> Tensor:
        """Of equal ones the last first."""
        at = (scores > -torch.inf).nonzero().squeeze(1)
        return at[ranked(scores[at])]

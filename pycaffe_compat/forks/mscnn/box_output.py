"""BoxOutput, as MS-CNN's Caffe has it (zhaoweicai/mscnn, box_output_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Layer, Shape, untraced
from ...layers.registry import register
from ...tables import dims
from ..fast_rcnn.nms import suppress_by
from .boxes import NMS_TYPES, Fields, near, ranked, read_normalization, tops_of


@register("BoxOutput", fork="mscnn")
class BoxOutput(Layer):
    """Regions from maps of several scales: (N, classes + 4, H, W) each, the scores of the classes and a box at each place.

    A place with a score ``fg_thr`` or more, the best of a class less the background's, gives a box around it, of about the
    size ``field_w`` x ``field_h`` of its map, ``downsample_rate`` pixels from the next. Boxes are cut to the picture, those
    with a side below ``min_size`` are left out, and of those that overlap by more than ``iou_thr`` the best stay. The tops
    are (R, 5, 1, 1), image, x1, y1, x2, y2, and the same with the score, (R, 6, 1, 1). Without any box there is a region
    (0, 1, 1, 10, 10), of score 0. No gradient flows.
    """

    options = ("box_output_param", "bbox_reg_param")
    bottoms = (1, None)
    tops = (1, 2)
    differentiable = (False,)
    open_axes = (0,)
    traceable = False

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.box_output_param
        for field in ("field_h", "field_w", "downsample_rate"):
            if len(getattr(options, field)) != len(bottom_shapes):
                raise self.error(
                    f"box_output_param.{field} is given {len(getattr(options, field))} times; give it for each of the "
                    f"{len(bottom_shapes)} bottoms"
                )
        if options.nms_type not in NMS_TYPES:
            raise self.error(f'box_output_param.nms_type: "{options.nms_type}" is none of {", ".join(NMS_TYPES)}')
        self.maps = list(zip(options.field_w, options.field_h, options.downsample_rate, strict=True))
        self.fields = Fields(self, options, *read_normalization(self, param.bbox_reg_param))
        self.threshold, self.min_size = options.fg_thr, options.min_size
        self.before, self.after = options.max_nms_num or None, options.max_post_nms_num or None
        self.nms_type, self.overlap = options.nms_type, options.iou_thr
        self.near = partial(near, nms_type=self.nms_type, threshold=self.overlap, inclusive=False)
        for shape in bottom_shapes:
            if len(shape) != 4 or shape[1] < 6 or shape[:2] != bottom_shapes[0][:2]:
                raise self.error(
                    "needs bottoms N×(classes + 4)×H×W with the background and at least one class, all of the same N and "
                    f"classes, not {', '.join(map(dims, bottom_shapes))}"
                )

    def forward(self, *maps: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return the regions, and with their scores if there is a top for them."""
        if maps[0].is_meta:
            regions = maps[0].new_empty((1, 5, 1, 1))
            return regions if self.n_tops == 1 else (regions, maps[0].new_empty((1, 6, 1, 1)))
        return self.find([x.detach() for x in maps])

    @untraced
    def find(self, maps: Sequence[Tensor]) -> Tensor | tuple[Tensor, Tensor]:
        """As :meth:`forward`, for tensors with memory."""
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
        found = []
        for image, (corners, score) in enumerate(zip(torch.cat(boxes, 1), torch.cat(scores, 1), strict=True)):
            at = (score > -torch.inf).nonzero().squeeze(1)
            at = at[ranked(score[at])][: self.before]
            at = at[suppress_by(self.near, corners[at], self.after)]
            found.append(torch.cat((score.new_full((len(at), 1), image), corners[at], score[at, None]), 1))
        return tops_of(found, maps[0], self.n_tops)

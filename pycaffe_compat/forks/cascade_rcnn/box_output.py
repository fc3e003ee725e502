"""Proposals and detections, as Cascade R-CNN's Caffe has them.

Sources: zhaoweicai/cascade-rcnn, box_group_output_layer.cpp and frcnn_output_layer.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Layer, Shape, count, untraced
from ...layers.registry import register
from ...tables import dims
from ..fast_rcnn.nms import suppress_by
from ..mscnn.box_output import RegionOutput
from ..mscnn.boxes import decode_from_regions, read_normalization, read_suppression


@register("BoxGroupOutput", fork="cascade_rcnn")
class BoxGroupOutput(RegionOutput):
    """Regions from pairs of maps: probabilities (N G, classes, H, W) and boxes (N G, 4, H, W), for G fields each.

    A ``box_group_param`` for each pair gives the fields' sizes ``field_w`` x ``field_h`` and the ``stride`` of the places in
    pixels. A place that is background with at most ``1 - fg_thr`` gives a box. Boxes are cut to the picture, those with a
    side below ``min_size`` are left out, and of those that overlap by more than ``iou_thr`` the best stay. The tops are as
    BoxOutput's. Of equal scores the first counts, where Caffe's own sort has no rule. No gradient flows.
    """

    options = ("box_group_output_param", "bbox_reg_param")
    bottoms = (2, None)
    inclusive = True

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.box_group_output_param
        if len(bottom_shapes) != 2 * len(options.box_group_param):
            raise self.error(
                "needs two bottoms, probabilities and boxes, for each box_group_output_param.box_group_param: there are "
                f"{len(bottom_shapes)} bottoms for {len(options.box_group_param)}"
            )
        self.groups = []
        for group in options.box_group_param:
            if not group.field_w or len(group.field_w) != len(group.field_h):
                raise self.error(
                    f"box_group_param needs as many field_h as field_w, at least one; there are {len(group.field_h)} and "
                    f"{len(group.field_w)}"
                )
            self.groups.append((list(zip(group.field_w, group.field_h, strict=True)), group.stride))
        for scores, boxes, (fields, _) in zip(bottom_shapes[::2], bottom_shapes[1::2], self.groups, strict=True):
            if len(scores) != 4 or boxes != (scores[0], 4, *scores[2:]) or scores[0] % len(fields):
                raise self.error(
                    f"needs probabilities N G×classes×H×W and boxes N G×4×H×W for {len(fields)} fields, not {dims(scores)} "
                    f"and {dims(boxes)}"
                )

    def forward(self, *maps: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return the regions, and with their scores if there is a top for them.

        Raises:
            LayerError: the maps do not have an item for each field of every image.
        """
        if any(scores.shape[0] % len(fields) for scores, (fields, _) in zip(maps[::2], self.groups, strict=True)):
            raise self.error(f"has {maps[0].shape[0]} items, which are not as many for each field")
        return super().forward(*maps)

    def candidates(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        boxes, scores = [], []
        for probabilities, codes, (fields, stride) in zip(maps[::2], maps[1::2], self.groups, strict=True):
            picture = codes.new_tensor((codes.shape[3] * stride, codes.shape[2] * stride))
            for k, field in enumerate(fields):
                low, sides = self.fields.decode(codes[k :: len(fields)], *field, stride)
                high = torch.minimum(low + sides - 1, picture)
                low = low.clamp(min=0)
                score = 1 - probabilities[k :: len(fields), 0].flatten(1)
                keep = (score >= self.threshold) & (high - low + 1 >= self.min_size).all(-1)
                boxes.append(torch.cat((low, high), -1))
                scores.append(torch.where(keep, score, -torch.inf))
        return torch.cat(boxes, 1), torch.cat(scores, 1)

    def best_first(self, scores: Tensor) -> Tensor:
        """Of equal ones the first first."""
        best, at = scores.sort(descending=True, stable=True)
        return at[best > -torch.inf]


@register("FrcnnOutput", fork="cascade_rcnn")
class FrcnnOutput(Layer):
    """Detections (D + 1, 7, 1, 1): image, x1, y1, x2, y2, label, score; by label, best first. The first row is 0, -1, -1, …

    The bottoms are probabilities (R, classes), codes (R, 8), of which the second four count, or with ``cls_aware`` four for
    each class, regions (R, 5) or (R, 6), all of image 0, and height and width of the picture (1, 2). Of boxes of a class,
    with a probability of ``conf_thr`` or more, that overlap by more than ``iou_thr``, the best stay, and of all the best
    ``max_det_num``. Of equal scores the first counts, where Caffe's own sort has no rule. No gradient flows.
    """

    options = ("frcnn_output_param", "bbox_reg_param")
    bottoms = (4, 4)
    differentiable = (False,)
    open_axes = (0,)
    traceable = False
    head = True

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.frcnn_output_param
        if options.save_output_param.output_directory:
            raise self.error("frcnn_output_param.save_output_param: its files are not written here; take the field out")
        self.mean, self.std = read_normalization(self, param.bbox_reg_param)
        self.aware = param.bbox_reg_param.cls_aware
        self.threshold, self.most = options.conf_thr, options.max_det_num
        self.nms_type, self.overlap = options.nms_type, options.iou_thr
        self.near = read_suppression(self, "frcnn_output_param", options, inclusive=True)
        self.check_bottoms(bottom_shapes)

    def check_bottoms(self, shapes: Sequence[Shape]) -> None:
        """Raise unless an item of each bottom has as many numbers as it must."""
        scores = shapes[0]
        wide = 4 * scores[1] if self.aware and len(scores) > 1 else 8
        _, codes, regions, size = (count(shape, 1) if shape else 0 for shape in shapes)
        whole = len(scores) > 1 and count(scores, 2) == 1
        if not whole or codes != wide or regions not in (5, 6) or size != 2 or shapes[3][0] != 1:
            raise self.error(
                f"needs probabilities R×classes, codes R×{wide}, regions R×5 or R×6 and height and width of the picture, 1×2, "
                f"not {', '.join(map(dims, shapes))}"
            )

    def forward(self, scores: Tensor, codes: Tensor, regions: Tensor, size: Tensor) -> Tensor:
        """Return the detections.

        Raises:
            LayerError: there are not as many codes, scores and regions, or a region is of another image than 0, or there are
                sizes of several.
        """
        if size.dim() and size.shape[0] != 1:
            raise self.error(f"has the sizes of {size.shape[0]} pictures; it takes one picture at a time")
        self.check_bottoms([blob.shape for blob in (scores, codes, regions, size)])
        if scores.is_meta:
            return scores.new_empty((1, 7, 1, 1))
        if not len(scores) == len(codes) == len(regions):
            raise self.error(
                f"has {len(scores)} rows of probabilities, {len(codes)} of codes and {len(regions)} regions"
            )
        return self.detect(*(x.detach().flatten(1) for x in (scores, codes, regions, size)))

    @untraced
    def detect(self, scores: Tensor, codes: Tensor, regions: Tensor, size: Tensor) -> Tensor:
        """As :meth:`forward`, for matrices with memory.

        Raises:
            LayerError: a region is of another image than 0.
        """
        if bool(regions[:, 0].any()):
            raise self.error("has regions of several images; it takes one picture at a time")
        boxes = decode_from_regions(codes.reshape(len(codes), -1, 4), regions[:, 1:5], self.mean, self.std)
        high = torch.minimum(boxes[..., 2:], size.flip(1))
        boxes = torch.cat((boxes[..., :2].clamp(min=0), high), -1)
        found = []
        for label in range(1, scores.shape[1]):
            best, at = scores[:, label].sort(descending=True, stable=True)
            at = at[best >= self.threshold]
            corners = boxes[at, label if self.aware else 1]
            kept = suppress_by(self.near, corners)
            row = torch.zeros((len(kept), 7), dtype=scores.dtype, device=scores.device)
            row[:, 1:5], row[:, 5], row[:, 6] = corners[kept], label, scores[at[kept], label]
            found.append(row)
        rows = torch.cat(found)
        if self.most and len(rows) > self.most:
            rows = rows[rows[:, 6].sort(descending=True, stable=True).indices[: self.most]]
            rows = rows[rows[:, 5].sort(stable=True).indices]
        first = rows.new_tensor([[0, -1, -1, -1, -1, -1, -1]])
        return torch.cat((first, rows)).reshape(-1, 7, 1, 1)

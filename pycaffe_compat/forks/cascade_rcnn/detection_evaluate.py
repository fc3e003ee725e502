"""DetectionEvaluate of Cascade R-CNN (zhaoweicai/cascade-rcnn, detection_evaluate_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Shape, untraced
from ...layers.registry import register
from ...tables import dims
from ..mscnn.boxes import shares
from ..ssd.detection_evaluate import DetectionEvaluate


@register("DetectionEvaluate", fork="cascade_rcnn")
class CascadeDetectionEvaluate(DetectionEvaluate):
    """SSD's, from FrcnnOutput's detections (K, 7), true boxes (G, 8), and heights and widths (N, 2): (rows, 5, 1, 1).

    Boxes are compared in the pixels that ``name_size_file`` says, the bounds included. It goes on by one picture for each image
    with a row. Ignored boxes count; rows of image -1, of either kind, do not.
    """

    bottoms = (3, 3)
    open_axes = (0,)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        if not self.pictures:
            raise self.error(
                "needs detection_evaluate_param.name_size_file, with a line NAME HEIGHT WIDTH for each picture"
            )
        if [shape[1:2] for shape in bottom_shapes] != [(7,), (8,), (2,)]:
            raise self.error(
                f"needs detections K×7, true boxes G×8 and sizes N×2, not {', '.join(map(dims, bottom_shapes))}"
            )

    @classmethod
    def fits(cls, param: Any) -> bool:
        return len(param.bottom) == 3

    def overlap(self, found: Tensor, truth: Tensor, areas: tuple[Tensor, Tensor]) -> Tensor:
        return shares(found, truth, "IOU", inclusive=True)

    @untraced
    @torch.no_grad()
    def forward(self, detections: Tensor, truth: Tensor, sizes: Tensor) -> Tensor:  # type: ignore[override]
        """Return the rows. A top of the meta device has as many as if all detections counted.

        Raises:
            LayerError: a label is the background's, or an image has no size.
        """
        rows, truth = detections.reshape(-1, 7), truth.detach().to(detections.dtype).reshape(-1, 8)
        if rows.is_meta:
            return rows.new_empty((len(self.labels) + len(rows), 5, 1, 1))
        rows, truth = rows[rows[:, 0].long() != -1], truth[truth[:, 0].long() != -1]
        for what, label, least in (("detection", rows[:, 5], -1), ("true box", truth[:, 5], 1)):
            wrong = (label.long() < least) | (label.long() == 0)
            if bool(wrong.any()):
                raise self.error(
                    f"has a {what} with label {label[wrong][0]:g}; 0 is the background's, labels are from 1 on"
                )
        images = rows[:, 0].long().unique().tolist()
        if images and not 0 <= images[0] <= images[-1] < len(sizes):
            raise self.error(f"has a detection of image {images[-1]}, but {len(sizes)} sizes")
        found = rows[rows[:, 5].long() != -1][:, [0, 5, 6, 1, 2, 3, 4]]
        true = torch.cat((truth[:, [0, 5, 5]], truth[:, 1:5], truth[:, 7:]), 1)
        for place, image in enumerate(images):
            _, height, width = self.pictures[(self.seen + place) % len(self.pictures)]
            seen = sizes.reshape(-1, 2)[image].to(rows.dtype)
            factor = (rows.new_tensor((height, width)) / seen).flip(0).repeat(2)
            for table in (found, true):
                here = table[:, 0].long() == image
                table[here, 3:7] = table[here, 3:7] * factor
        self.seen = (self.seen + len(images)) % len(self.pictures)
        judged = self._judge(found, torch.empty_like(found[:, 0]), true, torch.empty_like(true[:, 0]))  # no areas
        return torch.cat((self._numbers(true), judged))[..., None, None]

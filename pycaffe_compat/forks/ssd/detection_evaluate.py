"""DetectionEvaluate, as SSD's Caffe has it (weiliu89/caffe, branch ssd, detection_evaluate_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...errors import require_file
from ...layers.base import Layer, Shape, untraced
from ...layers.registry import register
from ...tables import dims
from . import boxes as bx
from .label_map import read_name_sizes
from .truth import LEFT_OUT, check_background, label_id, labels_table


@register("DetectionEvaluate", fork=("ssd", "ssd_focal", "textboxes", "faceboxes", "intel", "yolo", "xilinx"))
class DetectionEvaluate(Layer):
    """Marks which detections are correct, for the average precision of a solver with ``eval_type: "detection"``.

    Bottoms: detections (1, 1, K, 7), as DetectionOutput makes them, and labels (1, 1, G, 8). The top is (1, 1, classes + D, 5):
    first (-1, label, number of true boxes, -1, -1) for each label but the background; then, by image and label,
    (image, label, score, true positive, false positive) for each of the D detections. A detection of the same image and label
    that overlaps a true box enough is right if no better scored one did. D is known after a pass only. There is no gradient.

    With ``name_size_file`` boxes are compared in pixels. It goes on by one picture for each image that has detections, and
    starts again at its end. Labels are read up to the first row of image -1.
    """

    options = ("detection_evaluate_param",)
    head = True
    bottoms = (2, 2)
    differentiable = (False,)
    open_axes = (2,)
    traceable = False

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.detection_evaluate_param
        if not options.num_classes:
            raise self.error("needs detection_evaluate_param.num_classes, the background included")
        self.classes: int = options.num_classes
        self.background = label_id(options.background_label_id)
        self.labels = [label for label in range(self.classes) if label != self.background]
        self.threshold: float = options.overlap_threshold
        if not self.threshold > 0:
            raise self.error(f"overlap_threshold: {self.threshold:g} must be above 0")
        self.count_difficult: bool = options.evaluate_difficult_gt
        self.resize = options.resize_param if options.HasField("resize_param") else None
        self.pictures: list[tuple[str, int, int]] = []
        self.seen = 0
        if options.HasField("name_size_file"):
            file = require_file(options.name_size_file, f'name_size_file of layer "{self.name}"')
            self.pictures = read_name_sizes(file)
        if self.pictures and self.resize is not None and not (self.resize.height and self.resize.width):
            raise self.error("resize_param needs height and width above 0")

    def relabel(self, labels: Tensor) -> Tensor:
        """The labels of true boxes, floats, as they are read: int64, :data:`.truth.LEFT_OUT` for boxes that are left out."""
        return labels.long()

    @classmethod
    def fits(cls, param: Any) -> bool:
        return len(param.bottom) != 3  # which Cascade R-CNN's has

    def overlap(self, found: Tensor, truth: Tensor, areas: tuple[Tensor, Tensor]) -> Tensor:
        """How far boxes of detections (D, 4) overlap true ones (G, 4), whose areas are these, (D, G)."""
        return bx.overlaps(found, truth, not self.pictures, areas)

    def state(self) -> dict[str, Any]:
        return {"seen": self.seen} if self.pictures else {}

    def seek(self, state: dict[str, Any]) -> None:
        self.seen = state.get("seen", 0)

    @untraced
    @torch.no_grad()
    def forward(self, detections: Tensor, label: Tensor) -> Tensor:
        """Return the rows. A top of the meta device has as many as if all detections counted.

        Raises:
            LayerError: the detections are not (1, 1, K, 7).
        """
        if detections.dim() != 4 or detections.shape[:2] != (1, 1) or detections.shape[3] != 7:
            raise self.error(
                "needs detections of shape 1×1×K×7 (image, label, score, xmin, ymin, xmax, ymax), not "
                f"{dims(detections.shape)}"
            )
        rows, truth = detections.reshape(-1, 7), labels_table(self, label).to(detections.dtype)
        if detections.is_meta:
            return detections.new_empty((1, 1, len(self.labels) + len(rows), 5))
        truth = truth[(truth[:, 0].long() == -1).cumsum(0) == 0]
        labels = self.relabel(truth[:, 1])
        check_background(self, truth, labels, self.background)
        if self.background >= 0:  # -1 is also the label of images without detections
            check_background(self, rows, rows[:, 1].long(), self.background, "detections")
        truth = torch.cat((truth[:, :1], labels[:, None].to(truth.dtype), truth[:, 2:]), 1)[labels != LEFT_OUT]
        valid = rows[:, 0].long() != -1
        images = rows[valid, 0].long().unique().tolist()
        found = rows[valid & (rows[:, 1].long() != -1)]
        found_areas, truth_areas = bx.sizes(found[:, 3:]), bx.sizes(truth[:, 3:7])
        if self.pictures:
            found, found_areas = self._in_pixels(found, images)
            truth, truth_areas = self._in_pixels(truth, images)
            self.seen = (self.seen + len(images)) % len(self.pictures)
        judged = self._judge(found, found_areas, truth, truth_areas)
        top = rows.new_zeros((len(self.labels) + int((rows[:, 1] != -1).sum()), 5))
        top[: len(self.labels)] = self._numbers(truth)
        top[len(self.labels) : len(self.labels) + len(judged)] = judged
        return top[None, None]

    def _numbers(self, truth: Tensor) -> Tensor:
        """A row for each label that says how many true boxes (G, 8) it has."""
        labels = torch.tensor(self.labels, device=truth.device)
        counts = torch.ones_like(truth[:, 7], dtype=torch.bool) if self.count_difficult else truth[:, 7] == 0
        numbers = ((truth[:, 1].long()[:, None] == labels) & counts[:, None]).sum(0)
        none = torch.full_like(labels, -1)
        return torch.stack((none, labels, numbers, none, none), 1).to(truth.dtype)

    def _in_pixels(self, table: Tensor, images: list[int]) -> tuple[Tensor, Tensor]:
        """``table`` with its boxes, columns 3 to 6, in pixels of their pictures, and the areas of these."""
        table = table.clone()
        boxes, areas = table[:, 3:7], bx.sizes(table[:, 3:7])
        for place, image in enumerate(images):
            _, height, width = self.pictures[(self.seen + place) % len(self.pictures)]
            here = table[:, 0].long() == image
            boxes[here], areas[here] = bx.in_picture(boxes[here], height, width, self.resize)
        return table, areas

    def _judge(self, found: Tensor, found_areas: Tensor, truth: Tensor, truth_areas: Tensor) -> Tensor:
        """The rows (D, 5) of detections (D, 7), in order."""
        same = (found[:, None, :2].long() == truth[None, :, :2].long()).all(2)
        score = found[:, 2].masked_fill(~same.any(1), torch.inf)  # those without truth keep their order
        order = torch.argsort(score, descending=True, stable=True)
        for column in (1, 0):
            order = order[torch.argsort(found[order, column].long(), stable=True)]
        found, found_areas, same = found[order], found_areas[order], same[order]
        right = torch.zeros(len(found), dtype=torch.bool, device=found.device)
        wrong = ~right
        if truth.numel():
            overlap = self.overlap(found[:, 3:], truth[:, 3:7], (found_areas, truth_areas))
            most, which = overlap.masked_fill(~same | overlap.isnan(), -1).max(1)
            hit = most >= self.threshold
            counts = hit if self.count_difficult else hit & (truth[which, 7] == 0)
            place = torch.arange(len(found), device=found.device)
            first = torch.full((len(truth),), len(found), device=found.device)
            first = first.scatter_reduce(0, which[counts], place[counts], "amin")
            right = counts & (first[which] == place)
            wrong = ~hit | (counts & ~right)
        whole = found[:, :2].trunc()
        return torch.cat((whole, found[:, 2:3], right[:, None].to(found.dtype), wrong[:, None].to(found.dtype)), 1)

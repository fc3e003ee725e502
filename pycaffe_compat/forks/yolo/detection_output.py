"""YoloDetectionOutput and Yolov3DetectionOutput, as MobileNet-YOLO's Caffe has them.

Sources: eric612/MobileNet-YOLO, yolo_detection_output_layer.cpp and yolov3_detection_output_layer.cpp and .cu.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...layers.base import Layer, Shape, untraced
from ...layers.loss import precise
from ...layers.registry import register
from ...tables import dims
from ..fast_rcnn.nms import suppress_by
from .boxes import by_cell, decode, overlaps


class GridDetections(Layer):
    """Detections that no better one overlaps by ``nms_threshold`` or more, of all classes and images together."""

    bottoms: ClassVar[tuple[int, int | None]] = (1, None)
    differentiable = (False,)
    head = True
    open_axes = (2,)
    traceable = False
    extra = 5  # numbers of a box besides those of the classes

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        (self.option,) = self.option_fields()
        options = getattr(param, self.option)
        if not options.num_classes or not options.HasField("num_classes"):
            raise self.error(f"needs {self.option}.num_classes, at least 1")
        if not options.num_box:
            raise self.error(f"{self.option}.num_box: 0 must be at least 1")
        if len(options.biases) % 2:
            raise self.error(
                f"{self.option}.biases must be pairs of width and height, not {len(options.biases)} numbers"
            )
        self.classes, self.boxes = options.num_classes, options.num_box
        self.confidence, self.threshold = options.confidence_threshold, options.nms_threshold
        self.biases = list(zip(options.biases[::2], options.biases[1::2], strict=True))

    def check_maps(self, shapes: Sequence[Sequence[int]]) -> None:
        """Check that each map has the channels of all boxes.

        Raises:
            LayerError: one has not.
        """
        channels = self.boxes * (self.extra + self.classes)
        for shape in shapes:
            if len(shape) != 4 or shape[1] != channels or shape[0] != shapes[0][0]:
                raise self.error(
                    f"needs bottoms with {channels} channels, num_box {self.boxes} times {self.extra} and num_classes "
                    f"{self.classes}, and of one batch, not {' and '.join(map(dims, shapes))}"
                )

    def forward(self, *maps: Tensor) -> Tensor:
        """Return (1, 1, detections, 7); on the meta device for one detection, as before the fork's first pass."""
        self.check_maps([each.shape for each in maps])
        if maps[0].is_meta:
            return maps[0].new_empty((1, 1, 1, 7))
        return self.detect([precise(each.detach()) for each in maps]).to(maps[0].dtype)

    @untraced
    def detect(self, maps: Sequence[Tensor]) -> Tensor:
        """As :meth:`forward`, for tensors with memory."""
        found = [self.read(index, by_cell(each, self.boxes)) for index, each in enumerate(maps)]
        boxes, classes, scores = (torch.cat(parts) for parts in zip(*found, strict=True))
        scores, order = scores.sort(descending=True, stable=True)
        boxes, classes = boxes[order], classes[order]
        kept = suppress_by(lambda a, b: overlaps(a, b) >= self.threshold, boxes)
        if not len(kept):
            none = maps[0].new_full((len(maps[0]), 7), -1)
            none[:, 0] = torch.arange(len(none))
            return none[None, None]
        half = boxes[kept, 2:] / 2
        corners = torch.cat((boxes[kept, :2] - half, boxes[kept, :2] + half), 1)
        image = torch.zeros_like(scores[kept])
        return torch.cat((torch.stack((image, classes[kept] + 1, scores[kept]), 1), corners), 1)[None, None]

    def read(self, index: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (n, 4), classes from 0 (n,) and confidences (n,) of a map, in the fork's scan order.

        Args:
            index: which bottom it is.
            x: (N, num_box, numbers, H, W).
        """
        raise NotImplementedError


@register("YoloDetectionOutput", fork="yolo")
class YoloDetectionOutput(GridDetections):
    """The boxes of YOLO v2, each with its best class, after non-maximum suppression.

    The bottoms are maps (N, num_box * (5 + classes), H, H). A box is kept if its confidence, by softmax, is at least
    ``confidence_threshold``, and if it overlaps no better one, of any class and image, by ``nms_threshold`` or more. The top is
    (1, 1, detections, 7): 0 for the image, whichever it is, class from 1, confidence, and left, top, right, bottom in parts
    of the image; or (1, 1, N, 7) of image and -1 if there are none. Of equal confidences the first counts. No gradient flows.
    """

    inert_options = frozenset({"side", "coords", "label_map_file"})
    bottoms = (1, 2)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        if len(self.biases) < self.boxes:
            raise self.error(
                f"needs {self.option}.biases, width and height of {self.boxes} boxes; there are {2 * len(self.biases)} numbers"
            )
        self.check_maps(bottom_shapes)

    def check_maps(self, shapes: Sequence[Sequence[int]]) -> None:
        super().check_maps(shapes)
        for shape in shapes:
            if shape[2] != shape[3]:
                raise self.error(f"needs square maps, not {dims(shape[2:])}")

    def read(self, index: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        anchors = x.new_tensor(self.biases[: self.boxes]) / x.shape[-1]
        boxes = decode(x[:, :, :2].sigmoid(), x[:, :, 2:4], anchors)
        best, classes = x[:, :, 5:].softmax(2).max(2)
        scores = x[:, :, 4].sigmoid() * best
        places = (scores >= self.confidence).permute(0, 2, 3, 1)
        return (
            boxes.permute(0, 3, 4, 1, 2)[places],
            classes.permute(0, 2, 3, 1)[places].to(x.dtype),
            scores.permute(0, 2, 3, 1)[places],
        )


@register("Yolov3DetectionOutput", fork="yolo")
class Yolov3DetectionOutput(GridDetections):
    """The boxes of YOLO v3 with all their classes, after non-maximum suppression.

    As YoloDetectionOutput, but a box counts once for every class whose confidence, by a sigmoid, is above
    ``confidence_threshold``. Bottom t has the boxes that ``mask`` names in ``biases``, from t * (masks / mask_group_num) on;
    ``biases`` are in pixels of an image ``anchors_scale`` times as large as the map. With ``gaussian_box`` a box has 9
    numbers besides its classes, read as by Caffe's code for GPUs; that for the CPU reads memory that it has not filled.
    """

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.yolov3_detection_output_param
        self.gaussian = options.gaussian_box
        self.extra = 9 if self.gaussian else 5
        groups, masks = options.mask_group_num, list(options.mask)
        if groups != len(bottom_shapes):
            raise self.error(
                f"{self.option}.mask_group_num: {groups} must be the number of bottoms, {len(bottom_shapes)}"
            )
        if len(options.anchors_scale) < groups:
            raise self.error(
                f"needs {self.option}.anchors_scale for each of {groups} bottoms, not {len(options.anchors_scale)}"
            )
        if not all(options.anchors_scale):
            raise self.error(f"{self.option}.anchors_scale: 0 must be at least 1")
        step = len(masks) // groups
        if len(masks) < (groups - 1) * step + self.boxes:
            raise self.error(f"needs {self.option}.mask for {self.boxes} boxes of each bottom; there are {len(masks)}")
        for mask in masks:
            if mask >= len(self.biases):
                raise self.error(f"{self.option}.mask: {mask} is not one of the {len(self.biases)} pairs of biases")
        self.masks = [masks[t * step : t * step + self.boxes] for t in range(groups)]
        self.scales = list(options.anchors_scale)
        self.check_maps(bottom_shapes)

    def read(self, index: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        height, width = x.shape[-2:]
        image = width * self.scales[index], height * self.scales[index]
        anchors = x.new_tensor([self.biases[mask] for mask in self.masks[index]]) / x.new_tensor(image)
        if self.gaussian:
            boxes = decode(x[:, :, 0:3:2].sigmoid(), x[:, :, 4:7:2], anchors)
            spread = x[:, :, 1:8:2].sigmoid()
            certain = 4 - spread.sum(2) - spread[:, :, 0]  # the fork takes the first one twice
            objects = x[:, :, 8].sigmoid() * certain / 4
        else:
            boxes = decode(x[:, :, :2].sigmoid(), x[:, :, 2:4], anchors)
            objects = x[:, :, 4].sigmoid()
        scores = (x[:, :, self.extra :].sigmoid() * objects[:, :, None]).permute(0, 3, 4, 1, 2)
        places = scores > self.confidence
        *at, classes = places.nonzero().unbind(1)
        return boxes.permute(0, 3, 4, 1, 2)[tuple(at)], classes.to(x.dtype), scores[places]

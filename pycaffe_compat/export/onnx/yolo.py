"""The detections of YOLO."""

from __future__ import annotations

import numpy as np

from ...forks.yolo.detection_output import GridDetections, YoloDetectionOutput, Yolov3DetectionOutput
from ..outline import Value
from ..registry import static, unsaid
from .emitter import FLOAT, Emitter, emits
from .suppression import nothing, part, suppressed


@emits(YoloDetectionOutput, Yolov3DetectionOutput)
def grid_detections(e: Emitter, layer: GridDetections, *maps: Value) -> str:
    """All boxes of all images are one group. What overlaps by the threshold itself goes, too: by the number before it."""
    if layer.threshold <= 0:
        raise unsaid(layer, f"nms_threshold: {layer.threshold:g} leaves one box, whatever it overlaps")
    found = [_read(e, layer, index, each) for index, each in enumerate(maps)]
    boxes, classes, scores = (
        parts[0] if len(parts) == 1 else e.op("Concat", *parts, axis=0) for parts in zip(*found, strict=True)
    )
    scores, order = e.op("TopK", scores, e.op("Shape", scores), outputs=2, axis=0)
    boxes, classes = (e.op("Gather", each, order, axis=0) for each in (boxes, classes))
    half = e.op("Mul", part(e, boxes, 2, 4), e.number(0.5))
    centre = part(e, boxes, 0, 2)
    corners = e.op("Concat", e.op("Sub", centre, half), e.op("Add", centre, half), axis=1)
    below = float(np.nextafter(np.float32(layer.threshold), np.float32(0)))
    group = e.op("Unsqueeze", corners, e.ints(0)), e.op("Unsqueeze", scores, e.ints(0))
    where = e.op("Transpose", e.op("NonZero", suppressed(e, *group, 2**31 - 1, below)), perm=(1, 0))
    score, label = (e.op("GatherND", each, where) for each in (scores, classes))
    label = e.op("Add", e.op("Cast", label, to=FLOAT), e.number(1))
    rows = e.op(
        "Concat",
        *(e.op("Unsqueeze", each, e.ints(1)) for each in (e.op("Mul", label, e.number(0)), label, score)),
        e.op("GatherND", corners, where),
        axis=1,
    )
    rows = e.op("Concat", rows, nothing(e, maps[0], where), axis=0)
    return str(e.op("Unsqueeze", rows, e.ints(0, 1)))


def _read(e: Emitter, layer: GridDetections, index: int, x: Value) -> tuple[str, str, str]:
    """Boxes (n, 4), classes from 0 (n,) and confidences (n,) of a map, in the fork's scan order."""
    static(layer, x, 1, 2, 3)
    number, (height, width) = layer.boxes, x.shape[2:]
    numbers = layer.extra + layer.classes
    cells = e.op("Reshape", x, e.ints(-1, number, numbers, height, width))
    cells = e.op("Transpose", cells, perm=(0, 3, 4, 1, 2))  # (N, H, W, boxes, numbers)

    def raw(*which: int) -> str:
        if len(which) == 1 or which == tuple(range(which[0], which[-1] + 1)):
            return part(e, cells, which[0], which[-1] + 1)
        return str(e.op("Gather", cells, e.ints(*which), axis=-1))

    def sigmoid(*which: int) -> str:
        return str(e.op("Sigmoid", raw(*which)))

    gaussian = isinstance(layer, Yolov3DetectionOutput) and layer.gaussian
    offsets, exponents = (sigmoid(0, 2), raw(4, 6)) if gaussian else (sigmoid(0, 1), raw(2, 3))
    objects = sigmoid(8 if gaussian else 4)
    if gaussian:
        spread = sigmoid(1, 3, 5, 7)
        certain = e.op("Sub", e.number(4), e.op("ReduceSum", spread, e.ints(-1)))
        certain = e.op("Sub", certain, part(e, spread, 0, 1))
        objects = e.op("Div", e.op("Mul", objects, certain), e.number(4))
    boxes = _decoded(e, layer, index, offsets, exponents, (height, width))

    likely = part(e, cells, layer.extra, numbers)
    if isinstance(layer, Yolov3DetectionOutput):
        scores = e.op("Reshape", e.op("Mul", e.op("Sigmoid", likely), objects), e.ints(-1))
        at = e.op("Squeeze", e.op("NonZero", e.op("Greater", scores, e.number(layer.confidence))), e.ints(0))
        count = e.ints(layer.classes)
        place = e.op("Div", at, count)
        classes = e.op("Sub", at, e.op("Mul", place, count))
        return e.op("Gather", boxes, place, axis=0), classes, e.op("Gather", scores, at, axis=0)
    likely = e.op("Softmax", likely, axis=-1)
    best = e.op("ReduceMax", likely, e.ints(-1))
    scores = e.op("Reshape", e.op("Mul", objects, best), e.ints(-1))
    label = e.op("Reshape", e.op("ArgMax", likely, axis=-1), e.ints(-1))
    at = e.op("Squeeze", e.op("NonZero", e.op("GreaterOrEqual", scores, e.number(layer.confidence))), e.ints(0))
    found = [e.op("Gather", each, at, axis=0) for each in (boxes, label, scores)]
    return found[0], found[1], found[2]


def _decoded(
    e: Emitter, layer: GridDetections, index: int, offsets: str, exponents: str, sides: tuple[int, ...]
) -> str:
    """Boxes x, y, w, h in parts of the image, (n, 4)."""
    height, width = sides
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    place = np.stack((x, y), -1)[:, :, None]
    centre = e.op("Div", e.op("Add", e.constant(place), offsets), e.constant([width, height]))
    if isinstance(layer, Yolov3DetectionOutput):
        scale = layer.scales[index]
        image = np.array([width * scale, height * scale], np.float32)
        anchors = np.array([layer.biases[mask] for mask in layer.masks[index]], np.float32) / image
    else:
        anchors = np.array(layer.biases[: layer.boxes], np.float32) / np.float32(width)
    size = e.op("Mul", e.op("Exp", exponents), e.constant(anchors))
    return str(e.op("Reshape", e.op("Concat", centre, size, axis=-1), e.ints(-1, 4)))

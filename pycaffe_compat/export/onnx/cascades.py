"""Boxes of MS-CNN and Cascade R-CNN: from maps, from the regions of the stage before, and as detections."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...forks.cascade_rcnn.box_output import BoxGroupOutput, FrcnnOutput
from ...forks.cascade_rcnn.routing import ScaleRoute
from ...forks.mscnn.box_output import NO_BOX, BoxOutput
from ...forks.mscnn.boxes import Fields
from ...forks.mscnn.decode_bbox import DecodeBBox
from ...layers.base import Layer
from ..outline import Value
from ..registry import static, unsaid
from .emitter import BOOL, FLOAT, INT64, Emitter, emits
from .suppression import LOWEST, NONE, part, suppressed, whole

ALL = 2**31 - 1


@emits(DecodeBBox)
def decode_bbox(e: Emitter, layer: DecodeBBox, codes: Value, regions: Value) -> str:
    rows = e.op("Reshape", regions, e.ints(-1, 5))
    boxes = _decoded(e, e.op("Reshape", codes, e.ints(-1, 2, 4)), part(e, rows, 1, 5), layer.mean, layer.std)
    second = e.op("Gather", boxes, e.constant(1, np.int64), axis=1)
    return str(e.op("Unsqueeze", e.op("Concat", part(e, rows, 0, 1), second, axis=1), e.ints(2, 3)))


def _decoded(e: Emitter, codes: object, regions: object, mean: Sequence[float], std: Sequence[float]) -> str:
    """The boxes (R, K, 4) that codes (R, K, 4) make of regions (R, 4)."""
    codes = e.op("Add", e.op("Mul", codes, e.constant(std)), e.constant(mean))
    low, high = part(e, regions, 0, 2), part(e, regions, 2, 4)
    size = e.op("Unsqueeze", e.op("Add", e.op("Sub", high, low), e.number(1)), e.ints(1))
    centre = e.op("Unsqueeze", e.op("Mul", e.op("Add", high, low), e.number(0.5)), e.ints(1))
    sides = e.op("Mul", size, e.op("Exp", part(e, codes, 2, 4)))
    half = e.op("Mul", e.op("Sub", sides, e.number(1)), e.number(0.5))
    first = e.op("Sub", e.op("Add", e.op("Mul", part(e, codes, 0, 2), size), centre), half)
    last = e.op("Sub", e.op("Add", first, sides), e.number(1))
    return str(e.op("Concat", first, last, axis=-1))


@emits(ScaleRoute)
def scale_route(e: Emitter, layer: ScaleRoute, *bottoms: Value) -> list[str]:
    rows = e.op("Reshape", bottoms[0], e.ints(-1, 5))
    sides = e.op("Sub", part(e, rows, 3, 5), part(e, rows, 1, 3))
    upright = e.op(
        "ReduceMin", e.op("Cast", e.op("GreaterOrEqual", sides, e.number(0)), to=FLOAT), e.ints(1), keepdims=0
    )
    area = e.op("ReduceProd", e.op("Add", sides, e.number(1)), e.ints(1), keepdims=0)
    scale = e.op("Sqrt", e.op("Mul", area, upright))
    chosen = e.op(
        "And",
        e.op("GreaterOrEqual", scale, e.number(layer.low)),
        e.op("Less", scale, e.number(layer.high)),
    )
    away = e.op("Abs", e.op("Log", e.op("Div", scale, e.number(layer.middle))))
    nearest = e.op("ArgMin", away, axis=0, keepdims=1)
    number = e.op("Range", e.constant(0, np.int64), e.op("Size", scale), e.constant(1, np.int64))
    found = e.op("Cast", e.op("ReduceMax", e.op("Cast", chosen, to=INT64), e.ints(0)), to=BOOL)
    chosen = e.op("Or", chosen, e.op("And", e.op("Not", found), e.op("Equal", number, nearest)))
    return [str(e.op("Compress", x, chosen, axis=0)) for x in bottoms]


@emits(BoxOutput)
def box_output(e: Emitter, layer: BoxOutput, *maps: Value) -> list[str]:
    _check(layer, maps, layer.nms_type, layer.overlap)
    boxes, scores = [], []
    for x, (width, height, stride) in zip(maps, layer.maps, strict=True):
        channels, places = x.shape[1], x.shape[2] * x.shape[3]
        codes = e.op("Slice", x, e.ints(channels - 4), e.ints(channels), e.ints(1))
        low, sides = _placed(e, layer.fields, codes, x.shape, (width, height), stride)
        low = e.op("Max", low, e.number(0))
        picture = e.constant([x.shape[3] * stride, x.shape[2] * stride])
        sides = e.op("Min", sides, e.op("Sub", picture, low))
        classes = e.op(
            "Reshape", e.op("Slice", x, e.ints(0), e.ints(channels - 4), e.ints(1)), e.ints(-1, channels - 4, places)
        )
        best = e.op(
            "ReduceMax", e.op("Slice", classes, e.ints(1), e.ints(channels - 4), e.ints(1)), e.ints(1), keepdims=0
        )
        score = e.op("Sub", best, e.op("Gather", classes, e.constant(0, np.int64), axis=1))
        scores.append(_counted(e, score, sides, layer.threshold, layer.min_size))
        boxes.append(e.op("Concat", low, e.op("Add", low, sides), axis=-1))
    score, corners = _together(e, scores, 1), _together(e, boxes, 1)
    number = sum(x.shape[2] * x.shape[3] for x in maps)
    turned = e.ints(*range(number - 1, -1, -1))  # of equal ones the last comes first
    score, corners = (e.op("Gather", each, turned, axis=1) for each in (score, corners))
    return _best(e, score, corners, number, (layer.before, layer.after, layer.overlap), inclusive=False)


@emits(BoxGroupOutput)
def box_group_output(e: Emitter, layer: BoxGroupOutput, *maps: Value) -> list[str]:
    _check(layer, maps, layer.nms_type, layer.overlap)
    if layer.overlap * layer.min_size < 1:
        raise unsaid(
            layer,
            f"with iou_thr: {layer.overlap:g} boxes of min_size: {layer.min_size:g} that are less than a pixel apart may "
            "suppress each other, which NonMaxSuppression does not do",
        )
    boxes, scores, number = [], [], 0
    for probabilities, codes, (fields, stride) in zip(maps[::2], maps[1::2], layer.groups, strict=True):
        rows, columns = codes.shape[2:]
        picture = e.constant([columns * stride, rows * stride])
        for k, field in enumerate(fields):
            mine, own = (
                e.op("Slice", each, e.ints(k), e.ints(2**62), e.ints(0), e.ints(len(fields)))
                for each in (probabilities, codes)
            )
            low, sides = _placed(e, layer.fields, own, codes.shape, field, stride)
            high = e.op("Min", e.op("Sub", e.op("Add", low, sides), e.number(1)), picture)
            low = e.op("Max", low, e.number(0))
            background = e.op(
                "Reshape", e.op("Slice", mine, e.ints(0), e.ints(1), e.ints(1)), e.ints(-1, rows * columns)
            )
            score = e.op("Sub", e.number(1), background)
            side = e.op("Add", e.op("Sub", high, low), e.number(1))
            scores.append(_counted(e, score, side, layer.threshold, layer.min_size))
            boxes.append(e.op("Concat", low, high, axis=-1))
            number += rows * columns
    limits = (layer.before, layer.after, layer.overlap)
    return _best(e, _together(e, scores, 1), _together(e, boxes, 1), number, limits, inclusive=True)


@emits(FrcnnOutput)
def frcnn_output(e: Emitter, layer: FrcnnOutput, scores: Value, codes: Value, regions: Value, size: Value) -> str:
    """Groups are the classes. Boxes that are less than a pixel apart overlap; only ones of a pixel or two can by much."""
    _check(layer, (), layer.nms_type, layer.overlap)
    classes = scores.shape[1]
    kinds = classes if layer.aware else 2
    codes_of = e.op("Reshape", codes, e.ints(-1, kinds, 4))
    rows = e.op("Reshape", regions, e.ints(-1, regions.shape[1]))
    boxes = _decoded(e, codes_of, part(e, rows, 1, 5), layer.mean, layer.std)
    corner = e.op("Gather", e.op("Reshape", size, e.ints(-1)), e.ints(1, 0))
    high = e.op("Min", part(e, boxes, 2, 4), corner)
    boxes = e.op("Concat", e.op("Max", part(e, boxes, 0, 2), e.number(0)), high, axis=-1)
    labels = e.ints(*range(1, classes))
    of_class = e.op("Gather", boxes, labels if layer.aware else e.ints(*[1] * (classes - 1)), axis=1)
    of_class = e.op("Transpose", of_class, perm=(1, 0, 2))  # (classes - 1, R, 4)
    likely = e.op("Reshape", scores, e.ints(-1, classes))
    likely = e.op("Gather", e.op("Transpose", likely, perm=(1, 0)), labels, axis=0)
    likely = e.op("Where", e.op("GreaterOrEqual", likely, e.number(layer.threshold)), likely, e.number(NONE))
    width = e.op("Slice", e.op("Shape", likely), e.ints(1), e.ints(2))
    best, place = e.op("TopK", likely, width, outputs=2, axis=1)
    of_class = e.op(
        "GatherElements", of_class, e.op("Expand", e.op("Unsqueeze", place, e.ints(2)), e.ints(1, 1, 4)), axis=1
    )
    kept = suppressed(e, whole(e, of_class), best, ALL, layer.overlap, LOWEST)
    if layer.most:
        ranked = e.op("Where", e.op("Greater", kept, e.number(0)), e.op("Reshape", best, e.ints(-1)), e.number(NONE))
        most = e.op("Min", e.op("Shape", kept), e.ints(layer.most))
        values, spot = e.op("TopK", ranked, most, outputs=2, axis=0)
        ones = e.op("Cast", e.op("Greater", values, e.number(NONE)), to=FLOAT)
        kept = e.op("ScatterElements", e.op("Mul", kept, e.number(0)), spot, ones, axis=0)
    where = e.op("Transpose", e.op("NonZero", e.op("Reshape", kept, e.op("Shape", best))), perm=(1, 0))
    label = e.op("Add", e.op("Cast", part(e, where, 0, 1), to=FLOAT), e.number(1))
    score = e.op("Unsqueeze", e.op("GatherND", best, where), e.ints(1))
    made = e.op("Concat", e.op("Mul", label, e.number(0)), e.op("GatherND", of_class, where), label, score, axis=1)
    made = e.op("Concat", e.constant([[0.0] + [-1.0] * 6]), made, axis=0)
    return str(e.op("Unsqueeze", made, e.ints(2, 3)))


def _check(layer: Layer, maps: Sequence[Value], nms_type: str, overlap: float) -> None:
    if nms_type != "IOU":
        raise unsaid(layer, f"nms_type: {nms_type} is not what NonMaxSuppression does")
    if not overlap >= 0:
        raise unsaid(layer, f"iou_thr: {overlap:g} lets boxes suppress others that they do not touch")
    for x in maps:
        static(layer, x, 1, 2, 3)


def _placed(
    e: Emitter, fields: Fields, codes: object, shape: Sequence[int], field: Sequence[float], stride: float
) -> tuple[str, str]:
    """The first corners and the sides (N, H W, 2) of boxes around the places of a map (N, 4, H, W)."""
    rows, columns = shape[2:]
    codes = e.op("Transpose", e.op("Reshape", codes, e.ints(-1, 4, rows * columns)), perm=(0, 2, 1))
    codes = e.op("Add", e.op("Mul", codes, e.constant(fields.std)), e.constant(fields.mean))
    y, x = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    places = (np.stack((x, y), -1).reshape(-1, 2).astype(np.float32) + np.float32(0.5)) * np.float32(stride)
    moved = e.op("Clip", part(e, codes, 0, 2), e.number(-fields.far), e.number(fields.far))
    centre = e.op("Add", e.op("Mul", moved, e.constant(field)), e.constant(places))
    scaled = e.op("Exp", e.op("Clip", part(e, codes, 2, 4), e.number(-fields.large), e.number(fields.large)))
    sides = e.op("Mul", scaled, e.constant(field))
    return e.op("Sub", centre, e.op("Mul", sides, e.number(0.5))), sides


def _counted(e: Emitter, score: object, sides: object, threshold: float, min_size: float) -> str:
    """The scores of those boxes that are likely and large enough."""
    large = e.op("Cast", e.op("GreaterOrEqual", sides, e.number(min_size)), to=FLOAT)
    large = e.op("Cast", e.op("ReduceMin", large, e.ints(-1), keepdims=0), to=BOOL)
    keep = e.op("And", large, e.op("GreaterOrEqual", score, e.number(threshold)))
    return str(e.op("Where", keep, score, e.number(NONE)))


def _together(e: Emitter, parts: Sequence[str], axis: int) -> str:
    return parts[0] if len(parts) == 1 else str(e.op("Concat", *parts, axis=axis))


def _best(
    e: Emitter,
    scores: object,
    boxes: object,
    number: int,
    limits: tuple[int | None, int | None, float],
    inclusive: bool,
) -> list[str]:
    """The tops: regions of the best boxes, (N, number) and (N, number, 4), that do not overlap, and their scores."""
    before, after, overlap = limits
    width = min(before or number, number)
    best, place = e.op("TopK", scores, e.ints(width), outputs=2, axis=1)
    index = e.op("Expand", e.op("Unsqueeze", place, e.ints(2)), e.ints(1, 1, 4))
    boxes = e.op("GatherElements", boxes, index, axis=1)
    kept = suppressed(e, whole(e, boxes) if inclusive else boxes, best, after or ALL, overlap, LOWEST)
    where = e.op("Transpose", e.op("NonZero", e.op("Reshape", kept, e.ints(-1, width))), perm=(1, 0))
    image = e.op("Cast", part(e, where, 0, 1), to=FLOAT)
    regions = e.op("Concat", image, e.op("GatherND", boxes, where), axis=1)
    scored = e.op("Concat", regions, e.op("Unsqueeze", e.op("GatherND", best, where), e.ints(1)), axis=1)
    found = e.op("Slice", e.op("Shape", where), e.ints(0), e.ints(1))
    empty = e.op("Cast", e.op("Equal", found, e.ints(0)), to=INT64)
    tops = []
    for rows, none in ((regions, NO_BOX), (scored, (0,) * 6)):
        instead = e.op("Slice", e.constant([none]), e.ints(0), empty, e.ints(0))
        tops.append(str(e.op("Unsqueeze", e.op("Concat", rows, instead, axis=0), e.ints(2, 3))))
    return tops[: len(e.tops)]

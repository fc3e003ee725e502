"""Regions of interest: their proposal from anchors, and the poolings of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...forks.cascade_rcnn.routing import WholeROIPooling
from ...forks.fast_rcnn.anchors import placed
from ...forks.fast_rcnn.proposal_layer import MIN_SIZE, THRESHOLD, PythonProposal
from ...forks.fast_rcnn.roi_pooling import ROIPooling
from ...forks.happynear.proposal import Proposal
from ...forks.happynear.roi_pooling import HalvesUpROIPooling
from ...forks.intel.roi_pooling import VolumeROIPooling
from ...forks.mnc.roi_warping import ROIWarping
from ...forks.mscnn.roi_align import GridROIAlign
from ...forks.mscnn.roi_pooling import PaddedROIPooling
from ...forks.psroi_align.psroi_align import PSROIAlign
from ...forks.rfcn.psroi_pooling import PSROIPooling
from ...forks.synopsys.proposal import RoundedProposal
from ..outline import Value
from ..registry import static, unsaid
from .emitter import DOUBLE, FLOAT, INT64, Emitter, emits
from .suppression import LOWEST, NONE, part, suppressed, whole


@emits(ROIPooling, VolumeROIPooling)
def roi_pooling(e: Emitter, layer: ROIPooling, x: Value, regions: Value) -> str:
    if len(layer.pooled) != 2:
        raise unsaid(layer, "its regions are of volumes, and ONNX's MaxRoiPool is of planes")
    return _pooled(e, layer, x, e.op("Reshape", regions, e.ints(-1, 5)), float(layer.scale))


@emits(HalvesUpROIPooling, PaddedROIPooling, WholeROIPooling)
def moved_roi_pooling(e: Emitter, layer: ROIPooling, x: Value, regions: Value) -> str:
    """``MaxRoiPool`` of regions whose cells are found before it."""
    rows = e.op("Reshape", regions, e.ints(-1, 5))
    low, high = part(e, rows, 1, 3), part(e, rows, 3, 5)
    if isinstance(layer, PaddedROIPooling):
        side = e.op("Add", e.op("Sub", high, low), e.number(1))
        pad = e.op("Mul", side, e.number(layer.pad_ratio))
        low, high = e.op("Sub", low, pad), e.op("Add", high, pad)
    cells = e.op("Mul", e.op("Concat", low, high, axis=1), e.number(layer.scale))
    if isinstance(layer, HalvesUpROIPooling):
        cells = e.op("Floor", e.op("Add", cells, e.number(0.5)))
    return _pooled(e, layer, x, e.op("Concat", part(e, rows, 0, 1), cells, axis=1), 1.0)


def _pooled(e: Emitter, layer: ROIPooling, x: object, rows: object, scale: float) -> str:
    return str(e.op("MaxRoiPool", x, rows, pooled_shape=list(layer.pooled), spatial_scale=scale))


@emits(PSROIPooling)
def psroi_pooling(e: Emitter, layer: PSROIPooling, x: Value, regions: Value) -> str:
    """The sum of a bin is of four sums from the corner of the plane: in float64, so that nothing is lost between them."""
    static(layer, x, 1, 2, 3)
    group, channels = layer.group, layer.channels
    height, width = x.shape[2:]
    rows = e.op("Reshape", regions, e.ints(-1, 5))
    corners = _rounded(e, part(e, rows, 1, 5))
    low = e.op("Mul", part(e, corners, 0, 2), e.number(layer.scale))
    high = e.op("Mul", e.op("Add", part(e, corners, 2, 4), e.number(1)), e.number(layer.scale))
    length = e.op("Div", e.op("Max", e.op("Sub", high, low), e.number(0.1)), e.number(group))
    sides = []
    for axis, side in ((1, height), (0, width)):
        begin, each = (part(e, value, axis, axis + 1) for value in (low, length))
        edges = []
        for kind, bins in (("Floor", range(group)), ("Ceil", range(1, group + 1))):
            place = e.op(kind, e.op("Add", e.op("Mul", e.constant([list(bins)]), each), begin))
            edges.append(e.op("Cast", e.op("Clip", place, e.number(0), e.number(side)), to=INT64))
        sides.append((edges[0], e.op("Max", *edges)))

    sums = e.op("Cast", x, to=DOUBLE)
    for axis in (2, 3):
        sums = e.op("CumSum", sums, e.constant(axis, np.int64))
    sums = e.op("Pad", sums, e.ints(0, 0, 1, 1, 0, 0, 0, 0))
    sums = e.op("Reshape", sums, e.ints(-1, channels, group**2, (height + 1) * (width + 1)))
    sums = e.op("Reshape", e.op("Transpose", sums, perm=(0, 2, 3, 1)), e.ints(-1, channels))

    image = e.op("Cast", part(e, rows, 0, 1), to=INT64)
    maps = e.op("Add", e.op("Mul", image, e.ints(group**2)), e.constant([list(range(group**2))], np.int64))
    maps = e.op("Mul", e.op("Reshape", maps, e.ints(-1, group, group)), e.ints((height + 1) * (width + 1)))
    down = [e.op("Unsqueeze", place, e.ints(2)) for place in sides[0]]
    across = [e.op("Unsqueeze", place, e.ints(1)) for place in sides[1]]

    def total(row: int, column: int) -> object:
        place = e.op("Add", e.op("Add", maps, e.op("Mul", down[row], e.ints(width + 1))), across[column])
        return e.op("Gather", sums, place, axis=0)  # (R, group, group, channels)

    inside = e.op("Sub", e.op("Sub", total(1, 1), total(0, 1)), e.op("Sub", total(1, 0), total(0, 0)))
    area = e.op("Mul", e.op("Sub", down[1], down[0]), e.op("Sub", across[1], across[0]))
    area = e.op("Cast", e.op("Unsqueeze", e.op("Max", area, e.ints(1)), e.ints(3)), to=DOUBLE)
    return str(e.op("Transpose", e.op("Cast", e.op("Div", inside, area), to=FLOAT), perm=(0, 3, 1, 2)))


def _rounded(e: Emitter, x: object) -> str:
    """The nearest whole number, halves away from zero."""
    sign, size = e.op("Sign", x), e.op("Abs", x)
    whole = e.op("Floor", size)
    more = e.op("Cast", e.op("GreaterOrEqual", e.op("Sub", size, whole), e.number(0.5)), to=FLOAT)
    return str(e.op("Mul", sign, e.op("Add", whole, more)))


@emits(GridROIAlign)
def grid_roi_align(e: Emitter, layer: GridROIAlign, x: Value, regions: Value) -> str:
    """Four gathers, one for each place around a corner of a bin, from planes that have become rows."""
    static(layer, x, 1, 2, 3)
    height, width = x.shape[2:]
    table = e.op("Reshape", regions, e.ints(-1, 5))
    low, high = part(e, table, 1, 3), part(e, table, 3, 5)
    pad = e.op("Mul", e.op("Add", e.op("Sub", high, low), e.number(1)), e.number(layer.pad_ratio))
    low, high = (
        e.op("Sub", e.op("Mul", each, e.number(layer.scale)), e.number(0.5))
        for each in (e.op("Sub", low, pad), e.op("Add", high, pad))
    )
    size = e.op("Sub", high, low)
    upright = e.op("Greater", e.op("ReduceMin", size, e.ints(1)), e.number(0))
    sides = []
    for k, bins, side in ((1, layer.pooled[0], height), (0, layer.pooled[1], width)):
        step = e.op("Mul", e.constant([list(range(bins + 1))]), e.op("Div", part(e, size, k, k + 1), e.number(bins)))
        at = e.op("Add", part(e, low, k, k + 1), step)
        inside = e.op("And", e.op("GreaterOrEqual", at, e.number(-0.5)), e.op("LessOrEqual", at, e.number(side - 0.5)))
        inside = e.op("And", inside, upright)
        first = e.op("Clip", e.op("Floor", at), e.number(-1), e.number(side))
        place = e.op("Clip", first, e.number(0), e.number(side - 1))
        rest = e.op("Sub", e.op("Clip", at, e.number(0), e.number(side - 1)), place)
        second = e.op("Clip", e.op("Add", first, e.number(1)), e.number(0), e.number(side - 1))
        pairs = ((e.op("Sub", e.number(1), rest), place), (rest, second))
        sides.append(
            [(e.op("Where", inside, share, e.number(0)), e.op("Cast", spot, to=INT64)) for share, spot in pairs]
        )
    return _gathered(e, x, table, sides)


@emits(ROIWarping)
def roi_warping(e: Emitter, layer: ROIWarping, x: Value, regions: Value) -> str:
    static(layer, x, 1, 2, 3)
    table = e.op("Reshape", regions, e.ints(-1, 5))
    cells = _rounded(e, e.op("Mul", part(e, table, 1, 5), e.number(layer.scale)))
    low, high = part(e, cells, 0, 2), part(e, cells, 2, 4)
    size = e.op("Max", e.op("Sub", high, low), e.number(0))
    sides = []
    for k, bins, side in ((1, layer.pooled[0], x.shape[2]), (0, layer.pooled[1], x.shape[3])):
        step = e.op("Mul", e.constant([list(range(bins))]), e.op("Div", part(e, size, k, k + 1), e.number(bins)))
        at = e.op("Add", part(e, low, k, k + 1), step)
        inside = e.op("And", e.op("GreaterOrEqual", at, e.number(-0.5)), e.op("LessOrEqual", at, e.number(side - 0.5)))
        at = e.op("Clip", at, e.number(0), e.number(side - 1))
        first = e.op("Floor", at)
        rest = e.op("Sub", at, first)
        second = e.op("Min", e.op("Add", first, e.number(1)), e.number(side - 1))
        pairs = ((e.op("Sub", e.number(1), rest), first), (rest, second))
        sides.append(
            [(e.op("Where", inside, share, e.number(0)), e.op("Cast", spot, to=INT64)) for share, spot in pairs]
        )
    return _gathered(e, x, table, sides)


def _gathered(e: Emitter, x: Value, table: object, sides: Sequence[Sequence[tuple[object, object]]]) -> str:
    """Values between places of the planes of regions: of each axis two weights with their places, (R, bins)."""
    channels, height, width = x.shape[1:]
    rows = e.op("Reshape", e.op("Transpose", x, perm=(0, 2, 3, 1)), e.ints(-1, channels))
    image = e.op("Mul", e.op("Cast", part(e, table, 0, 1), to=INT64), e.ints(height))
    y: object = None
    for down, row in sides[0]:
        lines = e.op("Unsqueeze", e.op("Mul", e.op("Add", image, row), e.ints(width)), e.ints(2))
        for across, column in sides[1]:
            values = e.op("Gather", rows, e.op("Add", lines, e.op("Unsqueeze", column, e.ints(1))), axis=0)
            weight = e.op("Mul", e.op("Unsqueeze", down, e.ints(2)), e.op("Unsqueeze", across, e.ints(1)))
            term = e.op("Mul", values, e.op("Unsqueeze", weight, e.ints(3)))
            y = term if y is None else e.op("Add", y, term)
    return str(e.op("Transpose", y, perm=(0, 3, 1, 2)))


@emits(PSROIAlign)
def psroi_align(e: Emitter, layer: PSROIAlign, x: Value, regions: Value) -> str:
    """As :func:`grid_roi_align`, of the points in each bin, whose channels are its own."""
    static(layer, x, 1, 2, 3)
    group, points, (height, width) = layer.group, layer.points, x.shape[2:]
    table = e.op("Reshape", regions, e.ints(-1, 5))
    low = e.op("Mul", part(e, table, 1, 3), e.number(layer.scale))
    high = e.op("Mul", e.op("Add", part(e, table, 3, 5), e.number(1)), e.number(layer.scale))
    length = e.op("Div", e.op("Max", e.op("Sub", high, low), e.number(0.1)), e.number(group))
    sides = []
    for k, side in ((1, height), (0, width)):
        each = part(e, length, k, k + 1)
        edges = e.op("Add", e.op("Mul", e.constant([list(range(group + 1))]), each), part(e, low, k, k + 1))
        edges = e.op("Clip", edges, e.number(0), e.number(side - 1))
        first, stop = (e.op("Unsqueeze", part(e, edges, i, group + i), e.ints(2)) for i in (0, 1))
        step = e.op("Unsqueeze", e.op("Div", each, e.number(points + 1)), e.ints(2))
        at = e.op("Add", first, e.op("Mul", e.constant(np.arange(1, points + 1).reshape(1, 1, -1)), step))
        inside = e.op("Cast", e.op("Less", at, stop), to=FLOAT)
        near = e.op("Min", at, e.number(side - 1))
        place = e.op("Floor", near)
        rest = e.op("Sub", near, place)
        second = e.op("Min", e.op("Add", place, e.number(1)), e.number(side - 1))
        pairs = ((e.op("Sub", e.number(1), rest), place), (rest, second))
        sides.append([(e.op("Mul", share, inside), e.op("Cast", spot, to=INT64)) for share, spot in pairs])
    rows = e.op("Reshape", x, e.ints(-1, layer.channels, group * group, height, width))
    rows = e.op("Reshape", e.op("Transpose", rows, perm=(0, 2, 3, 4, 1)), e.ints(-1, layer.channels))
    image = e.op("Cast", part(e, table, 0, 1), to=INT64)
    maps = e.op("Add", e.op("Mul", image, e.ints(group**2)), e.constant([list(range(group**2))], np.int64))
    maps = e.op("Reshape", e.op("Mul", maps, e.ints(height)), e.ints(-1, group, group, 1, 1))
    y: object = None
    for share, row in sides[0]:
        lines = e.op("Mul", e.op("Add", maps, e.op("Unsqueeze", row, e.ints(2, 4))), e.ints(width))
        for other, column in sides[1]:
            values = e.op("Gather", rows, e.op("Add", lines, e.op("Unsqueeze", column, e.ints(1, 3))), axis=0)
            weight = e.op("Mul", e.op("Unsqueeze", share, e.ints(2, 4)), e.op("Unsqueeze", other, e.ints(1, 3)))
            term = e.op("Mul", values, e.op("Unsqueeze", weight, e.ints(5)))
            y = term if y is None else e.op("Add", y, term)
    mean = e.op("Div", e.op("ReduceSum", y, e.ints(3, 4), keepdims=0), e.number(points**2))
    return str(e.op("Transpose", mean, perm=(0, 3, 1, 2)))


@emits(Proposal)
def proposal(e: Emitter, layer: Proposal, scores: Value, shifts: Value, sizes: Value) -> list[str]:
    """Boxes hold their last pixels, which ``NonMaxSuppression``'s do not: it gets corners that are a pixel further.

    Boxes that are less than a pixel apart then overlap, too; only ones of a pixel or two can overlap much by that.
    """
    number = _check(layer, scores, layer.threshold)
    a, (height, columns) = len(layer.anchors), scores.shape[2:]
    values = e.op("Slice", scores, e.ints(a), e.ints(2 * a), e.ints(1))
    values = e.op("Reshape", e.op("Transpose", values, perm=(0, 2, 3, 1)), e.ints(-1, number))
    codes = e.op("Reshape", shifts, e.ints(-1, a, 4, height, columns))
    codes = e.op("Reshape", e.op("Transpose", codes, perm=(0, 3, 4, 1, 2)), e.ints(-1, number, 4))
    anchors = placed(layer.anchors, layer.stride, height, columns, torch.empty(0))
    told = e.op("Reshape", sizes, e.ints(-1))
    corner = e.op("Sub", e.op("Gather", told, e.ints(1, 0, 1, 0)), e.number(1))
    boxes = _moved(e, anchors, codes)
    boxes = e.op("Where", e.op("IsNaN", boxes), e.number(0), boxes)
    boxes = e.op("Max", e.op("Min", boxes, corner), e.number(0))
    least: object = e.number(layer.min_size)
    if np.prod(sizes.shape) > 3:
        least = e.op("Mul", least, e.op("Gather", told, e.ints(3, 2)))
    values = e.op("Mul", values, e.op("Cast", _large(e, boxes, least), to=FLOAT))

    width = min(layer.before, number)
    best, place = e.op("TopK", values, e.ints(width), outputs=2, axis=1)
    index = e.op("Expand", e.op("Unsqueeze", place, e.ints(2)), e.ints(1, 1, 4))
    boxes = e.op("GatherElements", boxes, index, axis=1)
    kept = e.op("Reshape", suppressed(e, whole(e, boxes), best, layer.after, layer.threshold), e.ints(-1, width))
    where = e.op("Transpose", e.op("NonZero", kept), perm=(1, 0))
    image = e.op("Cast", part(e, where, 0, 1), to=FLOAT)
    regions = e.op("Concat", image, e.op("GatherND", boxes, where), axis=1)
    return [regions, e.op("GatherND", best, where)][: len(e.tops)]


@emits(RoundedProposal)
def rounded_proposal(e: Emitter, layer: RoundedProposal, scores: Value, shifts: Value, sizes: Value) -> list[str]:
    """As :func:`proposal`, of one image; boxes that are less than a pixel apart overlap here, too."""
    number = _check(layer, scores, layer.threshold)
    a, (height, columns) = len(layer.anchors), scores.shape[2:]
    values = e.op("Reshape", e.op("Slice", scores, e.ints(a), e.ints(2 * a), e.ints(1)), e.ints(1, number))
    codes = e.op("Reshape", shifts, e.ints(a, 4, height * columns))
    codes = e.op("Reshape", e.op("Transpose", codes, perm=(0, 2, 1)), e.ints(number, 4))
    anchors = placed(layer.anchors, layer.stride, height, columns, torch.empty(0)).reshape(-1, a, 4)
    told = e.op("Reshape", sizes, e.ints(-1))
    limit = e.op("Cast", e.op("Cast", e.op("Gather", told, e.ints(1, 0, 1, 0)), to=INT64), to=FLOAT)
    limit = e.op("Sub", limit, e.number(1))
    boxes = _moved(e, anchors.transpose(0, 1).reshape(-1, 4), codes)
    boxes = e.op("Max", e.op("Where", e.op("Less", boxes, limit), boxes, limit), e.number(0))
    large = _large(e, boxes, e.op("Mul", e.number(layer.min_size), e.op("Gather", told, e.ints(2))))
    last = e.constant(np.arange(number) == number - 1, bool)
    values = e.op("Where", e.op("Or", large, last), values, e.number(NONE))

    turned = e.ints(*range(number - 1, -1, -1))
    best, place = e.op("TopK", e.op("Gather", values, turned, axis=1), e.ints(number), outputs=2, axis=1)
    boxes = e.op("Gather", e.op("Gather", boxes, turned, axis=0), e.op("Squeeze", place, e.ints(0)), axis=0)
    grouped = e.op("Unsqueeze", whole(e, boxes), e.ints(0))
    kept = suppressed(e, grouped, best, layer.nominal, layer.threshold, LOWEST)
    where = e.op("Squeeze", e.op("NonZero", kept), e.ints(0))
    regions = e.op("Pad", e.op("Gather", boxes, where, axis=0), e.ints(0, 1, 0, 0))
    scores_of = e.op("Gather", e.op("Transpose", best, perm=(1, 0)), where, axis=0)
    return [regions, scores_of][: len(e.tops)]


@emits(PythonProposal)
def python_proposal(e: Emitter, layer: PythonProposal, scores: Value, shifts: Value, sizes: Value) -> list[str]:
    """As :func:`rounded_proposal`, by row, column and anchor; boxes that are too small do not count."""
    number = _check(layer, scores, THRESHOLD)
    a, (height, columns) = len(layer.anchors), scores.shape[2:]
    values = e.op("Slice", scores, e.ints(a), e.ints(2 * a), e.ints(1))
    values = e.op("Reshape", e.op("Transpose", values, perm=(0, 2, 3, 1)), e.ints(1, number))
    codes = e.op("Reshape", e.op("Transpose", shifts, perm=(0, 2, 3, 1)), e.ints(number, 4))
    told = e.op("Reshape", sizes, e.ints(-1))
    corner = e.op("Sub", e.op("Gather", told, e.ints(1, 0, 1, 0)), e.number(1))
    boxes = _moved(e, placed(layer.anchors, layer.stride, height, columns, torch.empty(0)), codes)
    boxes = e.op("Max", e.op("Min", boxes, corner), e.number(0))
    large = _large(e, boxes, e.op("Mul", e.number(MIN_SIZE), e.op("Gather", told, e.ints(2))))
    values = e.op("Where", large, values, e.number(NONE))
    best, place = e.op("TopK", values, e.ints(min(layer.before, number)), outputs=2, axis=1)
    boxes = e.op("Gather", boxes, e.op("Squeeze", place, e.ints(0)), axis=0)
    kept = suppressed(e, e.op("Unsqueeze", whole(e, boxes), e.ints(0)), best, layer.after, THRESHOLD, LOWEST)
    where = e.op("Squeeze", e.op("NonZero", kept), e.ints(0))
    regions = e.op("Pad", e.op("Gather", boxes, where, axis=0), e.ints(0, 1, 0, 0))
    return [regions, e.op("Gather", e.op("Transpose", best, perm=(1, 0)), where, axis=0)][: len(e.tops)]


def _check(layer: Proposal | RoundedProposal | PythonProposal, scores: Value, threshold: float) -> int:
    """The number of anchors of all places."""
    static(layer, scores, 1, 2, 3)
    if not threshold >= 0:
        raise unsaid(layer, f"a threshold of {threshold:g} lets boxes suppress others that they do not touch")
    return len(layer.anchors) * scores.shape[2] * scores.shape[3]


def _moved(e: Emitter, anchors: Tensor, codes: object) -> str:
    """The boxes that ``codes`` make of anchors."""
    size = anchors[:, 2:] - anchors[:, :2] + 1
    middle = anchors[:, :2] + 0.5 * size
    side = e.constant(size.numpy())
    centre = e.op("Add", e.op("Mul", part(e, codes, 0, 2), side), e.constant(middle.numpy()))
    half = e.op("Mul", e.number(0.5), e.op("Mul", e.op("Exp", part(e, codes, 2, 4)), side))
    return str(e.op("Concat", e.op("Sub", centre, half), e.op("Add", centre, half), axis=-1))


def _large(e: Emitter, boxes: object, least: object) -> str:
    """Whether both sides of each box (…, 4) have at least so many pixels."""
    side = e.op("Add", e.op("Sub", part(e, boxes, 2, 4), part(e, boxes, 0, 2)), e.number(1))
    enough = e.op("Cast", e.op("GreaterOrEqual", side, least), to=INT64)
    return str(e.op("Equal", e.op("ReduceMin", enough, e.ints(-1), keepdims=0), e.constant(1, np.int64)))

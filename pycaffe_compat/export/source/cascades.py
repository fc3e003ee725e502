"""Boxes of MS-CNN and Cascade R-CNN: from maps, from the regions of the stage before, and as detections."""

from __future__ import annotations

from ...forks.cascade_rcnn.box_output import BoxGroupOutput, FrcnnOutput
from ...forks.cascade_rcnn.routing import ScaleRoute
from ...forks.mscnn.box_output import BoxOutput, RegionOutput
from ...forks.mscnn.boxes import Fields
from ...forks.mscnn.decode_bbox import DecodeBBox
from ..outline import Value
from .helpers import cascades as helpers
from .layout import call, literal, unless
from .writer import Several, Writer, writes


@writes(DecodeBBox)
def decode_bbox(w: Writer, layer: DecodeBBox, codes: Value, regions: Value) -> str:
    return call(w.helper(helpers.next_regions), codes, regions, layer.mean, layer.std)


@writes(ScaleRoute)
def scale_route(w: Writer, layer: ScaleRoute, *bottoms: Value) -> str | Several:
    bounds = (layer.low, layer.high, layer.middle)
    y = call(w.helper(helpers.route_by_scale), tuple(map(str, bottoms)), *map(float, bounds))
    return f"{y}[0]" if len(w.tops) == 1 else Several(y)


def _bounds(fields: Fields) -> dict[str, object]:
    """How far codes may move and scale boxes."""
    return {"mean": fields.mean, "std": fields.std, "far": float(fields.far), "large": float(fields.large)}


@writes(BoxOutput)
def box_output(w: Writer, layer: BoxOutput, *maps: Value) -> str | Several:
    boxes = call(w.helper(helpers.boxes_of_maps), tuple(map(str, maps)), tuple(layer.maps), **_bounds(layer.fields))
    return _kept(w, layer, boxes)


@writes(BoxGroupOutput)
def box_group_output(w: Writer, layer: BoxGroupOutput, *maps: Value) -> str | Several:
    groups = tuple((tuple(fields), stride) for fields, stride in layer.groups)
    boxes = call(w.helper(helpers.boxes_of_groups), tuple(map(str, maps)), groups, **_bounds(layer.fields))
    return _kept(w, layer, boxes)


def _kept(w: Writer, layer: RegionOutput, boxes: str) -> str | Several:
    y = call(
        w.helper(helpers.keep_regions),
        boxes,
        least_score=float(layer.threshold),
        min_size=float(layer.min_size),
        before=layer.before,
        after=layer.after,
        kind=literal(f'"{layer.nms_type}"'),
        overlap=float(layer.overlap),
        pixel=unless(0, int(layer.inclusive)),
    )
    return f"{y}[0]" if len(w.tops) == 1 else Several(y)


@writes(FrcnnOutput)
def frcnn_output(w: Writer, layer: FrcnnOutput, scores: Value, codes: Value, regions: Value, size: Value) -> str:
    return call(
        w.helper(helpers.detect_in_regions),
        scores,
        codes,
        regions,
        size,
        mean=layer.mean,
        std=layer.std,
        least_score=float(layer.threshold),
        kind=literal(f'"{layer.nms_type}"'),
        overlap=float(layer.overlap),
        most=layer.most or None,
    )

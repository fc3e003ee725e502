"""Layers of detectors."""

from __future__ import annotations

import numpy as np
import torch

from ...forks.faceboxes.prior_box import DensePriorBox
from ...forks.openvino.prior_box_clustered import PriorBoxClustered
from ...forks.refinedet.detection_output import RefinedDetectionOutput
from ...forks.ssd import boxes as bx
from ...forks.ssd.detection_output import DetectionOutput
from ...forks.ssd.normalize import Normalize
from ...forks.ssd.prior_box import PriorBox, Priors
from ...forks.textboxes.detection_output import TextDetectionOutput
from ...forks.textboxes.prior_box import DoublePriorBox
from ...forks.textboxes_plus.prior_box import DenserPriorBox
from ..outline import Value
from ..registry import static, unsaid
from .emitter import FLOAT, Emitter, emits
from .suppression import NONE, nothing, part, suppressed


@emits(Normalize)
def normalize(e: Emitter, layer: Normalize, x: Value) -> str:
    axes = range(1, len(x.shape)) if layer.across_spatial else (1,)
    squares = e.op("ReduceSum", e.op("Mul", x, x), e.ints(*axes))
    norm = e.op("Sqrt", e.op("Add", squares, e.number(layer.eps)))
    scale = layer.scale.reshape(-1, *(1,) * (len(x.shape) - 2))
    return str(e.op("Mul", e.op("Div", x, norm), e.array(layer, "scale", scale)))


@emits(PriorBox, DensePriorBox, DoublePriorBox, DenserPriorBox, PriorBoxClustered)
def priors(e: Emitter, layer: Priors, x: Value, picture: Value) -> str:
    for value in (x, picture):
        if len(value.shape) > 2:
            static(layer, value, *range(2, len(value.shape)))
    return e.array(layer, "priors", layer(torch.empty(x.shape), torch.empty(picture.shape)))


@emits(DetectionOutput, RefinedDetectionOutput, TextDetectionOutput)
def detection_output(e: Emitter, layer: DetectionOutput, loc: Value, conf: Value, prior: Value, *more: Value) -> str:
    """Groups are the classes of each image: ``NonMaxSuppression`` takes each for an image of one class."""
    if layer.eta < 1 and layer.overlap > 0.5:
        raise unsaid(layer, f"eta: {layer.eta:g} changes the threshold while boxes are chosen")
    if 0 in (layer.top_k, layer.keep_top_k, len(layer.labels)):
        raise unsaid(layer, "it detects nothing: top_k or keep_top_k is 0, or the background is its only class")
    for value in (loc, conf, prior, *more):
        static(layer, value, *range(1, len(value.shape)))
    number, classes = prior.shape[2] // 4, len(layer.labels)
    width = number if layer.top_k < 0 else min(layer.top_k, number)
    extra = more if isinstance(layer, RefinedDetectionOutput) else ()

    scores = e.op("Reshape", conf, e.ints(-1, number, layer.classes))
    if extra and isinstance(layer, RefinedDetectionOutput):
        weak = e.op("Less", part(e, e.op("Reshape", extra[0], e.ints(-1, number, 2)), 1, 2), e.number(layer.objectness))
        scores = e.op("Where", weak, e.constant([[[1.0] + [0.0] * (layer.classes - 1)]]), scores)
    scores = e.op("Transpose", e.op("Gather", scores, e.ints(*layer.labels), axis=2), perm=(0, 2, 1))
    scores, place = e.op("TopK", e.op("Reshape", scores, e.ints(-1, number)), e.ints(width), outputs=2, axis=1)
    boxes = _of_groups(e, layer, _decoded(e, layer, loc, prior, number, extra), place, number, width)

    kept = suppressed(e, boxes, scores, width, layer.overlap, layer.least_score)
    flat = classes * width
    scores, kept = (e.op("Reshape", each, e.ints(-1, flat)) for each in (scores, kept))
    if -1 < layer.keep_top_k < flat:
        kept = _strongest(e, scores, kept, layer.keep_top_k)
    where = e.op("Transpose", e.op("NonZero", kept), perm=(1, 0))
    rank = part(e, where, 1, 2)
    label = e.op("Gather", e.constant(layer.labels), e.op("Div", rank, e.ints(width)))
    rows = e.op(
        "Concat",
        e.op("Cast", part(e, where, 0, 1), to=FLOAT),
        label,
        e.op("Unsqueeze", e.op("GatherND", scores, where), e.ints(1)),
        e.op("GatherND", e.op("Reshape", boxes, e.ints(-1, flat, 4)), where),
        axis=1,
    )
    rows = e.op("Concat", rows, nothing(e, scores, where, isinstance(layer, TextDetectionOutput)), axis=0)
    return str(e.op("Unsqueeze", rows, e.ints(0, 1)))


def _decoded(
    e: Emitter, layer: DetectionOutput, loc: Value, prior: Value, number: int, extra: tuple[Value, ...]
) -> str:
    """The boxes (N, priors, 1 or classes, 4)."""
    given = e.op("Reshape", e.op("Gather", prior, e.constant(0, np.int64), axis=0), e.ints(2, number, 1, 4))
    box, variance = (e.op("Gather", given, e.constant(i, np.int64), axis=0) for i in range(2))
    for value, kinds in (*((each, 1) for each in extra[1:]), (loc, 1 if layer.share_location else layer.classes)):
        code: object = e.op("Reshape", value, e.ints(-1, number, kinds, 4))
        if not layer.variance_in_target:
            code = e.op("Mul", variance, code)
        box = _one_decoded(e, layer.code_type, box, code)
    return str(box)


def _one_decoded(e: Emitter, code_type: int, box: object, code: object) -> str:
    if code_type == bx.CORNER:
        return str(e.op("Add", box, code))
    first, last = part(e, box, 0, 2), part(e, box, 2, 4)
    size = e.op("Sub", last, first)
    if code_type == bx.CORNER_SIZE:
        return str(e.op("Add", box, e.op("Mul", code, e.op("Concat", size, size, axis=-1))))
    half = e.number(0.5)
    centre = e.op("Add", e.op("Mul", part(e, code, 0, 2), size), e.op("Mul", e.op("Add", first, last), half))
    reach = e.op("Mul", e.op("Mul", e.op("Exp", part(e, code, 2, 4)), size), half)
    return str(e.op("Concat", e.op("Sub", centre, reach), e.op("Add", centre, reach), axis=-1))


def _of_groups(e: Emitter, layer: DetectionOutput, boxes: str, place: str, number: int, width: int) -> str:
    """The boxes at the ``place`` s of each group: (groups, width, 4)."""
    if layer.share_location:  # of all classes of an image
        boxes, row = e.op("Reshape", boxes, e.ints(-1, number, 4)), len(layer.labels) * width
    else:
        boxes = e.op("Transpose", e.op("Gather", boxes, e.ints(*layer.labels), axis=2), perm=(0, 2, 1, 3))
        boxes, row = e.op("Reshape", boxes, e.ints(-1, number, 4)), width
    index = e.op("Expand", e.op("Reshape", place, e.ints(-1, row, 1)), e.ints(1, 1, 4))
    return str(e.op("Reshape", e.op("GatherElements", boxes, index, axis=1), e.ints(-1, width, 4)))


def _strongest(e: Emitter, scores: str, kept: str, most: int) -> str:
    """1 for those of ``kept`` (N, n) that are among the ``most`` highest scores of their image."""
    ranked = e.op("Where", e.op("Greater", kept, e.number(0)), scores, e.number(NONE))
    best, place = e.op("TopK", ranked, e.ints(most), outputs=2, axis=1)
    ones = e.op("Cast", e.op("Greater", best, e.number(NONE)), to=FLOAT)
    return str(e.op("ScatterElements", e.op("Mul", kept, e.number(0)), place, ones, axis=1))

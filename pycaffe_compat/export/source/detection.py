"""Layers of detectors."""

from __future__ import annotations

import torch

from ...forks.fast_rcnn.roi_pooling import ROIPooling
from ...forks.openvino.prior_box_clustered import PriorBoxClustered
from ...forks.refinedet.detection_output import RefinedDetectionOutput
from ...forks.ssd import boxes as bx
from ...forks.ssd.detection_output import DetectionOutput
from ...forks.ssd.prior_box import PriorBox, Priors
from ..outline import Value
from ..registry import static
from . import helpers
from .layout import call, unless
from .writer import Writer, writes

_DECODERS = {
    bx.CORNER: helpers.decode_corners,
    bx.CENTER_SIZE: helpers.decode_centre_size,
    bx.CORNER_SIZE: helpers.decode_corner_size,
}


@writes(PriorBox, PriorBoxClustered)
def priors(w: Writer, layer: Priors, x: Value, picture: Value) -> str:
    """Boxes that depend on sizes alone: a buffer."""
    for value in (x, picture):
        if len(value.shape) > 2:
            static(layer, value, *range(2, len(value.shape)))
    return w.parameter(layer, layer(torch.empty(x.shape), torch.empty(picture.shape)), learns=False)


@writes(DetectionOutput, RefinedDetectionOutput)
def detection_output(w: Writer, layer: DetectionOutput, loc: Value, conf: Value, prior: Value, *more: Value) -> str:
    decode = w.helper(_DECODERS[layer.code_type])
    variances = unless(True, not layer.variance_in_target)
    scores = str(conf)
    boxes = f"{prior}[:1]" if prior.shape[0] != 1 or 0 in prior.moving else str(prior)
    if isinstance(layer, RefinedDetectionOutput):
        if more:
            scores = call(w.helper(helpers.drop_weak), conf, more[0], layer.classes, layer.objectness)
        if len(more) > 1:
            boxes = call(w.helper(helpers.move_priors), more[1], boxes, decode, use_variances=variances)
    background = [label for label in range(layer.classes) if label not in layer.labels]
    return call(
        w.helper(helpers.detect),
        loc,
        scores,
        boxes,
        decode,
        classes=layer.classes,
        background=background[0] if background else -1,
        overlap=layer.overlap,
        least_score=layer.least_score if layer.least_score > -3e38 else float("-inf"),
        top_k=unless(-1, layer.top_k),
        keep_top_k=unless(-1, layer.keep_top_k),
        eta=unless(1, layer.eta),
        use_variances=variances,
    )


@writes(ROIPooling)
def roi_pooling(w: Writer, layer: ROIPooling, x: Value, regions: Value) -> str:
    return call(w.helper(helpers.roi_pool), x, regions, layer.pooled, layer.scale)

"""Layers of detectors."""

from __future__ import annotations

import torch

from ...forks.cascade_rcnn.routing import WholeROIPooling
from ...forks.faceboxes.prior_box import DensePriorBox
from ...forks.fast_rcnn.anchors import placed
from ...forks.fast_rcnn.proposal_layer import MIN_SIZE, THRESHOLD, PythonProposal
from ...forks.fast_rcnn.roi_pooling import ROIPooling
from ...forks.happynear.proposal import Proposal
from ...forks.happynear.roi_pooling import HalvesUpROIPooling
from ...forks.intel.roi_pooling import VolumeROIPooling
from ...forks.mnc.roi_warping import ROIWarping
from ...forks.mscnn.roi_align import GridROIAlign
from ...forks.mscnn.roi_pooling import PaddedROIPooling
from ...forks.openvino.prior_box_clustered import PriorBoxClustered
from ...forks.psroi_align.psroi_align import PSROIAlign
from ...forks.refinedet.detection_output import RefinedDetectionOutput
from ...forks.rfcn.psroi_pooling import PSROIPooling
from ...forks.ssd import boxes as bx
from ...forks.ssd.detection_output import DetectionOutput
from ...forks.ssd.prior_box import PriorBox, Priors
from ...forks.synopsys.proposal import RoundedProposal
from ...forks.textboxes.detection_output import TextDetectionOutput
from ...forks.textboxes.prior_box import DoublePriorBox
from ...forks.textboxes_plus.prior_box import DenserPriorBox
from ...forks.yolo.detection_output import GridDetections, YoloDetectionOutput, Yolov3DetectionOutput
from ..outline import Value
from ..registry import static, unsaid
from .helpers import proposals, region_pools, ssd, yolo
from .layout import call, unless
from .writer import Several, Writer, writes

_DECODERS = {
    bx.CORNER: ssd.decode_corners,
    bx.CENTER_SIZE: ssd.decode_centre_size,
    bx.CORNER_SIZE: ssd.decode_corner_size,
}


@writes(PriorBox, DensePriorBox, DoublePriorBox, DenserPriorBox, PriorBoxClustered)
def priors(w: Writer, layer: Priors, x: Value, picture: Value) -> str:
    """Boxes that depend only on sizes: a buffer."""
    for value in (x, picture):
        if len(value.shape) > 2:
            static(layer, value, *range(2, len(value.shape)))
    return w.parameter(layer, layer(torch.empty(x.shape), torch.empty(picture.shape)), learns=False)


@writes(DetectionOutput, RefinedDetectionOutput, TextDetectionOutput)
def detection_output(w: Writer, layer: DetectionOutput, loc: Value, conf: Value, prior: Value, *more: Value) -> str:
    decode = w.helper(_DECODERS[layer.code_type])
    variances = unless(True, not layer.variance_in_target)
    scores = str(conf)
    boxes = f"{prior}[:1]" if prior.shape[0] != 1 or 0 in prior.moving else str(prior)
    if isinstance(layer, RefinedDetectionOutput):
        if more:
            scores = call(w.helper(ssd.drop_weak), conf, more[0], layer.classes, layer.objectness)
        if len(more) > 1:
            boxes = call(w.helper(ssd.move_priors), more[1], boxes, decode, use_variances=variances)
    background = [label for label in range(layer.classes) if label not in layer.labels]
    return call(
        w.helper(ssd.detect),
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
        one_row=unless(False, isinstance(layer, TextDetectionOutput)),
    )


@writes(ROIPooling, VolumeROIPooling, HalvesUpROIPooling, PaddedROIPooling, WholeROIPooling)
def roi_pooling(w: Writer, layer: ROIPooling, x: Value, regions: Value) -> str:
    if len(layer.pooled) != 2:
        raise unsaid(layer, "its regions are of volumes")
    rows, scale = str(regions), layer.scale
    if isinstance(layer, HalvesUpROIPooling):
        rows, scale = call(w.helper(region_pools.round_regions_up), regions, scale), 1.0
    elif isinstance(layer, PaddedROIPooling):
        rows = call(w.helper(region_pools.pad_regions), regions, layer.pad_ratio)
    return call(w.helper(region_pools.roi_pool), x, rows, layer.pooled, scale)


@writes(PSROIPooling)
def psroi_pooling(w: Writer, layer: PSROIPooling, x: Value, regions: Value) -> str:
    return call(w.helper(region_pools.psroi_pool), x, regions, layer.group, layer.scale)


@writes(GridROIAlign)
def grid_roi_align(w: Writer, layer: GridROIAlign, x: Value, regions: Value) -> str:
    return call(
        w.helper(region_pools.align_grid), x, regions, layer.pooled, layer.scale, pad_ratio=unless(0, layer.pad_ratio)
    )


@writes(ROIWarping)
def roi_warping(w: Writer, layer: ROIWarping, x: Value, regions: Value) -> str:
    return call(w.helper(region_pools.warp_regions), x, regions, layer.pooled, layer.scale)


@writes(PSROIAlign)
def psroi_align(w: Writer, layer: PSROIAlign, x: Value, regions: Value) -> str:
    return call(w.helper(region_pools.align_bins), x, regions, layer.group, layer.points, layer.scale)


@writes(Proposal, RoundedProposal)
def proposal(w: Writer, layer: Proposal | RoundedProposal, scores: Value, shifts: Value, sizes: Value) -> str | Several:
    """Anchors at all places are a buffer."""
    static(layer, scores, 1, 2, 3)
    height, width = scores.shape[2:]
    anchors = placed(layer.anchors, layer.stride, height, width, torch.empty(0))
    options: dict[str, object] = {"min_size": layer.min_size, "overlap": layer.threshold}
    if isinstance(layer, Proposal):
        function = w.helper(proposals.propose)
        options |= {"before": layer.before, "after": layer.after}
    else:
        function = w.helper(proposals.propose_of_one)
        anchors = anchors.reshape(-1, len(layer.anchors), 4).transpose(0, 1).reshape(-1, 4)
        options |= {"most": layer.nominal}
    y = call(function, scores, shifts, sizes, w.parameter(layer, anchors, learns=False), **options)
    return f"{y}[0]" if len(w.tops) == 1 else Several(y)


@writes(PythonProposal)
def python_proposal(w: Writer, layer: PythonProposal, scores: Value, shifts: Value, sizes: Value) -> str | Several:
    static(layer, scores, 1, 2, 3)
    height, width = scores.shape[2:]
    anchors = w.parameter(layer, placed(layer.anchors, layer.stride, height, width, torch.empty(0)), learns=False)
    function = w.helper(proposals.propose_large)
    options = {"min_size": MIN_SIZE, "overlap": THRESHOLD, "before": layer.before, "after": layer.after}
    y = call(function, scores, shifts, sizes, anchors, **options)
    return f"{y}[0]" if len(w.tops) == 1 else Several(y)


@writes(YoloDetectionOutput, Yolov3DetectionOutput)
def grid_detections(w: Writer, layer: GridDetections, *maps: Value) -> str:
    if isinstance(layer, Yolov3DetectionOutput):
        read = yolo.read_gaussian_yolo if layer.gaussian else yolo.read_yolo_v3
        anchors = [tuple(layer.biases[mask] for mask in masks) for masks in layer.masks]
        images = [(x.shape[3] * s, x.shape[2] * s) for x, s in zip(maps, layer.scales, strict=False)]
    else:
        read = yolo.read_yolo_v2
        anchors = [tuple(layer.biases[: layer.boxes]) for _ in maps]
        images = [(x.shape[3], x.shape[2]) for x in maps]
    for each in maps:
        static(layer, each, 1, 2, 3)
    return call(
        w.helper(yolo.detect_in_grids),
        tuple(map(str, maps)),
        w.helper(read),
        tuple(anchors),
        tuple(images),
        least_score=layer.confidence,
        overlap=layer.threshold,
    )

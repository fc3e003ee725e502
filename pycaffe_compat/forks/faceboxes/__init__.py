"""FaceBoxes."""

from __future__ import annotations

from typing import Any

from ..fork import Fork

DENSE = (32, 64, 128)
BOXES = 21  # at a place: 16 of the smallest size, 4 of the next, and one


def has_dense_heads(net: Any) -> bool:
    """Whether a net predicts 21 boxes for the three sizes of a PriorBox layer, which no type or field says."""
    heads: dict[str, set[int]] = {}
    for layer in net.layer:
        if layer.type == "Convolution" and layer.bottom:
            heads.setdefault(layer.bottom[0], set()).add(layer.convolution_param.num_output)
    return any(
        4 * BOXES in heads.get(layer.bottom[0], ())
        for layer in net.layer
        if layer.type == "PriorBox" and layer.bottom and tuple(layer.prior_box_param.min_size) == DENSE
    )


FORK = Fork(
    name="faceboxes",
    title="FaceBoxes",
    source="sfzhang15/FaceBoxes",
    types="AnnotatedData DetectionEvaluate DetectionOutput MultiBoxLoss Normalize Permute PriorBox SmoothL1Loss VideoData",
    sign=has_dense_heads,
)

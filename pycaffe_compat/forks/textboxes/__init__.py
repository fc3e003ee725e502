"""TextBoxes."""

from __future__ import annotations

from typing import Any

from ..fork import Fork


def has_double_heads(net: Any) -> bool:
    """Whether a net predicts two boxes for each that SSD's PriorBox layers make, which no type or field says."""
    outputs: dict[str, set[int]] = {}
    classes = 0
    for layer in net.layer:
        if layer.type == "Convolution" and layer.bottom:
            outputs.setdefault(layer.bottom[0], set()).add(layer.convolution_param.num_output)
        elif layer.type in ("DetectionOutput", "MultiBoxLoss"):
            classes = layer.detection_output_param.num_classes or layer.multibox_loss_param.num_classes
    found = []
    for layer in net.layer:
        if layer.type == "PriorBox" and layer.bottom:
            options = layer.prior_box_param
            ratios = {round(ratio, 6) for ratio in options.aspect_ratio} - {1.0}
            boxes = 1 + len(options.max_size) + len(ratios) * (2 if options.flip else 1)
            heads = outputs.get(layer.bottom[0], set())
            found.append({8 * boxes, 2 * classes * boxes} <= heads and not {4 * boxes, classes * boxes} <= heads)
    return bool(found) and all(found)


FORK = Fork(
    name="textboxes",
    title="TextBoxes",
    source="MhLiao/TextBoxes",
    types="AnnotatedData DetectionEvaluate DetectionOutput MultiBoxLoss Normalize Permute PriorBox SmoothL1Loss VideoData",
    sign=has_double_heads,
)

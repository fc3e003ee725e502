"""EltwiseAccuracy, as DeconvNet's Caffe has it (HyeonwooNoh/caffe, eltwise_accuracy_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Layer, Shape, register
from ...tables import dims


@register("EltwiseAccuracy", fork="deconvnet")
class EltwiseAccuracy(Layer):
    """The share of places whose label is among the ``top_k`` highest scores, without those with ``ignore_label``.

    Scores (N, C, H, W) and labels (N, 1, H, W) make a top (1, 1, 1, 1). Of equal scores the later classes are higher. A
    label that is no class counts as a miss; where every place is ignored, the result is NaN, as in the fork.
    """

    head = True
    bottoms = (2, 2)
    differentiable = (False,)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        scores, labels = (tuple(shape) for shape in bottom_shapes)
        if len(scores) != 4 or labels != (scores[0], 1, *scores[2:]):
            raise self.error(
                "needs scores (num, channels, height, width) and labels (num, 1, height, width), but they have "
                f"{dims(scores)} and {dims(labels)}"
            )
        options = param.eltwise_accuracy_param
        self.top_k: int = options.top_k
        if not 1 <= self.top_k <= scores[1]:
            raise self.error(f"eltwise_accuracy_param.top_k: {self.top_k} must be from 1 to the {scores[1]} classes")
        self.ignore_label: int | None = options.ignore_label if options.HasField("ignore_label") else None

    @torch.no_grad()
    def forward(self, scores: Tensor, label: Tensor) -> Tensor:
        classes = scores.shape[1]
        wanted = label.long()
        known = (wanted >= 0) & (wanted < classes)
        own = scores.gather(1, wanted.clamp(0, classes - 1))
        later = torch.arange(classes, device=scores.device).reshape(1, -1, 1, 1) > wanted
        higher = ((scores > own) | ((scores == own) & later)).sum(1, keepdim=True)
        keep = torch.ones_like(known) if self.ignore_label is None else wanted != self.ignore_label
        hits = ((higher < self.top_k) & known & keep).sum()
        return (hits / keep.sum()).to(scores.dtype).reshape(1, 1, 1, 1)

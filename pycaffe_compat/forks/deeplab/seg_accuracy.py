"""SegAccuracy, as DeepLab's Caffe has it (xmyqsh/deeplab-v2, seg_accuracy_layer.cpp and util/confusion_matrix.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.loss import check_label_map
from ...layers.registry import register


@register("SegAccuracy", fork=("deeplab", "deeplab_v1", "pspnet"))
class SegAccuracy(Layer):
    """Accuracy over places, mean recall of the classes that occur, and mean intersection over union: a top (1, 1, 1, 3).

    Scores (N, C, H, W) and labels (N, 1, H, W). Of equal scores the last class counts. Labels in ``ignore_label`` do not
    count. A class that neither occurs nor is predicted has an intersection over union of 1. With ``reset: false`` the
    counts go on from pass to pass. ``metric`` changes nothing, as in the fork.
    """

    head = True
    inert_options = frozenset({"metric"})
    bottoms = (2, 2)
    differentiable = (False,)
    per_process = ("confusion",)
    confusion: Tensor

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        check_label_map(self, *bottom_shapes)
        classes = bottom_shapes[0][1]
        options = param.seg_accuracy_param
        self.ignored = tuple(options.ignore_label)
        self.reset: bool = options.reset
        self.register_buffer("confusion", torch.zeros(classes, classes, dtype=torch.long), persistent=False)

    def state(self) -> dict[str, Any]:
        return {} if self.reset or self.confusion.is_meta else {"confusion": self.confusion.tolist()}

    def seek(self, state: dict[str, Any]) -> None:
        if "confusion" in state:
            self.confusion = torch.tensor(state["confusion"], device=self.confusion.device)

    @torch.no_grad()
    def forward(self, scores: Tensor, label: Tensor) -> Tensor:
        if scores.is_meta:
            return scores.new_empty(1, 1, 1, 3)
        classes = scores.shape[1]
        found = classes - 1 - scores.flip(1).argmax(1).flatten()
        wanted = label.flatten().long()
        keep = torch.ones_like(wanted, dtype=torch.bool)
        for value in self.ignored:
            keep &= wanted != value
        bad = keep & ((wanted < 0) | (wanted >= classes))
        if bad.device.type == "cpu" and bool(bad.any()):
            raise self.error(
                f"label {int(wanted[bad][0])} is not a class: there are {classes}, 0 to {classes - 1}, nor is it ignore_label"
            )
        places = (wanted.clamp(0, classes - 1) * classes + found).where(keep, 0)
        counts = torch.zeros(classes * classes, dtype=torch.long, device=scores.device)
        counts = counts.index_add(0, places, keep.long()).reshape(classes, classes)
        if not self.reset:
            counts = self.confusion = self.confusion.to(scores.device) + counts
        result = torch.stack(_scores(counts.double())).to(scores.dtype)
        return torch.where(bad.any(), torch.nan, result).reshape(1, 1, 1, 3)


def _scores(counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Accuracy, mean recall and mean intersection over union of a confusion matrix, rows being true classes."""
    hits, rows, columns = counts.diagonal(), counts.sum(1), counts.sum(0)
    occur = rows > 0
    union = rows + columns - hits
    recalls = (hits / rows.where(occur, 1)).sum() / occur.sum().clamp(min=1)
    overlaps = torch.where(hits == union, 1, hits / union.where(union > 0, 1)).mean()
    return hits.sum() / counts.sum().clamp(min=1), recalls, overlaps

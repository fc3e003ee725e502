"""Scores, as DeconvNet's Caffe has them (HyeonwooNoh/caffe, eltwise_accuracy_layer.cpp, red_…, binary_accuracy.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.loss import check_label_map
from ...layers.registry import register
from ...tables import dims


class _PlaceAccuracy(Layer):
    """The fraction of places whose label is among the ``top_k`` highest scores, without those with ``ignore_label``."""

    head = True
    bottoms = (2, 2)
    differentiable = (False,)

    def read(self, options: Any, field: str, bottom_shapes: Sequence[Shape], classes: int) -> None:
        """Read what the options of both layers have in common.

        Raises:
            LayerError: the shapes of the bottoms do not go together, or ``top_k`` is not from 1 to ``classes``.
        """
        check_label_map(self, *bottom_shapes)
        self.top_k: int = options.top_k
        if not 1 <= self.top_k <= classes:
            raise self.error(f"{field}.top_k: {self.top_k} must be from 1 to the {classes} classes")
        self.ignore_label: int | None = options.ignore_label if options.HasField("ignore_label") else None

    def share(self, scores: Tensor, label: Tensor) -> Tensor:
        """Return the share as (1, 1, 1, 1). Of equal scores the later classes are higher."""
        classes = scores.shape[1]
        wanted = label.long()
        known = (wanted >= 0) & (wanted < classes)
        own = scores.gather(1, wanted.clamp(0, classes - 1))
        later = torch.arange(classes, device=scores.device).reshape(1, -1, 1, 1) > wanted
        higher = ((scores > own) | ((scores == own) & later)).sum(1, keepdim=True)
        keep = torch.ones_like(known) if self.ignore_label is None else wanted != self.ignore_label
        hits = ((higher < self.top_k) & known & keep).sum()
        return (hits / keep.sum()).to(scores.dtype).reshape(1, 1, 1, 1)


@register("EltwiseAccuracy", fork="deconvnet")
class EltwiseAccuracy(_PlaceAccuracy):
    """The fraction of places whose label is among the ``top_k`` highest scores, without those with ``ignore_label``.

    Scores (N, C, H, W) and labels (N, 1, H, W) make a top (1, 1, 1, 1). Of equal scores the later classes are higher. A
    label that is no class counts as a miss; where every place is ignored, the result is NaN, as in the fork.
    """

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.read(param.eltwise_accuracy_param, "eltwise_accuracy_param", bottom_shapes, bottom_shapes[0][1])

    @torch.no_grad()
    def forward(self, scores: Tensor, label: Tensor) -> Tensor:
        return self.share(scores, label)


@register("RedAccuracy", fork="deconvnet")
class RedAccuracy(_PlaceAccuracy):
    """EltwiseAccuracy for ``class_num`` classes with several scores each; their probabilities are added.

    Class k has the scores from ``k * C / class_num`` to ``(k + 1) * C / class_num``, rounded down, of the C.
    """

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.red_accuracy_param
        self.groups = Groups(self, options, "red_accuracy_param", bottom_shapes[0])
        self.read(options, "red_accuracy_param", bottom_shapes, self.groups.classes)

    @torch.no_grad()
    def forward(self, scores: Tensor, label: Tensor) -> Tensor:
        return self.share(self.groups.sums(scores.softmax(1)), label)


class Groups:
    """Which of the scores of a place belong to which class."""

    def __init__(self, layer: Layer, options: Any, field: str, shape: Shape) -> None:
        if len(shape) != 4:
            raise layer.error(f"needs scores (num, channels, height, width), not of shape {dims(shape)}")
        self.classes: int = options.class_num if options.HasField("class_num") else shape[1]
        if not 1 <= self.classes <= shape[1]:
            raise layer.error(f"{field}.class_num: {self.classes} must be from 1 to the {shape[1]} scores")
        ends = [(k + 1) * shape[1] // self.classes for k in range(self.classes)]
        self._of = [next(k for k, end in enumerate(ends) if channel < end) for channel in range(shape[1])]

    def sums(self, values: Tensor) -> Tensor:
        """Return the sum over the scores of each class: (N, C, H, W) to (N, classes, H, W)."""
        group = torch.tensor(self._of, device=values.device)
        return values.new_zeros(values.shape[0], self.classes, *values.shape[2:]).index_add(1, group, values)


@register("BinAccuracy", fork="deconvnet")
class BinAccuracy(Layer):
    """Accuracy, precision, recall or F measure (``accuracy_mode``) of scores above 0, for labels 1 and 0: (1, 1, 1, 1)."""

    options = ("binary_accuracy_param",)
    head = True
    bottoms = (2, 2)
    differentiable = (False,)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.binary_accuracy_param
        self.mode: str = type(options).AccuracyMode.Name(options.accuracy_mode)
        if tuple(bottom_shapes[0]) != tuple(bottom_shapes[1]):
            raise self.error(
                f"needs scores and labels of one shape, but they have {dims(bottom_shapes[0])} and {dims(bottom_shapes[1])}"
            )

    @torch.no_grad()
    def forward(self, scores: Tensor, label: Tensor) -> Tensor:
        found, wanted = scores > 0, label.long()
        hits, misses = (found & (wanted == 1)).sum(), (~found & (wanted == 1)).sum()
        false, right = (found & (wanted == 0)).sum(), (~found & (wanted == 0)).sum()
        precision, recall = hits / (hits + false), hits / (hits + misses)
        value = {
            "Accuracy": (hits + right) / (hits + misses + right + false),
            "Precision": precision,
            "Recall": recall,
            "F_measure": 2 * precision * recall / (precision + recall),
        }[self.mode]
        return value.to(scores.dtype).reshape(1, 1, 1, 1)

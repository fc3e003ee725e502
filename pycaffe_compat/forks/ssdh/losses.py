"""SSDH's losses and scores of codes and of several labels.

Sources: kevinlin311tw/Caffe-DeepBinaryCode, K1_euclidean_loss_layer.cpp, K2_euclidean_loss_layer.cpp,
multi_label_sigmod_loss_layer.cpp and multi_label_accuracy_layer.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Layer, Shape, count
from ...layers.loss import LossLayer
from ...layers.registry import register
from ...layers.slope import WithSlope
from ...tables import dims

MIDDLE = 0.5


class CodeLoss(LossLayer):
    """The mean of ``sign * (x - 0.5)^2 / 2``. The second bottom is not read, but has the same gradient as the first."""

    options = ()
    differentiable = (True,)
    sign: ClassVar[int]

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.check_bottoms(*bottom_shapes)

    def check_bottoms(self, x: Shape, other: Shape) -> None:
        """Raise unless both bottoms have one shape."""
        if tuple(x) != tuple(other):
            raise self.error(f"takes two bottoms of one shape, which may be one blob, not {dims(x)} and {dims(other)}")

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        """Return the loss as a tensor without axes."""
        self.check_bottoms(x.shape, other.shape)
        apart = x.detach() - MIDDLE
        size = self.sign / max(x.numel(), 1)
        value = apart.square() * (size / 2)
        both = WithSlope.apply(x, value, apart * size) + WithSlope.apply(other, torch.zeros_like(value), apart * size)
        return both.sum()


@register("K1_EuclideanLoss", fork="ssdh")
class K1EuclideanLoss(CodeLoss):
    """The negative mean of ``(x - 0.5)^2 / 2``, which drives codes to 0 and 1. The second bottom gets the same gradient."""

    sign = -1


@register("K2_EuclideanLoss", fork="ssdh")
class K2EuclideanLoss(CodeLoss):
    """The mean of ``(x - 0.5)^2 / 2``, which drives half of the bits to 1. The second bottom gets the same gradient."""

    sign = 1


@register("MultiLabelSigmoidLoss", fork="ssdh")
class MultiLabelSigmoidLoss(LossLayer):
    """The sigmoid cross entropy with labels above and below 0, summed over scores, over N; labels of 0 do not count.

    A second top holds the sigmoids.
    """

    options = ()
    tops = (1, 2)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        x, label = bottom_shapes
        if not x or not label or x[0] != label[0] or count(x) != count(label):
            raise self.error(f"takes scores and as many labels, not {dims(x)} and {dims(label)}")

    def forward(self, x: Tensor, label: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return the loss as a tensor without axes, and the sigmoids if there is a top for them."""
        labels = label.detach().reshape(x.shape)
        total = F.binary_cross_entropy_with_logits(
            x, (labels > 0).to(x.dtype), weight=(labels != 0).to(x.dtype), reduction="sum"
        )
        loss = total / max(len(x), 1)
        return loss if self.n_tops == 1 else (loss, x.detach().sigmoid())


@register("MultiLabelAccuracy", fork="ssdh")
class MultiLabelAccuracy(Layer):
    """Recall, specificity, their harmonic mean, precision and F1 of scores >= 0, for labels above and below 0: (1, 5, 1, 1).

    The harmonic mean is not a number where all labels have one sign, as in the fork.
    """

    head = True
    options = ()
    bottoms = (2, 2)
    differentiable = (False,)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        if count(bottom_shapes[0]) != count(bottom_shapes[1]):
            raise self.error(
                f"takes scores and as many labels, not {dims(bottom_shapes[0])} and {dims(bottom_shapes[1])}"
            )

    @torch.no_grad()
    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        labels, said = label.reshape(-1).trunc(), x.reshape(-1) >= 0
        good, bad = labels > 0, labels < 0
        right, wrong, known = ((a & b).sum().to(x.dtype) for a, b in ((good, said), (bad, said), (bad, ~said)))
        positives, negatives = good.sum().to(x.dtype), bad.sum().to(x.dtype)
        recall = right / positives.clamp(min=1)
        specificity = known / negatives.clamp(min=1)
        harmonic = torch.where(positives + negatives > 0, 2 / (positives / right + negatives / known), 0.0)
        precision = right / (right + wrong).clamp(min=1)
        f1 = 2 * right / (right + wrong + positives).clamp(min=1)
        return torch.stack([recall, specificity, harmonic, precision, f1]).reshape(1, 5, 1, 1)

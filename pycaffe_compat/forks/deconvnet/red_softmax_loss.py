"""RedSoftmaxLoss, as DeconvNet's Caffe has it (HyeonwooNoh/caffe, red_softmax_loss_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...layers.base import Shape
from ...layers.loss import FLT_MIN, LossLayer, precise, read_labels
from ...layers.registry import register
from .accuracy import Groups


@register("RedSoftmaxLoss", fork="deconvnet")
class RedSoftmaxLoss(LossLayer):
    """Mean of ``-log`` of the summed probabilities of a label's scores; each of the ``class_num`` classes has several scores.

    Scores (N, C, H, W), labels (N, 1, H, W); a second top has the probabilities. Class k has the scores from
    ``k * C / class_num`` to ``(k + 1) * C / class_num``, rounded down.
    """

    options = ("loss_param", "red_softmax_loss_param")
    tops = (1, 2)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.groups = Groups(self, param.red_softmax_loss_param, "red_softmax_loss_param", bottom_shapes[0])

    def forward(self, x: Tensor, label: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return the loss as a tensor without axes, and the probabilities if there is a top for them."""
        n = self.batch_size(x, label)
        probabilities = precise(x).softmax(1)
        sums = self.groups.sums(probabilities)
        labels = read_labels(self, sums, 1, label, self.ignore_label)
        loss = -sums.gather(1, labels.classes).clamp(min=FLT_MIN).log()
        if labels.keep is not None:
            loss = loss.masked_fill(~labels.keep, 0)
        total = labels.guard(loss.sum() / self.normalizer(labels.keep, n, labels.classes.numel()))
        return total if self.n_tops == 1 else (total, probabilities.detach().to(x.dtype))

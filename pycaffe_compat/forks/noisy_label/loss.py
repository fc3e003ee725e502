"""SoftmaxWithNoisyLabelLoss (Cysu/caffe at 6c4da017, softmax_noisy_label_loss_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Shape, count
from ...layers.loss import FLT_MIN, LossLayer, precise, read_labels
from ...layers.registry import register
from ...layers.slope import WithSlope
from ...tables import dims

NOISES = 3  # none; any other class alike; another class by the matrix


@register("SoftmaxWithNoisyLabelLoss", fork="noisy_label")
class SoftmaxWithNoisyLabelLoss(LossLayer):
    """Mean of ``-sum q log(p)`` over true classes y and kinds of noise z, for labels that may be wrong; -1 means no label.

    ``p`` is softmax(scores of y) × softmax(scores of z) × P(label | y, z), ``q`` is ``p`` over its sum. P of a label with the
    third kind of noise is the row of the label in the one blob, 1 × 1 × N × N, which does not learn. Items without a label
    count in the mean, with 0. The gradient is the fork's, one step of expectation and maximisation: softmax minus the sums
    of ``q``, for z times ``update_noise_lr``. Tops: the loss, both softmaxes, and ``q`` (M, N, 3, 1).
    """

    options = ("softmax_noisy_label_loss_param",)
    bottoms = (3, 3)
    tops = (1, 4)
    differentiable = (True, True, False)
    blobs_declared = ("matrix",)
    matrix: Tensor

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.softmax_noisy_label_loss_param
        self.rate: float = options.update_noise_lr
        y, z, _ = bottom_shapes
        if len(y) < 2 or len(z) < 2 or y[1] < 2 or z[1] != NOISES or count(y, 2) != 1 or count(z, 2) != 1:
            raise self.error(
                f"takes scores (M, N) of at least 2 classes and scores (M, {NOISES}) of the kinds of noise, not {dims(y)} "
                f"and {dims(z)}"
            )
        self.add_blob("matrix", (1, 1, y[1], y[1]), options.matrix_c_filler, trainable=False)

    def forward(self, y: Tensor, z: Tensor, label: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the loss as a tensor without axes, and as many of the other tops as there are."""
        items, classes = self.batch_size(y, z), y.shape[1]
        scores, noise = precise(y).reshape(items, -1), precise(z).reshape(items, -1)
        labels = read_labels(self, scores, 1, label, ignore=-1)
        of_y, of_z = scores.detach().softmax(1), noise.detach().softmax(1)
        index = labels.classes[:, 0]
        right = (torch.arange(classes, device=y.device) == labels.classes).to(of_y.dtype)
        matrix = self.matrix.detach().to(of_y.dtype).reshape(classes, classes)
        of_label = torch.stack((right, (1 - right) / (classes - 1), matrix[index]), 2)
        joint = of_label * of_y[:, :, None] * of_z[:, None]
        if labels.keep is not None:
            joint = joint * labels.keep[:, :, None]
        total = joint.sum((1, 2))
        divisor = torch.where(total > 0, total, 1)
        each = -(joint * joint.clamp(min=FLT_MIN).log()).sum((1, 2)) / divisor
        posterior = joint / divisor[:, None, None]
        loss = labels.guard(torch.where(total > 0, each, 0).sum() / items)
        known, zero = posterior.sum((1, 2))[:, None], torch.zeros_like(loss)
        to_y = (of_y - posterior.sum(2)) * known / items
        to_z = (of_z - posterior.sum(1)) * known * (self.rate / items)
        loss = loss + WithSlope.apply(scores, zero, to_y) + WithSlope.apply(noise, zero, to_z)
        tops = (loss, of_y.view(y.shape), of_z.view(z.shape), posterior[..., None])
        return loss if self.n_tops == 1 else tops[: self.n_tops]

"""CenterLoss of which no center is learned (hsmyy/CenterLoss_Caffe_Mnist, center_loss_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Shape, count
from ...layers.loss import LossLayer, read_labels
from ...layers.registry import register
from ...layers.slope import TracedFunction
from ...tables import dims


@register("CenterLoss", fork="center_loss_mnist")
class MovingCenterLoss(LossLayer):
    """``loss_weight / (2 N) * sum |x - center[label]|^2``; the gradient of ``x`` is ``loss_weight * (x - center[label])``.

    In the fork that gradient knows neither N nor the weight of the loss in the net. Each pass, in tests too, then moves each of
    the ``cluster_num`` centers by ``alpha * loss_weight`` times the sum of its distances from the features of its class, over
    one more than their number. Centers begin at 0, and no snapshot holds them.
    """

    traceable = False
    centers: Tensor

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.center_loss_param
        self.weight, self.alpha = options.loss_weight, options.alpha
        if options.cluster_num < 1:
            raise self.error("center_loss_param.cluster_num must be given and at least 1, the number of classes")
        if len(bottom_shapes[0]) < 2 or count(bottom_shapes[0], 2) != 1:
            raise self.error(f"takes features of shape num×channels, not {dims(bottom_shapes[0])}")
        self.register_buffer("centers", torch.zeros(options.cluster_num, bottom_shapes[0][1]), persistent=False)

    def prepare(self, bottom_shapes: Sequence[Shape], device: torch.device) -> None:
        super().prepare(bottom_shapes, device)
        self.centers = self.centers.to(device)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """Return the loss as a tensor without axes, and move the centers."""
        n = self.batch_size(x, label)
        features = x.flatten(1)
        like = features.new_empty((n, len(self.centers)), device="meta")
        labels = read_labels(self, like, 1, label)
        if x.is_meta:
            return features.sum()
        classes = labels.classes.flatten()
        apart = features.detach() - self.centers[classes].to(x.dtype)
        loss = _Pulled.apply(features, apart, self.weight)
        sums = torch.zeros_like(self.centers).index_add(0, classes, apart.to(self.centers.dtype))
        number = torch.bincount(classes, minlength=len(self.centers)) + 1
        self.centers.add_(sums / number[:, None], alpha=self.alpha * self.weight)
        return labels.guard(loss)


class _Pulled(TracedFunction):
    """``weight / (2 N) * sum(apart^2)``, whose gradient by ``x`` is ``weight * apart``, whatever the loss counts."""

    @staticmethod
    def forward(x: Tensor, apart: Tensor, weight: float) -> Tensor:
        return weight / 2 / max(len(apart), 1) * apart.square().sum()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, apart, ctx.weight = inputs
        ctx.save_for_backward(apart)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (apart,) = ctx.saved_tensors
        return apart * ctx.weight, None, None

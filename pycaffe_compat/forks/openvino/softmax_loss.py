"""SoftmaxWithLoss of OpenVINO's training toolbox (openvinotoolkit/training_toolbox_caffe, softmax_loss_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Shape, count
from ...layers.loss import SoftmaxWithLoss, floored
from ...layers.registry import register
from ...proto import caffe_pb2


@register("SoftmaxWithLoss", fork="openvino")
class AdaptiveSoftmaxLoss(SoftmaxWithLoss):
    """``-log(p[label]) + max_entropy_weight * sum(p log p)`` of ``p = softmax(x)``, at the places where that is above 0.

    With ``adaptive_weighting`` each place counts as its label's weight: ``scale`` times the mean frequency of the classes over
    the label's own, within ``min_weight`` and ``max_weight``. Frequencies are those of the places that count, smoothed from
    pass to pass: ``gamma`` times the former plus ``1 - gamma`` times the new. A third bottom has a weight for each place. VALID
    divides by the number of places that count, or the sum of their weights without its fraction. Besides the loss there may be
    a top for the probabilities, or two for each class, its frequency and its weight.
    """

    fork_options = SoftmaxWithLoss.fork_options | {
        f"loss_param.{name}"
        for name in ("adaptive_weighting", "gamma", "scale", "min_weight", "max_weight", "max_entropy_weight")
    }
    bottoms = (2, 3)
    tops = (1, None)
    differentiable = (True, False, False)
    traceable = False
    frequencies: Tensor

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.loss_param
        shape = bottom_shapes[0]
        self.number: int = shape[self.canonical_axis(self.axis, len(shape), self.axis_option)]
        self.entropy = max(options.max_entropy_weight, 0.0)
        self.adaptive: bool = options.adaptive_weighting
        self.gamma, self.scale = options.gamma, options.scale
        self.least = options.min_weight if options.HasField("min_weight") else None
        self.most = options.max_weight if options.HasField("max_weight") else None
        if self.n_tops > 2 and (self.n_tops != 1 + 2 * self.number or not self.adaptive):
            raise self.error(
                f"has {self.n_tops} tops; it takes 1 or 2, or with adaptive_weighting {1 + 2 * self.number}, two for each class"
            )
        if self.adaptive:
            self._check_options()
        self.clips = self.least is not None or self.most is not None
        self.register_buffer("frequencies", torch.full((self.number,), -1.0), persistent=False)

    def _check_options(self) -> None:
        if self.class_weights is not None:
            raise self.error("loss_param: weight_by_label_freqs and adaptive_weighting exclude each other")
        if not 0 < self.gamma <= 1:
            raise self.error(f"loss_param.gamma: {self.gamma:g} must be above 0 and at most 1")
        if not self.scale > 0:
            raise self.error(f"loss_param.scale: {self.scale:g} must be above 0")
        if not 0 <= (self.least or 0) < (self.most if self.most is not None else float("inf")):
            raise self.error(
                f"loss_param.min_weight: {self.least or 0:g} must not be negative, and below max_weight: {self.most or 0:g}"
            )

    def prepare(self, bottom_shapes: Sequence[Shape], device: torch.device) -> None:
        super().prepare(bottom_shapes, device)
        self.frequencies = self.frequencies.to(device)

    @classmethod
    def fits(cls, param: Any) -> bool:
        options = param.loss_param
        own = options.adaptive_weighting or options.HasField("max_entropy_weight")
        return bool(own) or len(param.bottom) == 3

    def forward(self, x: Tensor, label: Tensor, weight: Tensor | None = None) -> Tensor | tuple[Tensor, ...]:
        """Return the loss as a tensor without axes, and what the other tops show."""
        logarithms, axis, labels = self.log_probabilities(x, label)
        loss = -floored(logarithms.gather(axis, labels.classes), self.floor)
        if self.entropy:
            loss = loss + self.entropy * (logarithms.exp() * floored(logarithms, self.floor)).sum(axis, keepdim=True)
        keep = loss.detach() > 0
        if labels.keep is not None:
            keep &= labels.keep
        valid: Tensor = keep.sum()
        by_class = self._class_weights(labels.classes, keep, valid).to(loss.dtype)
        each = by_class[labels.classes]
        if weight is not None:
            if weight.numel() != keep.numel():
                raise self.error(
                    f"its third bottom must have a weight for each of {keep.numel()} places, not {weight.numel()}"
                )
            by_place = weight.detach().reshape(keep.shape).to(loss.dtype)
            each, valid = each * by_place, (by_place * keep).sum().trunc()
        places = labels.classes.numel()
        whole = self.normalizer(None, count(x.shape, 0, axis), places)
        divisor = valid.clamp(min=1) if self.mode == caffe_pb2.LossParameter.VALID else whole
        total = labels.guard((loss.masked_fill(~keep, 0) * each).sum() / divisor)
        if self.n_tops == 1:
            return total
        if self.n_tops == 2:
            return total, x.detach().softmax(axis)
        shown = torch.stack((self.frequencies.to(loss), by_class), 1).flatten()
        return total, *shown.unbind()

    def _class_weights(self, classes: Tensor, keep: Tensor, valid: Tensor) -> Tensor:
        """The weight of each class, after the frequencies of ``classes`` at the places to ``keep`` are taken in."""
        if self.class_weights is not None:
            return self.class_weights.to(classes.device)
        if not self.adaptive or classes.is_meta:
            return torch.ones(self.number, device=classes.device)
        before = self.frequencies
        number = torch.bincount(classes.flatten(), keep.flatten().to(before.dtype), self.number)
        now = number / valid.clamp(min=1)
        now = torch.where(before > 0, self.gamma * before + (1 - self.gamma) * now, now)
        self.frequencies.copy_(now)
        seen = now > 0
        weights = torch.where(seen, now[seen].sum() / self.number / now, 0.0)
        return self.scale * weights.clamp(self.least, self.most) if self.clips else self.scale * weights

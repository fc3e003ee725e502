"""SoftmaxWithLoss with weights from a file, as DeepLab v1's Caffe has it (softmax_loss_layer.cpp)."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...errors import LayerError, require_file
from ...files import open_text
from ...layers.base import Shape
from ...layers.loss import SoftmaxWithLoss, floored
from ...layers.registry import register


@register("SoftmaxWithLoss", fork="deeplab_v1")
class WeightedSoftmaxLoss(SoftmaxWithLoss):
    """Mean of ``-log(softmax(x)[label])`` over places, weighted by the class of the label.

    ``softmaxloss_param``: ``weight_source`` is a text file with a weight for each class, all 1 without one; places with a
    label in ``ignore_label`` do not count. The sum is divided by that of the weights.
    """

    options = ("softmax_param", "softmaxloss_param")
    replaces_bvlcs = True

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        shape, options = bottom_shapes[0], param.softmaxloss_param
        classes = shape[self.canonical_axis(self.axis, len(shape), self.axis_option)]
        self.ignored = tuple(options.ignore_label)
        self.class_weights = torch.ones(classes)
        if options.HasField("weight_source"):
            self.class_weights = torch.tensor(self._read_weights(options.weight_source, classes))

    @classmethod
    def fits(cls, param: Any) -> bool:
        return bool(param.HasField("softmaxloss_param"))

    def _read_weights(self, path: str, classes: int) -> list[float]:
        require_file(path, f'file of class weights of layer "{self.name}"')
        with open_text(path) as file:
            words = file.read().split()
        weights = []
        for word in words:
            with contextlib.suppress(ValueError):
                weights.append(float(word))
        if len(weights) != len(words) or len(words) != classes or not all(weight >= 0 for weight in weights):
            raise self._error_of_weights(path, words, classes)
        return weights

    def _error_of_weights(self, path: str, words: list[str], classes: int) -> LayerError:
        return self.error(
            f"softmaxloss_param.weight_source {path} has {len(words)} words ({' '.join(words[:3])}{' …' * (len(words) > 3)}); "
            f"wanted a number that is not negative for each of the {classes} classes"
        )

    def forward(self, x: Tensor, label: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return the loss as a tensor without axes, and the probabilities if there is a top for them."""
        assert self.class_weights is not None
        ignored = torch.zeros_like(label, dtype=torch.bool)
        for value in self.ignored:
            ignored |= label.detach().long() == value
        logarithms, axis, labels = self.log_probabilities(x, label.masked_fill(ignored, 0))
        weights = self.class_weights.to(x.device)
        if not x.is_meta:
            self.class_weights = weights
        each = weights.to(logarithms.dtype)[labels.classes].masked_fill(ignored.reshape(labels.classes.shape), 0)
        loss = -floored(logarithms.gather(axis, labels.classes), self.floor) * each
        total = labels.guard(loss.sum() / each.sum())
        return total if self.n_tops == 1 else (total, x.detach().softmax(axis))

"""CenterLoss, as the Caffe of center loss has it (ydwen/caffe-face, center_loss_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...layers.base import Shape, count
from ...layers.loss import LossLayer, read_labels
from ...layers.registry import register
from ...layers.slope import TracedFunction
from ...tables import dims

DISTANCES = ("L1", "L2")


@register("CenterLoss", fork=("caffe_face", "xilinx"))
class CenterLoss(LossLayer):
    """``sum |x - center[label]|^2 / (2 N)``; happynear's ``distance_type: "L1"`` is the sum of absolute values by N.

    ``center`` (num_output, features) is trained, but not by this loss's gradient: a center's is the sum of its distances from
    the features of its class, divided by one more than their number, whatever ``loss_weight`` says.
    """

    weightless = frozenset({"caffe_face", "happynear", "xilinx"})
    blobs_declared = ("center",)
    repeats: ClassVar[bool] = False
    center: Tensor

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.center_loss_param
        self.axis = self.canonical_axis(options.axis, len(bottom_shapes[0]), "center_loss_param.axis")
        self.distance = options.distance_type
        if options.num_output < 1:
            raise self.error(
                f"center_loss_param.num_output: {options.num_output} must be at least 1, the number of classes"
            )
        if self.distance not in DISTANCES:
            raise self.error(f'center_loss_param.distance_type: "{self.distance}" is not one of {", ".join(DISTANCES)}')
        self.features = count(bottom_shapes[0], self.axis)
        self.check_features(bottom_shapes[0])
        self.add_blob("center", (options.num_output, self.features), options.center_filler)

    def check_features(self, shape: Shape) -> None:
        """Raise unless an item has as many features as a center."""
        if not self.features or count(shape, self.axis) != self.features:
            each = f"{self.features} features" if self.features else "at least one feature"
            raise self.error(f"takes {each} of each item, from axis {self.axis} on, not {dims(shape)}")

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """Return the loss as a tensor without axes."""
        n = self.batch_size(x, label)
        self.check_features(x.shape)
        features = x.reshape(count(x.shape, 0, self.axis), self.features)
        labels = read_labels(self, features.new_empty((len(features), len(self.center)), device="meta"), 1, label)
        classes = labels.classes.flatten()
        apart = _Apart.apply(features, self.center, classes, self.distance == "L1", self.repeats)
        return labels.guard(apart / max(n, 1))


class _Apart(TracedFunction):
    """The summed distance of features from the centers of their classes, with the forks' gradient of the centers."""

    @staticmethod
    def forward(x: Tensor, center: Tensor, classes: Tensor, absolute: bool, repeats: bool) -> Tensor:
        apart = x - center[classes]
        return apart.abs().sum() if absolute else apart.square().sum() / 2

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, center, classes, ctx.absolute, ctx.repeats = inputs
        ctx.save_for_backward(x, center, classes)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:  # type: ignore[override]
        x, center, classes = ctx.saved_tensors
        apart = x - center[classes]
        if ctx.absolute:
            apart = apart.sign()
        number = torch.zeros(len(center), dtype=x.dtype, device=x.device).index_add(
            0, classes, torch.ones_like(x[:, 0])
        )
        moved = torch.zeros_like(center).index_add(0, classes, -apart) / (number + 1)[:, None]
        if ctx.repeats:
            moved = moved * number[:, None]
        return apart * grad if ctx.needs_input_grad[0] else None, moved, None, None, None

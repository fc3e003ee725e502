"""InterClass (wy1iu/sphereface-plus, inter_class_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Shape, count
from ...layers.loss import LossLayer, read_labels
from ...layers.registry import register

EPS = 1e-5


@register("InterClass", fork="sphereface_plus")
class InterClass(LossLayer):
    """The separation of the weights (num_output, features) of the batch's labels from those of other classes; share its blob.

    ``AMONG`` sums the squares of their differences from all weights, by num_output; ``MEAN`` is 1 less the mean of their
    products with the mean weight, of length 1 with ``normalize``. The top is that distance. The weights' gradient does not
    depend on the top's: it makes the distance larger, by alpha, as the fork computes it on the CPU (on a GPU threads write
    over each other). Alpha is 0 until pass ``alpha_start_iter``, counted from ``iteration`` on, then ``alpha_start_value``,
    and ``alpha_step`` more at each ``alpha_stepvalue``. The second top is alpha.
    """

    options = ("inter_class_param",)
    tops = (1, 2)
    differentiable = (False,)
    blobs_declared = ("weight",)
    weight: Tensor

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.inter_class_param
        self.axis = self.canonical_axis(options.axis, len(bottom_shapes[0]), "inter_class_param.axis")
        self.among = options.type == options.AMONG
        self.unit = options.normalize
        self.start, self.value, self.step = options.alpha_start_iter, options.alpha_start_value, options.alpha_step
        self.steps = list(options.alpha_stepvalue)
        if options.num_output < 1:
            raise self.error(f"inter_class_param.num_output: {options.num_output} must be at least 1")
        if any(b <= a for a, b in zip((self.start, *self.steps), self.steps, strict=False)):
            raise self.error(
                f"inter_class_param.alpha_stepvalue: {self.steps} must rise from alpha_start_iter: {self.start}"
            )
        self.passes, self.alpha, self.taken = options.iteration, 0.0, 0
        self.add_blob("weight", (options.num_output, count(bottom_shapes[0], self.axis)), options.weight_filler)

    def state(self) -> dict[str, Any]:
        """The number of passes and what alpha has come to."""
        return {"passes": self.passes, "alpha": self.alpha, "taken": self.taken}

    def seek(self, state: dict[str, Any]) -> None:
        self.passes, self.alpha, self.taken = state["passes"], state["alpha"], state["taken"]

    def _advance(self) -> None:
        self.passes += 1
        if self.passes == self.start:
            self.alpha = self.value
        elif self.passes > self.start and self.steps[self.taken : self.taken + 1] == [self.passes]:
            self.alpha += self.step
            self.taken += 1

    def forward(self, x: Tensor, label: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return the distance as a tensor without axes, and alpha if there is a top for it."""
        weight = self.weight
        rows = weight.new_empty((count(x.shape, 0, self.axis), len(weight)), device="meta")
        labels = read_labels(self, rows, 1, label)
        if not x.is_meta:
            self._advance()
        fixed = weight.detach()
        chosen = labels.classes.flatten()
        mine, mean = fixed[chosen], fixed.mean(0)
        if self.unit:
            mean = mean / (mean.square().sum() + EPS).sqrt()
        if self.among:
            away = fixed.square().sum() * len(mine) + mine.square().sum() * len(fixed) - 2 * fixed.sum(0) @ mine.sum(0)
            distance = away / len(fixed)
            slope = -4 * self.alpha / (len(mine) * distance.square() + EPS) * (mine - mean)
        else:
            distance = 1 - (mine @ mean).mean()
            slope = (self.alpha / len(mine) * mean).expand_as(mine)
        top = _Pushed.apply(weight, labels.guard(distance), torch.zeros_like(fixed).index_add(0, chosen, slope))
        return top if self.n_tops == 1 else (top, x.new_full((1,), self.alpha))


class _Pushed(torch.autograd.Function):
    """``value``, with ``slope`` for the gradient of the weights whatever the top's is."""

    @staticmethod
    def forward(weight: Tensor, value: Tensor, slope: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[2])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        return ctx.saved_tensors[0], None, None

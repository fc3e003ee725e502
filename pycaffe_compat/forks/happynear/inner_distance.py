"""InnerDistance, as happynear's Caffe has it (happynear/caffe-windows, inner_distance_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...layers.base import Layer, Shape, count
from ...layers.loss import read_labels
from ...layers.registry import register
from ...layers.slope import TracedFunction, rewritten

DISTANCES = {"L1": 1.0, "L2": 2.0}


@register("InnerDistance", fork="happynear")
class InnerDistance(Layer):
    """The distance of each item, flattened from ``axis`` on, from each row of ``weight`` (num_output, inputs).

    It is the squared distance, or with ``distance_type: "L1"`` the sum of absolute values, whose gradient is the fork's: for
    a value that is below the other it is -1, without the gradient of the top. A second bottom takes the place of
    ``weight``. With ``update_center_only`` the last bottom holds labels, and a row learns only from its own class.
    ``normalize`` divides the rows of ``weight`` by their lengths in every pass.
    """

    bottoms = (1, 3)
    inert_options = frozenset({"bias_term", "bias_filler"})
    blobs_declared = ("weight",)
    blobs_optional = frozenset({"weight"})
    weight: Tensor

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.inner_distance_param
        self.axis = self.canonical_axis(options.axis, len(bottom_shapes[0]), "inner_distance_param.axis")
        self.labelled, self.normalize = options.update_center_only, options.normalize
        if options.distance_type not in DISTANCES:
            valid = ", ".join(DISTANCES)
            raise self.error(f'inner_distance_param.distance_type: "{options.distance_type}" is not one of {valid}')
        self.power = DISTANCES[options.distance_type]
        if options.transpose:
            raise self.error(
                "inner_distance_param.transpose: true is read by no version of the fork's layer; leave it out"
            )
        self.owns = len(bottom_shapes) == 1 + self.labelled
        if not self.owns and len(bottom_shapes) != 2 + self.labelled:
            want = (
                "a bottom, labels, and perhaps the rows between them"
                if self.labelled
                else "a bottom, and perhaps the rows"
            )
            raise self.error(f"has {len(bottom_shapes)} bottom blobs, but takes {want}")
        further = len(bottom_shapes) - 1 - self.labelled
        self.differentiable = (True,) * (1 + further) + (False,) * self.labelled  # type: ignore[misc]
        if self.owns:
            if options.num_output < 1:
                raise self.error(f"inner_distance_param.num_output: {options.num_output} must be at least 1")
            self.add_blob("weight", (options.num_output, count(bottom_shapes[0], self.axis)), options.weight_filler)

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        rows = x.flatten(self.axis).flatten(0, -2) if self.axis else x.reshape(1, -1)
        if self.owns:
            weight = self.weight
            if self.normalize and not x.is_meta:
                fixed = weight.detach()
                weight = rewritten(weight, fixed / (fixed.square().sum(1, keepdim=True) + 1e-6).sqrt())
        else:
            weight = others[0].flatten(1)
            if weight.shape[1] != rows.shape[1]:
                raise self.error(f"its rows have {weight.shape[1]} values, but its first bottom {rows.shape[1]}")
        distance = _absolute if self.power == 1 else _squared
        if not self.labelled:
            y = distance(rows, weight)
        else:
            y = distance(rows, weight.detach())
            labels = read_labels(self, y, 1, others[-1])
            own = distance(rows.detach()[:, None], weight[labels.classes.flatten()][:, None]).flatten(1)
            y = labels.guard(y.scatter_add(1, labels.classes, own - own.detach()))
        return y.reshape(*x.shape[: self.axis], len(weight))


def _squared(x: Tensor, weight: Tensor) -> Tensor:
    """The squared distances (…, M, N) of rows (…, M, K) and (…, N, K)."""
    return torch.cdist(x, weight, compute_mode="donot_use_mm_for_euclid_dist").square()


def _absolute(x: Tensor, weight: Tensor) -> Tensor:
    """The sums of absolute differences (…, M, N) of rows (…, M, K) and (…, N, K), with the fork's gradient."""
    return _Absolute.apply(x, weight)


class _Absolute(TracedFunction):
    """Where a value is below the other, the fork's gradient of it is -1, whatever that of the distance is."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> Tensor:
        return torch.cdist(x, weight, p=1.0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = (each.unsqueeze(axis) for each, axis in zip(ctx.saved_tensors, (-2, -3), strict=True))
        above, below = (x > weight).to(grad.dtype), (x < weight).to(grad.dtype)
        grad = grad.unsqueeze(-1)
        return (grad * above - below).sum(-2), (grad * below - above).sum(-3)

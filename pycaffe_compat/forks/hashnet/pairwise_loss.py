"""PairwiseLoss: HashNet's loss of pairs of codes (thuml/HashNet, pairwise_loss_layer.cu)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Shape, count
from ...layers.loss import LossLayer
from ...layers.registry import register
from ...layers.slope import TracedFunction
from ...tables import dims

UNLIKE = 0.25  # the likeness of items that share no label


@register("PairwiseLoss", fork="hashnet")
class PairwiseLoss(LossLayer):
    """Mean of ``log(1 + exp(z)) - s z`` over all pairs of codes from two batches, where ``z`` is their inner product.

    Bottoms: codes (N, C), labels (N, L), other codes and their labels. ``z`` is the scalar product times ``sigmoid_param``;
    ``s`` is 1 if the product of the labels is above 0, and 0 if it is 0. A pair whose product is negative, or at least L,
    does not count, and a pair with ``s = 1`` counts ``class_num`` times. From ``l_threshold`` on, if that is not negative,
    the loss of a pair is ``z (1 - s)``. ``l_lambda`` multiplies the gradient, and makes the loss 0 if it is not above 0.

    The gradient is the fork's: twice that of the mean without ``l_threshold``, not multiplied by ``loss_weight``, and
    ``sigmoid_param`` multiplies only the first N numbers of either bottom's. With ``continous_similarity`` a pair's is also
    multiplied by four times the squared cosine of its labels, or by 1 if they share none. The fork reads neither
    ``q_threshold`` nor ``q_gamma``.
    """

    bottoms = (4, 4)
    options = ("pairwise_param",)
    inert_options = frozenset({"engine", "q_threshold", "q_gamma"})
    differentiable = (True, False, True, False)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.pairwise_param
        self.threshold, self.factor, self.weight = options.l_threshold, options.sigmoid_param, options.class_num
        self.strength, self.gradual = options.l_lambda, options.continous_similarity
        self.loss_weight = param.loss_weight[0] if param.loss_weight else 1.0
        if options.axis not in (1, 1 - len(bottom_shapes[0])):
            raise self.error(f"pairwise_param.axis: {options.axis} must be 1")
        x, label, other, other_label = bottom_shapes
        if not x or {len(s) and s[0] for s in bottom_shapes} != {x[0]} or count(x, 1) != count(other, 1):
            raise self.error(
                "takes codes (N, C), labels (N, L), and other codes and labels of these shapes, not "
                + ", ".join(map(dims, bottom_shapes))
            )
        if count(label, 1) != count(other_label, 1):
            raise self.error(f"takes labels of one shape, not {dims(label)} and {dims(other_label)}")

    def forward(self, x: Tensor, label: Tensor, other: Tensor, other_label: Tensor) -> Tensor:
        """Return the loss as a tensor without axes."""
        labels, others = label.detach().flatten(1), other_label.detach().flatten(1)
        products = labels @ others.t()
        counts = (products >= 0) & (products < max(labels.shape[1], 1))
        alike = counts & (products > 0)
        weight = torch.where(alike, self.weight, counts.to(x.dtype)).to(x.dtype)
        slopes = weight
        if self.gradual:
            lengths = _lengths(labels)[:, None] * _lengths(others)
            cosines = products.square() / lengths
            slopes = weight * 4 * torch.where(cosines == 0, UNLIKE, cosines).to(x.dtype)
        total = weight.abs().sum()
        weight, slopes = (each / torch.where(total > 0, total, 1.0) for each in (weight, slopes))
        return _Pairs.apply(
            x,
            other,
            alike.to(x.dtype),
            weight,
            slopes,
            (self.factor, self.threshold, self.strength, self.loss_weight),
        )


def _lengths(labels: Tensor) -> Tensor:
    """The squared lengths of labels, 1 for 0."""
    squares = labels.square().sum(1)
    return torch.where(squares == 0, 1.0, squares)


class _Pairs(TracedFunction):
    """The loss for likenesses and weights of pairs, with the fork's gradient."""

    @staticmethod
    def forward(
        x: Tensor, other: Tensor, alike: Tensor, weight: Tensor, slopes: Tensor, numbers: tuple[float, ...]
    ) -> Tensor:
        factor, threshold, strength, _ = numbers
        z = factor * x.flatten(1) @ other.flatten(1).t()
        loss = F.softplus(z) - alike * z
        if threshold >= 0:
            loss = torch.where(z >= threshold, z * (1 - alike), loss)
        return (loss * weight).abs().sum() * (strength > 0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.numbers = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, other, alike, _, slopes = ctx.saved_tensors
        factor, _, strength, loss_weight = ctx.numbers
        a, b = x.flatten(1), other.flatten(1)
        slope = 2 * ((factor * a @ b.t()).sigmoid() - alike) * slopes
        slope = slope * strength * (grad / loss_weight)
        given: list[Tensor] = []
        for gradient, like in ((slope @ b, x), (slope.t() @ a, other)):
            values = gradient.reshape(-1)
            first = torch.arange(len(values), device=values.device) < len(x)
            given.append(torch.where(first, values * factor, values).reshape(like.shape))
        return given[0], given[1], None, None, None, None

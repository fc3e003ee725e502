"""MarginInnerProduct: A-Softmax of SphereFace (wy1iu/sphereface, margin_inner_product_layer.cpp; happynear's is the same)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Shape, count
from ...layers.loss import read_labels
from ...layers.passes import CountsPasses
from ...layers.registry import register
from ...layers.slope import TracedFunction, rewritten


@register("MarginInnerProduct", fork=("sphereface", "sphereface_plus", "happynear"))
class MarginInnerProduct(CountsPasses):
    """``|x| cos(a)`` for each class, where a is the angle to its weight; at the label ``|x| psi(m a)``, mixed in by lambda.

    The rows of ``weight`` (num_output, features) are divided by their lengths in every pass. ``psi`` is ``cos(m a)`` made to
    fall from 1 on without turning; m is 1 to 4 by ``type``. At the label the top is ``(|x| psi + lambda |x| cos(a)) / (1 +
    lambda)``, where ``lambda = max(base * (1 + gamma * t) ** -power, lambda_min)`` in pass t, counted from ``iteration`` on.
    The second top is lambda.

    The gradients are the fork's, not those of this function: the weights' is the top's gradient times x, as of an inner product;
    at the label the bottom's is a mix of weight and x whose two factors are scaled to length 1.
    """

    bottoms = (2, 2)
    tops = (1, 2)
    differentiable = (True, False)
    blobs_declared = ("weight",)
    weight: Tensor

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        (field,) = self.option_fields()
        options = getattr(param, field)
        self.axis = self.canonical_axis(options.axis, len(bottom_shapes[0]), f"{field}.axis")
        self.margin = options.type + 1
        self.base, self.gamma, self.power, self.least = options.base, options.gamma, options.power, options.lambda_min
        self.count_passes(options.iteration)
        if options.num_output < 1:
            raise self.error(f"{field}.num_output: {options.num_output} must be at least 1")
        self.add_blob("weight", (options.num_output, count(bottom_shapes[0], self.axis)), options.weight_filler)

    def flops(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        return self.multiply_adds(count(bottoms[0], 0, self.axis))

    def forward(self, x: Tensor, label: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        weight = self.weight
        if not x.is_meta:
            self.passes.add_(1)
            weight = self.before(weight)
            mix = (self.base * (1 + self.gamma * self.passes.double()) ** -self.power).clamp(min=self.least).to(x.dtype)
        else:
            mix = x.new_zeros(())
        rows = x.flatten(self.axis).reshape(-1, weight.shape[1])
        labels = read_labels(self, rows.new_empty((len(rows), len(weight)), device="meta"), 1, label)
        y = F.linear(rows, weight) if self.margin == 1 else self.scores(rows, weight, labels.classes, mix)
        y = labels.guard(y).reshape(*x.shape[: self.axis], len(weight))
        return y if self.n_tops == 1 else (y, mix.reshape(1))

    def before(self, weight: Tensor) -> Tensor:
        """The weights, after what is done to them before they are used."""
        return rewritten(weight, weight.detach() / weight.detach().norm(dim=1, keepdim=True))

    def scores(self, x: Tensor, weight: Tensor, classes: Tensor, mix: Tensor) -> Tensor:
        """The scores of all classes with a margin of 2 to 4 at the labels; ``x`` are rows, ``classes`` a column."""
        return _Margins.apply(x, weight, classes, self.margin, mix)


def psi(cos: Tensor, margin: int) -> Tensor:
    """``cos(margin * a)``, mirrored so that it falls from 1 at ``a = 0`` to ``1 - 2 * margin`` at pi; margin is 2 to 4."""
    first = cos.detach().sign()
    if margin == 2:
        return 2 * first * cos**2 - 1
    if margin == 3:
        second = (cos.detach().abs() - 0.5).sign()
        return second * (4 * cos**3 - 3 * cos) + first * (1 + second) - 2
    third = first * (2 * cos.detach() ** 2 - 1).sign()
    return third * (8 * cos**4 - 8 * cos**2 + 1) + 2 * first + third - 3


def _cosines(x: Tensor, weight: Tensor, classes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The products with all weights, the lengths of ``x`` and the cosines at the labels, as columns."""
    products = F.linear(x, weight)
    length = x.norm(dim=1, keepdim=True)
    return products, length, products.gather(1, classes) / length


class _Margins(TracedFunction):
    """The top for a margin of 2 to 4 and weights of length 1, with the fork's gradients."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, classes: Tensor, margin: int, mix: Tensor) -> Tensor:
        products, length, cos = _cosines(x, weight, classes)
        mixed = (length * psi(cos, margin) + mix * products.gather(1, classes)) / (1 + mix)
        return products.scatter(1, classes, mixed)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, classes, ctx.margin, mix = inputs
        ctx.save_for_backward(x, weight, classes, mix)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:  # type: ignore[override]
        x, weight, classes, mix = ctx.saved_tensors
        of_x = None
        if ctx.needs_input_grad[0]:
            _, length, cos = _cosines(x, weight, classes)
            first = cos.sign()
            if ctx.margin == 2:
                by_weight = 4 * first * cos
                by_x = 2 * first * cos**2 + 1
            elif ctx.margin == 3:
                second = (cos.abs() - 0.5).sign()
                by_weight = second * (12 * cos**2 - 3)
                by_x = 8 * second * cos**3 - (first * (1 + second) - 2)
            else:
                third = first * (2 * cos**2 - 1).sign()
                by_weight = third * (32 * cos**3 - 16 * cos)
                by_x = third * (24 * cos**4 - 8 * cos**2 - 1) - (2 * first + third - 3)
            by_x = -by_x / length
            scale = (by_weight**2 + by_x**2).rsqrt()
            at_label = grad.gather(1, classes) / (1 + mix)
            of_x = F.linear(grad.scatter(1, classes, at_label * mix), weight.t())
            of_x = of_x + at_label * scale * (by_weight * weight[classes.flatten()] + by_x * x)
        return of_x, grad.t() @ x, None, None, None

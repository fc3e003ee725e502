"""Eltwise with coefficients from a blob, as LRCN's Caffe has it (LisaAnne/lisa-caffe-public, eltwise_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.registry import register
from ...tables import dims


@register("Eltwise", fork="lisa")
class WeightedSum(Layer):
    """With ``coeff_blob``: the sum of all bottoms but the last, which holds their coefficients.

    The last bottom has a first axis for those bottoms; the others are the first axes of the bottoms, which it gives one
    coefficient each, besides ``coeff``. It gets no gradient.
    """

    options = ("eltwise_param",)
    inert_options = frozenset({"stable_prod_grad"})
    bottoms = (2, None)

    @classmethod
    def fits(cls, param: Any) -> bool:
        return param.eltwise_param.coeff_blob

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.eltwise_param
        if options.operation != options.SUM:
            raise self.error("coeff_blob is for operation: SUM")
        *shapes, weights = (tuple(shape) for shape in bottom_shapes)
        self.coeffs = tuple(options.coeff) or (1.0,) * len(shapes)
        if len(self.coeffs) != len(shapes):
            raise self.error(
                f"coeff is given {len(self.coeffs)} times for {len(shapes)} bottoms beside the coefficients; give one for each, "
                "or none"
            )
        if any(shape != shapes[0] for shape in shapes):
            raise self.error(f"bottoms have the shapes {', '.join(map(dims, shapes))}: they must agree")
        if weights != (len(shapes), *shapes[0][: len(weights) - 1]):
            raise self.error(
                f"the coefficients, the last bottom, have shape {dims(weights)}; expected {len(shapes)} and the first axes of "
                f"{dims(shapes[0])}"
            )

    def forward(self, *bottoms: Tensor) -> Tensor:
        *xs, weights = bottoms
        weights = weights.detach().reshape(*weights.shape, *(1,) * (xs[0].ndim + 1 - weights.ndim))
        total = xs[0] * (weights[0] * self.coeffs[0])
        for x, weight, coeff in zip(xs[1:], weights[1:], self.coeffs[1:], strict=True):
            total = total + x * (weight * coeff)
        return total

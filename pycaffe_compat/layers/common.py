"""Layers that combine, reduce, choose and hand on blobs.

Source: Caffe's layers of these names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..proto import caffe_pb2
from ..tables import dims
from .base import Layer, Shape, count
from .registry import register


@register("Eltwise")
class Eltwise(Layer):
    """The product, the sum (each bottom times its ``coeff``) or the maximum of bottoms of the same shape.

    The gradient of a maximum goes to one bottom. If the first two tie it goes to the second; a later bottom gets it only
    if it is greater. ``stable_prod_grad: false`` asks for a faster gradient that fails at 0; it is ignored.
    """

    inert_options = frozenset({"stable_prod_grad"})
    passes_places = True
    bottoms: ClassVar[tuple[int, int | None]] = (2, None)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.eltwise_param
        self.operation = caffe_pb2.EltwiseParameter.EltwiseOp.Name(options.operation)
        self.coeffs = tuple(options.coeff) or (1.0,) * len(bottom_shapes)
        if len(self.coeffs) != len(bottom_shapes):
            raise self.error(
                f"coeff is given {len(self.coeffs)} times for {len(bottom_shapes)} bottoms; give one for each bottom, or none"
            )
        if options.coeff and self.operation == "PROD":
            raise self.error("coeff is for operation: SUM, not for PROD")

    def forward(self, *bottoms: Tensor) -> Tensor:
        shape = bottoms[0].shape
        for i, bottom in enumerate(bottoms):
            if bottom.shape != shape:
                raise self.error(f"bottom {i} has shape {dims(bottom.shape)}, bottom 0 {dims(shape)}: they must agree")
        y, second, *rest = bottoms
        if self.operation == "PROD":
            y = y * second
            for bottom in rest:
                y = y * bottom
        elif self.operation == "MAX":
            y = torch.where(y > second, y, second)
            for bottom in rest:
                y = torch.where(bottom > y, bottom, y)
        else:
            if self.coeffs[0] != 1:
                y = y * self.coeffs[0]
            for bottom, coeff in zip(bottoms[1:], self.coeffs[1:], strict=True):
                y = torch.add(y, bottom, alpha=coeff)
        return y


@register("Reduction")
class Reduction(Layer):
    """The sum, sum of magnitudes, sum of squares or mean over all axes from ``axis`` on, times ``coeff``."""

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.reduction_param
        self.axis = self.canonical_axis(options.axis, len(bottom_shapes[0]))
        self.operation = caffe_pb2.ReductionParameter.ReductionOp.Name(options.operation)
        self.coeff = options.coeff

    def forward(self, x: Tensor) -> Tensor:
        axes = tuple(range(self.axis, x.dim()))
        if self.operation == "MEAN":
            y = x.mean(axes)
        elif self.operation == "ASUM":
            y = x.abs().sum(axes)
        else:
            y = (x.square() if self.operation == "SUMSQ" else x).sum(axes)
        return y if self.coeff == 1 else y * self.coeff


@register("ArgMax")
class ArgMax(Layer):
    """The indices of the ``top_k`` largest elements, as numbers of the bottom's type; of equal elements, the last comes first.

    Along ``axis``: the bottom's shape with ``top_k`` at that axis; ``out_max_val`` gives the values instead.
    Without ``axis``, over all axes but the first: (num, 1, top_k, 1, …), or with ``out_max_val`` (num, 2, top_k, 1, …),
    indices and values.
    """

    head = True

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options, shape = param.argmax_param, bottom_shapes[0]
        self.top_k, self.out_max_val = options.top_k, options.out_max_val
        self.axis = self.canonical_axis(options.axis, len(shape)) if options.HasField("axis") else None
        if not shape:
            raise self.error("needs a bottom with at least 1 axis, not a single number")
        choices = count(shape, 1) if self.axis is None else shape[self.axis]
        if not 1 <= self.top_k <= choices:
            raise self.error(f"argmax_param.top_k: {self.top_k} must be 1 to {choices}, the number of choices")

    def forward(self, x: Tensor) -> Tensor:
        x = x.detach()
        if self.axis is not None:
            values, indices = self._largest(x, self.axis)
            return values if self.out_max_val else indices
        values, indices = self._largest(x.reshape(x.shape[0], count(x.shape, 1)), 1)
        found = torch.stack((indices, values), 1) if self.out_max_val else indices[:, None]
        return found.reshape(*found.shape, *(1,) * (x.dim() - 3))

    def _largest(self, x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        flipped = x.flip(axis)  # max and a stable sort both return the first of equal elements
        if self.top_k == 1:
            values, indices = flipped.max(axis, keepdim=True)
        else:
            values, indices = flipped.sort(dim=axis, descending=True, stable=True)
            values, indices = values.narrow(axis, 0, self.top_k), indices.narrow(axis, 0, self.top_k)
        return values, (x.shape[axis] - 1 - indices).to(x.dtype)


@register("Split")
class Split(Layer):
    """The bottom, once for each top."""

    shares_memory = True
    tops = (1, None)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(x.view_as(x) for _ in range(self.n_tops))


@register("Silence")
class Silence(Layer):
    """Consumes its bottoms, so that they are not outputs of the net."""

    head = True
    bottoms = (1, None)
    tops = (0, 0)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        return ()


@register("Parameter")
class Parameter(Layer):
    """A learned blob of the given shape. happynear's Caffe fills it with ``blob_filler``, OpenVINO's with ``filler``."""

    fork_options = frozenset({"parameter_param.blob_filler", "parameter_param.filler"})
    inert_options = frozenset({"norm_axis"})
    blobs_declared = ("weight",)
    shares_memory = True
    bottoms = (0, 0)
    weight: Tensor

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        shape = tuple(param.parameter_param.shape.dim)
        if any(n < 0 for n in shape):
            raise self.error(f"parameter_param.shape {list(shape)} has a negative dim")
        fillers = [field for field in ("blob_filler", "filler") if param.parameter_param.HasField(field)]
        self.add_blob("weight", shape, getattr(param.parameter_param, fillers[0]) if fillers else None)

    def forward(self) -> Tensor:
        return self.weight.view_as(self.weight)


@register("BatchReindex")
class BatchReindex(Layer):
    """The items (axis 0) of the first bottom, selected by the second, a vector of indices."""

    bottoms = (2, 2)
    differentiable = (True, False)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        if not bottom_shapes[0] or len(bottom_shapes[1]) != 1:
            raise self.error(
                f"takes a bottom of items and a vector of indices, not bottoms of the shapes {dims(bottom_shapes[0])} "
                f"and {dims(bottom_shapes[1])}"
            )

    def forward(self, x: Tensor, indices: Tensor) -> Tensor:
        if not x.shape[0] and indices.shape[0]:
            raise self.error(f"has {indices.shape[0]} indices, but its bottom {dims(x.shape)} has no items")
        try:
            return x.index_select(0, indices.long())
        except IndexError:
            raise self.outside(indices, x.shape[0], f"it has {x.shape[0]} items") from None


@register("Filter")
class Filter(Layer):
    """The items (axis 0) of every bottom but the last, selected where the last bottom, one number per item, is not 0.

    The number of selected items depends on the data; on meta tensors all are selected.
    """

    bottoms = (2, None)
    tops = (1, None)
    open_axes = (0,)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        *items, selector = (tuple(shape) for shape in bottom_shapes)
        if param.top and len(param.top) != len(items):
            raise self.error(f"has {len(items)} bottoms before the selector, and {len(param.top)} tops: one each")
        if not selector or count(selector, 1) != 1:
            raise self.error(
                f"the selector holds one number for each item, but its shape {dims(selector)} has more than one axis"
            )
        for i, shape in enumerate(items):
            if shape[:1] != selector[:1]:
                raise self.error(f"bottom {i} has shape {dims(shape)}, but the selector has {selector[0]} items")

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        *items, selector = bottoms
        if selector.is_meta:
            return tuple(items)
        chosen = selector.flatten().nonzero().flatten()
        return tuple(item.index_select(0, chosen) for item in items)

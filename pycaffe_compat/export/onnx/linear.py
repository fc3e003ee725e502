"""Products with matrices, tables and factors of channels."""

from __future__ import annotations

import numpy as np

from ...layers.linear import Bias, Embed, InnerProduct, Scale
from ..outline import Value
from ..registry import static
from .emitter import INT64, Emitter, emits


@emits(InnerProduct)
def inner_product(e: Emitter, layer: InnerProduct, x: Value) -> str:
    static(layer, x, *range(layer.axis, len(x.shape)))
    inputs = int(np.prod(x.shape[layer.axis :]))
    biased = len(layer.blob_specs) > 1
    if layer.axis == 1:
        flat: object = x
        if len(x.shape) != 2:
            flat = e.op("Flatten", x, axis=1)
        return str(e.op("Gemm", flat, *e.filters(layer), transB=0 if layer.transpose else 1))
    flat = x
    if len(x.shape) != layer.axis + 1:
        flat = e.reshape(layer, x, x, (*x.shape[: layer.axis], inputs), x.moving)
    if layer.axis == 0:
        flat = e.op("Unsqueeze", flat, e.ints(0))
    weight = e.blob(layer, 0) if layer.transpose else e.op("Transpose", e.blob(layer, 0), perm=[1, 0])
    y = e.op("MatMul", flat, weight)
    if layer.axis == 0:
        y = e.op("Squeeze", y, e.ints(0))
    return str(e.op("Add", y, e.blob(layer, 1)) if biased else y)


@emits(Embed)
def embed(e: Emitter, layer: Embed, x: Value) -> str:
    y = e.op("Gather", e.blob(layer, 0), e.op("Cast", x, to=INT64), axis=0)
    return str(e.op("Add", y, e.blob(layer, 1)) if len(layer.blob_specs) > 1 else y)


def _operand(e: Emitter, layer: Scale | Bias, index: int, x: Value) -> str:
    """A blob with axes of length 1 after it, so that it broadcasts over ``x``."""
    value = layer.blob(index)
    after = len(x.shape) - layer.axis - value.dim()
    if not after:
        return e.blob(layer, index)
    return e.array(layer, layer.blob_specs[index].name, value.reshape(*value.shape, *(1,) * after))


def _second(e: Emitter, layer: Scale | Bias, x: Value, operand: Value) -> object:
    after = len(x.shape) - layer.axis - len(operand.shape)
    if not after or not operand.shape:
        return operand
    return e.op("Unsqueeze", operand, e.ints(*range(len(operand.shape), len(operand.shape) + after)))


@emits(Scale)
def scale(e: Emitter, layer: Scale, x: Value, factor: Value | None = None) -> str:
    by = _operand(e, layer, 0, x) if factor is None else _second(e, layer, x, factor)
    y = e.op("Mul", x, by)
    if layer.bias is None:
        return str(y)
    return str(e.op("Add", y, _operand(e, layer, 1 if factor is None else 0, x)))


@emits(Bias)
def bias(e: Emitter, layer: Bias, x: Value, more: Value | None = None) -> str:
    return str(e.op("Add", x, _operand(e, layer, 0, x) if more is None else _second(e, layer, x, more)))

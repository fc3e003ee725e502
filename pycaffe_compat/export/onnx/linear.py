"""Products with matrices, tables and factors of channels."""

from __future__ import annotations

import numpy as np
import torch

from ...forks.happynear.inner_distance import InnerDistance
from ...forks.happynear.inner_product import NormalizedInnerProduct
from ...forks.happynear.scale import LimitedScale
from ...forks.intel.fused import FusedInnerProduct
from ...layers.linear import Bias, Embed, InnerProduct, Scale
from ..outline import Value
from ..registry import static, unsaid
from .emitter import INT64, Emitter, emits
from .neurons import rectified


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


@emits(FusedInnerProduct)
def fused(e: Emitter, layer: FusedInnerProduct, x: Value) -> str:
    y = inner_product(e, layer, x)
    return rectified(e, y, layer.negative_slope) if layer.relu else str(y)


@emits(NormalizedInnerProduct)
def normalized(e: Emitter, layer: NormalizedInnerProduct, x: Value) -> str:
    if layer.normalize:
        layer(torch.zeros(x.shape, device=layer.weight.device, dtype=layer.weight.dtype))  # it divides its blob
    return str(inner_product(e, layer, x))


@emits(InnerDistance)
def distance(e: Emitter, layer: InnerDistance, x: Value, rows: Value | None = None) -> str:
    """The sum over inputs of ``|x - row|`` or its square, computed as the layer does, difference by difference."""
    if layer.labelled or rows is not None or layer.axis != 1:
        raise unsaid(layer, "only distances of whole items from its own rows are supported")
    if layer.normalize:
        layer(torch.zeros(x.shape, device=layer.weight.device, dtype=layer.weight.dtype))  # it divides its blob
    apart = e.op("Sub", e.op("Unsqueeze", e.op("Flatten", x, axis=1), e.ints(1)), e.blob(layer, 0))
    each = e.op("Abs", apart) if layer.power == 1 else e.op("Mul", apart, apart)
    return str(e.op("ReduceSum", each, e.ints(2), keepdims=0))


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


@emits(LimitedScale)
def limited_scale(e: Emitter, layer: LimitedScale, x: Value, factor: Value | None = None) -> str:
    """Factors of its own are limited here, as the layer limits its blob in every pass."""
    if factor is None:
        layer.weight.data.clamp_(layer.least, layer.most)
        return scale(e, layer, x)
    limits = [None if each is None else e.number(each) for each in (layer.least, layer.most)]
    return scale(e, layer, x, Value(str(e.op("Clip", factor, *limits)), factor.shape, factor.moving))

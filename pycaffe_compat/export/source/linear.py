"""Products with matrices, tables and factors of channels."""

from __future__ import annotations

import math

from torch import Tensor

from ...forks.happynear.inner_distance import InnerDistance
from ...forks.happynear.inner_product import EPS, NormalizedInnerProduct
from ...forks.happynear.scale import LimitedScale
from ...forks.intel.fused import FusedInnerProduct
from ...layers.linear import Bias, Embed, InnerProduct, Scale
from ..outline import Value
from ..registry import unsaid
from .helpers import linear as helpers
from .layout import call, unless
from .neurons import rectified
from .writer import Writer, writes


@writes(InnerProduct)
def inner_product(w: Writer, layer: InnerProduct, x: Value) -> str:
    inputs, outputs = math.prod(x.shape[layer.axis :]), w.tops[0].shape[-1]
    module = w.module(layer, "nn.Linear", inputs, outputs, bias=unless(True, w.has_bias(layer)))
    if layer.transpose:
        w.weight(f"{module}.weight", layer.weight.t())
        if layer.bias is not None:
            w.blob(f"{module}.bias", layer, 1)
    else:
        w.filters(module, layer)
    flat = x if len(x.shape) == layer.axis + 1 else f"{x}.flatten({layer.axis})"
    return f"{module}({flat})"


@writes(FusedInnerProduct)
def fused_inner_product(w: Writer, layer: FusedInnerProduct, x: Value) -> str:
    return rectified(layer, inner_product(w, layer, x))


@writes(NormalizedInnerProduct)
def normalized_inner_product(w: Writer, layer: NormalizedInnerProduct, x: Value) -> str:
    y = inner_product(w, layer, x)
    if layer.normalize:
        w.weight(f"{y.partition('(')[0]}.weight", _normalized(layer.weight))
    return y


def _normalized(rows: Tensor) -> Tensor:
    """Rows divided by their lengths, as the fork does in every pass."""
    return rows.detach() / (rows.detach().square().sum(1, keepdim=True) + EPS).sqrt()


@writes(InnerDistance)
def inner_distance(w: Writer, layer: InnerDistance, x: Value, *more: Value) -> str:
    if more or layer.axis != 1:
        raise unsaid(layer, "only distances of whole items from its own rows are supported")
    rows = w.parameter(layer, _normalized(layer.weight) if layer.normalize else layer.weight)
    apart = f"({x}.flatten(1)[:, None] - {rows})"
    return f"{apart}.abs().sum(2)" if layer.power == 1 else f"{apart}.square().sum(2)"


@writes(Embed)
def embed(w: Writer, layer: Embed, x: Value) -> str:
    module = w.module(layer, "nn.Embedding", *layer.weight.shape)
    if layer.bias is None:
        w.blob(f"{module}.weight", layer, 0)
    else:  # a table of sums, rounded as the sums would be
        w.weight(f"{module}.weight", layer.weight + layer.bias)
    return f"{module}({x}.long())"


def spread(layer: Scale | Bias, operand: Tensor, x: Value) -> Tensor:
    """A blob with axes of length 1 after it, so that it broadcasts over ``x``."""
    return operand.reshape(*operand.shape, *(1,) * (len(x.shape) - layer.axis - operand.dim()))


def second(layer: Scale | Bias, operand: Value, x: Value) -> str:
    """The second bottom, so that it broadcasts over the first."""
    after = len(x.shape) - layer.axis - len(operand.shape)
    return with_axes(operand, after if operand.shape else 0)


def with_axes(x: Value, after: int) -> str:
    """``x`` with so many axes of length 1 at its end."""
    return f"{x}[..., {', '.join(['None'] * after)}]" if after > 0 else str(x)


@writes(Scale)
def scale(w: Writer, layer: Scale, x: Value, factor: Value | None = None) -> str:
    if factor is not None:
        y = f"{x} * {second(layer, factor, x)}"
        if layer.bias is None:
            return y
        return f"{y} + {w.parameter(layer, spread(layer, layer.bias, x))}"
    weight = spread(layer, layer.weight, x)
    module = w.module(layer, helpers.Scale, *weight.shape, bias=unless(True, layer.bias is not None))
    w.weight(f"{module}.weight", weight)
    if layer.bias is not None:
        w.weight(f"{module}.bias", spread(layer, layer.bias, x))
    return f"{module}({x})"


@writes(Bias)
def bias(w: Writer, layer: Bias, x: Value, more: Value | None = None) -> str:
    if more is not None:
        return f"{x} + {second(layer, more, x)}"
    value = spread(layer, layer.bias, x)
    module = w.module(layer, helpers.Bias, *value.shape)
    w.weight(f"{module}.bias", value)
    return f"{module}({x})"


@writes(LimitedScale)
def limited_scale(w: Writer, layer: LimitedScale, x: Value, factor: Value | None = None) -> str:
    """Factors of its own are limited here, as the layer limits its blob in every pass."""
    if factor is None:
        layer.weight.data.clamp_(layer.least, layer.most)
        return scale(w, layer, x)
    limited = call(f"{factor}.clamp", min=layer.least, max=layer.most)
    return scale(w, layer, x, Value(limited, factor.shape, factor.moving))

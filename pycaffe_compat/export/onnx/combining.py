"""Layers that combine, cut, reorder or reshape blobs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...forks.ctpn.moving import Reverse, Transpose
from ...forks.dann.gradient_scaler import GradientScaler
from ...forks.deconvnet.dropout_channel import DropoutChannel
from ...forks.deeplab.labels import SpatialProduct
from ...forks.flownet2.eltwise import AnyEltwise
from ...forks.greentea.merge_crop import MergeCrop
from ...forks.happynear.channel_scale import ChannelScale, LabelSpecificAdd
from ...forks.happynear.flip import Flip
from ...forks.happynear.planes import Gram, Slope
from ...forks.lisa.eltwise import WeightedSum
from ...forks.mnc.masks import MaskPooling
from ...forks.openvino.label_specific_add import LabelSpecificSubtract
from ...forks.senet.axpy import Axpy
from ...forks.shufflenet.shuffle_channel import ShuffleChannel
from ...forks.ssd.permute import Permute
from ...forks.synopsys.arrays import Add, Mul
from ...forks.tsn.processes import Gather, Scatter
from ...forks.xlearn.entropy import OuterProduct
from ...layers.common import ArgMax, BatchReindex, Eltwise, Filter, Parameter, Reduction
from ...layers.reshaping import Concat, Crop, Flatten, Reshape, Slice, Tile
from ..outline import Value
from ..registry import static, unsaid
from .emitter import BOOL, FLOAT, INT64, Emitter, emits


@emits(Add, Mul)
def of_arrays(e: Emitter, layer: Add | Mul, *bottoms: Value) -> str:
    pair: list[object] = [*bottoms]
    if len(pair) == 1:
        pair.append(e.blob(layer, 0))
    return str(e.op(layer.type_name, *pair))


@emits(Eltwise, AnyEltwise)
def eltwise(e: Emitter, layer: Eltwise, *bottoms: Value) -> str:
    if layer.operation == "MAX":
        return str(e.op("Max", *bottoms))
    terms: list[object] = list(bottoms)
    if layer.operation == "SUM":
        terms = [x if c == 1 else e.op("Mul", x, e.number(c)) for x, c in zip(bottoms, layer.coeffs, strict=True)]
    y = terms[0]
    for term in terms[1:]:
        y = e.op("Mul" if layer.operation == "PROD" else "Add", y, term)
    return str(e.op("Identity", y) if y is bottoms[0] else y)


@emits(WeightedSum)
def weighted_sum(e: Emitter, layer: WeightedSum, *bottoms: Value) -> str:
    *xs, weights = bottoms
    y: object = None
    for i, (x, coeff) in enumerate(zip(xs, layer.coeffs, strict=True)):
        weight = e.op("Gather", weights, e.constant(i, np.int64), axis=0)
        if len(weights.shape) - 1 < len(x.shape):
            weight = e.op("Unsqueeze", weight, e.ints(*range(len(weights.shape) - 1, len(x.shape))))
        term = e.op("Mul", x, weight if coeff == 1 else e.op("Mul", weight, e.number(coeff)))
        y = term if y is None else e.op("Add", y, term)
    return str(y)


@emits(MergeCrop)
def merge_crop(e: Emitter, layer: MergeCrop, x: Value, y: Value) -> str:
    axes = list(range(2, len(x.shape)))
    start: object = e.ints(*((y.shape[a] - x.shape[a]) // 2 for a in axes))
    end: object = e.ints(*((y.shape[a] - x.shape[a]) // 2 + x.shape[a] for a in axes))
    if (x.moving | y.moving) & set(axes):
        size, whole = (e.op("Slice", e.op("Shape", each), e.ints(2), e.ints(len(x.shape))) for each in (x, y))
        start = e.op("Div", e.op("Sub", whole, size), e.ints(2))
        end = e.op("Add", start, size)
    pair = [x, e.op("Slice", y, start, end, e.ints(*axes))]
    pair = [each if on else e.op("Mul", each, e.number(0)) for each, on in zip(pair, layer.forwards, strict=True)]
    if layer.adds:
        return str(e.op("Add", *pair))
    stacked = e.op("Concat", *pair, axis=1)
    if x.shape[1] == y.shape[1]:
        return str(stacked)
    a, b = x.shape[1], y.shape[1]
    place = np.arange(a + b)
    batch = e.op("Squeeze", e.op("Slice", e.op("Shape", x), e.ints(0), e.ints(1)))
    item = e.op("Range", e.constant(0, np.int64), batch, e.constant(1, np.int64))
    count = e.op("Add", e.op("Mul", e.op("Unsqueeze", item, e.ints(1)), e.ints(a + b)), e.constant(place, np.int64))
    order = e.op(
        "Where",
        e.constant(place // a % 2 == 0, bool),
        e.op("Mod", count, e.ints(a)),
        e.op("Add", e.op("Mod", count, e.ints(b)), e.ints(a)),
    )
    return str(e.op("GatherND", stacked, e.op("Unsqueeze", order, e.ints(2)), batch_dims=1))


@emits(OuterProduct)
def outer_product(e: Emitter, layer: OuterProduct, a: Value, b: Value) -> str:
    rows, columns = (e.op("Flatten", each, axis=1) for each in (a, b))
    return str(e.op("Mul", e.op("Unsqueeze", rows, e.ints(1, 3)), e.op("Unsqueeze", columns, e.ints(1, 2))))


@emits(Gather, GradientScaler, Scatter)
def of_training(e: Emitter, layer: Gather | GradientScaler | Scatter, *bottoms: Value) -> list[str]:
    return [str(e.op("Identity", x)) for x in bottoms]


@emits(LabelSpecificAdd, LabelSpecificSubtract)
def label_specific_add(e: Emitter, layer: LabelSpecificAdd, x: Value, label: Value) -> list[str]:
    return [str(e.op("Identity", x)), e.constant([0.0])][: len(e.tops)]


@emits(ChannelScale)
def channel_scale(e: Emitter, layer: ChannelScale, x: Value, factors: Value) -> list[str]:
    y = e.op("Identity", x)
    if layer.scales and layer.common:
        y = e.op("Mul", x, e.blob(layer, 0))
    elif layer.scales:
        shape = (x.shape[0], 1, *x.shape[2:])
        given = factors if factors.shape == shape else e.reshape(layer, factors, factors, shape, x.moving)
        y = e.op("Mul", x, given)
    return [str(y), e.op("Identity", e.blob(layer, 0)) if layer.common else ""][: len(e.tops)]


@emits(Reduction)
def reduction(e: Emitter, layer: Reduction, x: Value) -> str:
    kind = {"SUM": "ReduceSum", "MEAN": "ReduceMean", "ASUM": "ReduceL1", "SUMSQ": "ReduceSumSquare"}[layer.operation]
    y = e.op(kind, x, e.ints(*range(layer.axis, len(x.shape))), keepdims=0)
    return str(y if layer.coeff == 1 else e.op("Mul", y, e.number(layer.coeff)))


@emits(ArgMax)
def argmax(e: Emitter, layer: ArgMax, x: Value) -> str:
    """Of equal elements Caffe takes the last first: the blob is turned round, and TopK takes the first."""
    axis = layer.axis
    source: object = x
    if axis is None:
        static(layer, x, *range(1, len(x.shape)))
        total = int(np.prod(x.shape[1:]))
        source, axis, size = e.reshape(layer, x, x, (x.shape[0], total), x.moving), 1, total
    else:
        size = x.shape[axis]
    if axis in x.moving:
        turned: object = _reversed(e, x, [axis])
        last = e.op("Sub", e.op("Gather", e.op("Shape", x), e.constant(axis, np.int64)), e.constant(1, np.int64))
    else:
        turned = e.op("Gather", source, e.constant(np.arange(size)[::-1], np.int64), axis=axis)
        last = e.constant(size - 1, np.int64)
    values, places = e.op("TopK", turned, e.ints(layer.top_k), outputs=2, axis=axis, largest=1, sorted=1)
    if layer.axis is not None and layer.out_max_val:
        return str(values)
    indices = e.op("Cast", e.op("Sub", last, places), to=FLOAT)
    if layer.axis is not None:
        return str(indices)
    if layer.out_max_val:
        between = e.op("Concat", e.op("Unsqueeze", indices, e.ints(1)), e.op("Unsqueeze", values, e.ints(1)), axis=1)
    else:
        between = e.op("Unsqueeze", indices, e.ints(1))
    return e.reshape(layer, between, e.tops[0])


@emits(Parameter)
def parameter(e: Emitter, layer: Parameter) -> str:
    return str(e.op("Identity", e.blob(layer, 0)))


@emits(BatchReindex)
def batch_reindex(e: Emitter, layer: BatchReindex, x: Value, indices: Value) -> str:
    return str(e.op("Gather", x, e.op("Cast", indices, to=INT64), axis=0))


@emits(Filter)
def filter_items(e: Emitter, layer: Filter, *bottoms: Value) -> list[str]:
    *items, selector = bottoms
    chosen = e.op("Cast", e.op("Reshape", selector, e.ints(-1)), to=BOOL)
    return [e.op("Compress", item, chosen, axis=0) for item in items]


@emits(Concat)
def concat(e: Emitter, layer: Concat, *bottoms: Value) -> str:
    return str(e.op("Concat", *bottoms, axis=layer.axis))


@emits(Slice)
def slices(e: Emitter, layer: Slice, x: Value) -> list[str]:
    if len(e.tops) == 1:
        return [str(e.op("Identity", x))]
    number = len(e.tops)
    if layer.axis in x.moving and not layer.points:
        return list(e.op("Split", x, outputs=number, axis=layer.axis, num_outputs=number))
    static(layer, x, layer.axis)
    sizes = [top.shape[layer.axis] for top in e.tops]
    return list(e.op("Split", x, e.ints(*sizes), outputs=number, axis=layer.axis))


@emits(Flatten)
def flatten(e: Emitter, layer: Flatten, x: Value) -> str:
    axis, end = layer.axis, layer.end_axis + 1
    return _reshaped(e, layer, x, [*range(axis), None, *range(end, len(x.shape))])


@emits(Reshape)
def reshape(e: Emitter, layer: Reshape, x: Value) -> str:
    middle = [layer.start + i if n == 0 else None for i, n in enumerate(layer.dims)]
    return _reshaped(e, layer, x, [*range(layer.start), *middle, *range(layer.end, len(x.shape))])


def _reshaped(e: Emitter, layer: Flatten | Reshape, x: Value, copied: Sequence[int | None]) -> str:
    """``x`` in the shape of the top, whose axes are as long as those of ``x`` that are ``copied``."""
    (top,) = e.tops
    far = {axis for axis in top.moving if copied[axis] not in (axis, None)}
    if not far:
        return e.reshape(layer, x, x)
    computed = [axis for axis in top.moving if copied[axis] is None]
    if len(computed) > 1:
        raise unsaid(layer, f"axes {sorted(computed)} of its top change at once, of which ONNX's Reshape infers one")
    shape = e.op("Shape", x)
    parts = []
    for axis, length in enumerate(top.shape):
        source = copied[axis]
        if source is not None and axis in top.moving:
            parts.append(e.op("Slice", shape, e.ints(source), e.ints(source + 1)))
        else:
            parts.append(e.ints(-1 if axis in computed else length))
    return str(e.op("Reshape", x, e.op("Concat", *parts, axis=0)))


@emits(Tile)
def tile(e: Emitter, layer: Tile, x: Value) -> str:
    return str(e.op("Tile", x, e.ints(*layer.repeats)))


@emits(Crop)
def crop(e: Emitter, layer: Crop, x: Value, reference: Value) -> str:
    axes = list(range(layer.axis, len(x.shape)))
    starts = e.ints(*layer.offsets)
    if reference.moving & set(axes):
        sizes = e.op("Slice", e.op("Shape", reference), e.ints(layer.axis), e.ints(len(x.shape)))
        ends = e.op("Add", sizes, starts)
    else:
        ends = e.ints(*(o + reference.shape[a] for o, a in zip(layer.offsets, axes, strict=True)))
    return str(e.op("Slice", x, starts, ends, e.ints(*axes)))


@emits(Permute)
def permute(e: Emitter, layer: Permute, x: Value) -> str:
    return str(e.op("Transpose", x, perm=list(layer.order)))


@emits(ShuffleChannel)
def shuffle_channel(e: Emitter, layer: ShuffleChannel, x: Value) -> str:
    static(layer, x, 1)
    if {2, 3} & x.moving:
        shape = e.op("Shape", x)
        batch, rest = e.op("Slice", shape, e.ints(0), e.ints(1)), e.op("Slice", shape, e.ints(2), e.ints(2**62))
        parts = e.op("Concat", batch, e.ints(layer.group, x.shape[1] // layer.group), rest, axis=0)
        turned = e.op("Transpose", e.op("Reshape", x, parts), perm=[0, 2, 1, *range(3, len(x.shape) + 1)])
        return str(e.op("Reshape", turned, shape))
    groups = (x.shape[0], layer.group, x.shape[1] // layer.group, *x.shape[2:])
    split = e.reshape(layer, x, x, groups, x.moving & {0})
    turned = e.op("Transpose", split, perm=[0, 2, 1, *range(3, len(groups))])
    return e.reshape(layer, turned, x)


@emits(Axpy)
def axpy(e: Emitter, layer: Axpy, scale: Value, x: Value, y: Value) -> str:
    factor: object = scale
    if len(scale.shape) < len(x.shape):
        factor = e.op("Unsqueeze", scale, e.ints(*range(len(scale.shape), len(x.shape))))
    elif len(scale.shape) > len(x.shape):
        factor = e.op("Squeeze", scale, e.ints(*range(len(x.shape), len(scale.shape))))
    return str(e.op("Add", e.op("Mul", factor, x), y))


@emits(MaskPooling, SpatialProduct)
def spatial_product(e: Emitter, layer: MaskPooling | SpatialProduct, x: Value, plane: Value) -> str:
    return str(e.op("Mul", x, plane))


@emits(DropoutChannel)
def dropout_channel(e: Emitter, layer: DropoutChannel, x: Value) -> str:
    return str(e.op("Identity", x))


@emits(Gram)
def gram(e: Emitter, layer: Gram, x: Value) -> str:
    static(layer, x, 1, 2, 3)
    channels, places = x.shape[1], x.shape[2] * x.shape[3]
    flat = e.op("Reshape", x, e.ints(-1, channels, places))
    products = e.op("MatMul", flat, e.op("Transpose", flat, perm=[0, 2, 1]))
    return str(e.op("Unsqueeze", e.op("Div", products, e.number(channels * places)), e.ints(3)))


@emits(Slope)
def slope(e: Emitter, layer: Slope, x: Value) -> str:
    static(layer, x, 2, 3)
    height, width = x.shape[2:]
    rows, columns = (np.arange(n, dtype=np.float32) / np.float32(n) for n in (height, width))
    planes = e.constant(np.stack(np.broadcast_arrays(rows[:, None], columns))[None])
    batch = e.op("Slice", e.op("Shape", x), e.ints(0), e.ints(1))
    planes = e.op("Expand", planes, e.op("Concat", batch, e.ints(2, height, width), axis=0))
    return str(e.op("Concat", x, planes, axis=1))


@emits(Transpose)
def transpose(e: Emitter, layer: Transpose, x: Value) -> str:
    return str(e.op("Transpose", x, perm=list(layer.order)))


@emits(Reverse)
def back_to_front(e: Emitter, layer: Reverse, x: Value) -> str:
    return _reversed(e, x, [layer.axis])


@emits(Flip)
def flip(e: Emitter, layer: Flip, x: Value) -> str:
    return _reversed(e, x, layer.axes) if layer.axes else str(e.op("Identity", x))


def _reversed(e: Emitter, x: Value, axes: Sequence[int]) -> str:
    last, least = e.ints(*[-1] * len(axes)), e.ints(*[-(2**62)] * len(axes))
    return str(e.op("Slice", x, last, least, e.ints(*axes), last))

"""Layers of FlowNet 2: flows between pictures, and the planes that they are made of."""

from __future__ import annotations

import numpy as np
import torch

from ...forks.flownet2.augmentation import DataAugmentation
from ...forks.flownet2.coefficients import NAMES
from ...forks.flownet2.correlation import Correlation, RowCorrelation
from ...forks.flownet2.flow import ChannelNorm, FlowWarp, NegReLU
from ...forks.flownet2.mean import Mean
from ...forks.flownet2.resampling import TYPES, Accum, Downsample, Resample
from ...forks.liteflownet.warp import ExpMax, Grid, NegSquare, WarpTo
from ...forks.pwcnet.warp import WarpBy
from ..outline import Value
from ..registry import static, unsaid
from .emitter import INT64, Emitter, emits
from .resizing import between


@emits(NegReLU)
def negative_relu(e: Emitter, layer: NegReLU, x: Value) -> str:
    return str(e.op("Where", e.op("Less", x, e.number(0)), x, e.op("Mul", x, e.number(layer.slope))))


@emits(ChannelNorm)
def channel_norm(e: Emitter, layer: ChannelNorm, x: Value) -> str:
    return str(e.op("Sqrt", e.op("ReduceSum", e.op("Mul", x, x), e.ints(1))))


@emits(Mean)
def mean(e: Emitter, layer: Mean, *bottoms: Value) -> list[str]:
    tops = []
    for x in bottoms:
        static(layer, x, *(axis + 1 for axis, n in enumerate(layer.mean.shape) if n > 1))
        own = layer.mean.repeat(x.shape[1] // layer.mean.shape[0], 1, 1)[None]
        scaled = e.op("Mul", x, e.number(layer.input_scale))
        tops.append(str(e.op("Mul", e.op("Add", scaled, e.constant(own.numpy())), e.number(layer.output_scale))))
    return tops


@emits(FlowWarp, WarpBy)
def flow_warp(e: Emitter, layer: FlowWarp, image: Value, flow: Value) -> str:
    static(layer, image, 1, 2, 3)
    height, width = image.shape[2:]
    x, y = (
        e.op("Add", part, e.constant(np.arange(side).reshape(shape)))
        for part, side, shape in zip(_halves(e, flow), (width, height), ((1, 1, 1, -1), (1, 1, -1, 1)), strict=True)
    )
    inside: object = None
    for each, side in ((x, width), (y, height)):
        if isinstance(layer, WarpBy):
            below = e.op("LessOrEqual", each, e.number(side - 1))
        else:
            below = e.op("Less", each, e.number(side))
        within = e.op("And", e.op("GreaterOrEqual", each, e.number(0)), below)
        inside = within if inside is None else e.op("And", inside, within)
    x, y = (e.op("Where", inside, each, e.number(0)) for each in (x, y))
    left, top = e.op("Floor", x), e.op("Floor", y)
    columns, rows = (
        (first, e.op("Min", e.op("Add", first, e.number(1)), e.number(side - 1)))
        for first, side in ((left, width), (top, height))
    )
    across, down = e.op("Sub", x, left), e.op("Sub", y, top)
    shares = [[e.op("Sub", e.number(1), each), each] for each in (down, across)]
    planes = e.op("Reshape", image, e.ints(0, 0, -1))
    value: object = None
    for row, part in zip(rows, shares[0], strict=True):
        for column, other in zip(columns, shares[1], strict=True):
            term = e.op("Mul", e.op("Mul", part, other), _read(e, image, planes, row, column))
            value = term if value is None else e.op("Add", value, term)
    return str(e.op("Where", inside, value, e.number(0 if isinstance(layer, WarpBy) else layer.fill)))


def _halves(e: Emitter, pair: Value) -> tuple[str, str]:
    """The two channels of a blob."""
    first, second = (e.op("Slice", pair, e.ints(i), e.ints(i + 1), e.ints(1)) for i in (0, 1))
    return first, second


def _read(e: Emitter, image: Value, planes: object, row: object, column: object) -> str:
    """The values of an image, whose planes are also given flat, at whole rows and columns, (N, 1, H, W)."""
    width = image.shape[3]
    index = e.op("Add", e.op("Mul", e.op("Cast", row, to=INT64), e.ints(width)), e.op("Cast", column, to=INT64))
    index = e.op("Expand", e.op("Reshape", index, e.ints(0, 0, -1)), e.op("Shape", planes))
    return str(e.op("Reshape", e.op("GatherElements", planes, index, axis=2), e.op("Shape", image)))


@emits(WarpTo)
def warp_to(e: Emitter, layer: WarpTo, image: Value, places: Value) -> str:
    static(layer, image, 1, 2, 3)
    height, width = image.shape[2:]
    x, y = _halves(e, places)
    planes = e.op("Reshape", image, e.ints(0, 0, -1))
    zero, one = e.number(0), e.number(1)
    axes: list[list[tuple[str, str, str]]] = []
    for place, side in ((y, height), (x, width)):
        first = e.op("Floor", place)
        axes.append([])
        for at in (first, e.op("Add", first, one)):
            inside = e.op("And", e.op("GreaterOrEqual", at, zero), e.op("Less", at, e.number(side)))
            share = e.op("Sub", one, e.op("Abs", e.op("Sub", at, place)))
            axes[-1].append((at, inside, share))
    value: object = zero
    for row, above, part in axes[0]:
        for column, beside, other in axes[1]:
            inside = e.op("And", above, beside)
            row_inside, column_inside = (e.op("Where", inside, at, zero) for at in (row, column))
            term = e.op("Mul", e.op("Mul", part, other), _read(e, image, planes, row_inside, column_inside))
            value = e.op("Add", value, e.op("Where", inside, term, zero))
    return str(value)


@emits(Grid)
def grid(e: Emitter, layer: Grid, x: Value) -> str:
    static(layer, x, 2, 3)
    return _for_each(e, x, layer.forward(torch.zeros(1, 1, *x.shape[2:])).numpy())


def _for_each(e: Emitter, x: Value, value: np.ndarray) -> str:
    """A constant (1, …) once for each item of ``x``."""
    batch = e.op("Shape", x, start=0, end=1)
    shape = e.op("Concat", batch, e.ints(*(1,) * (value.ndim - 1)), axis=0)
    return str(e.op("Expand", e.constant(value), shape))


@emits(NegSquare)
def negative_square(e: Emitter, layer: NegSquare, x: Value) -> str:
    return str(e.op("Neg", e.op("Mul", x, x)))


@emits(ExpMax)
def exp_max(e: Emitter, layer: ExpMax, x: Value) -> str:
    zero, one = e.ints(0), e.ints(1)
    first, others = e.op("Slice", x, zero, one, zero), e.op("Slice", x, one, e.ints(2**31 - 1), zero)
    less = e.op("Sub", first, e.op("ReduceMax", first, one))
    y = e.op("Exp", e.op("Mul", e.op("Concat", less, others, axis=0), e.number(layer.inner)))
    return str(e.op("Mul", y, e.number(layer.outer)))


@emits(DataAugmentation)
def augmentation(e: Emitter, layer: DataAugmentation, x: Value, *given: Value) -> list[str]:
    if layer.transforms:
        raise unsaid(
            layer, "it transforms images by coefficients; nets for use have a single bottom here, and phase TEST"
        )
    if not layer.settled:
        raise unsaid(
            layer,
            "its mean still changes with every pass; the mean of a trained net, after recompute_mean passes, is fixed",
        )
    y: object = x
    if layer.cuts:
        static(layer, x, 2, 3)
        down, across = layer.weights(x.shape[2:])
        y = e.op("MatMul", e.op("MatMul", e.constant(down.numpy()), x), e.constant(across.T.numpy()))
    mean = layer.subtracted()
    tops = [e.op("Identity", y) if mean is None else e.op("Sub", y, e.array(layer, "subtracted", mean))]
    if layer.n_tops > 1:
        tops.append(_for_each(e, x, np.zeros((1, len(NAMES), 1, 1))))
    return tops


@emits(Resample)
def resample(e: Emitter, layer: Resample, x: Value, *like: Value) -> str:
    if layer.kind == TYPES.NEAREST:
        raise unsaid(layer, "type: NEAREST reads beyond rows, into the next ones")
    static(layer, x, 2, 3)
    down, across = layer.weights(x.shape[2:], e.tops[0].shape[2:], torch.device("cpu"))
    return str(e.op("MatMul", e.op("MatMul", e.constant(down.numpy()), x), e.constant(across.T.numpy())))


@emits(Downsample)
def downsample(e: Emitter, layer: Downsample, x: Value, *like: Value) -> str:
    static(layer, x, 2, 3)
    if x.shape[2:] == e.tops[0].shape[2:]:
        return str(e.op("Identity", x))
    down, across = layer.weights(x.shape[2:], e.tops[0].shape[2:], torch.device("cpu"))

    def smaller(planes: object) -> str:
        return str(e.op("MatMul", e.op("MatMul", e.constant(down.numpy()), planes), e.constant(across.T.numpy())))

    missing = e.op("IsNaN", x)
    zero, one = e.number(0), e.number(1)
    values = smaller(e.op("Where", missing, zero, x))
    known, unknown = smaller(e.op("Where", missing, zero, one)), smaller(e.op("Where", missing, one, zero))
    few = e.op("Greater", e.op("Div", unknown, known), e.number(0.5))
    return str(e.op("Where", few, e.number(np.nan), e.op("Div", values, known)))


@emits(Accum)
def accumulate(e: Emitter, layer: Accum, *bottoms: Value) -> str:
    size = e.tops[0].shape[2:]
    for x in bottoms:
        static(layer, x, 2, 3)
    resized: list[object] = []
    for x in bottoms[:-1] if layer.reference else bottoms:
        rows, columns = (e.constant(between(x.shape[2 + a], size[a])) for a in (0, 1))
        same = x.shape[2:] == size
        resized.append(x if same else e.op("MatMul", e.op("MatMul", rows, x), e.op("Transpose", columns, perm=(1, 0))))
    return str(e.op("Concat", *resized, axis=1))


@emits(Correlation, RowCorrelation)
def correlation(e: Emitter, layer: Correlation, first: Value, second: Value) -> str:
    """One product, or difference, for each displacement."""
    static(layer, first, 2, 3)
    height, width = layer.places(first.shape)
    stride = layer.strides[0]
    rows, columns = layer.displacements()
    size = (height - 1) * stride + layer.kernel, (width - 1) * stride + layer.kernel
    beyond, top = max(0, -columns[0] - layer.reach), layer.pad if layer.both_axes else 0
    side = layer.pad + beyond
    padded = [e.op("Pad", x, e.ints(0, 0, top, side, 0, 0, top, layer.pad)) for x in (first, second)]
    corner = (layer.reach if layer.both_axes else 0, layer.reach + beyond)

    def part(x: object, row: int, column: int) -> str:
        starts = corner[0] + row, corner[1] + column
        ends = starts[0] + size[0], starts[1] + size[1]
        return str(e.op("Slice", x, e.ints(*starts), e.ints(*ends), e.ints(2, 3)))

    here, maps = part(padded[0], 0, 0), []
    for row in rows:
        for column in columns:
            there = part(padded[1], row, column)
            each = e.op("Abs", e.op("Sub", here, there)) if layer.subtracts else e.op("Mul", here, there)
            maps.append(e.op("ReduceMean", each, e.ints(1)))
    y = e.op("Concat", *maps, axis=1)
    return str(e.op("AveragePool", y, kernel_shape=[layer.kernel] * 2, strides=[stride] * 2))

"""Forks' layers that change the size of planes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ...forks.deconvnet.unpooling import Unpooling
from ...forks.deeplab.interp import Interp
from ...forks.intel.pixel_shuffle import PixelShuffle
from ...forks.mnc.masks import MaskResize, shares
from ...forks.segnet.upsample import MaskedUpsample
from ...forks.xilinx.deephi_resize import DeephiResize
from ...forks.xilinx.deephi_resize import nearest as nearest_places
from ...forks.xilinx.tiling import GSTiling, Tiling
from ...forks.yolo.reorg import Reorg
from ...forks.yolo.upsample import NearestUpsample, UpsampleDarknet
from ..outline import Value
from ..registry import static, unsaid
from .emitter import INT64, Emitter, emits


@emits(Interp)
def interp(e: Emitter, layer: Interp, x: Value) -> str:
    begin, end = layer.crop
    source: object = x
    if {2, 3} & x.moving:
        return _of_any_size(e, layer, x)
    size = [n - begin - end for n in x.shape[2:]]
    if begin or end:
        ends = e.ints(*(n - end for n in x.shape[2:]))
        source = e.op("Slice", x, e.ints(begin, begin), ends, e.ints(2, 3))
    top = e.tops[0].shape
    if list(top[2:]) == size:
        return str(source if begin or end else e.op("Identity", x))
    # one row of weights for each row of the top, and likewise for columns: exact on every runtime
    rows, columns = (between(size[a], top[2 + a]) for a in (0, 1))
    y = e.op("MatMul", e.constant(rows), source)
    return str(e.op("MatMul", y, e.constant(columns.T)))


@emits(MaskResize)
def mask_resize(e: Emitter, layer: MaskResize, x: Value) -> str:
    static(layer, x, 2, 3)
    rows, columns = (shares(x.shape[2 + a], layer.size[a], torch.empty(0))[0] for a in (0, 1))
    return str(e.op("MatMul", e.op("MatMul", e.constant(rows.numpy()), x), e.constant(columns.T.numpy())))


def _of_any_size(e: Emitter, layer: Interp, x: Value) -> str:
    """By the runtime's own interpolation, to a size that is computed from the planes'."""
    begin, end = layer.crop
    source: object = x
    if begin or end:
        source = e.op("Slice", x, e.ints(begin, begin), e.ints(*[-end or 2**62] * 2), e.ints(2, 3))
    shape = e.op("Shape", source)
    size: object = e.ints(*layer.plane) if layer.plane is not None else None
    if size is None:
        one, before = e.ints(1), e.op("Slice", shape, e.ints(2), e.ints(4))
        less = e.op("Div", e.op("Sub", before, one), e.ints(layer.shrink))
        size = e.op("Add", e.op("Mul", less, e.ints(layer.zoom)), one)
    sizes = e.op("Concat", e.op("Slice", shape, e.ints(0), e.ints(2)), size, axis=0)
    placed = "align_corners"
    return str(e.op("Resize", source, None, None, sizes, mode="linear", coordinate_transformation_mode=placed))


def between(before: int, after: int) -> np.ndarray:
    """The weights (after, before) of linear interpolation with aligned ends."""
    ratio = np.float32(before - 1) / np.float32(after - 1) if after > 1 else np.float32(0)
    place = ratio * np.arange(after, dtype=np.float32)
    low = np.minimum(place.astype(np.int64), before - 1)
    part = place - low.astype(np.float32)
    weights = np.zeros((after, before), np.float32)
    np.add.at(weights, (np.arange(after), low), 1 - part)
    np.add.at(weights, (np.arange(after), np.minimum(low + 1, before - 1)), part)
    return weights


@emits(NearestUpsample, UpsampleDarknet)
def nearest(e: Emitter, layer: NearestUpsample | UpsampleDarknet, x: Value) -> str:
    return _repeated(e, x, (float(layer.factor), float(layer.factor)))


def _repeated(e: Emitter, x: Value, factors: tuple[float, float]) -> str:
    """Every value over as many rows and columns."""
    options: dict[str, Any] = {
        "mode": "nearest",
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": "floor",
    }
    return str(e.op("Resize", x, None, e.constant((1, 1, *factors)), **options))


@emits(DeephiResize)
def deephi_resize(e: Emitter, layer: DeephiResize, x: Value) -> str:
    factors = (float(layer.scales[0]), float(layer.scales[1]))
    whole = layer.fixed is None and all(f.is_integer() for f in factors)
    if layer.nearest and whole:
        return _repeated(e, x, factors)
    if not whole:
        static(layer, x, 2, 3)
    size = layer.size(x.shape)
    if layer.nearest:
        y: object = x
        for axis, after in enumerate(size, 2):
            y = e.op("Gather", y, e.ints(*nearest_places(x.shape[axis], after)), axis=axis)
        return str(y)
    options: dict[str, Any] = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    if whole:
        return str(e.op("Resize", x, None, e.constant((1, 1, *factors)), **options))
    sizes = e.op("Concat", e.op("Slice", e.op("Shape", x), e.ints(0), e.ints(2)), e.ints(*size), axis=0)
    return str(e.op("Resize", x, None, None, sizes, **options))


@emits(PixelShuffle)
def pixel_shuffle(e: Emitter, layer: PixelShuffle, x: Value) -> str:
    return str(e.op("DepthToSpace", x, blocksize=layer.factor, mode="CRD"))


@emits(Tiling)
def tiling(e: Emitter, layer: Tiling, x: Value) -> str:
    return str(e.op("DepthToSpace", x, blocksize=layer.side, mode="CRD"))


@emits(GSTiling)
def gs_tiling(e: Emitter, layer: GSTiling, x: Value) -> str:
    if layer.reverse:
        return str(e.op("DepthToSpace", x, blocksize=layer.side, mode="DCR"))
    return str(e.op("SpaceToDepth", x, blocksize=layer.side))


@emits(MaskedUpsample, Unpooling)
def by_mask(e: Emitter, layer: MaskedUpsample | Unpooling, x: Value, mask: Value | None = None) -> str:
    if mask is None:
        raise unsaid(layer, "it unpools without a mask")
    static(layer, x, 1, 2, 3)
    height, width = layer.plane(x.shape)
    flat = (*x.shape[:2], x.shape[2] * x.shape[3])
    index = e.reshape(layer, e.op("Cast", mask, to=INT64), mask, flat, x.moving)
    batch = e.op("Slice", e.op("Shape", x), e.ints(0), e.ints(2))
    empty = e.zeros(e.op("Concat", batch, e.ints(height * width), axis=0))
    put = e.op("ScatterElements", empty, index, e.reshape(layer, x, x, flat, x.moving), axis=2)
    return e.reshape(layer, put, x)


@emits(Reorg)
def reorg(e: Emitter, layer: Reorg, x: Value) -> str:
    static(layer, x, 1, 2, 3)
    n, c, h, w = x.shape
    s = layer.stride
    few = c // s**2
    if layer.reverse:
        split, order = (n, s, s, few, h, w), [0, 3, 4, 1, 5, 2]
    else:
        split, order = (n, few, h, s, w, s), [0, 3, 5, 1, 2, 4]
    turned = e.op("Transpose", e.reshape(layer, x, x, split, x.moving & {0}), perm=order)
    return e.reshape(layer, turned, x)

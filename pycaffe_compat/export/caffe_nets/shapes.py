"""Operators that move numbers without changing them, or reduce them."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch

from .conversion import Blob, Conversion, converts
from .graph import size


@converts("cat.default")
def concat(c: Conversion, a: SimpleNamespace) -> Blob:
    if not all(isinstance(each, Blob) for each in a.tensors):
        raise c.unsaid("joins values with constants; Concat joins blobs")
    axis = a.dim % len(c.shape)
    return c.layer("Concat", a.tensors, {"concat_param": {"axis": None if axis == 1 else axis}})  # type: ignore[no-any-return]


@converts(
    "view.default", "reshape.default", "flatten.using_ints", "unsqueeze.default", "squeeze.default", "squeeze.dim"
)
def reshape(c: Conversion, a: SimpleNamespace) -> Blob:
    return reshaped(c, a.self)


@converts("squeeze.dims", "_unsafe_view.default", "unflatten.int")
def reshape_too(c: Conversion, a: SimpleNamespace) -> Blob:
    return reshaped(c, a.self)


def reshaped(c: Conversion, x: Blob) -> Blob:
    """The operator's shape for ``x``: as a Flatten, or as a Reshape in which the batch may have any length."""
    value = c.node.meta["val"]
    shape = c.shape
    if shape == x.shape:
        return x
    if len(shape) == 2 and len(x.shape) > 2 and shape[0] == x.shape[0]:
        return c.flatten(x)
    free = [i for i, n in enumerate(value.shape) if isinstance(n, torch.SymInt)]
    target: list[int] = list(shape)
    if shape and x.shape and shape[0] == x.shape[0]:
        target[0] = 0
    for axis in free:
        if axis == 0 and target[0] == 0:
            continue
        if -1 in target:
            raise c.unsaid(f"makes {c.said(x.shape)} to {c.said(shape)}, in which several axes depend on the batch")
        target[axis] = -1
    if not target:
        raise c.unsaid("makes a value without axes")
    return c.layer("Reshape", [x], {"reshape_param": {"shape": {"dim": target}}}, what="reshape")  # type: ignore[no-any-return]


@converts("permute.default", "transpose.int", "t.default")
def permute(c: Conversion, a: SimpleNamespace) -> Blob:
    n = len(c.shape)
    if hasattr(a, "dims"):
        order = [d % n for d in a.dims]
    else:
        order = list(range(n))
        first, second = (a.dim0 % n, a.dim1 % n) if hasattr(a, "dim0") else (0, 1)
        order[first], order[second] = order[second], order[first]
    if order == list(range(n)):
        return a.self  # type: ignore[no-any-return]
    return c.layer("Permute", [a.self], {"permute_param": {"order": order}})  # type: ignore[no-any-return]


@converts("channel_shuffle.default", "native_channel_shuffle.default")
def channel_shuffle(c: Conversion, a: SimpleNamespace) -> Blob:
    n, channels, *plane = a.self.shape
    groups = [n, a.groups, channels // a.groups, *plane]
    return _rearranged(c, a.self, groups, [0, 2, 1, *range(3, len(groups))])


@converts("pixel_shuffle.default")
def pixel_shuffle(c: Conversion, a: SimpleNamespace) -> Blob:
    if len(a.self.shape) != 4:
        raise c.unsaid(f"moves channels of {c.said(a.self.shape)} into planes; that needs 4 axes")
    factor, (n, channels, height, width) = a.upscale_factor, a.self.shape
    return _rearranged(c, a.self, [n, channels // factor**2, factor, factor, height, width], [0, 1, 4, 2, 5, 3])


def _rearranged(c: Conversion, x: Blob, parts: list[int], order: list[int]) -> Blob:
    """``x`` with more axes, in another order, and as the operator's result again."""
    apart = c.layer("Reshape", [x], {"reshape_param": {"shape": {"dim": [0, *parts[1:]]}}}, what="apart", shape=parts)
    moved = c.layer(
        "Permute", [apart], {"permute_param": {"order": order}}, what="permute", shape=[parts[i] for i in order]
    )
    target = {"dim": [0, *c.shape[1:]]}
    return c.layer("Reshape", [moved], {"reshape_param": {"shape": target}}, what="reshape")  # type: ignore[no-any-return]


@converts("split.Tensor", "split_with_sizes.default", "chunk.default", "unbind.int")
def split(c: Conversion, a: SimpleNamespace) -> Any:
    axis = a.dim % len(a.self.shape)
    values = c.node.meta["val"]
    shapes = [tuple(map(size, value.shape)) for value in values]
    if len(shapes) == 1:
        return (replace(a.self, reads=2),)
    if len(shapes[0]) != len(a.self.shape):
        raise c.unsaid("unbinds an axis; give it slices and reshapes")
    points = list(itertools.accumulate(shape[axis] for shape in shapes))[:-1]
    return tuple(_slice(c, a.self, axis, points, shapes))


def _slice(
    c: Conversion, x: Blob, axis: int, points: list[int], shapes: list[tuple[int, ...]], what: str = ""
) -> list[Blob]:
    options = {"axis": None if axis == 1 else axis, "slice_point": points}
    return c.layer("Slice", [x], {"slice_param": options}, tops=shapes, what=what)  # type: ignore[no-any-return]


@converts("slice.Tensor", "narrow.default", "select.int")
def cut(c: Conversion, a: SimpleNamespace) -> Blob:
    """A Slice, of which one top goes on; the others are silenced."""
    x: Blob = a.self
    axis = a.dim % len(x.shape)
    length = x.shape[axis]
    if hasattr(a, "index"):
        start = a.index % length
        end = start + 1
    elif hasattr(a, "length"):
        start = a.start % length
        end = start + a.length
    else:
        if a.step != 1:
            raise c.unsaid(f"takes every {a.step}th of an axis; Slice takes parts")
        start = 0 if a.start is None else min(a.start if a.start >= 0 else a.start + length, length)
        end = length if a.end is None else min(a.end if a.end >= 0 else a.end + length, length)
    if (start, end) != (0, length):
        ends = sorted({0, start, end, length})
        shapes = [(*x.shape[:axis], n - m, *x.shape[axis + 1 :]) for m, n in itertools.pairwise(ends)]
        parts = _slice(c, x, axis, ends[1:-1], shapes, "slice")
        x = parts[ends.index(start)]
        rest = [part.name for part in parts if part is not x]
        c.net.layer.add(name=c.name("silence"), type="Silence", bottom=rest)
    return reshaped(c, x) if hasattr(a, "index") else x


@converts("mean.dim", "sum.dim_IntList")
def reduce(c: Conversion, a: SimpleNamespace) -> Blob:
    x: Blob = a.self
    n = len(x.shape)
    axes = sorted(d % n for d in (a.dim if a.dim else range(n)))
    mean = str(c.node.target).startswith("aten.mean")
    if mean and n == 4 and axes == [2, 3]:
        pooled = (*x.shape[:2], 1, 1)
        options = {"pool": "AVE", "global_pooling": True}
        y = c.layer("Pooling", [x], {"pooling_param": options}, shape=pooled)
        return y if a.keepdim else reshaped(c, y)
    if axes != list(range(axes[0], n)):
        raise c.unsaid(f"reduces axes {axes} of {n}; Reduction reduces the last ones")
    options = {"operation": "MEAN" if mean else None, "axis": axes[0] or None}
    y = c.layer("Reduction", [x], {"reduction_param": options}, shape=x.shape[: axes[0]])
    return reshaped(c, y) if a.keepdim else y


@converts("constant_pad_nd.default", "pad.default")
def pad(c: Conversion, a: SimpleNamespace) -> Blob:
    """Nothing yet: the convolution that reads the value pads it."""
    before, after = list(a.pad)[::2], list(a.pad)[1::2]
    if not any(a.pad):
        return a.self  # type: ignore[no-any-return]
    n = len(a.self.shape) - 2
    zeros = getattr(a, "mode", "constant") == "constant" and not a.value
    if not zeros or before != after or min(before) < 0 or any(before[n:]):
        amounts = ", ".join(map(str, a.pad))
        raise c.unsaid(f"pads by ({amounts}); Caffe's convolutions pad with zeros, equally on both sides")
    padding = [*[0] * (n - len(before)), *before[:n][::-1]]
    known = a.self.padding or (0,) * n
    return replace(a.self, padding=tuple(p + q for p, q in zip(known, padding, strict=True)))


@converts("repeat.default")
def tile(c: Conversion, a: SimpleNamespace) -> Blob:
    if len(a.repeats) != len(a.self.shape):
        raise c.unsaid("repeats along new axes; Tile repeats along existing axes")
    y: Blob = a.self
    for axis, times in enumerate(a.repeats):
        if times != 1:
            shape = [n * times if i == axis else n for i, n in enumerate(y.shape)]
            options = {"axis": None if axis == 1 else axis, "tiles": times}
            y = c.layer("Tile", [y], {"tile_param": options}, shape=shape, what="tile")
    return y


@converts("expand.default")
def expand(c: Conversion, a: SimpleNamespace) -> Blob:
    if math.prod(c.shape) != math.prod(a.self.shape):
        raise c.unsaid(f"spreads {c.said(a.self.shape)} to {c.said(c.shape)}")
    return a.self  # type: ignore[no-any-return]


@converts("argmax.default")
def argmax(c: Conversion, a: SimpleNamespace) -> Blob:
    raise c.unsaid("of equal values, PyTorch takes the first and Caffe's ArgMax the last; compute it outside the net")

"""Which pixel of one blob lies over which pixel of another: the arithmetic of fully convolutional nets' crops.

A map is ``(axis, a, b)``: the coordinate ``x`` of one blob is ``a·x + b`` in the other, over the spatial axes from ``axis`` on.
``a`` and ``b`` are numbers, or arrays of one number an axis.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import CaffeError
from .net_spec import Function, Top, layers

_PASS_THROUGH = [
    "AbsVal",
    "BatchNorm",
    "Bias",
    "BNLL",
    "Dropout",
    "Eltwise",
    "ELU",
    "Exp",
    "Log",
    "LRN",
    "MVN",
    "Power",
    "PReLU",
    "ReLU",
    "Scale",
    "Sigmoid",
    "Softmax",
    "Split",
    "Swish",
    "TanH",
    "Threshold",
    "Clip",
]

Map = tuple[Any, Any, Any]


class UnconnectedError(CaffeError, RuntimeError):
    """Two blobs without an ancestor in common."""


class CropError(CaffeError, AssertionError):
    """Two blobs that no crop brings into line."""


class UndefinedMapException(CaffeError):
    """A layer type whose coordinates cannot be mapped."""


class AxisMismatchException(CaffeError):
    """Two maps over different axes."""


def _conv_params(fn: Function) -> tuple[int, Any, Any, Any, Any]:
    """The axis, stride, effective kernel size and pad of a convolution, deconvolution or pooling."""
    params = fn.params.get("convolution_param", fn.params.get("pooling_param", fn.params))
    axis = params.get("axis", 1)
    legacy = [name for name in ("kernel_h", "kernel_w", "pad_h", "pad_w", "stride_h", "stride_w") if name in params]
    if legacy:
        raise UndefinedMapException(
            f"{fn.type_name} with {', '.join(legacy)}: coordinate maps take kernel_size, pad and stride, each of which may be a "
            "list with one number per axis"
        )
    if params.get("global_pooling"):
        raise UndefinedMapException(f"{fn.type_name} with global_pooling: it keeps no coordinates")
    if "kernel_size" not in params:
        raise UndefinedMapException(f"{fn.type_name} without kernel_size has no coordinate map")
    kernel = np.array(params["kernel_size"], ndmin=1)
    dilation = np.array(params.get("dilation", 1), ndmin=1)
    stride, pad = np.array(params.get("stride", 1), ndmin=1), np.array(params.get("pad", 0), ndmin=1)
    return axis, stride, (kernel - 1) * dilation + 1, pad, params


def _crop_params(fn: Function) -> tuple[int, Any]:
    params = fn.params.get("crop_param", fn.params)
    return params.get("axis", 2), np.array(params.get("offset", 0), ndmin=1)


def coord_map(fn: Function) -> Map:
    """The map from the coordinates of a layer's bottom to those of its top.

    Raises:
        UndefinedMapException: a layer type that has none.
    """
    if fn.type_name in ("Convolution", "Pooling", "Im2col"):
        axis, stride, kernel, pad, _ = _conv_params(fn)
        return axis, 1 / stride, (pad - (kernel - 1) / 2) / stride
    if fn.type_name == "Deconvolution":
        axis, stride, kernel, pad, _ = _conv_params(fn)
        return axis, stride, (kernel - 1) / 2 - pad
    if fn.type_name in _PASS_THROUGH:
        return None, 1, 0
    if fn.type_name == "Crop":
        axis, offset = _crop_params(fn)
        return axis - 1, 1, -offset
    raise UndefinedMapException(f"{fn.type_name} layers have no coordinate map")


def compose(base: Map, next_map: Map) -> Map:
    """The map that ``next_map`` followed by ``base`` makes.

    Raises:
        AxisMismatchException: they are over different axes.
    """
    axis1, a1, b1 = base
    axis2, a2, b2 = next_map
    if axis1 is None:
        axis = axis2
    elif axis2 is None or axis1 == axis2:
        axis = axis1
    else:
        raise AxisMismatchException(f"maps over axes from {axis1} and from {axis2} do not compose")
    return axis, a1 * a2, a1 * b2 + b1


def inverse(coord: Map) -> Map:
    """The map the other way."""
    axis, a, b = coord
    return axis, 1 / a, -b / a


def _ancestors(top: Top, blocked: list[str]) -> Iterator[tuple[Top, Map]]:
    """Yield ``top`` and the blobs it is made of, as far as maps are defined; each with the map from it to ``top``.

    Why the walk ends at a layer that has bottoms is appended to ``blocked``.
    """
    maps: dict[Top, Map] = {top: (None, 1, 0)}
    frontier = [top]
    while frontier:
        found = frontier.pop(0)
        yield found, maps[found]
        # a crop's second bottom only lends its size
        bottoms = found.fn.inputs[:1] if found.fn.type_name == "Crop" else found.fn.inputs
        for bottom in bottoms:
            if bottom not in maps:
                try:
                    maps[bottom] = compose(maps[found], coord_map(found.fn))
                except UndefinedMapException as reason:
                    blocked.append(str(reason))
                    break
                frontier.append(bottom)


def coord_map_from_to(top_from: Top, top_to: Top) -> Map:
    """The map from the coordinates of one top to those of another, which have an ancestor in common.

    Raises:
        UnconnectedError: they have none.
    """
    for top in (top_from, top_to):
        if not isinstance(top, Top):
            raise TypeError(f"a coordinate map leads from one top of a NetSpec to another, not from or to {top!r}")
    blocked: list[str] = []
    maps = dict(_ancestors(top_from, blocked))
    for found, to_map in _ancestors(top_to, blocked):
        if found in maps:
            return compose(to_map, inverse(maps[found]))
    if blocked:
        raise UnconnectedError(
            f"no coordinate map leads from one blob to the other: {'; '.join(dict.fromkeys(blocked))}"
        )
    raise UnconnectedError("the two blobs have no ancestor in common")


def crop(top_from: Top, top_to: Top) -> Top:
    """A ``Crop`` layer that cuts ``top_from`` to the size of ``top_to``, so that pixels lie over the same place.

    Raises:
        CropError: the two differ in scale, or would lie off by a fraction of a pixel, or outside.
    """
    axis, a, b = coord_map_from_to(top_from, top_to)
    if not (np.asarray(a) == 1).all():
        raise CropError(f"scale mismatch on crop (a = {a})")
    if not (np.asarray(b) <= 0).all():
        raise CropError(f"cannot crop by a negative offset (b = {b})")
    if not (np.round(b) == b).all():
        raise CropError(f"cannot crop by a fraction of a pixel (b = {b})")
    offsets = [int(n) for n in -np.round(np.array(b, ndmin=1))]
    first = 2 if axis is None else int(axis) + 1  # None: no layer between the two has windows
    return layers.Crop(top_from, top_to, crop_param={"axis": first, "offset": offsets})

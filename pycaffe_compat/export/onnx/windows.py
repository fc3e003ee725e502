"""Convolutions, poolings and their transposes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ...forks.c3d.volumes import Convolution3D, Deconvolution3D, Pooling3D
from ...forks.deeplab_v1.padding import Padding
from ...forks.happynear.local import Local
from ...forks.intel.fused import FusedConvolution
from ...forks.shufflenet.depthwise import ConvolutionDepthwise, DepthwiseConvolution
from ...forks.synopsys.padding import LOWEST, PaddedConvolution, PaddedPooling
from ...forks.synopsys.padding import Padding as SidePadding
from ...forks.video_caffe.volumes import NdConvolution, NdPooling
from ...layers.base import Layer
from ...layers.convolution import Convolution, Deconvolution, Filters, Im2col
from ...layers.pooling import SPP, Depooling, Pooling, SafeInv
from ...layers.volumes import VolumePooling
from ...ops.windows import Window
from ..outline import Value
from ..registry import static, unsaid
from .emitter import FLOAT, INT64, Emitter, emits
from .neurons import rectified


@emits(Convolution, Deconvolution, ConvolutionDepthwise, DepthwiseConvolution, NdConvolution, PaddedConvolution)
def filters(e: Emitter, layer: Filters, *bottoms: Value) -> list[str]:
    if isinstance(layer, DepthwiseConvolution) and layer.spare:
        raise unsaid(layer, "it has weights that are not used: its group is not the number of channels")
    if not layer.spatial:
        raise unsaid(layer, "it has no spatial axes; an InnerProduct does the same")
    pads = [*layer.pad, *layer.pad]
    if isinstance(layer, PaddedConvolution):
        left, right, above, below = layer.added(_plane(layer, layer.padding, bottoms[0]))
        pads = [above, left, below, right]
    inputs = e.filters(layer)
    kind = "Conv" if isinstance(layer, Convolution) else "ConvTranspose"
    options: dict[str, Any] = {
        "kernel_shape": list(layer.kernel),
        "strides": list(layer.stride),
        "pads": pads,
        "dilations": list(layer.dilation),
        "group": layer.groups,
    }
    apart = (
        kind == "Conv" and any(pads) and max(layer.kernel) == 1
    )  # OpenCV 5.0 reads past planes that such a Conv pads
    if apart:
        options["pads"] = None

    def filtered(x: object) -> str:
        axes = layer.spatial
        source = e.op("Pad", x, e.ints(0, 0, *pads[:axes], 0, 0, *pads[axes:])) if apart else x
        return str(e.op(kind, source, *inputs, **options))

    if layer.axis == 1:
        return [filtered(bottom) for bottom in bottoms]
    tops = []
    for bottom in bottoms:  # the axes before the channels become one
        static(layer, bottom, *range(1, len(bottom.shape)))
        flat = e.op("Reshape", bottom, e.ints(-1, *bottom.shape[layer.axis :]))
        tops.append(e.reshape(layer, filtered(flat), Value("", ())))
    return tops


def _plane(layer: Layer, padding: SidePadding | None, x: Value) -> Sequence[int]:
    """The size of planes, which what "SAME" adds depends on."""
    if padding is None or padding.same:
        static(layer, x, 2, 3)
    return x.shape[2:]


@emits(PaddedPooling)
def padded_pooling(e: Emitter, layer: PaddedPooling, x: Value) -> str:
    static(layer, x, 2, 3)
    plane = x.shape[2:]
    kernel, _, number = layer.windows(plane)
    left, right, top, bottom = layer.room(plane)
    fill = [e.number(LOWEST)] if layer.mode == "MAX" else []
    padded = e.op("Pad", x, e.ints(0, 0, top, left, 0, 0, bottom, right), *fill)
    window: dict[str, Any] = {"kernel_shape": list(kernel), "strides": list(layer.stride)}
    y = e.op("MaxPool" if layer.mode == "MAX" else "AveragePool", padded, **window)
    y = e.op("Slice", y, e.ints(0, 0), e.ints(*number), e.ints(2, 3))
    if layer.mode == "MAX":
        return str(y)
    return str(e.op("Mul", y, e.constant(kernel[0] * kernel[1] / layer.areas(plane).numpy())))


@emits(FusedConvolution)
def fused(e: Emitter, layer: FusedConvolution, *bottoms: Value) -> list[str]:
    tops: list[str] = filters(e, layer, *(bottoms[:1] if layer.adds else bottoms))
    if layer.adds:
        tops = [str(e.op("Add", tops[0], bottoms[1]))]
    return [rectified(e, top, layer.negative_slope) for top in tops] if layer.relu else tops


@emits(Convolution3D, Deconvolution3D)
def of_videos(e: Emitter, layer: Convolution3D | Deconvolution3D, x: Value) -> str:
    inputs = [e.blob(layer, 0)]
    if layer.bias is not None:
        inputs.append(e.array(layer, "bias", layer.bias.flatten()))
    kind = "Conv" if isinstance(layer, Convolution3D) else "ConvTranspose"
    pads = [*layer.pad, *layer.pad]
    return str(e.op(kind, x, *inputs, kernel_shape=list(layer.kernel), strides=list(layer.stride), pads=pads))


@emits(Pooling3D)
def pooling_of_videos(e: Emitter, layer: Pooling3D, x: Value) -> str | list[str]:
    return _volumes(e, layer, layer.pooling, x)


@emits(Padding)
def padding(e: Emitter, layer: Padding, x: Value) -> str:
    return str(e.op("Pad", x, e.ints(0, 0, layer.begin, layer.begin, 0, 0, layer.end, layer.end)))


@emits(Im2col)
def im2col(e: Emitter, layer: Im2col, x: Value) -> str:
    """A convolution whose filters each pick one place of the window."""
    if layer.axis != 1:
        raise unsaid(layer, f"windows after axis {layer.axis}")
    places = int(np.prod(layer.kernel))
    picks = np.tile(
        np.eye(places, dtype=np.float32).reshape(places, 1, *layer.kernel), (layer.channels, 1) + (1,) * layer.spatial
    )
    return e.op(
        "Conv",
        x,
        e.constant(picks),
        kernel_shape=list(layer.kernel),
        strides=list(layer.stride),
        pads=[*layer.pad, *layer.pad],
        dilations=list(layer.dilation),
        group=layer.channels,
    )


@emits(Local)
def local(e: Emitter, layer: Local, x: Value) -> str:
    """The windows as columns, of which each place has a matrix of its own."""
    static(layer, x, 1, 2, 3)
    channels, window = x.shape[1], (layer.kernel, layer.kernel)
    picks = np.eye(layer.kernel**2, dtype=np.float32).reshape(-1, 1, *window)
    columns = e.op(
        "Conv",
        x,
        e.constant(np.tile(picks, (channels, 1, 1, 1))),
        kernel_shape=list(window),
        strides=[layer.stride] * 2,
        pads=[layer.pad] * 4,
        group=channels,
    )
    columns = e.op("Reshape", columns, e.ints(-1, layer.weight.shape[2], layer.weight.shape[3]))
    weight = e.array(layer, "weight", layer.weight[:, 0].permute(2, 1, 0))
    y = e.op("MatMul", e.op("Transpose", columns, perm=(2, 0, 1)), weight)
    y = e.op("Transpose", y, perm=(1, 2, 0))
    if len(layer.blob_specs) > 1:
        y = e.op("Add", y, e.array(layer, "bias", layer.blob(1)[0]))
    return str(e.op("Reshape", y, e.ints(-1, layer.outputs, *layer.places)))


class _Fit:
    """A pooling's windows on a bottom, in ONNX's terms.

    Attributes:
        window, plane, windows: Caffe's window, the size of the planes and the number of windows.
        pads: begin and end, such that the windows are Caffe's when ONNX rounds down.
        ceil: whether ONNX rounds up instead, because the planes may have other sizes.
        beyond: how far the last windows reach past the plane and its padding, which Caffe's average leaves out.
    """

    def __init__(self, layer: Pooling, x: Value) -> None:
        self.window, self.windows = layer.fit(x.shape)
        self.plane = (x.shape[2], x.shape[3])
        kernel, stride, pad = self.window
        moving = {2, 3} & x.moving
        self.ceil = bool(moving) and layer.ceil_mode
        ends = []
        for a in (0, 1):
            if 2 + a in moving:
                if layer.window is None:
                    ends.append(0)
                    continue
                if layer.ceil_mode and (pad[a] or stride[a] > kernel[a]):
                    raise unsaid(
                        layer, "a padded pooling that rounds up has windows that depend on the size of its planes"
                    )
                ends.append(pad[a])
            elif self.ceil:
                raise unsaid(layer, "height and width must both be able to change, or neither")
            else:
                ends.append(max((self.windows[a] - 1) * stride[a] + kernel[a] - self.plane[a] - pad[a], 0))
        self.pads = [*pad, *ends]
        self.beyond = max(end - p for end, p in zip(ends, pad, strict=True))

    @property
    def options(self) -> dict[str, Any]:
        kernel, stride, _ = self.window
        return {
            "kernel_shape": list(kernel),
            "strides": list(stride),
            "pads": self.pads,
            "ceil_mode": 1 if self.ceil else None,
        }

    def divisors(self) -> np.ndarray:
        """How many places of the padded plane lie in each window, (1, 1, PH, PW)."""
        counts = []
        for a in (0, 1):
            starts = np.arange(self.windows[a]) * self.window.stride[a] - self.window.pad[a]
            counts.append(np.minimum(starts + self.window.kernel[a], self.plane[a] + self.window.pad[a]) - starts)
        return np.outer(counts[0], counts[1])[None, None].astype(np.float32)


@emits(Pooling, NdPooling)
def pooling(e: Emitter, layer: Pooling, x: Value, mask: Value | None = None) -> str | list[str]:
    if layer.volumes is not None:
        return _volumes(e, layer, layer.volumes, x)
    if layer.window is None and layer.mode in ("MAX", "AVE") and len(e.tops) == 1:
        return str(e.op("GlobalMaxPool" if layer.mode == "MAX" else "GlobalAveragePool", x))
    if layer.window is None:
        static(layer, x, 2, 3)
    fit = _Fit(layer, x)
    if layer.mode == "MAX":
        if len(e.tops) == 1:
            return str(e.op("MaxPool", x, **fit.options))
        static(layer, x, 2, 3)
        y, index = e.op("MaxPool", x, outputs=2, **fit.options)
        place = e.op("Mod", index, e.constant(fit.plane[0] * fit.plane[1], np.int64))
        return [y, _as_mask(e, layer.local, fit.window, fit.plane, fit.windows, place)]
    if layer.mode == "AVE":
        return _average(e, x, fit)
    static(layer, x, 2, 3)
    if layer.mode == "SUM":
        return _sum(e, x, fit)
    if layer.mode == "STOCHASTIC":
        total = _sum(e, x, fit)
        squares = _sum(e, e.op("Mul", x, x), fit)
        positive = e.op("Greater", total, e.number(0))
        mean = e.op("Div", squares, e.op("Where", positive, total, e.number(1)))
        return str(e.op("Where", positive, mean, e.number(0)))
    if layer.mode == "FIX":
        return _fixed(e, layer, x, fit)
    assert mask is not None
    plane = _flat(e, layer, x, (*x.shape[:2], fit.plane[0] * fit.plane[1]))
    place = _place(e, layer.local, fit.window, fit.plane, fit.windows, mask)
    shape = (*x.shape[:2], fit.windows[0] * fit.windows[1])
    index = e.reshape(layer, place, mask, shape, x.moving)
    inside = e.op("GreaterOrEqual", index, e.constant(0, np.int64))
    found = e.op("GatherElements", plane, e.op("Max", index, e.constant(0, np.int64)), axis=2)
    return e.reshape(layer, e.op("Where", inside, found, e.number(0)), x)


def _volumes(e: Emitter, layer: Layer, volumes: VolumePooling, x: Value) -> str | list[str]:
    """Pooling over the last one to three axes, which keep their lengths."""
    n, size = len(volumes.stride), x.shape[-len(volumes.stride) :]
    static(layer, x, *range(len(x.shape) - n, len(x.shape)))
    kernel, windows = volumes.fit(x.shape, layer.error)
    extents = [d * (k - 1) + 1 for d, k in zip(volumes.dilation, kernel, strict=True)]
    spans = [(w - 1) * s + extent for w, s, extent in zip(windows, volumes.stride, extents, strict=True)]
    after = [max(span - length - p, 0) for span, length, p in zip(spans, size, volumes.pad, strict=True)]
    options: dict[str, Any] = {
        "kernel_shape": list(kernel),
        "strides": list(volumes.stride),
        "pads": [*volumes.pad, *after],
        "dilations": list(volumes.dilation),
    }
    source: object = x
    if len(x.shape) == n + 1:
        source = e.op("Unsqueeze", x, e.ints(0))
    elif len(x.shape) != n + 2:
        static(layer, x)
        source = e.op("Reshape", x, e.ints(1, -1, *size))
    index: object = None
    if volumes.mode == "MAX" and len(e.tops) == 2:
        y, index = e.op("MaxPool", source, outputs=2, **options)
        index = e.op("Cast", e.op("Mod", index, e.constant(int(np.prod(size)), np.int64)), to=FLOAT)
    elif volumes.mode == "MAX":
        y = e.op("MaxPool", source, **options)
    else:
        ones = e.constant(np.ones((1, 1, *kernel)))
        alone = e.op("Reshape", source, e.ints(-1, 1, *size))
        total = e.op("Conv", alone, ones, **options)
        y = e.op("Reshape", total, e.ints(-1, x.shape[1], *windows) if source is x else e.ints(1, -1, *windows))
        if volumes.mode == "AVE":
            y = e.op("Div", y, e.constant(volumes.places(size, kernel, windows, torch.ones(())).numpy()))
    tops = [str(each) for each in (y, index) if each is not None]
    if len(x.shape) == n + 1:
        return [str(e.op("Squeeze", each, e.ints(0))) for each in tops]
    return tops if source is x else [str(e.op("Reshape", each, e.ints(*e.tops[0].shape))) for each in tops]


def _flat(e: Emitter, layer: Pooling | Depooling, x: Value, shape: Sequence[int]) -> str:
    return e.reshape(layer, x, x, shape, x.moving & {0, 1})


def _sum(e: Emitter, x: object, fit: _Fit) -> str:
    places = float(fit.window.places)
    return str(e.op("Mul", e.op("AveragePool", x, count_include_pad=1, **fit.options), e.number(places)))


def _average(e: Emitter, x: Value, fit: _Fit) -> str:
    if fit.ceil:
        return str(e.op("AveragePool", x, count_include_pad=0, **fit.options))
    y = str(e.op("AveragePool", x, count_include_pad=1, **fit.options))
    if fit.beyond <= 0:
        return y
    return str(e.op("Mul", y, e.constant(fit.window.places / fit.divisors())))


def _fixed(e: Emitter, layer: Pooling, x: Value, fit: _Fit) -> str:
    assert layer.position is not None
    stride = fit.window.stride
    last = [layer.position[a] + (fit.windows[a] - 1) * stride[a] for a in (0, 1)]
    more = [max(last[a] + 1 - fit.plane[a], 0) for a in (0, 1)]
    source: object = x
    if any(more):
        source = e.op("Pad", x, e.ints(0, 0, 0, 0, 0, 0, *more), e.number(0))
    return str(
        e.op("Slice", source, e.ints(*layer.position), e.ints(last[0] + 1, last[1] + 1), e.ints(2, 3), e.ints(*stride))
    )


def _corner(window: Window, windows: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = (np.arange(windows[a], dtype=np.int64) * window.stride[a] - window.pad[a] for a in (0, 1))
    return rows.reshape(1, 1, -1, 1), columns.reshape(1, 1, 1, -1)


def _as_mask(e: Emitter, local: bool, window: Window, plane: Sequence[int], windows: Sequence[int], place: str) -> str:
    """Caffe's mask from places in the plane."""
    if local:
        rows, columns = _corner(window, windows)
        width = e.constant(plane[1], np.int64)
        row = e.op("Sub", e.op("Div", place, width), e.constant(rows, np.int64))
        column = e.op("Sub", e.op("Mod", place, width), e.constant(columns, np.int64))
        place = e.op("Add", e.op("Mul", row, e.constant(window.kernel[1], np.int64)), column)
    return str(e.op("Cast", place, to=FLOAT))


def _place(e: Emitter, local: bool, window: Window, plane: Sequence[int], windows: Sequence[int], mask: Value) -> str:
    """Places in the plane from Caffe's mask; -1 for none."""
    place = str(e.op("Cast", mask, to=INT64))
    if not local:
        return place
    rows, columns = _corner(window, windows)
    width, zero = e.constant(window.kernel[1], np.int64), e.constant(0, np.int64)
    row = e.op("Add", e.op("Div", place, width), e.constant(rows, np.int64))
    column = e.op("Add", e.op("Mod", place, width), e.constant(columns, np.int64))
    inside = e.op("GreaterOrEqual", place, zero)
    for value, size in ((row, plane[0]), (column, plane[1])):
        inside = e.op("And", inside, e.op("GreaterOrEqual", value, zero))
        inside = e.op("And", inside, e.op("Less", value, e.constant(size, np.int64)))
    flat = e.op("Add", e.op("Mul", row, e.constant(plane[1], np.int64)), column)
    return str(e.op("Where", inside, flat, e.constant(-1, np.int64)))


@emits(Depooling)
def depooling(e: Emitter, layer: Depooling, y: Value, mask: Value | None = None) -> str | list[str]:
    assert layer.window is not None
    if layer.mode != "SWITCH":
        return _spread(e, layer, y)
    static(layer, y, 1, 2, 3)
    assert mask is not None
    window, plane = layer.fit(y.shape)
    windows, places = y.shape[2:], plane[0] * plane[1]
    flat = (*y.shape[:2], y.shape[2] * y.shape[3])
    place = _place(e, layer.local, window, plane, windows, mask)
    inside = None
    if layer.local:  # what falls outside is placed nowhere
        inside = e.op("GreaterOrEqual", place, e.constant(0, np.int64))
        place = e.op("Max", place, e.constant(0, np.int64))
    index = e.reshape(layer, place, mask, flat, y.moving)
    batch = e.op("Slice", e.op("Shape", y), e.ints(0), e.ints(2))
    empty = e.zeros(e.op("Concat", batch, e.ints(places), axis=0))
    tops = []
    for values in (y, e.op("Add", e.op("Mul", y, e.number(0)), e.number(1)))[: len(e.tops)]:
        chosen = values if inside is None else e.op("Where", inside, values, e.number(0))
        put = e.op(
            "ScatterElements", empty, index, e.reshape(layer, chosen, y, flat, y.moving), axis=2, reduction="add"
        )
        tops.append(e.reshape(layer, put, y))
    return tops


def _spread(e: Emitter, layer: Depooling, y: Value) -> list[str]:
    assert layer.window is not None
    kernel, stride, pad = layer.window
    places = np.zeros(kernel, np.float32) if layer.mode == "FIX" else np.ones(kernel, np.float32)
    if layer.mode == "FIX":
        assert layer.position is not None
        places[layer.position] = 1
    if layer.mode == "AVE":
        places /= layer.window.places
    weight = e.constant(np.tile(places, (y.shape[1], 1, 1, 1)))
    options: dict[str, Any] = {
        "kernel_shape": list(kernel),
        "strides": list(stride),
        "pads": [*pad, *pad],
        "group": y.shape[1],
    }
    tops = [e.op("ConvTranspose", y, weight, **options)]
    if len(e.tops) > 1:
        ones = e.op("Add", e.op("Mul", y, e.number(0)), e.number(1))
        tops.append(e.op("ConvTranspose", ones, weight, **options))
    return tops


@emits(SafeInv)
def safe_inverse(e: Emitter, layer: SafeInv, x: Value) -> str:
    zero = e.op("Equal", x, e.number(0))
    return str(e.op("Where", zero, e.number(0), e.op("Reciprocal", e.op("Where", zero, e.number(1), x))))


@emits(SPP)
def spp(e: Emitter, layer: SPP, x: Value) -> str:
    static(layer, x, 1, 2, 3)
    top = e.tops
    parts = []
    for level in range(layer.height):
        pool = layer._level(level, x.shape)
        windows = pool.fit(x.shape)[1]
        e.tops = [Value(f"{layer.name}/{level}", (*x.shape[:2], *windows), x.moving)]
        y = pooling(e, pool, x)
        shape = (x.shape[0], x.shape[1] * windows[0] * windows[1])
        parts.append(y if layer.height == 1 else e.reshape(layer, y, x, shape, x.moving))
    e.tops = top
    return str(parts[0] if layer.height == 1 else e.op("Concat", *parts, axis=1))

"""Convolutions and poolings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ...tables import dims
from .conversion import Blob, Conversion, converts

ROUNDING = (
    "PyTorch rounds the number of windows down there and Caffe up, so round_mode: FLOOR is set, a field that is younger "
    "(2018) than Caffe's release 1.0"
)


def sides(field: str, values: Sequence[int], usual: int | None = None) -> dict[str, Any]:
    """A window's option in Caffe's fields: once where all sides are equal, ``_h`` and ``_w`` for two, else once for each."""
    short = field.removesuffix("_size")
    if len(set(values)) == 1:
        return {} if values[0] == usual else {field: [values[0]]}
    if len(values) == 2 and field != "dilation":
        return {f"{short}_h": values[0], f"{short}_w": values[1]}
    return {field: list(values)}


def each(values: Any, n: int) -> list[int]:
    """A number for each of ``n`` axes."""
    found = list(values) if isinstance(values, (list, tuple)) else [values]
    return found * n if len(found) == 1 else found


@converts("conv1d.default", "conv2d.default", "conv3d.default", "conv1d.padding", "conv2d.padding", "conv3d.padding")
def convolution(c: Conversion, a: SimpleNamespace) -> Blob:
    n = len(c.shape) - 2
    return _convolution(c, a.input, a.weight, a.bias, each(a.stride, n), a.padding, each(a.dilation, n), a.groups)


@converts("conv_transpose1d.default", "conv_transpose2d.input", "conv_transpose3d.input")
def transposed(c: Conversion, a: SimpleNamespace) -> Blob:
    n = len(c.shape) - 2
    if any(each(a.output_padding, n)):
        raise c.unsaid(f"output_padding {dims(each(a.output_padding, n))}; Deconvolution has none")
    padding = each(a.padding, n)
    return _filters(
        c, "Deconvolution", a.input, a.weight, a.bias, each(a.stride, n), padding, each(a.dilation, n), a.groups
    )


@converts("convolution.default")
def either(c: Conversion, a: SimpleNamespace) -> Blob:
    if a.transposed:
        return transposed(c, a)
    return convolution(c, a)


def _convolution(
    c: Conversion, x: Any, weight: Any, bias: Any, stride: list[int], padding: Any, dilation: list[int], groups: int
) -> Blob:
    if isinstance(padding, str):
        wanted = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilation, weight.shape[2:], strict=True)]
        if any(n % 2 for n in wanted):
            raise c.unsaid(
                f"padding 'same' of windows of {dims(weight.shape[2:])} is not the same on both sides, as Caffe's is"
            )
        padding = [n // 2 for n in wanted]
    return _filters(c, "Convolution", x, weight, bias, stride, each(padding, len(stride)), dilation, groups)


def _filters(
    c: Conversion,
    kind: str,
    x: Any,
    weight: Any,
    bias: Any,
    stride: list[int],
    pad: list[int],
    dilation: list[int],
    groups: int,
) -> Blob:
    if not isinstance(x, Blob) or not isinstance(weight, Tensor) or isinstance(bias, Blob):
        raise c.unsaid("its filters are computed from the input")
    if len(x.shape) != weight.dim():
        raise c.unsaid("its input has no batch axis")
    if x.padding and kind == "Convolution":
        pad = [n + more for n, more in zip(pad, x.padding, strict=True)]
        x = replace(x, padding=())
    if x.turned and kind == "Convolution" and groups == 1:
        weight, x = weight.flip(1), replace(x, turned=False)
    outputs = weight.shape[0] if kind == "Convolution" else weight.shape[1] * groups
    options = {
        "num_output": outputs,
        **sides("kernel_size", weight.shape[2:]),
        **sides("stride", stride, 1),
        **sides("pad", pad, 0),
        **sides("dilation", dilation, 1),
        "group": None if groups == 1 else groups,
        "bias_term": None if bias is not None else False,
    }
    return c.layer(kind, [x], {"convolution_param": options}, [weight, bias])


@converts("max_pool1d.default", "max_pool2d.default", "max_pool3d.default", "max_pool2d_with_indices.default")
def max_pool(c: Conversion, a: SimpleNamespace) -> Any:
    n = len(a.kernel_size)
    if any(d != 1 for d in each(a.dilation, n)):
        raise c.unsaid(f"dilation {dims(each(a.dilation, n))}; Caffe's Pooling has none")
    x = a.self
    if str(c.node.target).startswith("aten.max_pool2d_with_indices"):
        masked = any(user.args[1] == 1 for user in c.node.users if user.users or user in c.graph.outputs)
        return _pool(c, x, "MAX", list(a.kernel_size), a.stride, each(a.padding, n), a.ceil_mode, masked)
    return _pool(c, x, "MAX", list(a.kernel_size), a.stride, each(a.padding, n), a.ceil_mode)[0]


@converts("max_unpool2d.default")
def max_unpool(c: Conversion, a: SimpleNamespace) -> Blob:
    """Depooling by the mask of the Pooling that made the indices."""
    x, mask = a.self, a.indices
    if not isinstance(mask, Blob) or not mask.window:
        raise c.unsaid("its indices are not those of a max pooling")
    kernel, stride, pad, plane = mask.window
    if any(k > s for k, s in zip(kernel, stride, strict=True)):
        raise c.unsaid(
            f"windows of {dims(kernel)} overlap: PyTorch keeps one of the values at a place, Depooling adds them up"
        )
    made = tuple(s * (n - 1) + k - 2 * p for n, k, s, p in zip(x.shape[2:], kernel, stride, pad, strict=True))
    if made != c.shape[2:] or made != plane:
        raise c.unsaid(f"makes planes of {dims(c.shape[2:])} of those of {dims(plane)}; Depooling makes {dims(made)}")
    options = {"pool": "SWITCH", **_once(sides("kernel_size", kernel)), **_once(sides("stride", stride, 1))}
    options.update(_once(sides("pad", pad, 0)))
    c.note("Depooling is a layer of the SWWAE fork; BVLC's Caffe has none", c.path)
    return c.layer("Depooling", [x, mask], {"pooling_param": options})  # type: ignore[no-any-return]


@converts("avg_pool1d.default", "avg_pool2d.default", "avg_pool3d.default")
def avg_pool(c: Conversion, a: SimpleNamespace) -> Blob:
    n = len(a.kernel_size)
    padding = each(a.padding, n)
    if any(padding) and not a.count_include_pad:
        raise c.unsaid("count_include_pad=False: Caffe's average counts the padding")
    if getattr(a, "divisor_override", None) not in (None, math.prod(each(a.kernel_size, n))):
        raise c.unsaid(f"divisor_override={a.divisor_override}: Caffe divides by the places of the window")
    return _pool(c, a.self, "AVE", list(a.kernel_size), a.stride, padding, a.ceil_mode)[0]


def _pool(
    c: Conversion, x: Any, mode: str, kernel: list[int], stride: Any, pad: list[int], ceil: bool, masked: bool = False
) -> tuple[Blob, Blob | None]:
    """A Pooling; its top, and its mask if that is wanted."""
    n = len(kernel)
    if n != 2:
        raise c.unsaid(f"pools {n} axes; Caffe's Pooling pools planes")
    if len(x.shape) != 4:
        raise c.unsaid("its input has no batch axis")
    stride = each(stride, n) if stride else kernel
    options = {
        "pool": None if mode == "MAX" else mode,
        **_once(sides("kernel_size", kernel)),
        **_once(sides("stride", stride, 1)),
    }
    options.update(_once(sides("pad", pad, 0)))
    up = [_windows(*axis) for axis in zip(x.shape[2:], kernel, stride, pad, strict=True)]
    if not ceil and tuple(up) != c.shape[2:]:
        options["round_mode"] = "FLOOR"
    if masked:
        made, mask = c.layer("Pooling", [x], {"pooling_param": options}, tops=[c.shape, c.shape])
        mask = replace(mask, window=(tuple(kernel), tuple(stride), tuple(pad), x.shape[2:]))
    else:
        made, mask = c.layer("Pooling", [x], {"pooling_param": options}), None
    if "round_mode" in options:
        c.note(ROUNDING, c.net.layer[-1].name)
    return made, mask


def _once(options: dict[str, Any]) -> dict[str, Any]:
    """Options of pooling, whose fields are not repeated."""
    return {name: value[0] if isinstance(value, list) else value for name, value in options.items()}


def _windows(size: int, kernel: int, stride: int, pad: int) -> int:
    """The number of windows in Caffe, which rounds up."""
    count = -(-(size + 2 * pad - kernel) // stride) + 1
    return min(count, (size + pad - 1) // stride + 1) if pad else count


@converts("adaptive_avg_pool2d.default", "_adaptive_avg_pool2d.default")
def adaptive_average(c: Conversion, a: SimpleNamespace) -> Blob:
    return _adaptive(c, a.self, "AVE", a.output_size)


@converts("adaptive_max_pool2d.default")
def adaptive_maximum(c: Conversion, a: SimpleNamespace) -> Any:
    if any(user.args[1] == 1 and user.users for user in c.node.users):
        raise c.unsaid("return_indices: its indices are read")
    return _adaptive(c, a.self, "MAX", a.output_size), None


def _adaptive(c: Conversion, x: Blob, mode: str, size: Any) -> Blob:
    if len(x.shape) != 4:
        raise c.unsaid("its input has no batch axis")
    plane, wanted = x.shape[2:], c.shape[2:]
    pool = None if mode == "MAX" else mode
    if tuple(wanted) == (1, 1):
        return c.layer("Pooling", [x], {"pooling_param": {"pool": pool, "global_pooling": True}})  # type: ignore[no-any-return]
    if tuple(wanted) == tuple(plane):
        return x
    if any(n % m for n, m in zip(plane, wanted, strict=True)):
        raise c.unsaid(
            f"output_size {dims(wanted)} of planes of {dims(plane)}: its windows are of several sizes; Caffe's are of one, which "
            f"needs 1×1 or sizes that divide the planes"
        )
    kernel = [n // m for n, m in zip(plane, wanted, strict=True)]
    options = {"pool": pool, **_once(sides("kernel_size", kernel)), **_once(sides("stride", kernel, 1))}
    return c.layer("Pooling", [x], {"pooling_param": options})  # type: ignore[no-any-return]


@converts("upsample_bilinear2d.vec", "upsample_bilinear2d.default")
def bilinear(c: Conversion, a: SimpleNamespace) -> Blob:
    if not a.align_corners:
        raise c.unsaid("bilinear without align_corners; Interp of DeepLab's Caffe aligns them")
    x = a.input if hasattr(a, "input") else a.self
    height, width = c.shape[2:]
    c.note("Interp is a layer of DeepLab's and PSPNet's Caffe; BVLC's has none", c.path or "the module itself")
    return c.layer("Interp", [x], {"interp_param": {"height": height, "width": width}})  # type: ignore[no-any-return]


@converts("upsample_nearest2d.vec", "upsample_nearest2d.default")
def nearest(c: Conversion, a: SimpleNamespace) -> Blob:
    """A Deconvolution of ones, whose windows lie side by side."""
    x = a.input if hasattr(a, "input") else a.self
    factors = [m / n for n, m in zip(x.shape[2:], c.shape[2:], strict=True)]
    if any(f != int(f) for f in factors):
        raise c.unsaid(f"enlarges {dims(x.shape[2:])} to {dims(c.shape[2:])}; only whole factors are a Deconvolution")
    kernel = [int(f) for f in factors]
    channels = x.shape[1]
    options = {
        "num_output": channels,
        "group": channels,
        "bias_term": False,
        **sides("kernel_size", kernel),
        **sides("stride", kernel, 1),
        "weight_filler": {"type": "constant", "value": 1.0},
    }
    return c.layer("Deconvolution", [x], {"convolution_param": options}, [torch.ones(channels, 1, *kernel)], fixed=True)  # type: ignore[no-any-return]

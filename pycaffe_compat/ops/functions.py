"""Caffe's pooling and its transposes as functions: sizes filled in, ints for ``(h, w)``; docs/ops.md has the rules."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import backends, operators
from .windows import OperatorError, Pair, PairLike, Window, pair, plane_of, pooled_size, unpooled_size, window

# PyTorch 2.6 cannot tell an export from compiling.
is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)


def _call(name: str, *arguments: Any) -> Any:
    """Run an operator, as operators of ATen where a graph is recorded for runtimes that do not know this package."""
    if torch.jit.is_tracing() or (is_exporting() and torch.onnx.is_in_onnx_export()):
        return operators.as_aten(name, *arguments)
    if torch.compiler.is_compiling():
        operators.CHECKS[name](*arguments)  # an error in a fake tensor's operator would reach the caller as another
    else:
        backends.follow()
    return operators.OPERATORS[name](*arguments)


def _remembered(rule: Callable[..., Any]) -> Callable[..., Any]:
    """Answer the same question once: nets ask it in every pass. What has no hash, a symbolic size say, is not kept."""
    kept = functools.lru_cache(maxsize=1024, typed=True)(rule)

    @functools.wraps(rule)
    def ask(*arguments: Any) -> Any:
        if torch.compiler.is_compiling():
            return rule(*arguments)
        try:
            return kept(*arguments)
        except TypeError:
            return rule(*arguments)

    return ask


_window = _remembered(window)


@_remembered
def _pooling(
    height: int,
    width: int,
    kernel: PairLike,
    stride: PairLike,
    pad: PairLike,
    ceil_mode: bool,
    output_size: PairLike | None,
) -> tuple[Window, Pair]:
    """The window, and how many there are on a plane."""
    w = window(kernel, stride, pad)
    if output_size is not None:
        return w, pair(output_size, "output_size")
    return w, pooled_size((height, width), *w, ceil_mode)


@_remembered
def _unpooling(
    rows: int, cols: int, kernel: PairLike, stride: PairLike, pad: PairLike, output_size: PairLike | None
) -> tuple[Window, Pair]:
    """The window, and the size of the plane under so many."""
    w = window(kernel, stride, pad)
    if output_size is not None:
        return w, pair(output_size, "output_size")
    return w, unpooled_size((rows, cols), *w)


def _require_tensor(x: Any, name: str) -> None:
    if not isinstance(x, Tensor):
        raise OperatorError(f"{name} is a {type(x).__name__}, but must be a tensor (N, C, H, W)")


def _sides(x: Tensor, name: str) -> Pair:
    _require_tensor(x, name)
    if x.dim() != 4:
        raise OperatorError(f"{name} has shape {tuple(x.shape)}, but must have 4 axes (N, C, H, W)")
    return plane_of(x)


def max_pool_switch(
    x: Tensor,
    kernel: PairLike,
    stride: PairLike,
    pad: PairLike = 0,
    relu: bool = False,
    ceil_mode: bool = True,
    output_size: PairLike | None = None,
) -> tuple[Tensor, Tensor]:
    """Max pooling that says where each maximum was, in one byte a window (Caffe's Pooling MAX with its mask).

    Args:
        x: ``(N, C, H, W)``, float32, float64, float16 or bfloat16.
        kernel, stride, pad: an int or ``(h, w)``; at most 255 places a window.
        relu: pool ``relu(x)`` without storing it; for the backward only ``y`` and the switch are kept.
        ceil_mode: Caffe's rounding of the output size; False for ``round_mode: FLOOR``.
        output_size: how many windows, instead of Caffe's rule.

    Returns:
        ``y`` and the uint8 ``switch``, both ``(N, C, PH, PW)``; 255 where nothing was above ``-FLT_MAX``.

    Raises:
        OperatorError: arguments that do not fit together, with their values.
    """
    w, size = _pooling(*_sides(x, "x"), kernel, stride, pad, ceil_mode, output_size)
    return _call("max_pool_switch", x, *w, size, relu)


def max_pool_index(
    x: Tensor,
    kernel: PairLike,
    stride: PairLike,
    pad: PairLike = 0,
    ceil_mode: bool = True,
    output_size: PairLike | None = None,
) -> tuple[Tensor, Tensor]:
    """Max pooling for windows of any size: int64 places ``h * W + w`` in the plane instead of switches, -1 for none."""
    w, size = _pooling(*_sides(x, "x"), kernel, stride, pad, ceil_mode, output_size)
    return _call("max_pool_index", x, *w, size)


def pool_switch(x: Tensor, switch: Tensor, kernel: PairLike, stride: PairLike, pad: PairLike = 0) -> Tensor:
    """The value at each switch, ``(N, C, PH, PW)``, 0 where there is none (the fork's Pooling SWITCH)."""
    _sides(x, "x")
    _require_tensor(switch, "switch")
    return _call("pool_switch", x, switch, *_window(kernel, stride, pad), None)


def unpool_switch(
    y: Tensor,
    switch: Tensor,
    kernel: PairLike,
    stride: PairLike,
    pad: PairLike = 0,
    output_size: PairLike | None = None,
    relu: bool = False,
) -> Tensor:
    """Each value at its switch, the rest 0 (the fork's Depooling SWITCH). Where windows overlap, values add up.

    Args:
        y: ``(N, C, PH, PW)``, float32, float64, float16 or bfloat16.
        switch: uint8 of the same shape, from :func:`max_pool_switch`.
        output_size: of the plane; by default the fork's ``stride * (size - 1) + kernel - 2 * pad``.
        relu: unpool ``relu(y)`` without storing it.

    Raises:
        OperatorError: arguments that do not fit together; on the CPU also a switch that points outside its window.
    """
    w, size = _unpooling(*_sides(y, "y"), kernel, stride, pad, output_size)
    _require_tensor(switch, "switch")
    return _call("unpool_switch", y, switch, *w, size, y if relu else None)


def unpool_switch_normalized(
    y: Tensor,
    switch: Tensor,
    kernel: PairLike,
    stride: PairLike,
    pad: PairLike = 0,
    output_size: PairLike | None = None,
    relu: bool = False,
) -> Tensor:
    """:func:`unpool_switch` times one over the number of values added, 0 where none (the paper's AlexNet decoder)."""
    w, size = _unpooling(*_sides(y, "y"), kernel, stride, pad, output_size)
    _require_tensor(switch, "switch")
    return _call("unpool_switch_normalized", y, switch, *w, size, y if relu else None)


def unpool_weights(
    switch: Tensor,
    kernel: PairLike,
    stride: PairLike,
    pad: PairLike = 0,
    output_size: PairLike | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """How many values :func:`unpool_switch` adds at each place, ``(N, C, H, W)`` of ``dtype``; no gradient.

    Raises:
        OperatorError: arguments that do not fit together, with their values.
    """
    w, size = _unpooling(*_sides(switch, "switch"), kernel, stride, pad, output_size)
    if not isinstance(dtype, torch.dtype):
        raise OperatorError(f"dtype is {dtype!r}, but must be a torch.dtype")
    return _call("unpool_weights", switch, *w, size, dtype)


def _offset(w: Window, position: PairLike | None) -> Pair:
    place = (w.kernel[0] // 2, w.kernel[1] // 2) if position is None else pair(position, "position")
    problem = w.problem()
    if problem is None and not all(0 <= place[a] < w.kernel[a] for a in (0, 1)):
        problem = f"position {place} is outside the kernel {w.kernel}"
    if problem is not None:
        raise OperatorError(f"fixed pooling: {problem}")
    return (place[0] - w.pad[0], place[1] - w.pad[1])


def pool_fixed(
    x: Tensor,
    kernel: PairLike,
    stride: PairLike,
    pad: PairLike = 0,
    position: PairLike | None = None,
    ceil_mode: bool = True,
    output_size: PairLike | None = None,
) -> Tensor:
    """The value at ``position`` ``(h, w)`` of each window, by default ``kernel // 2``; 0 where that lies outside."""
    w, size = _pooling(*_sides(x, "x"), kernel, stride, pad, ceil_mode, output_size)
    return _call("pool_fixed", x, _offset(w, position), w.stride, size, None)


def unpool_fixed(
    y: Tensor,
    kernel: PairLike,
    stride: PairLike,
    pad: PairLike = 0,
    output_size: PairLike | None = None,
    position: PairLike | None = None,
    relu: bool = False,
) -> Tensor:
    """Each value at ``position`` of its window, the rest 0 (the fork's Depooling FIX)."""
    w, size = _unpooling(*_sides(y, "y"), kernel, stride, pad, output_size)
    return _call("unpool_fixed", y, _offset(w, position), w.stride, size, y if relu else None)


def unpool_fixed_weights(
    size: PairLike,
    kernel: PairLike,
    stride: PairLike,
    pad: PairLike = 0,
    output_size: PairLike | None = None,
    position: PairLike | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> Tensor:
    """How many values :func:`unpool_fixed` of ``size`` windows puts at each place: ``(1, 1, H, W)``."""
    ones = torch.ones((1, 1, *pair(size)), dtype=dtype, device=device)
    return unpool_fixed(ones, kernel, stride, pad, output_size, position)


def pool_sum(
    x: Tensor,
    kernel: PairLike,
    stride: PairLike,
    pad: PairLike = 0,
    ceil_mode: bool = True,
    output_size: PairLike | None = None,
) -> Tensor:
    """The sum of each window (the fork's Pooling SUM)."""
    w, size = _pooling(*_sides(x, "x"), kernel, stride, pad, ceil_mode, output_size)
    return _call("pool_sum", x, *w, size, False, None)


def pool_average(
    x: Tensor,
    kernel: PairLike,
    stride: PairLike,
    pad: PairLike = 0,
    ceil_mode: bool = True,
    output_size: PairLike | None = None,
) -> Tensor:
    """The average of each window, over its size clipped to input plus padding (Caffe's Pooling AVE)."""
    w, size = _pooling(*_sides(x, "x"), kernel, stride, pad, ceil_mode, output_size)
    return _call("pool_sum", x, *w, size, True, None)


def unpool_sum(
    y: Tensor,
    kernel: PairLike,
    stride: PairLike,
    pad: PairLike = 0,
    output_size: PairLike | None = None,
    relu: bool = False,
) -> Tensor:
    """Each value at every place of its window (the fork's Depooling SUM). Where windows overlap, values add up."""
    w, size = _unpooling(*_sides(y, "y"), kernel, stride, pad, output_size)
    return _call("unpool_sum", y, *w, size, False, y if relu else None)


def unpool_average(
    y: Tensor,
    kernel: PairLike,
    stride: PairLike,
    pad: PairLike = 0,
    output_size: PairLike | None = None,
    relu: bool = False,
) -> Tensor:
    """Each value over its window's size at every place of its window (the fork's Depooling AVE)."""
    w, size = _unpooling(*_sides(y, "y"), kernel, stride, pad, output_size)
    return _call("unpool_sum", y, *w, size, True, y if relu else None)


def unpool_sum_weights(
    size: PairLike,
    kernel: PairLike,
    stride: PairLike,
    pad: PairLike = 0,
    output_size: PairLike | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> Tensor:
    """How many values :func:`unpool_sum` of ``size`` windows adds at each place: ``(1, 1, H, W)``."""
    return unpool_sum(torch.ones((1, 1, *pair(size)), dtype=dtype, device=device), kernel, stride, pad, output_size)


def unpool_average_weights(
    size: PairLike,
    kernel: PairLike,
    stride: PairLike,
    pad: PairLike = 0,
    output_size: PairLike | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> Tensor:
    """What :func:`unpool_average` of ``size`` windows of ones gives at each place: ``(1, 1, H, W)``."""
    return unpool_average(torch.ones((1, 1, *pair(size)), dtype=dtype, device=device), kernel, stride, pad, output_size)


def pool_index(x: Tensor, index: Tensor) -> Tensor:
    """The value at each place ``h * W + w`` of the plane, 0 where it is -1; ``index`` int64 ``(N, C, PH, PW)``."""
    _sides(x, "x")
    _require_tensor(index, "index")
    return _call("pool_index", x, index)


def unpool_index(y: Tensor, index: Tensor, output_size: PairLike) -> Tensor:
    """Each value added at its place in a plane of ``output_size``, nowhere where that is -1."""
    _sides(y, "y")
    _require_tensor(index, "index")
    return _call("unpool_index", y, index, pair(output_size, "output_size"))

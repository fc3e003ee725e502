"""The operators of the namespace ``pycaffe_compat``: schema, checks, dispatch to a backend, fake, autograd and vmap.

All but ``max_pool_switch`` and ``max_pool_index`` are linear in their first tensor and come with their transpose, which
is their derivative; so derivatives of any order are operators of this file again. The rules are in docs/ops.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.library import CustomOpDef, custom_op, register_vmap

from . import backends, torch_backend
from .windows import NO_SWITCH, OperatorError, Pair, Window, pair, window

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_WINDOW = "int[2] kernel, int[2] stride, int[2] pad"


def _require(name: str, argument: str, x: Tensor, like: Tensor | None = None) -> None:
    if x.dim() != 4:
        raise OperatorError(f"{name}: {argument} has shape {tuple(x.shape)}, but must have 4 axes (N, C, H, W)")
    if like is not None and x.device != like.device:
        raise OperatorError(f"{name}: {argument} is on {x.device}, but the first tensor is on {like.device}")


def _require_float(name: str, argument: str, x: Tensor) -> None:
    if x.dtype not in FLOATS:
        raise OperatorError(f"{name}: {argument} is {x.dtype}, but must be one of {', '.join(map(str, FLOATS))}")


def _require_like(name: str, argument: str, x: Tensor, shape: Sequence[int], dtype: torch.dtype, like: Tensor) -> None:
    _require(name, argument, x, like)
    if x.dtype != dtype:
        raise OperatorError(f"{name}: {argument} is {x.dtype}, but must be {dtype}")
    if tuple(x.shape) != tuple(shape):
        raise OperatorError(f"{name}: {argument} has shape {tuple(x.shape)}, but must have {tuple(shape)}")


def _require_window(name: str, w: Window, plane: Pair, windows: Pair, byte: bool = False) -> None:
    problem = w.problem(plane, windows)
    if problem is None and byte and not w.byte:
        problem = f"kernel {w.kernel} has {w.places} places, but a byte switch counts at most {NO_SWITCH}"
    if problem is not None:
        raise OperatorError(f"{name}: {problem}")


def _format(x: Tensor) -> torch.memory_format:
    if not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format


def _dense(x: Tensor, *others: Tensor | None) -> list[Any]:
    """All tensors in the memory format of the first; copied only where they are not."""
    form = _format(x)
    return [t if t is None else t.contiguous(memory_format=form) for t in (x, *others)]


def _like(x: Tensor, size: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
    shape = (x.shape[0], x.shape[1], size[0], size[1])
    return torch.empty(shape, dtype=dtype or x.dtype, device=x.device, memory_format=_format(x))


def _plane(x: Tensor) -> Pair:
    return (x.shape[2], x.shape[3])


def _check_max(name: str, x: Tensor, w: Window, size: Pair, byte: bool) -> None:
    _require(name, "x", x)
    _require_float(name, "x", x)
    _require_window(name, w, _plane(x), size, byte)


def _check_gate(name: str, gate: Tensor | None, shape: Sequence[int], like: Tensor) -> None:
    if gate is not None:
        _require_like(name, "gate", gate, shape, like.dtype, like)


def _check_pool_switch(name: str, x: Tensor, switch: Tensor, w: Window, gate: Tensor | None) -> None:
    _require(name, "x", x)
    _require_float(name, "x", x)
    _require(name, "switch", switch, x)
    _require_like(name, "switch", switch, (*x.shape[:2], *switch.shape[2:]), torch.uint8, x)
    _check_gate(name, gate, switch.shape, x)
    _require_window(name, w, _plane(x), _plane(switch), byte=True)


def _check_unpool_switch(name: str, y: Tensor, switch: Tensor, w: Window, size: Pair, gate: Tensor | None) -> None:
    _require(name, "y", y)
    _require_float(name, "y", y)
    _require_like(name, "switch", switch, y.shape, torch.uint8, y)
    _check_gate(name, gate, y.shape, y)
    _require_window(name, w, size, _plane(y), byte=True)


def _check_linear(name: str, argument: str, x: Tensor, gate: Tensor | None, shape: Sequence[int]) -> None:
    _require(name, argument, x)
    _require_float(name, argument, x)
    _check_gate(name, gate, shape, x)


# Max pooling


@custom_op(
    "pycaffe_compat::max_pool_switch",
    mutates_args=(),
    schema=f"(Tensor x, {_WINDOW}, SymInt[2] output_size, bool relu) -> (Tensor, Tensor)",
)
def max_pool_switch(x, kernel, stride, pad, output_size, relu):
    """Maxima and byte switches."""
    _check_max("max_pool_switch", x, window(kernel, stride, pad), pair(output_size), byte=True)
    (x,) = _dense(x)
    return backends.choose(x.device).max_pool_switch(x, kernel, stride, pad, output_size, relu)


@max_pool_switch.register_fake
def _(x, kernel, stride, pad, output_size, relu):
    _check_max("max_pool_switch", x, window(kernel, stride, pad), pair(output_size), byte=True)
    return _like(x, output_size), _like(x, output_size, torch.uint8)


def _max_pool_switch_saves(ctx, inputs, output):
    x, ctx.kernel, ctx.stride, ctx.pad, _, relu = inputs
    y, switch = output
    ctx.plane = _plane(x)
    ctx.mark_non_differentiable(switch)
    ctx.save_for_backward(switch, y if relu else None)


def _max_pool_switch_backward(ctx, dy, _):
    switch, gate = ctx.saved_tensors
    return unpool_switch(dy, switch, ctx.kernel, ctx.stride, ctx.pad, ctx.plane, gate), None, None, None, None, None


max_pool_switch.register_autograd(_max_pool_switch_backward, setup_context=_max_pool_switch_saves)


@custom_op(
    "pycaffe_compat::max_pool_index",
    mutates_args=(),
    schema=f"(Tensor x, {_WINDOW}, SymInt[2] output_size) -> (Tensor, Tensor)",
)
def max_pool_index(x, kernel, stride, pad, output_size):
    """Maxima and int64 places in the plane."""
    _check_max("max_pool_index", x, window(kernel, stride, pad), pair(output_size), byte=False)
    (x,) = _dense(x)
    return torch_backend.max_pool_index(x, kernel, stride, pad, output_size)


@max_pool_index.register_fake
def _(x, kernel, stride, pad, output_size):
    _check_max("max_pool_index", x, window(kernel, stride, pad), pair(output_size), byte=False)
    return _like(x, output_size), _like(x, output_size, torch.int64)


def _max_pool_index_saves(ctx, inputs, output):
    ctx.plane = _plane(inputs[0])
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])


def _max_pool_index_backward(ctx, dy, _):
    (index,) = ctx.saved_tensors
    return unpool_index(dy, index, ctx.plane), None, None, None, None


max_pool_index.register_autograd(_max_pool_index_backward, setup_context=_max_pool_index_saves)


# Pairs of transposes with a switch


def _switch_pair(suffix: str) -> tuple[CustomOpDef, CustomOpDef]:
    """Register ``pool_switch`` and ``unpool_switch``, or the normalized pair: each is the other's derivative."""
    pool_name, unpool_name = f"pool_switch{suffix}", f"unpool_switch{suffix}"

    @custom_op(
        f"pycaffe_compat::{pool_name}",
        mutates_args=(),
        schema=f"(Tensor x, Tensor switch, {_WINDOW}, Tensor? gate) -> Tensor",
    )
    def pool(x, switch, kernel, stride, pad, gate):
        _check_pool_switch(pool_name, x, switch, window(kernel, stride, pad), gate)
        x, switch, gate = _dense(x, switch, gate)
        return getattr(backends.choose(x.device), pool_name)(x, switch, kernel, stride, pad, gate)

    @pool.register_fake
    def _(x, switch, kernel, stride, pad, gate):
        _check_pool_switch(pool_name, x, switch, window(kernel, stride, pad), gate)
        return _like(x, switch.shape[2:])

    @custom_op(
        f"pycaffe_compat::{unpool_name}",
        mutates_args=(),
        schema=f"(Tensor y, Tensor switch, {_WINDOW}, SymInt[2] output_size, Tensor? gate) -> Tensor",
    )
    def unpool(y, switch, kernel, stride, pad, output_size, gate):
        _check_unpool_switch(unpool_name, y, switch, window(kernel, stride, pad), pair(output_size), gate)
        y, switch, gate = _dense(y, switch, gate)
        return getattr(backends.choose(y.device), unpool_name)(y, switch, kernel, stride, pad, output_size, gate)

    @unpool.register_fake
    def _(y, switch, kernel, stride, pad, output_size, gate):
        _check_unpool_switch(unpool_name, y, switch, window(kernel, stride, pad), pair(output_size), gate)
        return _like(y, output_size)

    def pool_saves(ctx, inputs, output):
        x, switch, ctx.kernel, ctx.stride, ctx.pad, gate = inputs
        ctx.plane = _plane(x)
        ctx.save_for_backward(switch, gate)

    def pool_backward(ctx, dy):
        switch, gate = ctx.saved_tensors
        return unpool(dy, switch, ctx.kernel, ctx.stride, ctx.pad, ctx.plane, gate), None, None, None, None, None

    def unpool_saves(ctx, inputs, output):
        _, switch, ctx.kernel, ctx.stride, ctx.pad, _, gate = inputs
        ctx.save_for_backward(switch, gate)

    def unpool_backward(ctx, dx):
        switch, gate = ctx.saved_tensors
        return pool(dx, switch, ctx.kernel, ctx.stride, ctx.pad, gate), None, None, None, None, None, None

    pool.register_autograd(pool_backward, setup_context=pool_saves)
    unpool.register_autograd(unpool_backward, setup_context=unpool_saves)
    return pool, unpool


pool_switch, unpool_switch = _switch_pair("")
pool_switch_normalized, unpool_switch_normalized = _switch_pair("_normalized")


def _check_weights(switch: Tensor, w: Window, size: Pair, dtype: torch.dtype) -> None:
    _require("unpool_weights", "switch", switch)
    if switch.dtype != torch.uint8:
        raise OperatorError(f"unpool_weights: switch is {switch.dtype}, but must be torch.uint8")
    if dtype not in FLOATS:
        raise OperatorError(f"unpool_weights: dtype is {dtype}, but must be one of {', '.join(map(str, FLOATS))}")
    _require_window("unpool_weights", w, size, _plane(switch), byte=True)


@custom_op(
    "pycaffe_compat::unpool_weights",
    mutates_args=(),
    schema=f"(Tensor switch, {_WINDOW}, SymInt[2] output_size, ScalarType dtype) -> Tensor",
)
def unpool_weights(switch, kernel, stride, pad, output_size, dtype):
    """How many switches point at each place."""
    _check_weights(switch, window(kernel, stride, pad), pair(output_size), dtype)
    (switch,) = _dense(switch)
    return backends.choose(switch.device).unpool_weights(switch, kernel, stride, pad, output_size, dtype)


@unpool_weights.register_fake
def _(switch, kernel, stride, pad, output_size, dtype):
    _check_weights(switch, window(kernel, stride, pad), pair(output_size), dtype)
    return _like(switch, output_size, dtype)


# Fixed places


def _check_fixed(name: str, offset: Sequence[int], stride: Sequence[int], *sizes: int) -> None:
    if min(stride) <= 0:
        raise OperatorError(f"{name}: stride is {tuple(stride)}, but must be positive")
    if any(isinstance(n, int) and n <= 0 for n in sizes):
        raise OperatorError(f"{name}: a plane of size {sizes[:2]} with {sizes[2:]} windows; all must be positive")


def _check_pool_fixed(x, offset, stride, output_size, gate):
    _check_linear("pool_fixed", "x", x, gate, (*x.shape[:2], *output_size))
    _check_fixed("pool_fixed", offset, stride, *_plane(x), *output_size)


def _check_unpool_fixed(y, offset, stride, output_size, gate):
    _check_linear("unpool_fixed", "y", y, gate, y.shape)
    _check_fixed("unpool_fixed", offset, stride, *output_size, *_plane(y))


_FIXED = "int[2] offset, int[2] stride, SymInt[2] output_size, Tensor? gate"


@custom_op("pycaffe_compat::pool_fixed", mutates_args=(), schema=f"(Tensor x, {_FIXED}) -> Tensor")
def pool_fixed(x, offset, stride, output_size, gate):
    """The value at ``window * stride + offset``."""
    _check_pool_fixed(x, offset, stride, output_size, gate)
    x, gate = _dense(x, gate)
    return backends.choose(x.device).pool_fixed(x, offset, stride, output_size, gate)


@pool_fixed.register_fake
def _(x, offset, stride, output_size, gate):
    _check_pool_fixed(x, offset, stride, output_size, gate)
    return _like(x, output_size)


@custom_op("pycaffe_compat::unpool_fixed", mutates_args=(), schema=f"(Tensor y, {_FIXED}) -> Tensor")
def unpool_fixed(y, offset, stride, output_size, gate):
    """Each value at ``window * stride + offset``."""
    _check_unpool_fixed(y, offset, stride, output_size, gate)
    y, gate = _dense(y, gate)
    return backends.choose(y.device).unpool_fixed(y, offset, stride, output_size, gate)


@unpool_fixed.register_fake
def _(y, offset, stride, output_size, gate):
    _check_unpool_fixed(y, offset, stride, output_size, gate)
    return _like(y, output_size)


def _fixed_saves(ctx, inputs, output):
    x, ctx.offset, ctx.stride, _, gate = inputs
    ctx.size = _plane(x)
    ctx.save_for_backward(gate)


def _fixed_backward(transpose: Callable[[], CustomOpDef]) -> Callable:
    def backward(ctx, grad):
        return transpose()(grad, ctx.offset, ctx.stride, ctx.size, ctx.saved_tensors[0]), None, None, None, None

    return backward


pool_fixed.register_autograd(_fixed_backward(lambda: unpool_fixed), setup_context=_fixed_saves)
unpool_fixed.register_autograd(_fixed_backward(lambda: pool_fixed), setup_context=_fixed_saves)


# Sums and averages


def _check_pool_sum(x, kernel, stride, pad, output_size, gate):
    _check_linear("pool_sum", "x", x, gate, (*x.shape[:2], *output_size))
    _require_window("pool_sum", window(kernel, stride, pad), _plane(x), pair(output_size))


def _check_unpool_sum(y, kernel, stride, pad, output_size, gate):
    _check_linear("unpool_sum", "y", y, gate, y.shape)
    _require_window("unpool_sum", window(kernel, stride, pad), pair(output_size), _plane(y))


_SUM = f"{_WINDOW}, SymInt[2] output_size, bool average, Tensor? gate"


@custom_op("pycaffe_compat::pool_sum", mutates_args=(), schema=f"(Tensor x, {_SUM}) -> Tensor")
def pool_sum(x, kernel, stride, pad, output_size, average, gate):
    """The sum, or average, of each window."""
    _check_pool_sum(x, kernel, stride, pad, output_size, gate)
    x, gate = _dense(x, gate)
    return backends.choose(x.device).pool_sum(x, kernel, stride, pad, output_size, average, gate)


@pool_sum.register_fake
def _(x, kernel, stride, pad, output_size, average, gate):
    _check_pool_sum(x, kernel, stride, pad, output_size, gate)
    return _like(x, output_size)


@custom_op("pycaffe_compat::unpool_sum", mutates_args=(), schema=f"(Tensor y, {_SUM}) -> Tensor")
def unpool_sum(y, kernel, stride, pad, output_size, average, gate):
    """Each value, or each value over its window's size, at every place of its window."""
    _check_unpool_sum(y, kernel, stride, pad, output_size, gate)
    y, gate = _dense(y, gate)
    return backends.choose(y.device).unpool_sum(y, kernel, stride, pad, output_size, average, gate)


@unpool_sum.register_fake
def _(y, kernel, stride, pad, output_size, average, gate):
    _check_unpool_sum(y, kernel, stride, pad, output_size, gate)
    return _like(y, output_size)


def _sum_saves(ctx, inputs, output):
    x, ctx.kernel, ctx.stride, ctx.pad, _, ctx.average, gate = inputs
    ctx.size = _plane(x)
    ctx.save_for_backward(gate)


def _sum_backward(transpose: Callable[[], CustomOpDef]) -> Callable:
    def backward(ctx, grad):
        gate = ctx.saved_tensors[0]
        down = transpose()(grad, ctx.kernel, ctx.stride, ctx.pad, ctx.size, ctx.average, gate)
        return down, None, None, None, None, None, None

    return backward


pool_sum.register_autograd(_sum_backward(lambda: unpool_sum), setup_context=_sum_saves)
unpool_sum.register_autograd(_sum_backward(lambda: pool_sum), setup_context=_sum_saves)


# Places in the plane


def _check_index(name: str, argument: str, x: Tensor, index: Tensor, shape: Sequence[int]) -> None:
    _require(name, argument, x)
    _require_float(name, argument, x)
    _require(name, "index", index, x)
    _require_like(name, "index", index, shape, torch.int64, x)


@custom_op("pycaffe_compat::pool_index", mutates_args=(), schema="(Tensor x, Tensor index) -> Tensor")
def pool_index(x, index):
    """The value at each place."""
    _check_index("pool_index", "x", x, index, (*x.shape[:2], *index.shape[2:]))
    x, index = _dense(x, index)
    return torch_backend.pool_index(x, index)


@pool_index.register_fake
def _(x, index):
    _check_index("pool_index", "x", x, index, (*x.shape[:2], *index.shape[2:]))
    return _like(x, index.shape[2:])


@custom_op(
    "pycaffe_compat::unpool_index",
    mutates_args=(),
    schema="(Tensor y, Tensor index, SymInt[2] output_size) -> Tensor",
)
def unpool_index(y, index, output_size):
    """Each value added at its place."""
    _check_index("unpool_index", "y", y, index, y.shape)
    y, index = _dense(y, index)
    return torch_backend.unpool_index(y, index, output_size)


@unpool_index.register_fake
def _(y, index, output_size):
    _check_index("unpool_index", "y", y, index, y.shape)
    return _like(y, output_size)


def _pool_index_saves(ctx, inputs, output):
    ctx.plane = _plane(inputs[0])
    ctx.save_for_backward(inputs[1])


def _pool_index_backward(ctx, dy):
    return unpool_index(dy, ctx.saved_tensors[0], ctx.plane), None


def _unpool_index_saves(ctx, inputs, output):
    ctx.save_for_backward(inputs[1])


def _unpool_index_backward(ctx, dx):
    return pool_index(dx, ctx.saved_tensors[0]), None, None


pool_index.register_autograd(_pool_index_backward, setup_context=_pool_index_saves)
unpool_index.register_autograd(_unpool_index_backward, setup_context=_unpool_index_saves)


# vmap


def _over_batches(op: CustomOpDef) -> Callable:
    """Planes are pooled one by one, so a vmapped dimension is one more factor of the batch."""

    def rule(info, in_dims, *args):
        flat = []
        for value, dim in zip(args, in_dims, strict=True):
            if isinstance(value, Tensor):
                moved = value.expand(info.batch_size, *value.shape) if dim is None else value.movedim(dim, 0)
                value = moved.flatten(0, 1)
            flat.append(value)
        result = op(*flat)
        many = isinstance(result, tuple)
        parts = tuple(
            r.unflatten(0, (info.batch_size, r.shape[0] // info.batch_size)) for r in (result if many else (result,))
        )
        return (parts, (0,) * len(parts)) if many else (parts[0], 0)

    return rule


OPERATORS = (
    max_pool_switch,
    max_pool_index,
    pool_switch,
    unpool_switch,
    pool_switch_normalized,
    unpool_switch_normalized,
    unpool_weights,
    pool_fixed,
    unpool_fixed,
    pool_sum,
    unpool_sum,
    pool_index,
    unpool_index,
)
for _operator in OPERATORS:
    register_vmap(_operator, _over_batches(_operator))

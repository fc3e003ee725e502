"""The namespace ``pycaffe_compat``: each operator's schema, checks, results and derivative, stated once for all backends.

The compiled library adds kernels for the CPU, for CUDA and for autograd to this namespace. What it does not serve runs
through :func:`_operator` in Python: other devices, forced backends, and arguments that its kernels refuse, so that the
checks here are the only ones with a message.

All operators but ``max_pool_switch`` and ``max_pool_index`` are linear in their first tensor. Each has its transpose
here, which is its derivative, so derivatives of any order are operators of this file again. docs/ops.md has the rules.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from . import backends
from .windows import NO_SWITCH, OperatorError, Pair, Window, pair, plane_of, untraced, window

NAMESPACE = "pycaffe_compat"
FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
LIBRARY = torch.library.Library(NAMESPACE, "DEF")
OPERATORS: dict[str, OpOverload] = {}
"""The operators by name."""

Results = Sequence[tuple[Sequence[int], torch.dtype]]
"""The size of the planes and the type of each result."""

CHECKS: dict[str, Callable[..., Results]] = {}
"""What checks an operator's arguments and says what its results look like."""

_transposes: dict[str, str] = {}


def _format(x: Tensor) -> torch.memory_format:
    if not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format


def _dense(arguments: Sequence[Any]) -> list[Any]:
    """Put all tensors into the memory format of the first; only those that are not in it are copied."""
    form = _format(arguments[0])
    return [a.contiguous(memory_format=form) if isinstance(a, Tensor) else a for a in arguments]


def _operator(schema: str, transpose: str | None = None) -> Callable[[Callable[..., Results]], Callable[..., Results]]:
    """Define an operator by a function that checks its arguments and says what the results look like.

    Args:
        schema: name, arguments and results.
        transpose: the operator that computes the gradient of the first argument.
    """
    name = schema.partition("(")[0]

    def register(check: Callable[..., Results]) -> Callable[..., Results]:
        def fake(*arguments: Any) -> Tensor | tuple[Tensor, ...]:
            x = arguments[0]
            made = tuple(
                torch.empty((*x.shape[:2], *size), dtype=dtype, device=x.device, memory_format=_format(x))
                for size, dtype in check(*arguments)
            )
            return made if len(made) > 1 else made[0]

        def run(*arguments: Any) -> Any:
            check(*arguments)
            return backends.implementation(name, arguments[0].device)(*_dense(arguments))

        LIBRARY.define(schema, tags=torch.Tag.pt2_compliant_tag)
        LIBRARY.impl(name, run, "CompositeExplicitAutograd")
        torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=LIBRARY)
        OPERATORS[name] = operator = getattr(getattr(torch.ops, NAMESPACE), name).default
        torch.library.register_vmap(operator, _over_batches(operator), lib=LIBRARY)
        CHECKS[name] = check
        if transpose is not None:
            _transposes[name] = transpose
        return check

    return register


def _over_batches(operator: OpOverload) -> Callable[..., Any]:
    """The rule for vmap. Each plane is pooled by itself, so a mapped dimension is one more factor of the batch."""

    def rule(info: Any, in_dims: Sequence[int | None], *arguments: Any) -> tuple[Any, Any]:
        flat = []
        for value, dim in zip(arguments, in_dims, strict=True):
            if isinstance(value, Tensor):
                moved = value.expand(info.batch_size, *value.shape) if dim is None else value.movedim(dim, 0)
                value = moved.flatten(0, 1)
            flat.append(value)
        result = operator(*flat)
        many = isinstance(result, tuple)
        parts = tuple(
            r.unflatten(0, (info.batch_size, r.shape[0] // info.batch_size)) for r in (result if many else (result,))
        )
        return (parts, (0,) * len(parts)) if many else (parts[0], 0)

    return rule


def as_aten(name: str, *arguments: Any) -> Any:
    """Run an operator as operators of ATen, for a graph that must do without this package.

    Sizes of planes become constants, and values are not looked at: a stray switch or place is left out.
    """
    with untraced():
        CHECKS[name](*arguments)
    return backends.implementation(name)(*_dense(arguments))


def decompositions() -> dict[OpOverload, Callable[..., Any]]:
    """The table that rewrites an exported program as ATen: ``program.run_decompositions(ops.decompositions())``."""

    return {operator: functools.partial(as_aten, name) for name, operator in OPERATORS.items()}


# Checks


def _require(name: str, argument: str, x: Tensor, like: Tensor | None = None) -> None:
    if x.dim() != 4:
        raise OperatorError(f"{name}: {argument} has shape {tuple(x.shape)}, but must have 4 axes (N, C, H, W)")
    if like is not None and x.device != like.device:
        raise OperatorError(f"{name}: {argument} is on {x.device}, but the first tensor is on {like.device}")


def _require_float(name: str, argument: str, dtype: torch.dtype) -> None:
    if dtype not in FLOATS:
        raise OperatorError(f"{name}: {argument} is {dtype}, but must be one of {', '.join(map(str, FLOATS))}")


def _require_like(name: str, argument: str, x: Tensor, shape: Sequence[int], dtype: torch.dtype, like: Tensor) -> None:
    _require(name, argument, x, like)
    if x.dtype != dtype:
        raise OperatorError(f"{name}: {argument} is {x.dtype}, but must be {dtype}")
    if tuple(x.shape) != tuple(shape):
        raise OperatorError(f"{name}: {argument} has shape {tuple(x.shape)}, but must have {tuple(shape)}")


def _require_window(name: str, w: Window, size: Pair, windows: Pair, byte: bool = False) -> None:
    problem = w.problem(size, windows)
    if problem is None and byte and not w.byte:
        problem = f"kernel {w.kernel} has {w.places} places, but a byte switch counts at most {NO_SWITCH}"
    if problem is not None:
        raise OperatorError(f"{name}: {problem}")


def _require_first(name: str, argument: str, x: Tensor) -> None:
    _require(name, argument, x)
    _require_float(name, argument, x.dtype)


def _require_gate(name: str, gate: Tensor | None, shape: Sequence[int], like: Tensor) -> None:
    if gate is not None:
        _require_like(name, "gate", gate, shape, like.dtype, like)


# Max pooling

_WINDOW = "int[2] kernel, int[2] stride, int[2] pad"


@_operator(
    f"max_pool_switch(Tensor x, {_WINDOW}, SymInt[2] output_size, bool relu) -> (Tensor y, Tensor switch)",
    transpose="unpool_switch",
)
def _max_pool_switch(x, kernel, stride, pad, output_size, relu):
    _require_first("max_pool_switch", "x", x)
    size = pair(output_size, "output_size")
    _require_window("max_pool_switch", window(kernel, stride, pad), plane_of(x), size, byte=True)
    return (size, x.dtype), (size, torch.uint8)


@_operator(
    f"max_pool_index(Tensor x, {_WINDOW}, SymInt[2] output_size) -> (Tensor y, Tensor index)", transpose="unpool_index"
)
def _max_pool_index(x, kernel, stride, pad, output_size):
    _require_first("max_pool_index", "x", x)
    size = pair(output_size, "output_size")
    _require_window("max_pool_index", window(kernel, stride, pad), plane_of(x), size)
    return (size, x.dtype), (size, torch.int64)


# Pairs of transposes with a switch


def _switch_pair(suffix: str) -> None:
    """Define ``pool_switch`` and ``unpool_switch``, or the normalized pair."""
    pool_name, unpool_name = f"pool_switch{suffix}", f"unpool_switch{suffix}"

    @_operator(f"{pool_name}(Tensor x, Tensor switch, {_WINDOW}, Tensor? gate) -> Tensor", transpose=unpool_name)
    def pool(x, switch, kernel, stride, pad, gate):
        _require_first(pool_name, "x", x)
        _require(pool_name, "switch", switch, x)
        _require_like(pool_name, "switch", switch, (*x.shape[:2], *switch.shape[2:]), torch.uint8, x)
        _require_gate(pool_name, gate, switch.shape, x)
        _require_window(pool_name, window(kernel, stride, pad), plane_of(x), plane_of(switch), byte=True)
        return ((plane_of(switch), x.dtype),)

    @_operator(
        f"{unpool_name}(Tensor y, Tensor switch, {_WINDOW}, SymInt[2] output_size, Tensor? gate) -> Tensor",
        transpose=pool_name,
    )
    def unpool(y, switch, kernel, stride, pad, output_size, gate):
        _require_first(unpool_name, "y", y)
        _require_like(unpool_name, "switch", switch, y.shape, torch.uint8, y)
        _require_gate(unpool_name, gate, y.shape, y)
        size = pair(output_size, "output_size")
        _require_window(unpool_name, window(kernel, stride, pad), size, plane_of(y), byte=True)
        return ((size, y.dtype),)


_switch_pair("")
_switch_pair("_normalized")


@_operator(f"unpool_weights(Tensor switch, {_WINDOW}, SymInt[2] output_size, ScalarType dtype) -> Tensor")
def _unpool_weights(switch, kernel, stride, pad, output_size, dtype):
    _require_like("unpool_weights", "switch", switch, switch.shape, torch.uint8, switch)
    _require_float("unpool_weights", "dtype", dtype)
    size = pair(output_size, "output_size")
    _require_window("unpool_weights", window(kernel, stride, pad), size, plane_of(switch), byte=True)
    return ((size, dtype),)


# Fixed places


def _require_fixed(name: str, offset: Sequence[int], stride: Sequence[int], size: Pair, windows: Pair) -> None:
    pair(offset, "offset")
    if min(pair(stride, "stride")) <= 0:
        raise OperatorError(f"{name}: stride is {tuple(stride)}, but must be positive")
    if any(isinstance(n, int) and n <= 0 for n in (*size, *windows)):
        raise OperatorError(f"{name}: a plane of size {size} with {windows} windows; all must be positive")


_FIXED = "int[2] offset, int[2] stride, SymInt[2] output_size, Tensor? gate"


@_operator(f"pool_fixed(Tensor x, {_FIXED}) -> Tensor", transpose="unpool_fixed")
def _pool_fixed(x, offset, stride, output_size, gate):
    _require_first("pool_fixed", "x", x)
    size = pair(output_size, "output_size")
    _require_gate("pool_fixed", gate, (*x.shape[:2], *size), x)
    _require_fixed("pool_fixed", offset, stride, plane_of(x), size)
    return ((size, x.dtype),)


@_operator(f"unpool_fixed(Tensor y, {_FIXED}) -> Tensor", transpose="pool_fixed")
def _unpool_fixed(y, offset, stride, output_size, gate):
    _require_first("unpool_fixed", "y", y)
    size = pair(output_size, "output_size")
    _require_gate("unpool_fixed", gate, y.shape, y)
    _require_fixed("unpool_fixed", offset, stride, size, plane_of(y))
    return ((size, y.dtype),)


# Sums and averages

_SUM = f"{_WINDOW}, SymInt[2] output_size, bool average, Tensor? gate"


@_operator(f"pool_sum(Tensor x, {_SUM}) -> Tensor", transpose="unpool_sum")
def _pool_sum(x, kernel, stride, pad, output_size, average, gate):
    _require_first("pool_sum", "x", x)
    size = pair(output_size, "output_size")
    _require_gate("pool_sum", gate, (*x.shape[:2], *size), x)
    _require_window("pool_sum", window(kernel, stride, pad), plane_of(x), size)
    return ((size, x.dtype),)


@_operator(f"unpool_sum(Tensor y, {_SUM}) -> Tensor", transpose="pool_sum")
def _unpool_sum(y, kernel, stride, pad, output_size, average, gate):
    _require_first("unpool_sum", "y", y)
    size = pair(output_size, "output_size")
    _require_gate("unpool_sum", gate, y.shape, y)
    _require_window("unpool_sum", window(kernel, stride, pad), size, plane_of(y))
    return ((size, y.dtype),)


# Places in the plane


def _require_index(name: str, x: Tensor, index: Tensor, shape: Sequence[int]) -> None:
    _require_like(name, "index", index, shape, torch.int64, x)


@_operator("pool_index(Tensor x, Tensor index) -> Tensor", transpose="unpool_index")
def _pool_index(x, index):
    _require_first("pool_index", "x", x)
    _require("pool_index", "index", index, x)
    _require_index("pool_index", x, index, (*x.shape[:2], *index.shape[2:]))
    return ((plane_of(index), x.dtype),)


@_operator("unpool_index(Tensor y, Tensor index, SymInt[2] output_size) -> Tensor", transpose="pool_index")
def _unpool_index(y, index, output_size):
    _require_first("unpool_index", "y", y)
    _require_index("unpool_index", y, index, y.shape)
    return ((pair(output_size, "output_size"), y.dtype),)


# Derivatives


def _register_derivative(name: str, transpose: OpOverload) -> None:
    """Let autograd call ``transpose`` with the gradient and, by name, what the operator was given and returned."""
    given = [argument.name for argument in OPERATORS[name]._schema.arguments]
    wanted = [argument.name for argument in transpose._schema.arguments[1:]]

    def setup(ctx: Any, inputs: Sequence[Any], output: Any) -> None:
        values = {**dict(zip(given, inputs, strict=True)), "output_size": plane_of(inputs[0])}
        if isinstance(output, tuple):  # max pooling: what it chose stays chosen
            y, place = output
            ctx.mark_non_differentiable(place)
            values |= {wanted[0]: place, "gate": y if values.get("relu") else None}
        ctx.rest = [None if isinstance(values[argument], Tensor) else values[argument] for argument in wanted]
        ctx.save_for_backward(*(v if isinstance(v := values[argument], Tensor) else None for argument in wanted))

    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        rest = [value if saved is None else saved for saved, value in zip(ctx.saved_tensors, ctx.rest, strict=True)]
        return (transpose(gradient, *rest), *[None] * (len(given) - 1))

    torch.library.register_autograd(OPERATORS[name], backward, setup_context=setup, lib=LIBRARY)


# The compiled library brings derivatives of its own for its operators: one that goes through Python takes longer than
# pooling a small tensor. Without it, and for the operators with places in the plane, these are registered.
backends.follow()
for _name, _transpose in _transposes.items():
    if not torch._C._dispatch_has_kernel_for_dispatch_key(f"{NAMESPACE}::{_name}", "Autograd"):
        _register_derivative(_name, OPERATORS[_transpose])

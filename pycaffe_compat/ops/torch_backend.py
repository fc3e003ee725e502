"""The pooling operators in plain PyTorch: on any device, without a compiler; what kernels are compared with.

They are put together from PyTorch's own pooling, gather and scatter, and add in the order that docs/ops.md lays down.
On the CPU the values of switches and places are checked. Elsewhere that would mean waiting for them, and a graph that is
being recorded has none: there a stray one is left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .windows import NO_SWITCH, OperatorError, Pair, Window, corners, plane_of, window

FLT_MAX = torch.finfo(torch.float32).max


def lowest(dtype: torch.dtype) -> float:
    """The value that MAX starts at: Caffe's ``-FLT_MAX``, or the lowest finite value of a smaller type."""
    return max(-FLT_MAX, torch.finfo(dtype).min)


def _format(x: Tensor) -> torch.memory_format:
    return torch.contiguous_format if x.is_contiguous() else torch.channels_last


def _wide(dtype: torch.dtype) -> torch.dtype:
    """The type that sums of ``dtype`` are kept in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _recorded(x: Tensor) -> bool:
    """Whether a graph is being recorded from ``x``, for other sizes of the batch and other values."""
    if torch.jit.is_tracing() or torch.compiler.is_compiling():
        return True
    return type(x) is not Tensor or torch._C._len_torch_dispatch_stack() > 0


def _knows_values(x: Tensor) -> bool:
    """Whether what ``x`` holds may decide what is done."""
    return x.device.type == "cpu" and not _recorded(x)


def _is_empty(x: Tensor) -> bool:
    return not _recorded(x) and not x.numel()


def _empty(like: Tensor, size: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
    return torch.empty(
        (*like.shape[:2], *size), dtype=dtype or like.dtype, device=like.device, memory_format=_format(like)
    )


def _filled(like: Tensor, size: Sequence[int], value: float, dtype: torch.dtype | None = None) -> Tensor:
    full = torch.full((*like.shape[:2], *size), value, dtype=dtype or like.dtype, device=like.device)
    return full.contiguous(memory_format=_format(like))


def _flat(x: Tensor, like: Tensor) -> tuple[Tensor, int]:
    """``x`` with the places of its planes along one axis, and that axis: a view if it has the memory format of ``like``."""
    return (x.flatten(2), 2) if like.is_contiguous() else (x.permute(0, 2, 3, 1).flatten(1, 2), 1)


def _planes(flat: Tensor, like: Tensor, size: Pair) -> Tensor:
    """Undo :func:`_flat`: ``(N, C, H, W)`` in the memory format of ``like``."""
    return flat.unflatten(2, size) if like.is_contiguous() else flat.unflatten(1, size).permute(0, 3, 1, 2)


def _none(index: Tensor) -> Tensor | None:
    """Where there is no place; None if that is known to be nowhere."""
    none = index < 0
    return none if not _knows_values(index) or bool(none.any()) else None


def _gather(x: Tensor, index: Tensor) -> Tensor:
    """The value at each place, 0 where it is negative."""
    none = _none(index)
    flat, axis = _flat(x, x)
    places, _ = _flat(index if none is None else index.masked_fill(none, 0), x)
    y = _planes(flat.gather(axis, places), x, plane_of(index))
    return y if none is None else y.masked_fill(none, 0).contiguous(memory_format=_format(x))


def _scatter(value: Tensor, index: Tensor, plane: Pair) -> Tensor:
    """Each value added at its place, in row-major order; nowhere where that is negative."""
    none, added = _none(index), value.to(_wide(value.dtype))
    if none is not None:
        index, added = index.masked_fill(none, 0), added.masked_fill(none, 0)
    (places, axis), (added, _) = _flat(index, value), _flat(added, value)
    shape = list(added.shape)
    shape[axis] = plane[0] * plane[1]
    total = added.new_zeros(shape)
    if value.device.type == "cpu":
        total = total.scatter_add(axis, places, added)
    elif not _is_empty(value):
        # scatter_add_ adds in any order on a GPU; index_put_ sorts first.
        where = list(torch.meshgrid(*(torch.arange(n, device=value.device) for n in places.shape), indexing="ij"))
        where[axis] = places
        total = total.index_put(tuple(where), added, accumulate=True)
    return _planes(total, value, plane).to(value.dtype).contiguous(memory_format=_format(value))


def _raise_stray(switch: Tensor, stray: Tensor, w: Window, plane: Pair) -> None:
    n, c, ph, pw = torch.nonzero(stray)[0].tolist()
    raise OperatorError(
        f"switch[{n}, {c}, {ph}, {pw}] is {int(switch[n, c, ph, pw])}, outside its window: kernel {w.kernel}, "
        f"stride {w.stride}, pad {w.pad} on a plane of {plane[0]}x{plane[1]} "
        f"(valid: 0 to {w.places - 1} inside the plane, {NO_SWITCH} for none)"
    )


def _index(switch: Tensor, w: Window, plane: Pair) -> Tensor:
    """The int64 place of each switch, negative for none; on the CPU an error if one points outside its window."""
    rows, columns = corners(w, plane_of(switch), switch.device)
    value = switch.to(torch.int64)
    row = value.div(w.kernel[1], rounding_mode="floor")
    row, column = row + rows, value - row * w.kernel[1] + columns
    outside = (switch >= w.places) | (row < 0) | (row >= plane[0]) | (column < 0) | (column >= plane[1])
    stray = outside & (switch != NO_SWITCH)
    if _knows_values(switch) and bool(stray.any()):
        _raise_stray(switch, stray, w, plane)
    return (row * plane[1] + column).masked_fill(outside, -1)


def _own_rounding(w: Window, plane: Pair, windows: Pair) -> bool | None:
    """The ``ceil_mode`` with which PyTorch's pooling makes these windows; None if the plane must be padded first."""
    if any(2 * w.pad[a] > w.kernel[a] or w.kernel[a] > plane[a] + 2 * w.pad[a] for a in (0, 1)):
        return None
    for ceil_mode in (False, True):
        own = []
        for a in (0, 1):
            span = plane[a] + 2 * w.pad[a] - w.kernel[a]
            n = (-(-span // w.stride[a]) if ceil_mode else span // w.stride[a]) + 1
            own.append(n - (ceil_mode and (n - 1) * w.stride[a] >= plane[a] + w.pad[a]))
        if tuple(own) == windows:
            return ceil_mode
    return None


def _after(w: Window, plane: Pair, windows: Pair) -> Pair:
    """How far the last window reaches past the plane; negative where it ends before."""
    h, v = ((windows[a] - 1) * w.stride[a] + w.kernel[a] - w.pad[a] - plane[a] for a in (0, 1))
    return h, v


def _maxima(x: Tensor, w: Window, size: Pair) -> tuple[Tensor, Tensor]:
    plane = plane_of(x)
    ceil_mode = _own_rounding(w, plane, size)
    if ceil_mode is not None:
        return torch.ops.aten.max_pool2d_with_indices(x, w.kernel, w.stride, w.pad, (1, 1), ceil_mode)
    after = _after(w, plane, size)
    padded = F.pad(x, (w.pad[1], after[1], w.pad[0], after[0]), value=lowest(x.dtype))
    y, index = torch.ops.aten.max_pool2d_with_indices(padded, w.kernel, w.stride)
    width = plane_of(padded)[1]
    row = index.div(width, rounding_mode="floor")
    column = index - row * width
    return y, (row - w.pad[0]) * plane[1] + (column - w.pad[1])


def _max_pool(x: Tensor, w: Window, size: Pair) -> tuple[Tensor, Tensor]:
    """Return the maxima and their int64 places, -1 for none: PyTorch's max pooling made to treat NaN as Caffe does."""
    start = lowest(x.dtype)
    if _knows_values(x):
        y, index = _maxima(x, w, size)
        if bool((y > start).all()):
            return y, index
    # A NaN, or a window with nothing above the start value: rare; where looking would mean waiting, not looked for.
    y, index = _maxima(torch.where(x > start, x, start), w, size)
    return y, index.masked_fill(y <= start, -1)


def max_pool_switch(
    x: Tensor, kernel: Pair, stride: Pair, pad: Pair, output_size: Pair, relu: bool
) -> tuple[Tensor, Tensor]:
    """Return the maxima and their byte switches."""
    w, size = window(kernel, stride, pad), (output_size[0], output_size[1])
    if _is_empty(x):
        return _empty(x, size), _empty(x, size, torch.uint8)
    y, index = _max_pool(F.relu(x) if relu else x, w, size)
    rows, columns = corners(w, size, x.device)
    width = plane_of(x)[1]
    # (h - hstart) * kernel_w + (w - wstart), from h * width + w: one kernel's width for every plane's width passed.
    if w.kernel[1] <= width:
        switch = (index - (rows * width + columns)).to(torch.int32)
        for passed in range(w.kernel[0] - 1):
            switch = switch.add(switch >= passed * w.kernel[1] + width, alpha=w.kernel[1] - width)
    else:
        row = index.div(width, rounding_mode="floor")
        switch = (row - rows) * w.kernel[1] + (index - row * width - columns)
    switch = switch.to(torch.uint8).masked_fill(index < 0, NO_SWITCH)
    return y.contiguous(memory_format=_format(x)), switch.contiguous(memory_format=_format(x))


def max_pool_index(x: Tensor, kernel: Pair, stride: Pair, pad: Pair, output_size: Pair) -> tuple[Tensor, Tensor]:
    """Return the maxima and their int64 places in the plane."""
    size = (output_size[0], output_size[1])
    if _is_empty(x):
        return _empty(x, size), _empty(x, size, torch.int64)
    y, index = _max_pool(x, window(kernel, stride, pad), size)
    return y.contiguous(memory_format=_format(x)), index.contiguous(memory_format=_format(x))


def _gated(y: Tensor, gate: Tensor | None) -> Tensor:
    return y if gate is None else y.masked_fill(gate <= 0, 0).contiguous(memory_format=_format(y))


def pool_switch(x: Tensor, switch: Tensor, kernel: Pair, stride: Pair, pad: Pair, gate: Tensor | None) -> Tensor:
    """Return the value at each window's switch."""
    return _gated(_gather(x, _index(switch, window(kernel, stride, pad), plane_of(x))), gate)


def unpool_switch(
    y: Tensor, switch: Tensor, kernel: Pair, stride: Pair, pad: Pair, output_size: Pair, gate: Tensor | None
) -> Tensor:
    """Return planes with each value added at its switch."""
    plane = (output_size[0], output_size[1])
    return _scatter(_gated(y, gate), _index(switch, window(kernel, stride, pad), plane), plane)


def unpool_weights(
    switch: Tensor, kernel: Pair, stride: Pair, pad: Pair, output_size: Pair, dtype: torch.dtype
) -> Tensor:
    """Return how many switches point at each place."""
    plane = (output_size[0], output_size[1])
    ones = _filled(switch, plane_of(switch), 1, dtype)
    return _scatter(ones, _index(switch, window(kernel, stride, pad), plane), plane)


def _shares(like: Tensor, index: Tensor, plane: Pair) -> Tensor:
    """One over the number of values that are added at each place, 0 where none."""
    weights = _scatter(_filled(like, plane_of(index), 1), index, plane)
    return weights.reciprocal().masked_fill(weights == 0, 0)


def pool_switch_normalized(
    x: Tensor, switch: Tensor, kernel: Pair, stride: Pair, pad: Pair, gate: Tensor | None
) -> Tensor:
    """Return ``x`` over the number of switches that point there, at each window's switch."""
    w, plane = window(kernel, stride, pad), plane_of(x)
    index = _index(switch, w, plane)
    if w.overlaps:
        x = (x * _shares(x, index, plane)).contiguous(memory_format=_format(x))
    return _gated(_gather(x, index), gate)


def unpool_switch_normalized(
    y: Tensor, switch: Tensor, kernel: Pair, stride: Pair, pad: Pair, output_size: Pair, gate: Tensor | None
) -> Tensor:
    """Return :func:`unpool_switch` times one over the number of values added."""
    w, plane = window(kernel, stride, pad), (output_size[0], output_size[1])
    index = _index(switch, w, plane)
    x = _scatter(_gated(y, gate), index, plane)
    return (x * _shares(y, index, plane)).contiguous(memory_format=_format(y)) if w.overlaps else x


def _range(offset: int, stride: int, plane: int, windows: int) -> tuple[slice, slice]:
    """Along an axis: the windows whose place ``window * stride + offset`` lies on the plane, and these places."""
    first, last = max(0, -(offset // stride)), min(windows - 1, (plane - 1 - offset) // stride)
    if last < first:
        return slice(0, 0), slice(0, 0)
    return slice(first, last + 1), slice(first * stride + offset, last * stride + offset + 1, stride)


def _move(x: Tensor, offset: Pair, stride: Pair, plane: Pair, windows: Pair, size: Pair, onto_windows: bool) -> Tensor:
    """Move the values at the fixed places of the windows onto planes of ``size``: onto the windows, or the other way."""
    ranges = [_range(offset[a], stride[a], plane[a], windows[a]) for a in (0, 1)]
    (rows, to_rows), (columns, to_columns) = (r[::-1] if onto_windows else r for r in ranges)
    moved, height = x[..., rows, columns], len(range(*to_rows.indices(size[0])))
    for axis, to, shape in ((3, to_columns, (height, size[1])), (2, to_rows, size)):
        zeros = _filled(x, shape, 0)
        moved = zeros.slice_scatter(moved, axis, to.start, to.stop, to.step or 1)
    return moved.contiguous(memory_format=_format(x))


def pool_fixed(x: Tensor, offset: Pair, stride: Pair, output_size: Pair, gate: Tensor | None) -> Tensor:
    """Return the value at ``window * stride + offset``."""
    size = (output_size[0], output_size[1])
    return _gated(_move(x, offset, stride, plane_of(x), size, size, True), gate)


def unpool_fixed(y: Tensor, offset: Pair, stride: Pair, output_size: Pair, gate: Tensor | None) -> Tensor:
    """Return planes with each value at ``window * stride + offset``, 0 elsewhere."""
    size = (output_size[0], output_size[1])
    return _move(_gated(y, gate), offset, stride, size, plane_of(y), size, False)


def _for_onnx() -> bool:
    """Whether a graph is recorded for ONNX, whose sums over windows have no divisor of their own and no backward.

    Runtimes also disagree about the divisor of a window that reaches past its input, so there is none.
    """
    return torch.onnx.is_in_onnx_export()


def _divisor(w: Window, plane: Pair, windows: Pair, like: Tensor) -> Tensor:
    """The size of each window, clipped to the plane plus padding: Caffe's divisor for AVE."""
    sides = []
    for start, k, size, pad in zip(corners(w, windows, like.device), w.kernel, plane, w.pad, strict=True):
        sides.append((start + k).clamp(max=size + pad) - start)
    return (sides[0] * sides[1]).to(_wide(like.dtype))


def pool_sum(
    x: Tensor, kernel: Pair, stride: Pair, pad: Pair, output_size: Pair, average: bool, gate: Tensor | None
) -> Tensor:
    """Return the sum, or the average, of each window."""
    w, plane, size = window(kernel, stride, pad), plane_of(x), (output_size[0], output_size[1])
    if _is_empty(x):
        return _empty(x, size)
    wide = x.to(_wide(x.dtype))
    ceil_mode = _own_rounding(w, plane, size)
    if ceil_mode is not None and not _for_onnx():
        y = F.avg_pool2d(wide, w.kernel, w.stride, w.pad, ceil_mode, True, None if average else 1)
    else:
        after = _after(w, plane, size)
        padded = F.pad(wide, (w.pad[1], after[1], w.pad[0], after[0]))
        if _for_onnx():
            y = F.avg_pool2d(padded, w.kernel, w.stride) * w.places
        else:
            y = F.avg_pool2d(padded, w.kernel, w.stride, divisor_override=1)
        if average:
            y = y / _divisor(w, plane, size, x)
    return _gated(y, gate).to(dtype=x.dtype, memory_format=_format(x))


def unpool_sum(
    y: Tensor, kernel: Pair, stride: Pair, pad: Pair, output_size: Pair, average: bool, gate: Tensor | None
) -> Tensor:
    """Return planes with each value, or each value over its window's size, added at every place of its window."""
    w, plane, size = window(kernel, stride, pad), (output_size[0], output_size[1]), plane_of(y)
    if _is_empty(y):
        return _empty(y, plane)
    value = _gated(y, gate).to(_wide(y.dtype))
    backward = torch.ops.aten.avg_pool2d_backward
    ceil_mode = _own_rounding(w, plane, size)
    if ceil_mode is not None and not _for_onnx():
        x = _empty(value, plane)
        x = backward(value, x, w.kernel, w.stride, w.pad, ceil_mode, True, None if average else 1)
    else:
        if average:
            value = value / _divisor(w, plane, size, y)
        after = _after(w, plane, size)
        if _for_onnx():
            ones = value.new_ones((value.shape[1], 1, *w.kernel))
            x = F.conv_transpose2d(value, ones, stride=w.stride, groups=value.shape[1])
        else:
            x = _empty(value, [plane[a] + w.pad[a] + after[a] for a in (0, 1)])
            x = backward(value, x, w.kernel, w.stride, (0, 0), False, True, 1)
        # Cut what lies in the padding, and add the places that no window reaches.
        x = F.pad(x, (-w.pad[1], -after[1], -w.pad[0], -after[0]))
    return x.to(dtype=y.dtype, memory_format=_format(y))


def _check_index(index: Tensor, plane: Pair) -> Tensor:
    places = plane[0] * plane[1]
    stray = (index < -1) | (index >= places)
    if not _knows_values(index):
        return index.masked_fill(stray, -1)
    if bool(stray.any()):
        n, c, ph, pw = torch.nonzero(stray)[0].tolist()
        raise OperatorError(
            f"index[{n}, {c}, {ph}, {pw}] is {int(index[n, c, ph, pw])}, outside the plane of {plane[0]}x{plane[1]} "
            f"(valid: 0 to {places - 1}, or -1 for none)"
        )
    return index


def pool_index(x: Tensor, index: Tensor) -> Tensor:
    """Return the value at each place, 0 where there is none."""
    return _gather(x, _check_index(index, plane_of(x)))


def unpool_index(y: Tensor, index: Tensor, output_size: Pair) -> Tensor:
    """Return planes with each value added at its place."""
    plane = (output_size[0], output_size[1])
    return _scatter(y, _check_index(index, plane), plane)

"""Pooling over any number of axes, of windows whose places may lie apart: what the operators for planes do not do.

Caffe pools only planes. Intel's Caffe pools volumes, C3D's pools videos, and the OpenCL branch any blob, with ``dilation``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import LayerError
from ..ops.torch_backend import lowest
from ..tables import dims
from .base import Shape

Ints = tuple[int, ...]
MODES = ("MAX", "AVE", "SUM")
_SIDES = {1: ("width",), 2: ("height", "width"), 3: ("depth", "height", "width")}
_MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_MAX_AND_INDEX: dict[int, Callable[..., Any]] = {
    1: F.max_pool1d_with_indices,
    2: F.max_pool2d_with_indices,
    3: F.max_pool3d_with_indices,
}


@dataclass(frozen=True)
class VolumePooling:
    """A pooling over the last one to three axes of a blob.

    Attributes:
        mode: one of :data:`MODES`.
        kernel: the places of a window along each axis; None for all.
        stride, pad, dilation: along each axis.
        ceil_mode: whether the number of windows is rounded up.
        counts_pad: whether an average counts the padding.
    """

    mode: str
    kernel: Ints | None
    stride: Ints
    pad: Ints
    dilation: Ints
    ceil_mode: bool = True
    counts_pad: bool = True

    def fit(self, shape: Sequence[int], error: Callable[[str], LayerError]) -> tuple[Ints, Ints]:
        """Return the kernel on a bottom of this shape, and how many windows there are along each axis.

        Args:
            shape: of the bottom.
            error: makes the error of a message.

        Raises:
            LayerError: a window that is impossible, larger than its input, or without any input.
        """
        n = len(self.stride)
        size = tuple(shape[-n:])
        kernel = self.kernel or size
        windows = tuple(self._along(axis, _SIDES[n][axis], size[axis], kernel[axis], error) for axis in range(n))
        return kernel, windows

    def _along(self, axis: int, side: str, size: int, kernel: int, error: Callable[[str], LayerError]) -> int:
        stride, pad, dilation = self.stride[axis], self.pad[axis], self.dilation[axis]
        for name, value in (("kernel", kernel), ("stride", stride), ("dilation", dilation)):
            if value <= 0:
                raise error(f"pooling_param: the {name} along the {side} is {value}, but must be positive")
        extent = dilation * (kernel - 1) + 1
        if pad >= kernel:
            raise error(
                f"pooling_param: the pad along the {side} is {pad}, but must be smaller than the kernel, {kernel}"
            )
        span = size + 2 * pad - extent
        count = (-(-span // stride) if self.ceil_mode else span // stride) + 1
        if any(self.pad):
            count = min(count, (size + pad - 1) // stride + 1)
        if count <= 0:
            apart = f" (extent {extent} with dilation {dilation})" if dilation > 1 else ""
            raise error(
                f"the kernel along the {side} is {kernel}{apart}, larger than the input's {side} {size} plus twice the pad {pad}"
            )
        for window in range(count):
            first = window * stride - pad
            inside = max(0, -(first // dilation))  # the first place of the window that does not lie before the input
            if inside >= kernel or first + inside * dilation >= size:
                raise error(
                    f"window {window} along the {side} would have no input in it, as the {side} is {size} "
                    f"(kernel {kernel}, stride {stride}, pad {pad}, dilation {dilation})"
                    + ("; pooling_param { round_mode: FLOOR } rounds their number down" if self.ceil_mode else "")
                )
        return count

    def __call__(self, x: Tensor, kernel: Ints, windows: Ints, with_mask: bool = False) -> tuple[Tensor, Tensor | None]:
        """Pool ``x``, whose last axes have ``windows`` windows of ``kernel``.

        Returns:
            The top, and for MAX ``with_mask`` where in its volume, counted in rows, each maximum was; else None.
        """
        n = len(windows)
        size = x.shape[-n:]
        flat = x.reshape(1, -1, *size)
        after = [
            max((windows[a] - 1) * self.stride[a] + self.dilation[a] * (kernel[a] - 1) + 1 - size[a] - self.pad[a], 0)
            for a in range(n)
        ]
        ends = [length for a in reversed(range(n)) for length in (self.pad[a], after[a])]
        padded = F.pad(flat, ends, value=lowest(x.dtype) if self.mode == "MAX" else 0.0) if any(ends) else flat
        mask = None
        if self.mode != "MAX":
            y = self._sum(padded, kernel, windows)
            if self.mode == "AVE":
                y = y / self.places(size, kernel, windows, x)
        elif with_mask:
            y, index = _MAX_AND_INDEX[n](padded, kernel, self.stride, dilation=self.dilation)
            y, index = self._cut(y, windows), self._cut(index, windows)
            mask = self._unpadded(index, padded.shape[-n:], size).to(x.dtype).reshape(*x.shape[:-n], *windows)
        else:
            y = self._cut(_MAX[n](padded, kernel, self.stride, dilation=self.dilation), windows)
        return y.reshape(*x.shape[:-n], *windows), mask

    @staticmethod
    def _cut(y: Tensor, windows: Ints) -> Tensor:
        for axis, count in enumerate(windows, -len(windows)):
            y = y.narrow(axis, 0, count)
        return y

    def _sum(self, padded: Tensor, kernel: Ints, windows: Ints) -> Tensor:
        """The sum of each window, one axis after the other: a window is a box."""
        y = padded
        for axis, count in enumerate(windows, -len(windows)):
            stride, dilation = self.stride[axis], self.dilation[axis]
            picks = [
                y.narrow(axis, i * dilation, (count - 1) * stride + 1).unfold(axis, 1, stride).squeeze(-1)
                for i in range(kernel[axis])
            ]
            y = sum(picks[1:], start=picks[0])
        return y

    def places(self, size: Sequence[int], kernel: Ints, windows: Ints, like: Tensor) -> Tensor:
        """How many places of each window an average divides by, of ``like``'s dtype."""
        total = torch.ones((), dtype=like.dtype, device=like.device)
        for axis, count in enumerate(windows):
            pad, dilation = self.pad[axis], self.dilation[axis]
            starts = torch.arange(count, device=like.device) * self.stride[axis] - pad
            places = starts[:, None] + torch.arange(kernel[axis], device=like.device) * dilation
            inside = places < size[axis] + pad if self.counts_pad else (places >= 0) & (places < size[axis])
            total = total[..., None] * inside.sum(1).to(like.dtype)
        return total

    def _unpadded(self, index: Tensor, padded: Sequence[int], size: Sequence[int]) -> Tensor:
        """The index in the volume for an index in the padded one."""
        result = torch.zeros_like(index)
        for axis in range(len(size)):
            place = index // math.prod(padded[axis + 1 :]) % padded[axis] - self.pad[axis]
            result = result * size[axis] + place
        return result


def volume_pooling(
    options: Any, mode: str, shape: Shape, axis: int, ceil_mode: bool, error: Callable[[str], LayerError]
) -> VolumePooling:
    """Read ``pooling_param`` for a bottom that is pooled over the axes behind ``axis``.

    A number that is given once is for all axes; ``kernel_size_3d``, ``stride_3d``, ``pad_3d`` and ``dilation_3d``
    also once for each.

    Args:
        options: the ``PoolingParameter``.
        mode: its method's name.
        shape: the shape of the bottom.
        axis: its channel axis.
        ceil_mode: whether numbers of windows are rounded up.
        error: makes the error of a message.

    Raises:
        LayerError: numbers that do not fit the axes, or a method that only planes have.
    """
    n = len(shape) - axis - 1
    if not 1 <= n <= max(_SIDES):
        raise error(f"pools over 1 to {max(_SIDES)} axes behind the channels (axis {axis}), not of shape {dims(shape)}")
    if mode not in MODES:
        raise error(f"pooling_param.pool: {mode} pools only planes, without dilation; valid here: {', '.join(MODES)}")
    kernel = _numbers(options, "kernel_size", "kernel", n, error)
    stride = _numbers(options, "stride", "stride", n, error)
    pad = _numbers(options, "pad", "pad", n, error)
    if options.global_pooling:
        if kernel:
            raise error("pooling_param: kernel_size is given with global_pooling, which sets the kernel itself")
        if any(pad or ()) or any(value != 1 for value in stride or ()):
            raise error("pooling_param: global_pooling needs pad 0 and stride 1")
    elif not kernel:
        raise error("pooling_param: no kernel_size, nor kernel_h and kernel_w, nor global_pooling")
    return VolumePooling(
        mode,
        kernel,
        stride or (1,) * n,
        pad or (0,) * n,
        _dilation(options, n, error),
        ceil_mode,
        options.avg_include_pad,
    )


def _dilation(options: Any, n: int, error: Callable[[str], LayerError]) -> Ints:
    given = tuple(options.dilation_3d)
    if given and options.HasField("dilation"):
        raise error("pooling_param: both dilation and dilation_3d are given; remove one")
    if len(given) not in (0, 1, n):
        raise error(f"pooling_param: {len(given)} values of dilation for {n} axes; give one, or one for each")
    return given * (n if len(given) == 1 else 1) or (options.dilation,) * n


def _numbers(options: Any, field: str, sides: str, n: int, error: Callable[[str], LayerError]) -> Ints | None:
    """An option along each axis; None if it is not given."""
    repeated = f"{field}_3d"
    given = {name: (getattr(options, name),) for name in (field,) if options.HasField(name)}
    if len(getattr(options, repeated)):
        given[repeated] = tuple(getattr(options, repeated))
    pair = [name for name in (f"{sides}_h", f"{sides}_w") if options.HasField(name)]
    if pair:
        if n != 2 or len(pair) == 1:
            raise error(f"pooling_param: {pair[0]} is for planes, with both sides; for {n} axes give {field}")
        given[" and ".join(pair)] = tuple(getattr(options, name) for name in pair)
    if len(given) > 1:
        raise error(f"pooling_param: {' together with '.join(given)}; give one of them")
    for name, values in given.items():
        if len(values) not in (1, n):
            raise error(
                f"pooling_param: {len(values)} values of {name.removesuffix('_3d')} for {n} axes; give one, or one for each"
            )
        return values * (n if len(values) == 1 else 1)
    return None

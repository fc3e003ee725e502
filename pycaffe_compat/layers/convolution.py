"""Convolution, its transpose, and im2col, over any number of spatial axes.

Source: Caffe's layers of these names.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..tables import dims
from .base import Layer, Shape, count
from .registry import register

Extent = tuple[int, ...]
CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
MIRRORED_OUTPUTS = 16  # a Deconvolution of fewer outputs a group is slower as a convolution
MIRRORED_FROM = 64  # so many numbers of the bottom for each of the weights


def im2col(x: Tensor, kernel: Extent, stride: Extent, pad: Extent, dilation: Extent) -> Tensor:
    """Return the windows of ``x`` (n, channels, *spatial) as (n, channels * kernel elements, *output)."""
    if any(pad):
        x = F.pad(x, [p for size in reversed(pad) for p in (size, size)])
    axes = len(kernel)
    for i in range(axes):
        x = x.unfold(2 + i, dilation[i] * (kernel[i] - 1) + 1, stride[i])[..., :: dilation[i]]
    return x.permute(0, 1, *range(2 + axes, 2 + 2 * axes), *range(2, 2 + axes)).flatten(1, 1 + axes)


def convolve(x: Tensor, weight: Tensor, stride: Extent, pad: Extent, dilation: Extent, groups: int) -> Tensor:
    """Convolution over any number of spatial axes, or none, as a product of filters and windows."""
    columns = im2col(x, tuple(weight.shape[2:]), stride, pad, dilation)
    rows = weight.reshape(groups, weight.shape[0] // groups, -1)
    y = rows @ columns.reshape(x.shape[0], groups, rows.shape[2], -1)
    return y.reshape(x.shape[0], weight.shape[0], *columns.shape[2:])


def convolve_transposed(
    x: Tensor, weight: Tensor, stride: Extent, pad: Extent, dilation: Extent, groups: int
) -> Tensor:
    """The transpose of :func:`convolve`: ``x``, spread out by the stride, convolved with the mirrored filters."""
    spread = x.new_zeros(*x.shape[:2], *(s * (n - 1) + 1 for s, n in zip(stride, x.shape[2:], strict=True)))
    places = tuple(slice(None, None, s) for s in (1, 1, *stride))
    spread[places] = x
    edge = tuple(d * (k - 1) - p for d, k, p in zip(dilation, weight.shape[2:], pad, strict=True))
    return convolve(spread, mirrored(weight, groups), (1,) * len(stride), edge, dilation, groups)


def mirrored(weight: Tensor, groups: int) -> Tensor:
    """The filters of the convolution that undoes one with ``weight`` at stride 1: inputs and outputs exchanged, turned round."""
    return weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1).flip(tuple(range(2, weight.dim())))


class Windows(Layer):
    """What convolutions and im2col share: one top per bottom, bottoms of one shape, and the options of the window."""

    options: ClassVar[tuple[str, ...] | None] = ("convolution_param",)
    inert_options = frozenset({"engine", "force_nd_im2col"})
    fork_options = frozenset(
        f"convolution_param.{name}"
        for name in (
            "hole",
            "hole_h",
            "hole_w",
            "dilation_h",
            "dilation_w",
            "weight_filler.num_groups",
        )
    )
    bottoms: ClassVar[tuple[int, int | None]] = (1, None)
    tops: ClassVar[tuple[int, int | None]] = (1, None)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        if param.top and len(param.top) != len(bottom_shapes):
            raise self.error(
                f"has {len(bottom_shapes)} bottoms and {len(param.top)} tops, but makes one top per bottom"
            )
        shape = tuple(bottom_shapes[0])
        for other in bottom_shapes[1:]:
            if tuple(other) != shape:
                raise self.error(
                    f"all bottoms must have the same shape, but these have {dims(shape)} and {dims(other)}"
                )
        self.axis = self.canonical_axis(param.convolution_param.axis, len(shape))
        self.channels = shape[self.axis]
        self.spatial = len(shape) - self.axis - 1
        self.kernel = self._window("kernel_size", ("kernel_h", "kernel_w"), None, 1)
        self.stride = self._window("stride", ("stride_h", "stride_w"), 1, 1)
        self.pad = self._window("pad", ("pad_h", "pad_w"), 0, 0)
        self.dilation = self._read_dilation(param.convolution_param)
        self._check_tops(shape[self.axis + 1 :])

    def _window(self, field: str, pair: Sequence[str], default: int | None, least: int) -> Extent:
        """One number per spatial axis, from the repeated ``field`` or the ``pair`` of fields for height and width."""
        options = self.param.convolution_param
        given = tuple(getattr(options, field))
        if any(options.HasField(name) for name in pair):
            if self.spatial != 2:
                raise self.error(f"{' and '.join(pair)} are for 2 spatial axes, but the bottom has {self.spatial}")
            if given:
                raise self.error(f"has both {field} and {' or '.join(pair)}; give one of them")
            window = tuple(getattr(options, name) for name in pair)
        elif len(given) not in (0, 1, self.spatial):
            allowed = "once" if self.spatial < 2 else f"once or {self.spatial} times"
            raise self.error(f"{field} is given {len(given)} times; {self.spatial} spatial axes take it {allowed}")
        elif given:
            window = given if len(given) == self.spatial else given * self.spatial
        elif default is None and self.spatial:
            raise self.error(f"needs {field} (or {' and '.join(pair)})")
        else:
            window = (default or 0,) * self.spatial
        if any(value < least for value in window):
            raise self.error(f"{field} is {dims(window)}; it must be at least {least} on every axis")
        return window

    def _read_dilation(self, options: Any) -> Extent:
        """``dilation``, or ``dilation_h`` and ``dilation_w``; DeepLab v1 calls them ``hole``, ``hole_h`` and ``hole_w``.

        Each of the two may be 0 where the kernel has one place.
        """
        names = [name for name in ("hole", "hole_h", "hole_w") if options.HasField(name)]
        if not names:
            pair = ("dilation_h", "dilation_w")
            dilation = self._window("dilation", pair, 1, 0 if any(map(options.HasField, pair)) else 1)
            if any(d < 1 < k for d, k in zip(dilation, self.kernel, strict=True)):
                raise self.error(
                    f"dilation is {dims(dilation)}; it must be at least 1 where the kernel is larger than 1"
                )
            return tuple(max(d, 1) for d in dilation)
        if options.dilation or names not in (["hole"], ["hole_h", "hole_w"]):
            raise self.error(f"has {' and '.join(names)}; give hole, or hole_h and hole_w, or dilation")
        if self.spatial != 2:
            raise self.error(f"{' and '.join(names)} are for 2 spatial axes, but the bottom has {self.spatial}")
        holes = tuple(getattr(options, name) for name in names)
        if min(holes) < 1:
            raise self.error(f"{' and '.join(names)} is {dims(holes)}; it must be at least 1 on every axis")
        return holes if len(holes) == 2 else holes * 2

    def _check_tops(self, size: Shape) -> None:
        """Raise a ``LayerError`` if the window does not fit into a bottom with the spatial axes ``size``."""
        span = tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))
        if any(n + 2 * p < s for n, p, s in zip(size, self.pad, span, strict=True)):
            raise self.error(
                f"its window of {dims(span)} (kernel_size {dims(self.kernel)}, dilation {dims(self.dilation)}) "
                f"is larger than its input of {dims(size)} with pad {dims(self.pad)}"
            )

    def forward(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        if len(bottoms) == 1:
            return self._top(bottoms[0])
        return tuple(map(self._top, bottoms))

    def _top(self, x: Tensor) -> Tensor:
        if self.axis == 1:
            return self.function(x)
        lead = x.shape[: self.axis]
        y = self.function(x.reshape(math.prod(lead), *x.shape[self.axis :]))
        return y.reshape(*lead, *y.shape[1:])

    def places(self, shape: Shape) -> int:
        """How many places, over batch and spatial axes, a bottom or top of ``shape`` has."""
        return count(shape, 0, self.axis) * count(shape, self.axis + 1)

    def function(self, x: Tensor) -> Tensor:
        """Return the top of a bottom with one batch axis, the channel axis and the spatial axes."""
        raise NotImplementedError


@register("Im2col")
class Im2col(Windows):
    """The windows of a convolution as columns: ``(n, channels * kernel_h * kernel_w, height, width)`` of the output."""

    bottoms = (1, 1)
    tops = (1, 1)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        if not self.spatial:
            raise self.error(f"needs spatial axes after axis {self.axis}, but its bottom is {dims(bottom_shapes[0])}")

    def function(self, x: Tensor) -> Tensor:
        return im2col(x, self.kernel, self.stride, self.pad, self.dilation)


class Filters(Windows):
    """What both convolutions share: ``group``, and the blobs ``weight`` and ``bias``."""

    blobs_declared = ("weight", "bias")
    blobs_optional = frozenset({"bias"})
    fresh_top = True
    weight: Tensor
    bias: Tensor | None

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.convolution_param
        self.outputs, self.groups = self.grouping()
        if self.outputs < 1:
            raise self.error(f"convolution_param.num_output: {self.outputs} must be at least 1")
        if self.groups < 1 or self.channels % self.groups or self.outputs % self.groups:
            raise self.error(
                f"group: {self.groups} must divide the bottom's {self.channels} channels and num_output: {self.outputs}"
            )
        self.add_blob("weight", (*self.filters(), *self.kernel), options.weight_filler)
        self.add_bias((self.outputs,), options)

    def grouping(self) -> tuple[int, int]:
        """The number of outputs, and of the groups that they and the channels are divided into."""
        return self.param.convolution_param.num_output, self.param.convolution_param.group

    def filters(self) -> tuple[int, int]:
        """The first two axes of the weights."""
        raise NotImplementedError


@register("Convolution")
class Convolution(Filters):
    """Convolution with weights (num_output, channels / group, *kernel) over the spatial axes after ``axis``."""

    def flops(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        return self.multiply_adds(sum(self.places(top) for top in tops))

    def filters(self) -> tuple[int, int]:
        return self.outputs, self.channels // self.groups

    def function(self, x: Tensor) -> Tensor:
        if self.spatial in CONVOLUTIONS:
            conv = CONVOLUTIONS[self.spatial]
            return conv(x, self.weight, self.bias, self.stride, self.pad, self.dilation, self.groups)
        y = convolve(x, self.weight, self.stride, self.pad, self.dilation, self.groups)
        return add_bias(y, self.bias)


@register("Deconvolution")
class Deconvolution(Filters):
    """The transpose of a convolution, with weights (channels, num_output / group, *kernel).

    An axis of the top has ``stride * (n - 1) + dilation * (kernel - 1) + 1 - 2 * pad`` elements.
    """

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self._edge = tuple(d * (k - 1) - p for d, k, p in zip(self.dilation, self.kernel, self.pad, strict=True))
        self._mirrors = (
            self.spatial == 2
            and set(self.stride) == {1}
            and min(self._edge) >= 0
            and self.outputs // self.groups >= MIRRORED_OUTPUTS
        )

    def filters(self) -> tuple[int, int]:
        return self.channels, self.outputs // self.groups

    def flops(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        return self.multiply_adds(sum(self.places(bottom) for bottom in bottoms))

    def _check_tops(self, size: Shape) -> None:
        window = zip(size, self.stride, self.kernel, self.dilation, self.pad, strict=True)
        top = [s * (n - 1) + d * (k - 1) + 1 - 2 * p for n, s, k, d, p in window]
        if any(n < 1 for n in top):
            raise self.error(f"pad {dims(self.pad)} is too large: its top would be {dims(top)}")

    def _is_faster_mirrored(self, x: Tensor) -> bool:
        """Whether the convolution with mirrored filters, the same thing at stride 1, takes less time to train.

        It does on the CPU, where mirroring costs little beside the work (benchmarks/deconvolution.md). Whoever traces the
        layer, perhaps for other sizes, sees the one form.
        """
        return (
            self._mirrors
            and x.device.type == "cpu"
            and not torch.compiler.is_compiling()
            and not torch.jit.is_tracing()
            and x.numel() >= MIRRORED_FROM * self.weight.numel()
        )

    def function(self, x: Tensor) -> Tensor:
        if self._is_faster_mirrored(x):
            return F.conv2d(x, mirrored(self.weight, self.groups), self.bias, 1, self._edge, self.dilation, self.groups)
        if self.spatial in TRANSPOSED:
            conv = TRANSPOSED[self.spatial]
            return conv(x, self.weight, self.bias, self.stride, self.pad, 0, self.groups, self.dilation)
        y = convolve_transposed(x, self.weight, self.stride, self.pad, self.dilation, self.groups)
        return add_bias(y, self.bias)


def add_bias(y: Tensor, bias: Tensor | None) -> Tensor:
    """``y`` (N, C, …) plus ``bias`` (C), or ``y`` without one."""
    return y if bias is None else y + bias.reshape(-1, *(1,) * (y.dim() - 2))

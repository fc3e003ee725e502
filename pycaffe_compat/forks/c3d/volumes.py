"""The layers of C3D for videos, (N, C, length, height, width), in both of its versions.

Source: facebookarchive/C3D, convolution3d_layer.cpp, deconvolution3d_layer.cpp, pool3d_layer.cpp, l2_normalize_layer.cpp.
Version 1.1 has the options in messages of their own, version 1.0 in those of Convolution and Pooling.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Layer, Shape, count
from ...layers.registry import register
from ...layers.slope import TracedFunction
from ...layers.volumes import Ints, VolumePooling
from ...proto import caffe_pb2
from ...tables import dims

FORKS = ("c3d", "c3d_v10")
L2_EPS = 1e-7  # the fork's


class _Videos(Layer):
    """What the layers of videos share: options in one of two messages, and a window that is square in space."""

    def chosen(self, bottom_shapes: Sequence[Shape]) -> Any:
        """The message that is given; the one of version 1.1 where both are.

        Raises:
            LayerError: the bottom has not five axes.
        """
        if len(bottom_shapes[0]) != 5:
            raise self.error(f"needs a bottom (N, C, length, height, width), not of shape {dims(bottom_shapes[0])}")
        older, newer = type(self).option_fields()
        self.field = newer if self.param.HasField(newer) else older
        return getattr(self.param, self.field)

    def window(self, options: Any, depth: str, side: str, least: int, default: int) -> Ints:
        """An option along length, height and width.

        Raises:
            LayerError: a side is below ``least``, or is given several times.
        """
        sides = getattr(options, side)
        if hasattr(sides, "append"):  # BVLC's field, which may be given once for each axis
            if len(sides) > 1:
                raise self.error(
                    f"{self.field}.{side} is given {len(sides)} times, but the windows are square: give it once"
                )
            sides = sides[0] if sides else default
        length = getattr(options, depth) if depth else 0
        for name, value in ((depth, length), (side, sides)):
            if name and value < least:
                raise self.error(f"{self.field}.{name}: {value} must be at least {least}")
        return (length, sides, sides)


class _Filters(_Videos):
    options = ("convolution_param", "convolution3d_param")
    inert_options = frozenset({"engine", "group", "filter_group", "force_nd_im2col"})
    fresh_top = True
    blobs_declared = ("weight", "bias")
    blobs_optional = frozenset({"bias"})
    weight: Tensor
    bias: Tensor | None

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = self.chosen(bottom_shapes)
        self.kernel = self.window(options, "kernel_depth", "kernel_size", 1, 0)
        self.stride = self.window(options, "temporal_stride", "stride", 1, 1)
        self.pad = self.window(options, "temporal_pad", "pad", 0, 0)
        if options.num_output < 1 or options.num_output % max(options.filter_group, 1):
            raise self.error(
                f"{self.field}.num_output: {options.num_output} must be at least 1 and a multiple of filter_group, which is "
                f"{options.filter_group}"
            )
        shape = bottom_shapes[0]
        self.add_blob("weight", (*self.filters(shape[1], options.num_output), *self.kernel), options.weight_filler)
        if self.has_bias(options):
            self.add_blob("bias", (1, 1, 1, 1, options.num_output), options.bias_filler)
        else:
            self.bias = None
        if any(size < 1 for size in self.sizes(shape[2:])):
            raise self.error(
                f"its window of {dims(self.kernel)} is too large for a bottom of {dims(shape[2:])} with pad {dims(self.pad)}"
            )

    def has_bias(self, options: Any) -> bool:
        """Whether there is a bias."""
        return options.bias_term

    def filters(self, channels: int, outputs: int) -> tuple[int, int]:
        """The first axes of the weights."""
        raise NotImplementedError

    def sizes(self, shape: Sequence[int]) -> list[int]:
        """The length, height and width of the top."""
        raise NotImplementedError

    def flat_bias(self) -> Tensor | None:
        return None if self.bias is None else self.bias.flatten()


@register("Convolution3D", fork=FORKS)
class Convolution3D(_Filters):
    """Convolution with weights (num_output, channels, kernel_depth, kernel_size, kernel_size).

    The bias is (1, 1, 1, 1, num_output). ``filter_group`` only says how many products the fork makes of one.
    """

    def filters(self, channels: int, outputs: int) -> tuple[int, int]:
        return outputs, channels

    def sizes(self, shape: Sequence[int]) -> list[int]:
        windows = zip(shape, self.kernel, self.stride, self.pad, strict=True)
        return [(n + 2 * p - k) // s + 1 for n, k, s, p in windows]

    def flops(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        return self.multiply_adds(tops[0][0] * count(tops[0], 2))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv3d(x, self.weight, self.flat_bias(), self.stride, self.pad)


@register("Deconvolution3D", fork=FORKS)
class Deconvolution3D(_Filters):
    """The transpose of a convolution, with weights (channels, num_output, kernel_depth, kernel_size, kernel_size).

    As in the fork, only ``convolution_param.bias_term`` says whether it has a bias, in version 1.1 too: there the one of
    ``convolution3d_param`` is not read.
    """

    def has_bias(self, options: Any) -> bool:
        return self.param.convolution_param.bias_term

    def filters(self, channels: int, outputs: int) -> tuple[int, int]:
        return channels, outputs

    def sizes(self, shape: Sequence[int]) -> list[int]:
        windows = zip(shape, self.kernel, self.stride, self.pad, strict=True)
        return [(n - 1) * s - 2 * p + k for n, k, s, p in windows]

    def flops(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        return self.multiply_adds(bottoms[0][0] * count(bottoms[0], 2))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose3d(x, self.weight, self.flat_bias(), self.stride, self.pad)


@register("Pooling3D", fork=FORKS)
class Pooling3D(_Videos):
    """MAX or AVE pooling of windows of ``kernel_depth`` × ``kernel_size`` × ``kernel_size``; only AVE pads, and only in space.

    As in the fork, the gradient of a maximum goes to every place that holds it.
    """

    options = ("pooling_param", "pooling3d_param")
    inert_options = frozenset({"engine"})

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = self.chosen(bottom_shapes)
        mode = caffe_pb2.PoolingParameter.PoolMethod.Name(options.pool)
        pad = self.window(options, "", "pad", 0, 0)
        if mode not in ("MAX", "AVE"):
            raise self.error(f"{self.field}.pool: {mode} never ran in C3D; valid: MAX, AVE")
        if mode == "MAX" and any(pad):
            raise self.error(f"{self.field}.pad: {pad[1]} with pool: MAX; only AVE pads")
        kernel = self.window(options, "kernel_depth", "kernel_size", 1, 0)
        stride = self.window(options, "temporal_stride", "stride", 1, 1)
        self.pooling = VolumePooling(mode, kernel, stride, pad, (1, 1, 1))
        self.pooling.fit(bottom_shapes[0], self.error)

    def forward(self, x: Tensor) -> Tensor:
        kernel, windows = self.pooling.fit(x.shape, self.error)
        if self.pooling.mode == "AVE":
            return self.pooling(x, kernel, windows)[0]
        y, _ = self.pooling(x.detach(), kernel, windows)
        return y if x.is_meta else _ToAll.apply(x, y, kernel, self.pooling.stride)


class _ToAll(TracedFunction):
    """The maxima ``y`` of the windows of ``x``; their gradient goes to every place of a window that is equal to its maximum."""

    @staticmethod
    def forward(x: Tensor, y: Tensor, kernel: Ints, stride: Ints) -> Tensor:
        return y.view_as(y)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, y, ctx.kernel, ctx.stride = inputs
        ctx.save_for_backward(x, y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        x, y = ctx.saved_tensors
        reach = [(n - 1) * s + k for n, s, k in zip(y.shape[2:], ctx.stride, ctx.kernel, strict=True)]
        after = [max(r - n, 0) for r, n in zip(reach, x.shape[2:], strict=True)]
        padded = F.pad(x, [n for size in reversed(after) for n in (0, size)], value=torch.inf)
        whole = torch.zeros_like(padded)
        for place in itertools.product(*map(range, ctx.kernel)):
            spans = zip(place, y.shape[2:], ctx.stride, strict=True)
            length, height, width = (slice(first, first + (n - 1) * s + 1, s) for first, n, s in spans)
            at = (..., length, height, width)
            whole[at] += grad * (padded[at] == y)
        return whole[..., : x.shape[2], : x.shape[3], : x.shape[4]], None, None, None


@register("L2Normalize", fork=("c3d", "compact_bilinear"))
class L2Normalize(Layer):
    """Each item (all axes but the first) divided by its L2 norm, without a scale."""

    options = ()

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        return (flat / (flat.square().sum(1, keepdim=True) + L2_EPS).sqrt()).view_as(x)

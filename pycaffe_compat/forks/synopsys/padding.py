"""Convolution and Pooling that pad each side by itself, as synopsys-caffe has them (conv_layer.cpp and pooling_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.convolution import Convolution
from ...layers.registry import register
from ...proto import caffe_pb2
from ...tables import dims

SIDES = ("pad_l", "pad_r", "pad_t", "pad_b")
BESIDE = ("pad_h", "pad_w")
QUANTIZED = ("input_scale", "output_scale", "input_zero_point", "output_zero_point", "saturate", "quantize_method")
OTHER = (  # of convolutions
    *("per_channel_scale_weight", "per_channel_scale_output", "submanifold_sparse", "weight_fixed", "dis_mode"),
    *("gen_mode", "shape_offset"),
)
LOWEST = torch.finfo(torch.float32).min  # what the maximum of no value is


def check_floats(layer: Layer, options: Any, where: str, names: Sequence[str]) -> None:
    """Raise a ``LayerError`` for an option in ``names`` that is not its default."""
    for name in names:
        field = options.DESCRIPTOR.fields_by_name[name]
        value = getattr(options, name)
        if len(value) if hasattr(value, "append") else value != field.default_value:
            raise layer.error(f"{where}.{name} is not done here: nets of whole numbers, and sparse ones, do not run")


class Padding:
    """What is added at the left, right, top and bottom: ``pad_l`` to ``pad_b``, ``pad`` or, by ``pad_type: 1``, for "SAME".

    Raises:
        LayerError: two of them are given, or a number that cannot be.
    """

    def __init__(self, layer: Layer, options: Any, where: str, plain: tuple[int, int]) -> None:
        sides = tuple(getattr(options, name) for name in SIDES)
        if min(sides) < 0:
            raise layer.error(f"{where}.{SIDES[sides.index(min(sides))]}: {min(sides)} must not be negative")
        given = [name for name in BESIDE if options.HasField(name)]
        if options.pad if hasattr(options.pad, "append") else options.HasField("pad"):
            given.insert(0, "pad")
        self.same = options.pad_type == 1
        if options.pad_type > 1:
            raise layer.error(f"{where}.pad_type: {options.pad_type} must be 0, or 1 for padding as TensorFlow's SAME")
        others = given + ["pad_type"] * options.HasField("pad_type")
        if any(sides) and (given or options.pad_type):
            raise layer.error(f"{where}: give {others[0]}, or pad_l, pad_r, pad_t and pad_b, not both")
        if self.same and given:
            raise layer.error(f"{where}: give {given[0]}, or pad_type, not both")
        self.sides = sides if any(sides) else (plain[1], plain[1], plain[0], plain[0])

    def of(self, plane: Sequence[int], span: Sequence[int], stride: Sequence[int]) -> tuple[int, int, int, int]:
        """Left, right, top and bottom, for windows that span so much of a plane (height, width)."""
        if not self.same:
            return self.sides
        low, high = [], []
        for size, reach, step in zip(plane, span, stride, strict=True):
            whole = max(reach - (size % step or step), 0)
            low.append(whole // 2)
            high.append(whole - whole // 2)
        return low[1], high[1], low[0], high[0]


@register("Convolution", fork="synopsys")
class PaddedConvolution(Convolution):
    """BVLC's, with ``pad_l``, ``pad_r``, ``pad_t`` and ``pad_b``, or ``pad_type: 1`` for as much as TensorFlow's SAME."""

    @classmethod
    def fits(cls, param: Any) -> bool:
        options = param.convolution_param
        return any(options.HasField(name) for name in (*SIDES, "pad_type"))

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        self.padding: Padding | None = None
        super().__init__(param, bottom_shapes)
        options = param.convolution_param
        check_floats(self, options, "convolution_param", (*QUANTIZED[:-1], "weight_scale", "weight_zero_point"))
        check_floats(self, options, "convolution_param", OTHER)

    def _check_tops(self, size: Shape) -> None:
        options = self.param.convolution_param
        if self.spatial != 2:
            raise self.error(
                f"convolution_param.pad_l and pad_type are for 2 spatial axes; its bottom has {self.spatial}"
            )
        self.padding = Padding(self, options, "convolution_param", (self.pad[0], self.pad[1]))
        self.pad = (0, 0)
        left, right, top, bottom = self.added(size)
        super()._check_tops((size[0] + top + bottom, size[1] + left + right))

    def added(self, size: Sequence[int]) -> tuple[int, int, int, int]:
        """What is added at the left, right, top and bottom of planes of this size."""
        assert self.padding is not None
        span = [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]
        return self.padding.of(size, span, self.stride)

    def function(self, x: Tensor) -> Tensor:
        return super().function(F.pad(x, self.added(x.shape[2:])))


@register("Pooling", fork="synopsys")
class PaddedPooling(Layer):
    """BVLC's MAX and AVE, with padding of each side as PaddedConvolution has; ``AVE_EXC_PAD`` does not count it.

    ``AVE_TF`` is an older name of that. A second top, and ``pool: STOCHASTIC``, do not go with these.
    """

    options = ("pooling_param",)
    inert_options = frozenset({"engine", "quantize_method"})
    tops: ClassVar[tuple[int, int | None]] = (1, 1)

    @classmethod
    def fits(cls, param: Any) -> bool:
        options = param.pooling_param
        method = caffe_pb2.PoolingParameter.PoolMethod.Name(options.pool)
        return method.startswith("AVE_") or any(options.HasField(name) for name in (*SIDES, "pad_type"))

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options, shape = param.pooling_param, bottom_shapes[0]
        check_floats(self, options, "pooling_param", ("output_shift_instead_division", *QUANTIZED[:-1]))
        self.mode = caffe_pb2.PoolingParameter.PoolMethod.Name(options.pool)
        if self.mode not in ("MAX", "AVE", "AVE_EXC_PAD", "AVE_TF"):
            raise self.error(f"pooling_param.pool: {self.mode} does not go with pad_l and pad_type; MAX and AVE do")
        if len(shape) != 4:
            raise self.error(f"needs a bottom (N, C, H, W), not of shape {dims(shape)}")
        rounds = options.round_mode == caffe_pb2.PoolingParameter.CEIL
        self.ceil = rounds if options.HasField("round_mode") else options.ceil_mode or not options.HasField("ceil_mode")
        self.stride = self._pair(options, "stride", options.stride)
        self.kernel: tuple[int, int] | None = None
        if not options.global_pooling:
            self.kernel = self._pair(options, "kernel", options.kernel_size)
            if min(*self.kernel, *self.stride) < 1:
                raise self.error(
                    "pooling_param: needs kernel_size, or kernel_h and kernel_w, and strides of at least 1"
                )
        self.padding = Padding(self, options, "pooling_param", self._pair(options, "pad", options.pad))
        if options.global_pooling and (any(self.padding.sides) or self.padding.same or self.stride != (1, 1)):
            raise self.error("pooling_param: global_pooling goes without padding and with stride 1")
        self.windows(shape[2:])

    def _pair(self, options: Any, name: str, square: int) -> tuple[int, int]:
        tall, wide = f"{name}_h", f"{name}_w"
        if options.HasField(tall) or options.HasField(wide):
            return getattr(options, tall), getattr(options, wide)
        return square, square

    def windows(self, plane: Sequence[int]) -> tuple[tuple[int, int], tuple[int, int, int, int], tuple[int, int]]:
        """The size of windows, the padding, and how many windows a plane of this size has, down and across.

        Raises:
            LayerError: there is no room for any.
        """
        kernel = self.kernel or (plane[0], plane[1])
        left, right, top, bottom = self.padding.of(plane, kernel, self.stride)
        count = []
        sides = zip(plane, kernel, self.stride, ((top, bottom), (left, right)), strict=True)
        for size, reach, step, (before, after) in sides:
            room = size + before + after - reach
            if room < 0:
                raise self.error(
                    f"its windows of {dims(kernel)} are larger than its planes of {dims(plane)} and padding"
                )
            number = -(-size // step) if self.padding.same else (-(-room // step) if self.ceil else room // step) + 1
            if (before or after) and not self.padding.same and (number - 1) * step >= size + before:
                number -= 1
            count.append(number)
        return kernel, (left, right, top, bottom), (count[0], count[1])

    def room(self, plane: Sequence[int]) -> tuple[int, int, int, int]:
        """What planes of this size need at the left, right, top and bottom for all of their windows."""
        kernel, (left, _, top, _), number = self.windows(plane)
        ends = [(n - 1) * s + k for n, s, k in zip(number, self.stride, kernel, strict=True)]
        bottom, right = (max(end - n - before, 0) for end, n, before in zip(ends, plane, (top, left), strict=True))
        return left, right, top, bottom

    def areas(self, plane: Sequence[int]) -> Tensor:
        """How many values each window's average counts, (height, width)."""
        kernel, (left, right, top, bottom), number = self.windows(plane)
        lengths = []
        for axis, (before, after) in enumerate(((top, bottom), (left, right))):
            start = torch.arange(number[axis]) * self.stride[axis] - before
            if self.mode == "AVE":
                lengths.append((start + kernel[axis]).clamp(max=plane[axis] + after) - start)
            else:
                lengths.append((start + kernel[axis]).clamp(max=plane[axis]) - start.clamp(min=0))
        return lengths[0][:, None] * lengths[1]

    def forward(self, x: Tensor) -> Tensor:
        plane = x.shape[2:]
        kernel, _, (height, width) = self.windows(plane)
        if self.mode == "MAX":
            y = F.max_pool2d(F.pad(x, self.room(plane), value=LOWEST), kernel, self.stride)
        else:
            y = F.avg_pool2d(F.pad(x, self.room(plane)), kernel, self.stride, divisor_override=1)
            y = y[:, :, :height, :width] / self.areas(plane).to(y)
        return y[:, :, :height, :width]

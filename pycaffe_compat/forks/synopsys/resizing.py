"""TensorFlow's resizing, as synopsys-caffe has it (resize_bilinear_layer.cpp and resize_nearest_neighbor_layer.cpp)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.registry import register
from ...tables import dims
from .padding import QUANTIZED, check_floats

AXES = {"NHWC": (1, 2), "NCHW": (2, 3), "NCHWD": (2, 3, 4)}


class Resizing(Layer):
    """The base class of both: which axes get which length, and which places of the bottom those of the top stand for."""

    formats: tuple[str, ...] = ("NHWC", "NCHW")
    modes: tuple[str, ...]

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        (name,) = self.option_fields()
        options, shape = getattr(param, name), bottom_shapes[0]
        if options.data_format not in self.formats:
            raise self.error(f'{name}.data_format is "{options.data_format}"; it must be {" or ".join(self.formats)}')
        self.axes = AXES[options.data_format]
        if len(shape) != len(self.axes) + 2:
            raise self.error(
                f"needs a bottom with {len(self.axes) + 2} axes ({options.data_format}), not of {dims(shape)}"
            )
        chosen = [mode for mode in self.modes if getattr(options, mode)]
        if len(chosen) > 1:
            raise self.error(f"{name}: {chosen[0]} and {chosen[1]} do not go together")
        self.mode = chosen[0] if chosen else ""
        self.given = [
            (
                getattr(options, f"output_{side}") if options.HasField(f"output_{side}") else None,
                getattr(options, f"scale_{side}"),
            )
            for side in ("height", "width", "depth")[: len(self.axes)]
        ]
        if min(*self.lengths(shape), *(shape[axis] for axis in self.axes)) < 1:
            raise self.error(
                f"{name} makes {dims(self.lengths(shape))} of a bottom of {dims(shape)}: sides are at least 1"
            )

    def lengths(self, shape: Sequence[int]) -> list[int]:
        """The lengths of the axes that are resized."""
        return [
            math.floor(shape[axis] * scale) if fixed is None else fixed
            for axis, (fixed, scale) in zip(self.axes, self.given, strict=True)
        ]

    def places(self, new: int, old: int, device: torch.device) -> Tensor:
        """Where the places of the top lie in the bottom, ``float32``, as the fork computes them."""
        aligned = self.mode == "align_corners" and new > 1
        at = torch.arange(new, device=device, dtype=torch.float32)
        scale = torch.tensor(old - 1 if aligned else old, dtype=torch.float32) / (new - 1 if aligned else new)
        return self.moved(at, scale.to(device), new)

    def moved(self, at: Tensor, scale: Tensor, new: int) -> Tensor:
        """The places for the numbers ``at`` of ``new`` places."""
        raise NotImplementedError


@register("ResizeBilinear", fork="synopsys")
class ResizeBilinear(Resizing):
    """Images resized to ``output_height`` and ``output_width``, or by scales, by linear interpolation; volumes too (NCHWD).

    Places are multiplied by old / new, from the first one on; ``align_corners`` keeps the last one, ``half_pixel_centers`` and
    ``pytorch_half_pixel`` count from the middle of pixels, the latter from -0.5 for a single place.
    """

    options = ("resize_bilinear_param",)
    inert_options = frozenset({"input_scale", "input_zero_point"})
    formats = ("NHWC", "NCHW", "NCHWD")
    modes = ("align_corners", "half_pixel_centers", "pytorch_half_pixel")

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        names = [name for name in QUANTIZED[:-1] if name.startswith("output") or name == "saturate"]
        check_floats(self, param.resize_bilinear_param, "resize_bilinear_param", names)

    def moved(self, at: Tensor, scale: Tensor, new: int) -> Tensor:
        if self.mode == "pytorch_half_pixel" and new == 1:
            return torch.full_like(at, -0.5)
        return (at + 0.5) * scale - 0.5 if "half_pixel" in self.mode else at * scale

    def forward(self, x: Tensor) -> Tensor:
        for axis, new in zip(reversed(self.axes), reversed(self.lengths(x.shape)), strict=True):
            old = x.shape[axis]
            at = self.places(new, old, x.device)
            low = at.floor()
            part = (at - low).to(x.dtype).view(-1, *(1,) * (x.dim() - 1 - axis))
            first = x.index_select(axis, low.long().clamp(min=0))
            last = x.index_select(axis, at.ceil().long().clamp(max=old - 1))
            x = first + (last - first) * part
        return x


@register("ResizeNearestNeighbor", fork="synopsys")
class ResizeNearestNeighbor(Resizing):
    """Images resized to ``output_height`` and ``output_width``, or by scales, each place from the nearest one at or before it.

    With ``align_corners`` it is the nearest one, with ``half_pixel_centers`` counted from the middle of pixels.
    """

    options = ("resize_nearest_neighbor_param",)
    modes = ("align_corners", "half_pixel_centers", "half_pixel_onnx")

    def moved(self, at: Tensor, scale: Tensor, new: int) -> Tensor:
        if self.mode == "align_corners":
            return (at * scale + 0.5).floor()  # halves up
        if self.mode == "half_pixel_onnx":
            return ((at + 0.5) * scale - 0.5).floor()
        return ((at + 0.5) * scale if self.mode else at * scale).floor()

    def forward(self, x: Tensor) -> Tensor:
        for axis, new in zip(self.axes, self.lengths(x.shape), strict=True):
            at = self.places(new, x.shape[axis], x.device).long()
            x = x.index_select(axis, at.clamp(0, x.shape[axis] - 1))
        return x

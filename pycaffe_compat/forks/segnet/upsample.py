"""Upsample with a mask, as SegNet's Caffe has it (alexgkendall/caffe-segnet, upsample_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ... import ops
from ...layers.base import Layer, Shape
from ...layers.pooling import GivenPlane
from ...layers.registry import register
from ...layers.slope import TracedFunction
from ...tables import dims


@register("Upsample", fork=("segnet", "enet", "synopsys"))
class MaskedUpsample(GivenPlane):
    """Puts values at the places that a mask names, counted by rows in the top's plane; 0 elsewhere (two bottoms).

    The mask is the second top of a max Pooling. Where several values have one place, the last of them stands, and each
    gets the gradient of the place. The plane is ``upsample_h`` x ``upsample_w``, or the bottom's times ``scale`` (2), or
    ``scale_h`` and ``scale_w``, less one row or column with ``pad_out_h`` or ``pad_out_w``.
    """

    options = ("upsample_param",)
    bottoms = (2, 2)
    differentiable = (True, False)
    planes_traceable = False
    checks_makers = True

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.upsample_param
        values, mask = (tuple(shape) for shape in bottom_shapes)
        if len(values) != 4 or values != mask:
            raise self.error(
                "needs values and a mask of one shape (num, channels, height, width), but they have "
                f"{dims(values)} and {dims(mask)}"
            )
        self._check_pairs(options)
        self.size = (options.upsample_h, options.upsample_w) if options.HasField("upsample_h") else None
        self.scale = (options.scale_h, options.scale_w) if options.HasField("scale_h") else (options.scale,) * 2
        self.less = (int(options.pad_out_h), int(options.pad_out_w))
        if self.size is not None and min(self.size) < 2:
            raise self.error(f"upsample_h: {self.size[0]} and upsample_w: {self.size[1]} must be at least 2")
        if self.size is None and min(self.scale) < 2:
            raise self.error(f"upsample_param: a scale of {dims(self.scale)} must be at least 2 on each axis")
        if self.size is None and any(less and scale != 2 for less, scale in zip(self.less, self.scale, strict=True)):
            raise self.error(f"pad_out_h and pad_out_w need a scale of 2, not {dims(self.scale)}")

    def _check_pairs(self, options: Any) -> None:
        for pair in (("upsample_h", "upsample_w"), ("scale_h", "scale_w")):
            given = [name for name in pair if options.HasField(name)]
            if len(given) == 1:
                raise self.error(f"upsample_param: {given[0]} without the other of {pair[0]} and {pair[1]}")
        sized = options.HasField("upsample_h")
        if not sized and options.HasField("scale") and options.HasField("scale_h"):
            raise self.error("upsample_param: both scale and scale_h, scale_w are given; remove one")

    @classmethod
    def fits(cls, param: Any) -> bool:
        return len(param.bottom) == 2

    def plane(self, shape: Sequence[int]) -> tuple[int, int]:
        if self.size is not None:
            return self.size
        return shape[2] * self.scale[0] - self.less[0], shape[3] * self.scale[1] - self.less[1]

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return place(self, x, mask, self.plane(x.shape), self.made_by is not None)


def place(layer: Layer, x: Tensor, mask: Tensor, plane: tuple[int, int], unique: bool = False) -> Tensor:
    """Return planes with each value at the place that a mask names, 0 elsewhere.

    Where several values have one place, the last of them stands, and each gets the gradient of the place.

    Args:
        layer: who asks, for messages.
        x: the values, (N, C, h, w).
        mask: of the same shape; places counted row by row in the plane.
        plane: the height and width of the planes to make.
        unique: whether no two values of a plane have one place.

    Raises:
        LayerError: a place outside the plane. On a GPU the device reports it.
    """
    height, width = plane
    index = mask.detach().long().flatten(2)
    # on a GPU the check would wait for the mask
    if mask.device.type == "cpu" and not (torch.compiler.is_compiling() or torch.jit.is_tracing()):
        stray = (index < 0) | (index >= height * width)
        if bool(stray.any()):
            raise layer.error(
                f"its mask names place {int(index[stray][0])}, outside the planes of its top, {dims((height, width))}: "
                "give the size of the bottom of the Pooling that made the mask"
            )
    if unique:
        return ops.unpool_index(x, index.unflatten(2, x.shape[2:]), plane)
    return _Placed.apply(x, index, height, width)


class _Placed(TracedFunction):
    """``scatter`` in which the last of several values at one place stands, and each gets the gradient of the place."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, index: Tensor, height: int, width: int) -> Tensor:
        top = x.new_zeros(*x.shape[:2], height * width)
        # the number of the last value at each place, found in any order: a plain scatter may keep any of them
        order = torch.arange(index.shape[2], device=index.device).expand_as(index)
        last = torch.full_like(top, -1, dtype=torch.long).scatter_reduce(2, index, order, "amax")
        values = x.flatten(2)
        if not values.shape[2]:
            return top.unflatten(2, (height, width))
        placed = values.gather(2, last.clamp(min=0))
        return torch.where(last < 0, top, placed).unflatten(2, (height, width))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])
        ctx.shape = inputs[0].shape

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (index,) = ctx.saved_tensors
        return grad.flatten(2).gather(2, index).reshape(ctx.shape), None, None, None

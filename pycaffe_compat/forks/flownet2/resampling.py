"""Resample, Downsample and Accum, as FlowNet2's Caffe has them.

Sources: lmb-freiburg/flownet2, resample_layer.cu, downsample_layer.cu and accum_layer.cu. All sizes are those of planes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.registry import register
from ...proto import caffe_pb2
from ...tables import dims

TYPES = caffe_pb2.ResampleParameter


class _Resized(Layer):
    """A layer whose top has the planes of its options, or of its second bottom. The fork has no gradient."""

    bottoms: ClassVar[tuple[int, int | None]] = (1, 2)
    differentiable = (False,)
    planes_traceable = False
    fields: ClassVar[tuple[str, str]]  # of height and width

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        (field,) = self.option_fields()
        options = getattr(param, field)
        for shape in bottom_shapes:
            if len(shape) != 4:
                raise self.error(f"needs bottoms (N, C, H, W), not of shape {dims(shape)}")
        height, width = (getattr(options, name) for name in self.fields)
        self.plane = None if len(bottom_shapes) == 2 else (int(height), int(width))
        if self.plane is not None and min(self.plane) < 1:
            raise self.error(
                f"needs {field}.{self.fields[0]} and {self.fields[1]}, or a second bottom of the wanted size"
            )

    def size(self, like: Tensor | None) -> tuple[int, int]:
        """The height and the width of the top."""
        if self.plane is not None:
            return self.plane
        assert like is not None
        return like.shape[2], like.shape[3]


def _rounded(x: Tensor) -> Tensor:
    """The nearest whole numbers, halves away from zero."""
    return torch.where(x < 0, (x - 0.5).ceil(), (x + 0.5).floor())


@register("Resample", fork=("flownet2", "liteflownet", "pwcnet"))
class Resample(_Resized):
    """(N, C, H, W) to (N, C, H', W') by ``type``: LINEAR, CUBIC (with -0.5) or NEAREST; AREA exists only in the fork's proto.

    The centres of places are aligned; in the fork their offset along each axis is half the factor of the *other* axis. Where
    the planes get smaller, ``antialias`` makes the kernels wider. Weights are divided by their sum, also at the borders.
    """

    options = ("resample_param",)
    fields = ("height", "width")
    inert_options = frozenset({"factor"})  # read by nothing in the fork

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.kind, self.antialias = param.resample_param.type, param.resample_param.antialias
        if self.kind == TYPES.AREA:
            raise self.error("resample_param.type: AREA; the fork knows only NEAREST, LINEAR and CUBIC")

    def forward(self, x: Tensor, like: Tensor | None = None) -> Tensor:
        """Return (N, C, H', W')."""
        size = self.size(like)
        if x.is_meta:
            return x.new_empty(*x.shape[:2], *size)
        x = x.detach()
        sides = (x.shape[2], x.shape[3])
        _, centres = self._centres(sides, size, x.device)
        if self.kind == TYPES.NEAREST:
            row, column = (_rounded(centre).long() for centre in centres)
            place = row[:, None] * sides[1] + column  # beyond a row the fork reads the next one
            plane = torch.arange(x.shape[0] * x.shape[1], device=x.device)[:, None, None] * (sides[0] * sides[1])
            return x.flatten()[(plane + place).clamp(0, x.numel() - 1)].view(*x.shape[:2], *size)
        down, across = self.weights(sides, size, x.device)
        return down.to(x) @ x @ across.to(x).T

    @staticmethod
    def _centres(sides: Sequence[int], size: Sequence[int], device: torch.device) -> tuple[list[float], list[Tensor]]:
        """By how much each side gets smaller, and where the places of the top lie on it."""
        factors = [side / new for side, new in zip(sides, size, strict=True)]
        centres = [
            torch.arange(new, device=device, dtype=torch.float32) * factor + other / 2 - 0.5
            for new, factor, other in zip(size, factors, factors[::-1], strict=True)
        ]
        return factors, centres

    def weights(self, sides: Sequence[int], size: Sequence[int], device: torch.device) -> list[Tensor]:
        """How much each place of the planes gives to each row, and to each column, of the top."""
        factors, centres = self._centres(sides, size, device)
        wider = self.antialias and max(factors) > 1
        return [
            self._weights(centre, side, factor, wider)
            for centre, side, factor in zip(centres, sides, factors, strict=True)
        ]

    def _weights(self, centre: Tensor, side: int, factor: float, wider: bool) -> Tensor:
        """How much each of ``side`` places gives to each centre: (centres, side), rows that add up to 1, or to 0."""
        scale = 1 / factor if wider else 1.0
        reach = 2 if factor < 1 else math.ceil((4 if self.kind == TYPES.CUBIC else 2) / scale)
        place = torch.arange(side, device=centre.device, dtype=centre.dtype)
        x = (scale * (centre[:, None] - place)).abs()
        if self.kind == TYPES.CUBIC:
            inner, outer = x * x * (1.5 * x - 2.5) + 1, x * (x * (-0.5 * x + 2.5) - 4) + 2
            weight = torch.where(x <= 1, inner, torch.where(x < 2, outer, 0))
        else:
            weight = (1 - x).clamp(min=0)
        weight = torch.where((place - _rounded(centre)[:, None]).abs() <= reach, weight, 0)
        total = weight.sum(1, keepdim=True)
        return torch.where(total == 0, 0, weight / torch.where(total == 0, 1, total))


@register("Downsample", fork=("flownet2", "liteflownet", "pwcnet"))
class Downsample(_Resized):
    """(N, C, H, W) to (N, C, H', W'): weighted means, with weights that fall linearly to 0 over one step, and aligned corners.

    Values that are not numbers are left out; where they have more than half of the weight of the others, the top is none.
    """

    options = ("downsample_param",)
    fields = ("top_height", "top_width")

    def forward(self, x: Tensor, like: Tensor | None = None) -> Tensor:
        """Return (N, C, H', W').

        Raises:
            LayerError: the planes, or what they become, have a side of 1.
        """
        size = self.size(like)
        if x.is_meta:
            return x.new_empty(*x.shape[:2], *size)
        x = x.detach()
        sides = (x.shape[2], x.shape[3])
        if size == sides:
            return x.clone()
        if min(size) < 2 or min(sides) < 2:
            raise self.error(f"cannot make planes of {dims(size)} of {dims(sides)}: a step has no length in the fork")
        down, across = (each.to(x.dtype) for each in self.weights(sides, size, x.device))
        missing = x.isnan()
        values = down @ torch.where(missing, 0, x) @ across.T
        known, unknown = (down @ each.to(x.dtype) @ across.T for each in (~missing, missing))
        return torch.where(unknown / known > 0.5, math.nan, values / known)

    def weights(self, sides: Sequence[int], size: Sequence[int], device: torch.device) -> list[Tensor]:
        """How much each place of the planes gives to each row, and to each column, of the top."""
        return [self._weights(new, side, device) for new, side in zip(size, sides, strict=True)]

    def _weights(self, new: int, side: int, device: torch.device) -> Tensor:
        step = (side - 1) / (new - 1)
        centre = torch.arange(new, device=device, dtype=torch.float32) / (new - 1) * (side - 1)
        place = torch.arange(side, device=device, dtype=torch.float32)
        weight = (1 - (place - centre[:, None]).abs() / step).clamp(min=0)
        return torch.where((place - _rounded(centre)[:, None]).abs() <= math.ceil(step), weight, 0)


@register("Accum", fork=("flownet2", "pwcnet"))
class Accum(Layer):
    """Concatenates the channels of all bottoms, each enlarged by bilinear interpolation with aligned corners.

    The planes are as large as the largest height and width, or as ``top_height`` and ``top_width`` where both are larger. With
    ``size_divisible_by`` they are rounded up to multiples, if that makes both larger. With ``have_reference`` the last bottom
    gives only the size.
    """

    options = ("accum_param",)
    bottoms: ClassVar[tuple[int, int | None]] = (1, None)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.accum_param
        self.reference = options.have_reference
        self.divisor = options.size_divisible_by if options.HasField("size_divisible_by") else None
        self.plane = (options.top_height, options.top_width)
        if self.reference and len(bottom_shapes) < 2:
            raise self.error("accum_param.have_reference: needs at least 2 bottoms, of which the last gives the size")
        if self.divisor == 0:
            raise self.error("accum_param.size_divisible_by: 0 must be at least 1")
        if any(len(shape) != 4 or shape[0] != bottom_shapes[0][0] for shape in bottom_shapes):
            raise self.error("needs bottoms (N, C, H, W) with the same number of images")

    def forward(self, *bottoms: Tensor) -> Tensor:
        """Return (N, channels of all, H', W')."""
        planes = [(x.shape[2], x.shape[3]) for x in bottoms]
        if self.reference:
            bottoms, size = bottoms[:-1], planes[-1]
        else:
            size = (max(height for height, _ in planes), max(width for _, width in planes))
            wanted = self.plane
            if self.divisor:
                wanted = (-(-size[0] // self.divisor) * self.divisor, -(-size[1] // self.divisor) * self.divisor)
            if wanted[0] > size[0] and wanted[1] > size[1]:
                size = wanted
        return torch.cat([F.interpolate(x, size, mode="bilinear", align_corners=True) for x in bottoms], 1)

"""ImResize and Nms, as realtime pose estimation has them (caffe_rtpose, cpm/layers/imresize_layer.cu and nms_layer.cu).

They are the kernels for GPUs: what the fork does on the CPU differs, and is not what its nets were made for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.registry import register
from ...tables import dims

REACH = 3  # pixels to each side whose scores place a peak


@register("ImResize", fork="rtpose")
class ImResize(Layer):
    """The mean of all items, each resized by cubic interpolation: (N, C, H, W) to (1, C, PH, PW).

    The size is ``factor`` times the bottom's, or ``target_spatial_height`` × ``target_spatial_width``. Item n is the picture
    at the scale ``start_scale`` - n · ``scale_gap``, with a border that is left out. There is no gradient, as in the fork.
    """

    options = ("imresize_param",)
    differentiable = (False,)
    planes_traceable = False

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.imresize_param
        shape = tuple(bottom_shapes[0])
        if len(shape) != 4:
            raise self.error(f"resizes a blob of four axes, not {dims(shape)}")
        self.factor: float = options.factor
        self.target: tuple[int, int] = (options.target_spatial_height, options.target_spatial_width)
        self.start, self.gap = options.start_scale, options.scale_gap
        self._check(shape)

    def _check(self, shape: Sequence[int]) -> None:
        """Raise unless top and scaled items have places, for a bottom of this shape: each further item may be smaller."""
        height, width = self._size(shape)
        if height < 1 or width < 1:
            raise self.error(
                f"imresize_param makes a top of {height} × {width} (height × width); it must be at least 1 × 1"
            )
        for item in range(shape[0]):
            if min(side - 2 * self.pad(side, item) for side in shape[2:]) < 1:
                raise self.error(f"start_scale {self.start:g} and scale_gap {self.gap:g} leave nothing of item {item}")
            if min(self.pad(side, item) for side in shape[2:]) < 0:
                raise self.error(
                    f"start_scale {self.start:g} makes item {item} larger than its bottom; it is at most 1"
                )

    def _size(self, shape: Sequence[int]) -> tuple[int, int]:
        if self.factor:
            return int(shape[2] * self.factor), int(shape[3] * self.factor)
        return self.target

    def pad(self, side: int, item: int) -> int:
        """The border of an item at each end of a side."""
        return int(side // 2 * (1 - self.start + item * self.gap) // 1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = self._size(x.shape)
        if x.is_meta:
            return x.new_empty((1, x.shape[1], height, width))
        self._check(x.shape)
        total = x.new_zeros((x.shape[1], height, width))
        items = x.detach().split(1) if self.gap else [x.detach()]  # without a gap all are resized alike
        for item, planes in enumerate(items):
            rows, down = self.neighbours(planes.shape[2], self.pad(planes.shape[2], item), height, x)
            columns, right = self.neighbours(planes.shape[3], self.pad(planes.shape[3], item), width, x)
            across = _cubic([planes[..., at] for at in columns], right)
            total = total + _cubic([across[:, :, at] for at in rows], down[:, None]).sum(0)
        return (total / x.shape[0])[None]

    @staticmethod
    def neighbours(side: int, pad: int, target: int, like: Tensor) -> tuple[list[Tensor], Tensor]:
        """The four places on a side that each place of the top is between, and how far it is from the second one."""
        inside = side - 2 * pad
        ratio = torch.tensor(target / inside, dtype=torch.float32, device=like.device)
        places = torch.arange(target, dtype=torch.float32, device=like.device)
        on = (places - (ratio / 2 - 0.5)) * torch.tensor(inside / target, dtype=torch.float32, device=like.device)
        second = (on + 1e-5).trunc().long().clamp(min=0)
        first = (second - 1).clamp(min=0)
        third = (second + 1).clamp(max=inside - 1)
        fourth = (third + 1).clamp(max=inside - 1)
        return [at + pad for at in (first, second, third, fourth)], (on - second).to(like.dtype)


def _cubic(values: Sequence[Tensor], far: Tensor) -> Tensor:
    a, b, c, d = values
    return (
        (-0.5 * a + 1.5 * b - 1.5 * c + 0.5 * d) * far * far * far
        + (a - 2.5 * b + 2.0 * c - 0.5 * d) * far * far
        + (-0.5 * a + 0.5 * c) * far
        + b
    )


@register("Nms", fork="rtpose")
class Nms(Layer):
    """The peaks of the first ``num_parts`` planes: (N, ``num_parts``, 1 + ``max_peaks``, 3).

    Row 0 holds how many peaks a plane has, the others x, y and the value of one each, in order of their places, at most
    ``max_peaks``. A peak is above ``threshold`` and all eight neighbours; its place is the mean of the 7 × 7 places around it,
    weighted by their values above 0. Unused rows are 0. There is no gradient, as in the fork.
    """

    options = ("nms_param",)
    inert_options = frozenset({"num_peak"})
    differentiable = (False,)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options, shape = param.nms_param, tuple(bottom_shapes[0])
        self.threshold, self.parts, self.most = options.threshold, options.num_parts, options.max_peaks
        if len(shape) != 4 or not 0 < self.parts <= shape[1]:
            raise self.error(
                f"nms_param.num_parts: {self.parts} must be at least 1 and at most the channels of {dims(shape)}"
            )

    def forward(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        if x.is_meta or min(height, width) < 3:
            return x.new_zeros((n, self.parts, 1 + self.most, 3))
        x = x.detach()
        planes = x.reshape(-1, height, width)[
            : n * self.parts
        ]  # the fork counts only these planes from item to item, too
        inner = planes[:, 1:-1, 1:-1]
        around = [
            planes[:, 1 + dy : height - 1 + dy, 1 + dx : width - 1 + dx]
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
            if dy or dx
        ]
        peaks = ((inner > self.threshold) & torch.stack([inner > other for other in around]).all(0)).flatten(1)
        size = (height - 2) * (width - 2)
        first, place = (peaks * torch.arange(size, 0, -1, device=x.device)).topk(min(self.most, size), 1)
        found, row, column = first > 0, place // (width - 2) + 1, place % (width - 2) + 1
        steps = torch.arange(-REACH, REACH + 1, device=x.device)
        ys, xs = row[..., None, None] + steps[:, None], column[..., None, None] + steps
        flat = x.reshape(-1)
        plane = torch.arange(planes.shape[0], device=x.device)[:, None]
        at = (plane[..., None, None] * height + ys) * width + xs
        counted = (
            (ys > 0) & (ys < width) & (xs > 0) & (xs < width) & (at < flat.shape[0])
        )  # the fork bounds rows by the width, too
        scores = torch.where(counted, flat[at.clamp(min=0).clamp(max=flat.shape[0] - 1)], 0).clamp(min=0)
        total = scores.sum((2, 3))
        means = [(where * scores).sum((2, 3)) / total for where in (xs, ys)]
        values = torch.stack([*means, planes[plane, row, column]], 2)
        rows = torch.where(found[..., None], values, 0)
        top = F.pad(rows, (0, 0, 1, self.most - rows.shape[1]))
        counts = F.pad(peaks.sum(1)[:, None, None].to(top.dtype), (0, 2, 0, self.most))
        return (top + counts).reshape(n, self.parts, 1 + self.most, 3)

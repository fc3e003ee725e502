"""ImResize and Nms, as realtime pose estimation has them (caffe_rtpose, cpm/layers/imresize_layer.cu and nms_layer.cu).

They are the kernels for GPUs: what the fork does on the CPU differs, and is not what its nets were made for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.registry import register
from ...tables import dims

_REACH = 3  # pixels to each side whose scores place a peak


@register("ImResize", fork="rtpose")
class ImResize(Layer):
    """The mean of all items after each was resized by cubic interpolation: (N, C, H, W) to (1, C, PH, PW).

    The size is ``factor`` times the bottom's, or ``target_spatial_height`` × ``target_spatial_width``. Item n is the picture
    at the scale ``start_scale`` - n · ``scale_gap``, with a border that is left out. There is no gradient, as in the fork.
    """

    options = ("imresize_param",)
    differentiable = (False,)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.imresize_param
        shape = tuple(bottom_shapes[0])
        if len(shape) != 4:
            raise self.error(f"resizes a blob of four axes, not {dims(shape)}")
        self.factor: float = options.factor
        self.target: tuple[int, int] = (options.target_spatial_height, options.target_spatial_width)
        self.start, self.gap = options.start_scale, options.scale_gap
        height, width = self._size(shape)
        if height < 1 or width < 1:
            raise self.error(
                f"imresize_param makes a top of {height} × {width} (height × width); it must be at least 1 × 1"
            )
        for item in range(shape[0]):
            if min(side - 2 * self._pad(side, item) for side in shape[2:]) < 1:
                raise self.error(f"start_scale {self.start:g} and scale_gap {self.gap:g} leave nothing of item {item}")
            if min(self._pad(side, item) for side in shape[2:]) < 0:
                raise self.error(
                    f"start_scale {self.start:g} makes item {item} larger than its bottom; it is at most 1"
                )

    def _size(self, shape: Sequence[int]) -> tuple[int, int]:
        if self.factor:
            return int(shape[2] * self.factor), int(shape[3] * self.factor)
        return self.target

    def _pad(self, side: int, item: int) -> int:
        """The border of an item at each end of a side."""
        return int(side // 2 * (1 - self.start + item * self.gap) // 1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = self._size(x.shape)
        if x.is_meta:
            return x.new_empty((1, x.shape[1], height, width))
        total = x.new_zeros((x.shape[1], height, width))
        for item, planes in enumerate(x.detach()):
            rows, down = self._neighbours(planes.shape[1], self._pad(planes.shape[1], item), height, x)
            columns, right = self._neighbours(planes.shape[2], self._pad(planes.shape[2], item), width, x)
            across = _cubic([planes[:, :, at] for at in columns], right)
            total += _cubic([across[:, at] for at in rows], down[:, None])
        return (total / len(x))[None]

    @staticmethod
    def _neighbours(side: int, pad: int, target: int, like: Tensor) -> tuple[list[Tensor], Tensor]:
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
    traceable = False

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
        top = x.new_zeros((n * self.parts, 1 + self.most, 3))
        if x.is_meta or min(height, width) < 3:
            return top.view(n, self.parts, 1 + self.most, 3)
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
        peaks = (inner > self.threshold) & torch.stack([inner > other for other in around]).all(0)
        counts = peaks.flatten(1).sum(1)
        top[:, 0, 0] = counts.to(top.dtype)
        plane, row, column = peaks.nonzero().T
        rank = torch.arange(len(plane), device=x.device) - (counts.cumsum(0) - counts)[plane]
        plane, row, column, rank = (each[rank < self.most] for each in (plane, row + 1, column + 1, rank))
        steps = torch.arange(-_REACH, _REACH + 1, device=x.device)
        ys, xs = row[:, None, None] + steps[:, None], column[:, None, None] + steps
        flat = x.reshape(-1)
        at = (plane[:, None, None] * height + ys) * width + xs
        counted = (
            (ys > 0) & (ys < width) & (xs > 0) & (xs < width) & (at < len(flat))
        )  # the fork bounds rows by the width, too
        scores = torch.where(counted, flat[at.clamp(0, len(flat) - 1)], 0).clamp(min=0)
        total = scores.sum((1, 2))
        place = [((where * scores).sum((1, 2)) / total) for where in (xs, ys)]
        top[plane, rank + 1] = torch.stack([*place, planes[plane, row, column]], 1)
        return top.view(n, self.parts, 1 + self.most, 3)

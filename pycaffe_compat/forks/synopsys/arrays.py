"""TensorFlow's operations on arrays, as synopsys-caffe has them (layers of these names; space_to_batch_nd_layer.cpp, …)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.registry import register
from ...tables import dims


class Broadcasting(Layer):
    """Two bottoms, or one and a blob, one with the other at each place; an axis of 1, or none, is as long as the other's."""

    bottoms: ClassVar[tuple[int, int | None]] = (1, 2)

    def check_shapes(self, one: Sequence[int], other: Sequence[int]) -> None:
        """Raise a ``LayerError`` unless arrays of these shapes go together."""
        try:
            torch.broadcast_shapes(tuple(one), tuple(other))
        except RuntimeError:
            raise self.error(
                f"its arrays of {dims(one)} and {dims(other)} do not go together: axes, from the last one on, must be equal or 1"
            ) from None


@register("Mul", fork="synopsys")
class Mul(Broadcasting):
    """The product of two bottoms, or of one and a blob of shape ``mul_shape``."""

    blobs_declared = ("factor",)
    blobs_optional = frozenset({"factor"})
    factor: Tensor

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        other = tuple(bottom_shapes[1]) if len(bottom_shapes) > 1 else tuple(param.mul_param.mul_shape)
        self.check_shapes(bottom_shapes[0], other)
        if len(bottom_shapes) == 1:
            self.add_blob("factor", other)

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        return x * (self.factor if other is None else other)


@register("Add", fork="synopsys")
class Add(Broadcasting):
    """The sum of two bottoms."""

    options = ()
    bottoms: ClassVar[tuple[int, int | None]] = (2, 2)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.check_shapes(*bottom_shapes)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        return x + other


def _blocks(layer: Layer, sizes: Sequence[int], sides: Sequence[int], name: str, shape: Shape) -> None:
    if not sizes or min(sizes) < 1 or len(sides) != 2 * len(sizes) or len(shape) <= len(sizes):
        raise layer.error(
            f"needs block_shape, at least 1 on each of at most {max(len(shape) - 1, 0)} axes, and two {name} for each; it has "
            f"{list(sizes)} and {list(sides)}"
        )


@register("SpaceToBatchND", fork="synopsys")
class SpaceToBatchND(Layer):
    """(N, S, …) to (N * B, S', …): each axis from the second on padded by ``paddings`` and dealt out to ``block_shape`` images.

    Images of one place of a block follow each other, then those of the next place.
    """

    options = ("space_to_batch_nd_param",)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options, shape = param.space_to_batch_nd_param, bottom_shapes[0]
        self.block, self.sides = list(options.block_shape), list(options.paddings)
        _blocks(self, self.block, self.sides, "paddings", shape)
        for axis, size in enumerate(self.block):
            padded = shape[axis + 1] + sum(self.sides[2 * axis : 2 * axis + 2])
            if padded % size:
                raise self.error(f"block_shape: {size} must divide axis {axis + 1}, {padded} with its paddings")

    def forward(self, x: Tensor) -> Tensor:
        pads = [each for i in reversed(range(len(self.block))) for each in self.sides[2 * i : 2 * i + 2]]
        x = F.pad(x, [0, 0] * (x.dim() - 1 - len(self.block)) + pads)
        split = [x.shape[0]]
        for size, block in zip(x.shape[1:], self.block, strict=False):
            split += [size // block, block]
        rest = x.shape[1 + len(self.block) :]
        n = len(self.block)
        y = x.reshape(*split, *rest).permute(
            *range(2, 2 * n + 1, 2), 0, *range(1, 2 * n + 1, 2), *range(2 * n + 1, 2 * n + 1 + len(rest))
        )
        return y.reshape(x.shape[0] * math.prod(self.block), *split[1::2], *rest)


@register("BatchToSpaceND", fork="synopsys")
class BatchToSpaceND(Layer):
    """The way back of SpaceToBatchND; ``crops`` are taken off."""

    options = ("batch_to_space_nd_param",)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options, shape = param.batch_to_space_nd_param, bottom_shapes[0]
        self.block, self.sides = list(options.block_shape), list(options.crops)
        _blocks(self, self.block, self.sides, "crops", shape)
        if shape[0] % math.prod(self.block):
            raise self.error(f"block_shape: {dims(self.block)} must divide the {shape[0]} images of its bottom")
        for axis, size in enumerate(self.block):
            if shape[axis + 1] * size < sum(self.sides[2 * axis : 2 * axis + 2]):
                raise self.error(f"crops leave nothing of axis {axis + 1}, {shape[axis + 1] * size} long")

    def forward(self, x: Tensor) -> Tensor:
        n = len(self.block)
        images = x.shape[0] // math.prod(self.block)
        rest = x.shape[1 + n :]
        order = [n, *(axis for i in range(n) for axis in (n + 1 + i, i)), *range(2 * n + 1, 2 * n + 1 + len(rest))]
        y = x.reshape(*self.block, images, *x.shape[1:]).permute(*order)
        y = y.reshape(images, *(s * b for s, b in zip(x.shape[1:], self.block, strict=False)), *rest)
        for axis in range(n):
            first, last = self.sides[2 * axis : 2 * axis + 2]
            y = y.narrow(axis + 1, first, y.shape[axis + 1] - first - last)
        return y.contiguous()

"""Layers that move numbers without changing them: other shapes, parts, repetitions.

Source: Caffe's layers of these names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..tables import dims
from .base import Layer, Shape, count
from .registry import register


def _one_axis(layer: Layer, options: Any, legacy: str, dims: int) -> int:
    """The axis given by ``axis``, or by the older field ``legacy``, which cannot be negative."""
    if not options.HasField(legacy):
        return layer.canonical_axis(options.axis, dims)
    if options.HasField("axis"):
        raise layer.error(f"has both axis and {legacy}; give one of them")
    return layer.canonical_axis(getattr(options, legacy), dims, legacy)


@register("Concat")
class Concat(Layer):
    """The bottoms one after another along ``axis`` (or ``concat_dim``)."""

    bottoms = (1, None)
    passes_places = True

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        shape = tuple(bottom_shapes[0])
        self.axis = _one_axis(self, param.concat_param, "concat_dim", len(shape))
        for i, other in enumerate(map(tuple, bottom_shapes)):
            same = len(other) == len(shape) and all(other[a] == shape[a] for a in range(len(shape)) if a != self.axis)
            if not same:
                raise self.error(
                    f"bottom {i} has shape {dims(other)}, bottom 0 {dims(shape)}: only axis {self.axis} may differ"
                )

    def forward(self, *bottoms: Tensor) -> Tensor:
        return torch.cat(bottoms, self.axis)


@register("Slice")
class Slice(Layer):
    """Cuts the bottom along ``axis`` (or ``slice_dim``), at each ``slice_point`` or into equal parts."""

    tops = (1, None)
    passes_places = True

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.axis = _one_axis(self, param.slice_param, "slice_dim", len(bottom_shapes[0]))
        self.points = list(param.slice_param.slice_point)
        if self.points and len(self.points) != self.n_tops - 1:
            raise self.error(f"has {len(self.points)} slice_point and {self.n_tops} tops: it needs one fewer than tops")
        self._check_size(bottom_shapes[0][self.axis])

    def _check_size(self, size: int) -> None:
        if not self.points:
            if size % self.n_tops:
                raise self.error(
                    f"cannot cut the {size} of axis {self.axis} into {self.n_tops} equal parts; give slice_point"
                )
        elif any(a >= b for a, b in zip([0, *self.points], [*self.points, size], strict=True)):
            raise self.error(f"slice_point {self.points} must increase, and be 1 … {size - 1} on axis {self.axis}")

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        self._check_size(x.shape[self.axis])
        return x.tensor_split(self.points or self.n_tops, self.axis)


@register("Flatten")
class Flatten(Layer):
    """Merges the axes ``axis`` to ``end_axis`` into one."""

    shares_memory = True

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        dims = len(bottom_shapes[0])
        self.axis = self.canonical_axis(param.flatten_param.axis, dims)
        self.end_axis = self.canonical_axis(param.flatten_param.end_axis, dims, "end_axis")
        if self.axis > self.end_axis + 1:
            raise self.error(f"axis {self.axis} comes after end_axis {self.end_axis}")

    def forward(self, x: Tensor) -> Tensor:
        shape = x.shape
        end = self.end_axis + 1
        return x.reshape(*shape[: self.axis], count(shape, self.axis, end), *shape[end:])


@register("Reshape")
class Reshape(Layer):
    """Replaces the axes from ``axis`` on (``num_axes`` of them) by ``shape``: 0 copies a size, one -1 is inferred."""

    shares_memory = True

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options, dims = param.reshape_param, len(bottom_shapes[0])
        self.start = options.axis if options.axis >= 0 else dims + 1 + options.axis
        if not 0 <= self.start <= dims:
            raise self.error(f"reshape_param.axis: {options.axis} must be {-dims - 1} to {dims} for {dims} axes")
        if options.num_axes < -1:
            raise self.error(f"reshape_param.num_axes: {options.num_axes} must be at least -1, for all axes")
        self.end = dims if options.num_axes == -1 else self.start + options.num_axes
        if self.end > dims:
            raise self.error(
                f"reshape_param.axis: {options.axis} and num_axes: {options.num_axes} reach past its {dims} axes"
            )
        self.dims = list(options.shape.dim)
        if any(d < -1 for d in self.dims) or self.dims.count(-1) > 1:
            raise self.error(f"reshape_param.shape {self.dims}: a dim is a size, 0 (copy it), or once -1 (infer it)")
        self._target(tuple(bottom_shapes[0]))

    def _target(self, shape: Shape) -> list[int]:
        """The shape of the top of a bottom of ``shape``."""
        middle = []
        for i, dim in enumerate(self.dims):
            if dim == 0 and self.start + i >= len(shape):
                raise self.error(f"reshape_param.shape {self.dims}: {dims(shape)} has no axis to copy for dim {i}")
            middle.append(dim or shape[self.start + i])
        whole = [*shape[: self.start], *middle, *shape[self.end :]]
        if -1 in whole:
            known, total = -count(whole), count(shape)
            whole[whole.index(-1)] = total // known if known and total % known == 0 else -1
        if count(whole) != count(shape) or -1 in whole:
            raise self.error(
                f"a bottom of shape {dims(shape)} has {count(shape)} elements; it cannot become a blob of {dims(whole)}"
            )
        return whole

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(self._target(x.shape))


@register("Tile")
class Tile(Layer):
    """``tiles`` copies of the bottom, one after another along ``axis``."""

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        dims = len(bottom_shapes[0])
        axis = self.canonical_axis(param.tile_param.axis, dims)
        if param.tile_param.tiles < 1:
            raise self.error(f"tile_param.tiles: {param.tile_param.tiles} must be at least 1")
        self.repeats = [param.tile_param.tiles if i == axis else 1 for i in range(dims)]

    def forward(self, x: Tensor) -> Tensor:
        return x.repeat(self.repeats)


@register("Crop")
class Crop(Layer):
    """Crops the first bottom's axes from ``axis`` on to the second's sizes, from ``offset`` (one for all, or one each)."""

    bottoms = (2, 2)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        shape, reference = (tuple(s) for s in bottom_shapes)
        self.axis = self.canonical_axis(param.crop_param.axis, len(shape))
        if len(reference) != len(shape):
            raise self.error(
                f"both bottoms must have the same number of axes, but they are {dims(shape)} and {dims(reference)}"
            )
        cut, offsets = len(shape) - self.axis, tuple(param.crop_param.offset)
        if len(offsets) > 1 and len(offsets) != cut:
            raise self.error(f"offset is given {len(offsets)} times; from axis {self.axis} on it is 1 or {cut} times")
        self.offsets = offsets if len(offsets) > 1 else (offsets or (0,)) * cut

    def forward(self, x: Tensor, reference: Tensor) -> Tensor:
        for axis, offset in enumerate(self.offsets, self.axis):
            size = reference.shape[axis]
            if not torch.compiler.is_compiling() and offset + size > x.shape[axis]:
                raise self.error(f"cannot crop {size} from offset {offset} out of the {x.shape[axis]} of axis {axis}")
            x = x.narrow(axis, offset, size)
        return x

"""Bins: boxes of cells in the planes of a blob, of which the poolings of regions take a maximum or a mean."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...layers.base import Layer
from ...tables import dims

_FARTHEST = 2.0**30  # coordinates are cut there, where Caffe's 32-bit integers would soon overflow
_FEW = 6  # a cell that is looked up costs as much as so many cells of a map that is computed whole
_LOW = 0xFFFFFFFF


class Bins(NamedTuple):
    """For each of R regions a grid of bins, which may overlap, and may be empty.

    Attributes:
        images: which image each region is in, (R,).
        first, stop: for each axis of the planes, the first cell of each bin and the one after its last, (R, bins) each,
            within the plane. A bin whose ``stop`` is not above its ``first`` is empty.
    """

    images: Tensor
    first: Sequence[Tensor]
    stop: Sequence[Tensor]

    def grid(self, each: Sequence[Tensor]) -> list[Tensor]:
        """Broadcast one (R, bins) tensor an axis to the whole grid, (R, bins, bins, …)."""
        axes = len(each)
        views = [x.view(x.shape[0], *(x.shape[1] if i == k else 1 for i in range(axes))) for k, x in enumerate(each)]
        return list(torch.broadcast_tensors(*views))

    def sizes(self) -> list[Tensor]:
        """The lengths of all bins on each axis, flat."""
        return [
            x.flatten() for x in self.grid([(b - a).clamp(min=0) for a, b in zip(self.first, self.stop, strict=True)])
        ]

    def origins(self, sides: Sequence[int | Tensor]) -> Tensor:
        """The number of the first cell of all bins, flat; ``sides`` are the lengths of the axes, or one for each bin."""
        firsts = [x.flatten() for x in self.grid(self.first)]
        place = self.images.repeat_interleave(len(firsts[0]) // max(1, len(self.images)))
        for first, side in zip(firsts, sides, strict=True):
            place = place * side + first
        return place

    def cells(self, sides: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The numbers of all cells of all bins, bin by bin and row by row, and where each bin begins among them.

        Args:
            sides: the lengths of the planes' axes.
        """
        sizes = self.sizes()
        number = torch.stack(sizes).prod(0)
        start = number.cumsum(0) - number
        of = torch.repeat_interleave(number)
        rest = torch.arange(len(of), device=of.device) - start[of]
        place, stride = self.origins(sides)[of], 1
        for size, side in zip(reversed(sizes), reversed(sides), strict=True):
            mine = size[of]
            place += rest % mine * stride
            rest = rest.div(mine, rounding_mode="floor")
            stride *= side
        return place, start


def tracing() -> bool:
    """Whether PyTorch records what is computed now, for regions that are others."""
    return torch.jit.is_tracing() or torch.compiler.is_compiling()


def rounded(x: Tensor) -> Tensor:
    """The nearest whole number, halves away from zero, as C's ``round``."""
    whole = x.trunc()
    return whole + torch.where((x - whole).abs() >= 0.5, x.sign(), 0)


def whole(x: Tensor) -> Tensor:
    """Numbers without a fraction as int64."""
    return x.clamp(-_FARTHEST, _FARTHEST).long()


def read_pooled(layer: Layer, options: Any, field: str) -> tuple[int, int]:
    """``pooled_h`` and ``pooled_w`` of the options, which are called ``field``.

    Raises:
        LayerError: one is missing or 0.
    """
    for name in ("pooled_h", "pooled_w"):
        if not getattr(options, name):
            raise layer.error(f"needs {field}.{name}, at least 1")
    return options.pooled_h, options.pooled_w


def read_regions(layer: Layer, x: Tensor, regions: Tensor) -> tuple[Tensor, Tensor]:
    """Return the image of each region (R,), and the coordinates (R, 2 for each axis of the planes), x's type if float64.

    Raises:
        LayerError: the blob has another shape, a region is of no image of the batch, or a coordinate is not finite.
    """
    axes = x.dim() - 2
    if not regions.dim() or regions[0:1].numel() != (1 + 2 * axes) * len(regions[0:1]):
        raise layer.error(
            f"needs regions of {1 + 2 * axes} numbers (the image and two corners), so a blob of shape R×{1 + 2 * axes}, "
            f"not {dims(regions.shape)}"
        )
    table = regions.detach().reshape(-1, 1 + 2 * axes)
    table = table.to(torch.float64 if x.dtype == torch.float64 else torch.float32)
    images, corners = table[:, 0].trunc(), table[:, 1:]
    if tracing():
        return images.long(), corners
    wrong = ~((images >= 0) & (images < len(x)) & corners.isfinite().all(1))
    if bool(wrong.any()):
        at = int(wrong.nonzero()[0])
        values = ", ".join(f"{value:g}" for value in table[at].tolist())
        raise layer.error(
            f"region {at} ({values}) is not in the batch: the first number is its image, 0 to {len(x) - 1}, the others "
            "are its corners"
        )
    return images.long(), corners


def largest(x: Tensor, bins: Bins, places: bool) -> Tensor:
    """The largest value of each bin in each channel, or where it is: of equal ones the first, row by row.

    Args:
        x: (N, …, C), channels last, without NaN.
        places: whether to return places.

    Returns:
        (bins, C): values, 0 for empty bins; or int64, the numbers of cells, counted in all of x, of any cell for empty bins.
    """
    if tracing() and not places:
        return _by_doubling(x, bins)
    if _many(x, bins):
        return _by_windows(x, bins, places)
    at, start = bins.cells(x.shape[1:-1])
    values, _, _, where = torch.embedding_bag(x.reshape(-1, x.shape[-1]), at, start, False, 2)
    return where.clamp_(min=0) if places else values  # on a GPU the place of an empty bin is -1


def _by_doubling(x: Tensor, bins: Bins) -> Tensor:
    """The largest values of windows of 1, 2, 4, … cells at every place; on each axis a bin is two of them, which overlap.

    Every region takes the same steps, which a trace needs. How many there are depends on the size of the planes.
    """
    windows, kind = x[None], torch.zeros_like(bins.images)  # one axis more, for the sizes of windows
    starts = []
    for axis, (first, stop, side) in enumerate(zip(bins.first, bins.stop, x.shape[1:-1], strict=True), 2):
        sizes = [2**power for power in range(int(side).bit_length())]
        grown = [windows]
        for size in sizes[:-1]:  # what comes round is in no window of a bin
            grown.append(torch.maximum(grown[-1], grown[-1].roll(-size, axis)))
        windows = torch.stack(grown, 1).flatten(0, 1)
        lengths = stop - first
        power = sum((lengths >= size).long() for size in sizes[1:]) + torch.zeros_like(lengths)
        last = stop - torch.tensor(sizes, device=x.device)[power]
        starts.append([each.clamp(0, side - 1) for each in (first, last)])
        kind = kind[..., None] * len(sizes) + power.view(power.shape[0], *(1,) * (axis - 2), -1)
    image = bins.images.view(-1, *(1,) * len(starts))
    places = [(kind, image, *bins.grid(each)) for each in itertools.product(*starts)]
    values = torch.stack([windows[place] for place in places]).amax(0)
    empty = torch.stack(bins.sizes()).amin(0) == 0
    return torch.where(empty[:, None], 0, values.flatten(0, -2))


def _many(x: Tensor, bins: Bins) -> bool:
    """Whether it is quicker to slide windows over whole planes than to visit the cells of every bin."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or x.dim() != 4 or not len(bins.images):
        return False
    tall, wide = bins.sizes()
    return int(tall.max()) * int(wide.max()) * x[..., 0].numel() < _FEW * int((tall * wide).sum())


def _by_windows(x: Tensor, bins: Bins, places: bool) -> Tensor:
    """The largest values of windows of every size at every place, each size from the one before; a bin is one of them.

    Where places are wanted, a value and its place are one number.
    """
    _, height, width, channels = x.shape
    planes = _keys(x) if places else x
    tall, wide = bins.sizes()
    at = bins.origins((height - tall + 1, width - wide + 1))
    found = torch.empty(len(at), channels, dtype=planes.dtype)
    sizes, order = torch.where(tall * wide > 0, wide * (height + 1) + tall, 0).sort()
    kinds, numbers = sizes.unique_consecutive(return_counts=True)
    members = {
        divmod(kind, height + 1): which
        for kind, which in zip(kinds.tolist(), order.split(numbers.tolist()), strict=True)
    }
    across = planes
    for w in range(1, max(w for w, _ in members) + 1):
        if w > 1:
            across = torch.maximum(across[:, :, :-1], planes[:, :, w - 1 :])
        window = across
        for h in range(1, max((tall for wide, tall in members if wide == w), default=0) + 1):
            if h > 1:
                window = torch.maximum(window[:, :-1], across[:, h - 1 :])
            if (w, h) in members:
                which = members[w, h]
                found[which] = window.reshape(-1, channels)[at[which]]
    if places:
        found.bitwise_not_().bitwise_and_(_LOW)
    if (0, 0) in members:
        found[members[0, 0]] = 0
    return found


def _keys(x: Tensor) -> Tensor:
    """int64 numbers in the order of the float32 values, of equal ones the first cell the largest; its number, inverted, is
    in the lower half."""
    bits = (x + 0.0).view(torch.int32)  # -0 becomes 0: they are equal
    high = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).long() << 32
    return high + (_LOW - torch.arange(x[..., 0].numel())).view(*x.shape[:-1], 1)

"""Poolings of regions."""

from __future__ import annotations

import torch
from torch import Tensor


def round_half_away(x: Tensor) -> Tensor:
    """The nearest whole number, as C rounds."""
    whole = x.trunc()
    return whole + torch.where((x - whole).abs() >= 0.5, x.sign(), 0)


def bin_edges(first: int, last: int, bins: int, side: int) -> list[tuple[int, int]]:
    """Where the bins of a region begin and end along one axis of a plane."""
    length = torch.tensor(float(max(last - first + 1, 1))) / bins
    starts = (torch.arange(bins) * length).floor().long() + first
    stops = (torch.arange(1, bins + 1) * length).ceil().long() + first
    edges = torch.stack([starts, stops], 1).clamp(0, side)
    return [(start, stop) for start, stop in edges.tolist()]


def roi_pool(
    x: Tensor,
    regions: Tensor,
    size: tuple[int, int],
    scale: float,
) -> Tensor:
    """The maximum of each bin of regions, which are image, left, top, right, bottom."""
    regions = regions.reshape(-1, 5)
    corners = round_half_away(regions[:, 1:] * scale).long().tolist()
    pooled = x.new_zeros(len(regions), x.shape[1], *size)
    for n, (left, top, right, bottom) in enumerate(corners):
        planes = x[int(regions[n, 0])]
        for i, (a, b) in enumerate(bin_edges(top, bottom, size[0], x.shape[2])):
            for j, (c, d) in enumerate(bin_edges(left, right, size[1], x.shape[3])):
                if a < b and c < d:
                    pooled[n, :, i, j] = planes[:, a:b, c:d].amax((1, 2))
    return pooled


def round_regions_up(regions: Tensor, scale: float) -> Tensor:
    """Regions in whole cells, halves rounded up."""
    regions = regions.reshape(-1, 5)
    cells = (regions[:, 1:] * scale + 0.5).floor()
    return torch.cat([regions[:, :1], cells], 1)


def pad_regions(regions: Tensor, ratio: float) -> Tensor:
    """Regions larger on each side by a part of their own sides."""
    image, low, high = regions.reshape(-1, 5).split([1, 2, 2], 1)
    pad = (high - low + 1) * ratio
    return torch.cat([image, low - pad, high + pad], 1)


def psroi_pool(x: Tensor, regions: Tensor, bins: int, scale: float) -> Tensor:
    """The mean of each bin of regions; every bin has channels of its own."""
    regions = regions.reshape(-1, 5)
    corners = round_half_away(regions[:, 1:])
    low, high = corners[:, :2] * scale, (corners[:, 2:] + 1) * scale
    length = ((high - low).clamp(min=0.1) / bins)[:, None]
    number = torch.arange(bins, device=x.device)[:, None]
    limit = low.new_tensor([x.shape[3], x.shape[2]])
    first = (number * length + low[:, None]).floor().clamp(min=0).minimum(limit).long()
    stop = ((number + 1) * length + low[:, None]).ceil().clamp(min=0).minimum(limit)
    stop = stop.long()
    planes = x.unflatten(1, (-1, bins, bins))
    pooled = x.new_zeros(len(regions), planes.shape[1], bins, bins)
    for n, image in enumerate(regions[:, 0].long().tolist()):
        for i in range(bins):
            rows = planes[image, :, i, :, first[n, i, 1] : stop[n, i, 1]]
            for j in range(bins):
                cells = rows[:, j, :, first[n, j, 0] : stop[n, j, 0]]
                if cells.numel():
                    pooled[n, :, i, j] = cells.mean((1, 2))
    return pooled


def sum_of_neighbours(
    x: Tensor,
    image: Tensor,
    sides: list[list[tuple[Tensor, Tensor]]],
) -> Tensor:
    """Sums (R, C, h, w) of four places, from weights and indices of rows, columns."""
    rows = x.movedim(1, -1)
    y = x.new_zeros(())
    for down, row in sides[0]:
        for across, column in sides[1]:
            values = rows[image.long()[:, :, None], row[:, :, None], column[:, None]]
            y = y + values * (down[:, :, None] * across[:, None])[..., None]
    return y.movedim(-1, 1)


def align_grid(
    x: Tensor,
    regions: Tensor,
    size: tuple[int, int],
    scale: float,
    pad_ratio: float = 0,
) -> Tensor:
    """Values at the corners of the bins of regions, each between four places."""
    image, low, high = regions.reshape(-1, 5).split([1, 2, 2], 1)
    pad = (high - low + 1) * pad_ratio
    low, high = (low - pad) * scale - 0.5, (high + pad) * scale - 0.5
    upright = (high > low).all(1, keepdim=True)
    sides = []
    for k, bins, side in ((1, size[0], x.shape[2]), (0, size[1], x.shape[3])):
        step = torch.arange(bins + 1, dtype=low.dtype, device=low.device)
        at = low[:, k, None] + step * ((high - low)[:, k, None] / bins)
        inside = (at >= -0.5) & (at <= side - 0.5) & upright
        first = at.floor().clamp(-1, side)
        rest = at.clamp(0, side - 1) - first.clamp(0, side - 1)
        places = [place.clamp(0, side - 1).long() for place in (first, first + 1)]
        shares = inside * (1 - rest), inside * rest
        sides.append(list(zip(shares, places, strict=True)))
    return sum_of_neighbours(x, image, sides)


def warp_regions(
    x: Tensor,
    regions: Tensor,
    size: tuple[int, int],
    scale: float,
) -> Tensor:
    """A grid of values of each region, each between four places."""
    image, corners = regions.reshape(-1, 5).split([1, 4], 1)
    low, high = round_half_away(corners * scale).split(2, 1)
    sides = []
    for k, bins, side in ((1, size[0], x.shape[2]), (0, size[1], x.shape[3])):
        step = torch.arange(bins, dtype=low.dtype, device=low.device)
        at = low[:, k, None] + step * ((high - low)[:, k, None].clamp(min=0) / bins)
        inside = (at >= -0.5) & (at <= side - 0.5)
        at = at.clamp(0, side - 1)
        first = at.long()
        shares = inside * (1 - (at - first)), inside * (at - first)
        places = first, (first + 1).clamp(max=side - 1)
        sides.append(list(zip(shares, places, strict=True)))
    return sum_of_neighbours(x, image, sides)


def align_bins(
    x: Tensor,
    regions: Tensor,
    bins: int,
    points: int,
    scale: float,
) -> Tensor:
    """The mean of points in each bin of regions; every bin has channels of its own."""
    image, low, high = regions.reshape(-1, 5).split([1, 2, 2], 1)
    low, high = low * scale, (high + 1) * scale
    length = (high - low).clamp(min=0.1) / bins
    sides = []
    for k, side in ((1, x.shape[2]), (0, x.shape[3])):
        edge = torch.arange(bins + 1, dtype=low.dtype, device=low.device)
        edges = (edge * length[:, k, None] + low[:, k, None]).clamp(0, side - 1)
        number = torch.arange(1, points + 1, dtype=low.dtype, device=low.device)
        step = (length[:, k, None] / (points + 1))[..., None]
        at = edges[:, :-1, None] + number * step
        inside = at < edges[:, 1:, None]
        at = at.clamp(max=side - 1)
        place = at.floor()
        shares = inside * (1 - (at - place)), inside * (at - place)
        places = [each.long() for each in (place, (place + 1).clamp(max=side - 1))]
        sides.append(list(zip(shares, places, strict=True)))
    planes = x.unflatten(1, (-1, bins, bins)).permute(0, 2, 3, 4, 5, 1)
    number = torch.arange(bins, device=x.device)
    image, i = image.long()[:, :, None, None, None], number[:, None, None, None]
    y = x.new_zeros(())
    for down, row in sides[0]:
        for across, column in sides[1]:
            place = row[:, :, None, :, None], column[:, None, :, None, :]
            values = planes[image, i, number[:, None, None], place[0], place[1]]
            weight = down[:, :, None, :, None] * across[:, None, :, None, :]
            y = y + (values * weight[..., None]).sum((3, 4))
    return (y / points**2).permute(0, 3, 1, 2)

"""Gaussian filters in a space of features, by the permutohedral lattice.

Adams, Baek, Davis: *Fast High-Dimensional Filtering Using the Permutohedral Lattice* (Eurographics 2010), as implemented in the
Caffe of CRF as RNN (torrvision/caffe-tvg, modified_permutohedral.cpp). Results are the same except for the order of sums.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import DataError

_MOST = 2**62  # vertices of the box around all of them, whose numbers must fit 64 bits


class Lattice:
    """The vertices around N points in d dimensions: each point lies in a simplex of d + 1 of them, with a weight for each.

    A filter spreads the values of the points to the vertices, blurs along each of the d + 1 axes, and gathers them again.

    Args:
        features: N × d, float32: the coordinates, in units of the standard deviation of the filter.

    Raises:
        DataError: a feature is not finite, or the points lie too far apart to number the vertices.
    """

    def __init__(self, features: Tensor) -> None:
        points, d = features.shape
        if not bool(torch.isfinite(features).all()):
            raise DataError("a feature is not finite")
        # the fork reads points by fours and fills up with zeros, whose vertices it keeps
        padded = torch.cat([features, features.new_zeros(1, d)]) if points % 4 else features
        base, rank, weights = _simplices(padded)
        keys = _vertices(base, rank)
        codes, steps = _numbered(keys, d)
        self.codes, vertex = torch.unique(codes, return_inverse=True)
        self.neighbours = [
            (_found(self.codes, self.codes + step), _found(self.codes, self.codes - step)) for step in steps
        ]
        self._vertex, self._weights = vertex[:points], weights[:points].contiguous()
        self._order = self._vertex.flatten().argsort(stable=True)
        self._point = self._order // (d + 1)
        counts = torch.bincount(self._vertex.flatten(), minlength=len(self.codes))
        self._starts = counts.cumsum(0) - counts
        self._share = 1 / (1 + 2.0**-d)

    def filter(self, values: Tensor, reverse: bool = False) -> Tensor:
        """Return the filtered values, N × C; ``reverse`` blurs the axes in the reverse order, which is the transpose."""
        weights = self._weights.to(values.dtype)
        spread = weights.flatten()[self._order]
        blurred = F.embedding_bag(self._point, values, self._starts, mode="sum", per_sample_weights=spread)
        for left, right in reversed(self.neighbours) if reverse else self.neighbours:
            around = torch.cat([blurred, blurred.new_zeros(1, blurred.shape[1])])  # the last stands for no neighbour
            blurred = blurred + 0.5 * (around[left] + around[right])
        return F.embedding_bag(self._vertex, blurred, mode="sum", per_sample_weights=weights) * self._share


def normalized(features: Tensor) -> tuple[Lattice, Tensor]:
    """Return a lattice, and 1 over what it makes of ones, N × 1; raises as :class:`Lattice`."""
    lattice = Lattice(features)
    ones = torch.ones(len(features), 1, device=features.device)
    return lattice, 1 / (lattice.filter(ones) + 1e-20)


def places(height: int, width: int, theta: float, device: torch.device) -> Tensor:
    """Return column and row of each pixel over ``theta``, row by row: features, N × 2."""
    rows, columns = torch.meshgrid(
        torch.arange(height, device=device).float(), torch.arange(width, device=device).float(), indexing="ij"
    )
    return torch.stack([columns.flatten(), rows.flatten()], 1) / theta


def colours(image: Tensor, place_theta: float, colour_theta: float) -> Tensor:
    """Return place and colour of each pixel of a picture, 3×H×W, over their thetas: features, N × 5."""
    own = (image / colour_theta).float().flatten(1).T
    return torch.cat([places(image.shape[1], image.shape[2], place_theta, image.device), own], 1)


class Filtered(torch.autograd.Function):
    """``Filtered.apply(values, lattice)`` is ``lattice.filter(values)``."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, lattice: Lattice) -> Tensor:
        ctx.lattice = lattice
        return lattice.filter(values)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return ctx.lattice.filter(grad, reverse=True), None


def _simplices(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The vertex of colour 0 of each point's simplex, the ranks of its differences to it, and the barycentric weights."""
    d = features.shape[1]
    spread = math.sqrt(2 / 3) * (d + 1)
    scales = torch.tensor([spread / math.sqrt((i + 2) * (i + 1)) for i in range(d)], device=features.device)
    scaled = features * scales
    total = torch.zeros_like(features[:, 0])
    elevated = [total] * (d + 1)
    for i in range(d, 0, -1):
        elevated[i] = total - i * scaled[:, i - 1]
        total = total + scaled[:, i - 1]
    elevated[0] = total
    position = torch.stack(elevated, 1)
    nearest = (position * torch.tensor(1 / (d + 1), dtype=position.dtype)).round()
    base, shift = nearest * (d + 1), nearest.sum(1, keepdim=True)
    apart = position - base
    rank = torch.zeros_like(position)
    for i in range(d):
        behind = (apart[:, i : i + 1] < apart[:, i + 1 :]).to(position.dtype)
        rank[:, i] += behind.sum(1)
        rank[:, i + 1 :] += 1 - behind
    rank += shift
    around = (d + 1.0) * ((rank < 0).to(rank.dtype) - (rank >= d + 1).to(rank.dtype))
    rank, base = (rank + around).long(), base + around
    share = (position - base) * torch.tensor(1 / (d + 1), dtype=position.dtype)
    weights = torch.zeros(len(features), d + 2, dtype=position.dtype, device=features.device)
    weights.scatter_add_(1, d - rank, share).scatter_add_(1, d - rank + 1, -share)
    weights[:, 0] += 1 + weights[:, d + 1]
    return base.long(), rank, weights[:, : d + 1]


def _vertices(base: Tensor, rank: Tensor) -> Tensor:
    """The coordinates of the d + 1 vertices of each simplex, N × (d + 1) × d; the last coordinate follows from the others."""
    d = base.shape[1] - 1
    steps = torch.arange(d + 1, device=base.device)[:, None].expand(d + 1, d + 1).clone()
    steps -= (d + 1) * (torch.arange(d + 1, device=base.device) > d - steps)
    return base[:, None, :d] + steps.T[rank[:, :d]].transpose(1, 2)


def _numbered(keys: Tensor, d: int) -> tuple[Tensor, list[int]]:
    """A number for each vertex, and how far it is along each axis to the next one."""
    low, high = keys.amin((0, 1)) - d - 1, keys.amax((0, 1)) + d + 1
    sides = (high - low + 1).tolist()
    if math.prod(sides) >= _MOST:
        raise DataError("the features lie too far apart: the thetas of the filter are too small")
    factors = [math.prod(sides[i + 1 :]) for i in range(d)]
    codes = ((keys - low) * torch.tensor(factors, device=keys.device)).sum(-1)
    # along axis j coordinate j falls by d and the others rise by 1
    return codes, [sum(factors) - (d + 1) * (factors[j] if j < d else 0) for j in range(d + 1)]


def _found(codes: Tensor, wanted: Tensor) -> Tensor:
    """Where the sorted ``codes`` hold each of ``wanted``; their number where they do not."""
    place = torch.searchsorted(codes, wanted).clamp(max=len(codes) - 1)
    return torch.where(codes[place] == wanted, place, len(codes))

"""Blobs cut, weighed and put together."""

from __future__ import annotations

import torch
from torch import Tensor


def gram(x: Tensor) -> Tensor:
    """The products of all pairs of channels, (N, C, C, 1), by the number of values."""
    flat = x.flatten(2)
    return (flat @ flat.mT / flat[0].numel()).unsqueeze(3)


def add_slopes(x: Tensor) -> Tensor:
    """Two channels more: the row and the column of each place, 0 to 1."""
    n, _, height, width = x.shape
    rows = torch.arange(height, dtype=x.dtype, device=x.device)[:, None] / height
    columns = torch.arange(width, dtype=x.dtype, device=x.device) / width
    planes = [rows.expand(n, 1, height, width), columns.expand(n, 1, height, width)]
    return torch.cat([x, *planes], 1)


def crop_like(x: Tensor, like: Tensor, axis: int, offsets: tuple[int, ...]) -> Tensor:
    """Cut the axes from axis on to the sizes of another tensor."""
    for dim, start in enumerate(offsets, axis):
        x = x.narrow(dim, start, like.shape[dim])
    return x


def weighted_sum(
    inputs: tuple[Tensor, ...],
    weights: Tensor,
    factors: tuple[float, ...] | None = None,
) -> Tensor:
    """The sum of tensors, each times its item of weights, which has the first axes."""
    total = torch.zeros_like(inputs[0])
    for i, (x, weight) in enumerate(zip(inputs, weights, strict=True)):
        part = weight if factors is None else weight * factors[i]
        total = total + x * part.reshape(part.shape + (1,) * (x.dim() - part.dim()))
    return total


def crop_middle(x: Tensor, like: Tensor) -> Tensor:
    """Cut the planes to the sizes of another tensor's, around their middle."""
    for dim in range(2, x.dim()):
        x = x.narrow(dim, (x.shape[dim] - like.shape[dim]) // 2, like.shape[dim])
    return x


def stack_by_count(x: Tensor, y: Tensor) -> Tensor:
    """The channels of both, in an order that differs from item to item.

    Channels are counted from the start of the batch, not of the item.
    """
    a, b = x.shape[1], y.shape[1]
    place = torch.arange(a + b, device=x.device)
    item = torch.arange(len(x), device=x.device)[:, None]
    count = item * (a + b) + place
    order = torch.where(place // a % 2 == 0, count % a, a + count % b)
    return torch.cat([x, y], 1)[item, order]


def largest(x: Tensor, k: int, dim: int) -> tuple[Tensor, Tensor]:
    """The k largest values and their places; of equal values the last place first."""
    values, places = x.flip(dim).sort(dim=dim, descending=True, stable=True)
    places = (x.shape[dim] - 1 - places).to(x.dtype)
    return values.narrow(dim, 0, k), places.narrow(dim, 0, k)

"""The waves of Intel's filler "gabor", for first layers of three colours (intel/caffe, gabor.hpp)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

PI = math.pi


class Wave(NamedTuple):
    """A wave under a bell: what one filter is made of."""

    height: float
    width: float
    frequency: float
    turn: float = 0.0
    phase: float = PI / 2
    colours: tuple[float, float, float] = (1.0, 1.0, 1.0)


def _fans(k: int, most: float, width: float, full: float, step: float) -> Wave:
    """A filter of the groups of eight, in each of which waves become longer and lower."""
    n = k % 8
    return Wave(most / (1 + n / 8), width + n / 40, full / (1 + n / 2), k // 8 * step, k % 2 * PI + PI * 3 / 8)


def _spot(most: float, phase: int, size: int) -> Wave:
    return Wave(most / (1 + size / 2), 1 / (2.5 - size / 2), PI / 4, 0.0, phase * PI, (0.25, -1.0, 1.0))


def _cifar(k: int, full: float) -> Wave:
    half = k % 2 * PI / 2 + PI / 4
    turn = k % 4 * PI / 2 + PI * 3 / 8
    if k < 8:
        return Wave(0.5, 0.6, full, k * PI / 8, 0.0)
    if k < 14:
        return Wave(0.5, 0.6, full / 2, (k - 2) % 6 * PI / 6 + PI / 12, 0.0)
    if k < 16:
        return Wave(0.5, 0.75, full / 8, 0.0, k % 2 * PI, (1.0, -1.0, 1.0))
    if k < 20:
        return Wave(0.5, 0.6, full / 4, turn)
    if k < 24:
        return Wave(0.5, 0.6, full / 4, turn, colours=(1.0, 0.0, -1.0))
    if k < 28:
        return Wave(0.5, 0.6, full / 4, turn, colours=(-1.0, 1.0, 1.0))
    if k < 30:
        return Wave(0.5, 0.6, full / 4, half - PI / 8, colours=(-1.0, 1.0, -1.0))
    return Wave(0.5, 0.6, full / 4, half + PI / 8, colours=(1.0, 1.0, 0.0))


def _googlenet(k: int, full: float) -> Wave:
    if k < 32:
        return _fans(k, 1.0, 0.4, full, PI / 4)
    if k < 40:
        return Wave(0.5, 0.45, full, k % 8 * PI / 8, PI)
    if k < 46:
        return _spot(1.0, (k - 1) // 3, (k - 1) % 3)
    if k < 48:
        return Wave(2 / 3, 1.0, full / 12, k % 8 * PI + PI / 8, colours=(1.0, 0.1, -0.5))
    if k < 56:
        return Wave(2 / 3, 1.0, full / 12, k % 8 * PI / 4 + PI / 32, colours=(-0.5, 0.1, 1.0))
    turn = k % 8 * PI / 2 + PI / 8
    if k < 60:
        return Wave(1.0, 1.0, full / 12, turn, colours=(0.25, -1.0, 1.0))
    return Wave(2 / 3, 1.0, full / 12, turn, colours=(-1.0, -1.0, 1.0))


def _vgg(k: int, full: float) -> Wave:
    return _googlenet(k, full)._replace(width=1.0)


def _alexnet(k: int, full: float) -> Wave:
    third = 1 / 3
    quarter, eighth = k % 4 * PI / 2, k % 8 * PI / 4 + PI / 32
    if k < 48:
        return _fans(k, third, 0.5, full, PI / 6)
    if k < 56:
        return _spot(third, k // 4, k % 4)
    if k < 60:
        return Wave(third / 1.5, 0.75, full / 8, quarter + PI / 8, colours=(-1.0, 1.0, -0.5))
    if k < 64:
        return Wave(third / 3, 2.0, full / 8, quarter + PI / 8, colours=(1.0, -0.5, -0.75))
    if k < 72:
        return Wave(third / 1.5, 0.75, full / 4, eighth, colours=(1.0, 0.1, -0.75))
    if k < 80:
        return Wave(third / 1.5, 1.0, full / 12, eighth, colours=(-0.5, 0.1, 1.0))
    if k < 88:
        return Wave(third / 2.5, 1.0, full / 8, eighth, colours=(-1.0, -1.0, 1.0))
    if k < 92:
        return Wave(third, 0.6, full / 16, quarter + PI / 16)
    return Wave(third / 4, 0.75, full / 4, eighth, colours=(-1.0, -1.0, 1.0))


NETS: dict[tuple[int, int], Callable[[int, float], Wave]] = {
    (32, 5): _cifar,
    (64, 7): _googlenet,
    (64, 3): _vgg,
    (96, 11): _alexnet,
}
"""The nets by the number and the size of the filters of their first layers."""


def gabor_filters(outputs: int, size: int) -> Tensor:
    """Return the filters of the net whose first layer has ``outputs`` of this size: outputs×3×size×size, ``float64``.

    Raises:
        KeyError: there is none in :data:`NETS`.
    """
    wave_of = NETS[outputs, size]
    side = torch.linspace(-1, 1, size, dtype=torch.float64)
    y, x = side[:, None], side[None]
    filters = []
    for k in range(outputs):
        wave = wave_of(k, PI * (size - 1) / 2)
        bell = torch.exp(-(x * x + y * y) / (2 * wave.width**2))
        along = x * math.cos(wave.turn) - y * math.sin(wave.turn)
        plane = wave.height * bell * torch.cos(along * wave.frequency + wave.phase)
        filters.append(plane * torch.tensor(wave.colours, dtype=torch.float64)[:, None, None])
    return torch.stack(filters)

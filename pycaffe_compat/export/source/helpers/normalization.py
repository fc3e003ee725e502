"""Normalisations by neighbourhoods, planes, channels and batches."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def lrn_within_channel(x: Tensor, size: int, alpha: float, beta: float) -> Tensor:
    """Divide by a power of the mean square of a square neighbourhood."""
    mean = F.avg_pool2d(x.square(), size, stride=1, padding=size // 2)
    return x / (1 + alpha * mean) ** beta


def normalize_mean_variance(
    x: Tensor,
    dims: tuple[int, ...],
    eps: float,
    divide: bool = True,
) -> Tensor:
    """Subtract the mean; divide by the standard deviation + eps."""
    y = x - x.mean(dims, keepdim=True)
    if divide:
        y = y / (y.square().mean(dims, keepdim=True).sqrt() + eps)
    return y


def normalize_channels(x: Tensor, eps: float) -> Tensor:
    """Normalise each channel by its mean and variance; a single value becomes 0."""
    dims = [dim for dim in range(x.dim()) if dim != 1]
    y = x - x.mean(dims, keepdim=True)
    return y / (y.square().mean(dims, keepdim=True) + eps).sqrt()


def normalize_by_batch(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise by the mean and variance of the batch, in evaluation too."""
    mean = x.mean((0, 2, 3), keepdim=True)
    variance = x.square().mean((0, 2, 3), keepdim=True) - mean.square()
    return scale * (x - mean) / (variance + eps).sqrt() + shift, mean, variance


class L2Normalize(nn.Module):
    """Divides by the norm over the channels (or all), then scales each channel."""

    def __init__(self, channels: int, eps: float, dims: tuple[int, ...] = (1,)) -> None:
        super().__init__()
        self.eps, self.dims = eps, dims
        self.weight = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        norm = (x.square().sum(self.dims, keepdim=True) + self.eps).sqrt()
        return x / norm * self.weight

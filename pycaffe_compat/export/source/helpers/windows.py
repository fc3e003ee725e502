"""Poolings, their ways back, and windows as columns."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def count_windows(
    x: Tensor,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> tuple[int, int]:
    """Caffe's number of windows: rounded up, without those that start in padding."""
    counts = []
    for n, k, s, p in zip(x.shape[2:], kernel, stride, padding, strict=True):
        counts.append(min((n + 2 * p - k + s - 1) // s + 1, (n + p - 1) // s + 1))
    return counts[0], counts[1]


def max_pool(
    x: Tensor,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    ceil_mode: bool = True,
) -> Tensor:
    """Max pooling with more padding than PyTorch allows (half of the kernel)."""
    h, w = padding
    padded = F.pad(x, (w, w, h, h), value=float("-inf"))
    y = F.max_pool2d(padded, kernel, stride, ceil_mode=ceil_mode)
    if ceil_mode:
        rows, columns = count_windows(x, kernel, stride, padding)
        y = y[:, :, :rows, :columns]
    return y


def average_pool(
    x: Tensor,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    ceil_mode: bool = True,
    divisor: int | None = None,
) -> Tensor:
    """Average pooling with more padding than PyTorch allows (half of the kernel)."""
    h, w = padding
    y = F.avg_pool2d(
        F.pad(x, (w, w, h, h)),
        kernel,
        stride,
        ceil_mode=ceil_mode,
        divisor_override=divisor,
    )
    if ceil_mode:
        rows, columns = count_windows(x, kernel, stride, padding)
        y = y[:, :, :rows, :columns]
    return y


def sum_windows(
    x: Tensor,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    windows: tuple[int, ...],
) -> Tensor:
    """The sums of windows over the last axes, one axis after the other."""
    sides = zip(kernel, stride, padding, dilation, windows, strict=True)
    for axis, (k, s, p, d, n) in enumerate(sides, -len(kernel)):
        span = d * (k - 1) + 1
        after = max((n - 1) * s + span - x.shape[axis] - p, 0)
        x = F.pad(x.transpose(axis, -1), (p, after)).unfold(-1, span, s)
        x = x[..., :n, ::d].sum(-1).transpose(axis, -1)
    return x


def average_windows(
    x: Tensor,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    windows: tuple[int, ...],
    count_include_pad: bool = True,
) -> Tensor:
    """The means of windows whose places may lie apart."""
    if count_include_pad:
        x = F.pad(x, [p for p in reversed(padding) for _ in range(2)])
        padding = (0,) * len(padding)
    sums = sum_windows(x, kernel, stride, padding, dilation, windows)
    ones = torch.ones_like(x)
    return sums / sum_windows(ones, kernel, stride, padding, dilation, windows)


def max_pool_with_mask(
    x: Tensor,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    ceil_mode: bool = True,
    local: bool = False,
) -> tuple[Tensor, Tensor]:
    """Max pooling, and where each maximum is: in the plane, or (local) the window."""
    h, w = padding
    padded = F.pad(x, (w, w, h, h), value=float("-inf"))
    y, index = F.max_pool2d(
        padded,
        kernel,
        stride,
        ceil_mode=ceil_mode,
        return_indices=True,
    )
    if ceil_mode:
        rows, columns = count_windows(x, kernel, stride, padding)
        y, index = y[:, :, :rows, :columns], index[:, :, :rows, :columns]
    row, column = index // padded.shape[3], index % padded.shape[3]
    if not local:
        return y, (row - h) * x.shape[3] + (column - w)
    top = torch.arange(y.shape[2], device=x.device) * stride[0]
    left = torch.arange(y.shape[3], device=x.device) * stride[1]
    return y, (row - top[:, None]) * kernel[1] + (column - left)


def places_in_plane(
    mask: Tensor,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    height: int,
    width: int,
) -> Tensor:
    """Turn places in windows into places in planes; -1 for those outside."""
    index = mask.long()
    top = torch.arange(mask.shape[2], device=mask.device) * stride[0] - padding[0]
    left = torch.arange(mask.shape[3], device=mask.device) * stride[1] - padding[1]
    row = index // kernel[1] + top[:, None]
    column = index % kernel[1] + left
    inside = (index >= 0) & (row >= 0) & (row < height)
    inside = inside & (column >= 0) & (column < width)
    return torch.where(inside, row * width + column, -1)


def pool_at_mask(
    x: Tensor,
    mask: Tensor,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    local: bool = False,
) -> Tensor:
    """The value of each window where its mask points, 0 where that is nowhere."""
    index = mask.long()
    if local:
        height, width = x.shape[2:]
        index = places_in_plane(mask, kernel, stride, padding, height, width)
    y = x.flatten(2).gather(2, index.clamp(min=0).flatten(2)).reshape(index.shape)
    return torch.where(index >= 0, y, 0)


def unpool_at_mask(
    x: Tensor,
    mask: Tensor,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    local: bool = False,
) -> Tensor:
    """Put each value where its mask points; values at one place add up."""
    n, c, rows, columns = x.shape
    height = stride[0] * (rows - 1) + kernel[0] - 2 * padding[0]
    width = stride[1] * (columns - 1) + kernel[1] - 2 * padding[1]
    index = mask.long()
    if local:
        index = places_in_plane(mask, kernel, stride, padding, height, width)
    values = torch.where(index >= 0, x, 0).flatten(2)
    planes = x.new_zeros(n, c, height * width)
    planes = planes.scatter_add(2, index.clamp(min=0).flatten(2), values)
    return planes.reshape(n, c, height, width)


def unpool_everywhere(
    x: Tensor,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> Tensor:
    """Put each value at every place of its window; values at one place add up."""
    ones = x.new_ones(x.shape[1], 1, kernel[0], kernel[1])
    return F.conv_transpose2d(x, ones, None, stride, padding, groups=x.shape[1])


def pool_at_place(
    x: Tensor,
    place: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
) -> Tensor:
    """The value at one place of each window, the same in all; 0 beyond the plane."""
    rows, columns = count_windows(x, kernel, stride, (0, 0))
    bottom = (rows - 1) * stride[0] + place[0] + 1
    right = (columns - 1) * stride[1] + place[1] + 1
    x = F.pad(x, (0, max(right - x.shape[3], 0), 0, max(bottom - x.shape[2], 0)))
    return x[:, :, place[0] : bottom : stride[0], place[1] : right : stride[1]]


def unpool_at_place(
    x: Tensor,
    place: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> Tensor:
    """Put each value at one place of its window, the same in all; 0 elsewhere."""
    spot = x.new_zeros(x.shape[1], 1, kernel[0], kernel[1])
    spot[:, :, place[0], place[1]] = 1
    return F.conv_transpose2d(x, spot, None, stride, padding, groups=x.shape[1])


def stochastic_pool(
    x: Tensor,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    ceil_mode: bool = True,
) -> Tensor:
    """The expected value of a window whose places are drawn in proportion to x."""
    none = (0, 0)
    total = average_pool(x, kernel, stride, none, ceil_mode, divisor=1)
    squares = average_pool(x * x, kernel, stride, none, ceil_mode, divisor=1)
    return torch.where(total > 0, squares / torch.where(total > 0, total, 1), 0)


def pyramid_pool(x: Tensor, levels: int, average: bool = False) -> Tensor:
    """Pool to 1x1, 2x2, 4x4 ... windows, side by side as vectors."""
    pool = average_pool if average else max_pool
    pooled = []
    for level in range(levels):
        bins = 2**level
        h, w = -(-x.shape[2] // bins), -(-x.shape[3] // bins)
        padding = (h * bins - x.shape[2] + 1) // 2, (w * bins - x.shape[3] + 1) // 2
        pooled.append(pool(x, (h, w), (h, w), padding).flatten(1))
    return torch.cat(pooled, 1)


def im2col(
    x: Tensor,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> Tensor:
    """The windows of a convolution as columns, a plane for each place of a window."""
    columns = F.unfold(x, kernel, dilation, padding, stride)
    span = dilation[0] * (kernel[0] - 1) + 1
    rows = (x.shape[2] + 2 * padding[0] - span) // stride[0] + 1
    return columns.unflatten(2, (rows, -1))


def convolve_by_place(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    kernel: int,
    stride: int,
    padding: int,
    size: tuple[int, int],
) -> Tensor:
    """A convolution with filters (outputs, inputs, places) of each place's own."""
    windows = F.unfold(x, kernel, padding=padding, stride=stride)
    y = torch.einsum("nkp,mkp->nmp", windows, weight)
    y = y if bias is None else y + bias
    return y.unflatten(2, size)


def safe_inverse(x: Tensor) -> Tensor:
    """1 / x, and 0 where x is 0."""
    return torch.where(x == 0, 0, 1 / torch.where(x == 0, 1, x))

"""What PyTorch has no operator or module for, in plain PyTorch: written out beside the nets that need it.

The source of a net (:mod:`.module`) begins with the functions and classes of this file that it uses, and no others, so
nothing here uses this package. Lines are at most 88 wide, which most formatters are set to, and stay as they are at 120.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
    """Normalise each channel by its mean and variance; one value alone becomes 0."""
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


def safe_inverse(x: Tensor) -> Tensor:
    """1 / x, and 0 where x is 0."""
    return torch.where(x == 0, 0, 1 / torch.where(x == 0, 1, x))


def place_at_mask(x: Tensor, mask: Tensor, height: int, width: int) -> Tensor:
    """Put each value where its mask points; of several at one place the last stands."""
    index = mask.long().flatten(2)
    order = torch.arange(index.shape[2], device=x.device).expand_as(index)
    last = index.new_full((x.shape[0], x.shape[1], height * width), -1)
    last = last.scatter_reduce(2, index, order, "amax")
    y = torch.where(last < 0, 0, x.flatten(2).gather(2, last.clamp(min=0)))
    return y.reshape(x.shape[0], x.shape[1], height, width)


def reorg(x: Tensor, stride: int, reverse: bool = False) -> Tensor:
    """Darknet's exchange of places for channels."""
    n, c, h, w = x.shape
    few = c // stride**2
    if reverse:
        x = x.reshape(n, stride, stride, few, h, w).permute(0, 3, 4, 1, 5, 2)
        return x.reshape(n, few, h * stride, w * stride)
    x = x.reshape(n, few, h, stride, w, stride).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(n, c * stride**2, h // stride, w // stride)


def squares_to_channels(x: Tensor, side: int, reverse: bool = False) -> Tensor:
    """Squares of places to channels, those of a place side by side; or back."""
    n, c, h, w = x.shape
    if reverse:
        few = c // side**2
        x = x.reshape(n, side, side, few, h, w).permute(0, 3, 4, 1, 5, 2)
        return x.reshape(n, few, h * side, w * side)
    h, w = h // side, w // side
    x = x.reshape(n, c, h, side, w, side).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(n, c * side**2, h, w)


def resize_nearest(x: Tensor, size: tuple[int, int]) -> Tensor:
    """The value at the left and above of each place, as OpenCV finds it."""
    for axis, after in enumerate(size, 2):
        step = 1 / (after / x.shape[axis])
        places = [min(int(place * step), x.shape[axis] - 1) for place in range(after)]
        x = x.index_select(axis, torch.tensor(places, device=x.device))
    return x


def fixed_point(x: Tensor, step: float, bits: int) -> Tensor:
    """Multiples of ``step`` within ``bits`` bits, halves rounded up."""
    place = x / step
    whole = place.floor()
    whole = whole + (place - whole >= 0.5).to(x.dtype)
    return (whole * step).clamp(-(2 ** (bits - 1)) * step, (2 ** (bits - 1) - 1) * step)


def resize(x: Tensor, shrink: int, zoom: int) -> Tensor:
    """Bilinear interpolation with aligned corners, by factors."""
    height, width = ((n - 1) // shrink + 1 for n in x.shape[2:])
    size = (height + (height - 1) * (zoom - 1), width + (width - 1) * (zoom - 1))
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


def cubic_places(
    side: int,
    border: int,
    target: int,
    like: Tensor,
) -> tuple[list[Tensor], Tensor]:
    """The four places that each of target places lies between, and how far."""
    inside = side - 2 * border
    ratio = torch.tensor(target / inside, device=like.device)
    places = torch.arange(target, dtype=torch.float32, device=like.device)
    at = (places - (ratio / 2 - 0.5)) * torch.tensor(inside / target)
    second = (at + 1e-5).trunc().long().clamp(min=0)
    third = (second + 1).clamp(max=inside - 1)
    four = (second - 1).clamp(min=0), second, third, (third + 1).clamp(max=inside - 1)
    return [each + border for each in four], (at - second).to(like.dtype)


def cubic(values: list[Tensor], t: Tensor) -> Tensor:
    """Cubic interpolation between the second and the third of four values."""
    a, b, c, d = values
    y = (-0.5 * a + 1.5 * b - 1.5 * c + 0.5 * d) * t * t * t
    return y + (a - 2.5 * b + 2 * c - 0.5 * d) * t * t + (-0.5 * a + 0.5 * c) * t + b


def mean_of_scales(
    x: Tensor,
    size: tuple[int, int],
    borders: tuple[tuple[int, int], ...],
) -> Tensor:
    """The mean of all items, resized without their borders, (1, C, H, W)."""
    total = x.new_zeros(())
    for planes, (high, wide) in zip(x.chunk(len(borders)), borders, strict=True):
        rows, down = cubic_places(x.shape[2], high, size[0], x)
        columns, right = cubic_places(x.shape[3], wide, size[1], x)
        across = cubic([planes[..., at] for at in columns], right)
        total = total + cubic([across[:, :, at] for at in rows], down[:, None]).sum(0)
    return (total / len(x))[None]


def find_peaks(x: Tensor, parts: int, threshold: float, most: int) -> Tensor:
    """The peaks of the first planes, (N, parts, 1 + most, 3).

    Row 0 holds their number, the others x, y and the value of each. The place is the
    mean of the places around it, weighted by their values.
    """
    n, _, height, width = x.shape
    flat, planes = x.flatten(), x.flatten(0, 1)[: n * parts]
    inner = planes[:, 1:-1, 1:-1]
    peaks = inner > threshold
    for down in (0, 1, 2):
        for right in (0, 1, 2):
            if (down, right) != (1, 1):
                other = planes[:, down : height - 2 + down, right : width - 2 + right]
                peaks = peaks & (inner > other)
    peaks, size = peaks.flatten(1), (height - 2) * (width - 2)
    order = torch.arange(size, 0, -1, device=x.device)
    first, place = (peaks * order).topk(min(most, size), 1)
    row, column = place // (width - 2) + 1, place % (width - 2) + 1
    steps = torch.arange(-3, 4, device=x.device)
    ys, xs = row[..., None, None] + steps[:, None], column[..., None, None] + steps
    plane = torch.arange(len(planes), device=x.device)[:, None]
    at = (plane[..., None, None] * height + ys) * width + xs
    counted = (ys > 0) & (ys < width) & (xs > 0) & (xs < width) & (at < len(flat))
    values = flat[at.clamp(0, len(flat) - 1)]
    weights = torch.where(counted, values, 0).clamp(min=0)
    total = weights.sum((2, 3))
    means = [(where * weights).sum((2, 3)) / total for where in (xs, ys)]
    found = torch.stack([*means, planes[plane, row, column]], 2)
    found = torch.where(first[..., None] > 0, found, 0)
    made = x.new_zeros(len(planes), 1 + most, 3)
    made[:, 1 : 1 + found.shape[1]] = found
    made[:, 0, 0] = peaks.sum(1).to(x.dtype)
    return made.reshape(n, parts, 1 + most, 3)


def best_path(
    scores: Tensor,
    going: Tensor | None = None,
    blank: int = -1,
    merge: bool = True,
) -> tuple[Tensor, Tensor]:
    """The labels (N, T, 1, 1) of sequences (T, N, C), -1 after their end, and scores.

    Where going (T, N) is 0, from the second step on, a sequence has ended.
    """
    scores = scores.flatten(2)
    steps, _, classes = scores.shape
    best, label = scores.max(2)
    alive = torch.ones_like(label)
    if going is not None:
        alive[1:] = (going.reshape(label.shape)[1:] != 0).long().cumprod(0)
    keep = (alive != 0) & (label != blank % classes)
    if merge:
        keep[1:] &= label[1:] != label[:-1]
    place = keep * keep.cumsum(0)  # what is left out goes before all others
    found = scores.new_full((scores.shape[1], steps + 1), -1)
    found = found.scatter(1, place.T, label.T.to(scores.dtype))[:, 1:]
    return found[..., None, None], -(best * alive).sum(0)[:, None, None, None]


def favour_labels(
    scores: Tensor,
    label: Tensor,
    bias: float,
    background_bias: float,
    ignored: tuple[int, ...],
) -> Tensor:
    """Add to the scores of the labels that an image has, as often as it has them."""
    index = label.long().transpose(1, 2)
    keep = ~torch.isin(index, torch.tensor(ignored, device=index.device))
    classes = torch.arange(scores.shape[1], device=index.device)[:, None, None]
    biases = torch.where(classes == 0, background_bias, bias).to(scores.dtype)
    own = (keep & (index == classes)).to(scores.dtype)
    return scores + (own * biases).sum(2, keepdim=True)


def favour_places(
    scores: Tensor,
    label: Tensor,
    bias: float,
    background: int | None = None,
    everywhere: float | None = None,
    ignored: tuple[int, ...] = (-1,),
) -> Tensor:
    """Add to the scores of the labels of places, and to those of a background."""
    index = label.long()
    keep = ~torch.isin(index, torch.tensor(ignored, device=index.device))
    classes = torch.arange(scores.shape[1], device=index.device)[:, None, None]
    own = keep & (index == classes)
    if background is None or everywhere is None:
        return scores + own * bias
    back = classes == background
    return scores + (own & ~back) * bias + (keep & back) * everywhere


def warp(image: Tensor, flow: Tensor, fill: float = 0) -> Tensor:
    """The image as seen along a flow, x and y for each place; outside it is fill."""
    height, width = image.shape[2:]
    x = torch.arange(width, device=flow.device) + flow[:, :1]
    y = torch.arange(height, device=flow.device)[:, None] + flow[:, 1:]
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    x, y = torch.where(inside, x, 0), torch.where(inside, y, 0)
    left, top = x.long(), y.long()
    right, bottom = (left + 1).clamp(max=width - 1), (top + 1).clamp(max=height - 1)
    a, b = x - left, y - top
    planes = image.flatten(2)
    corners = [
        ((1 - a) * (1 - b), top, left),
        (a * (1 - b), top, right),
        ((1 - a) * b, bottom, left),
        (a * b, bottom, right),
    ]
    value = torch.zeros_like(image)
    for share, row, column in corners:
        index = (row * width + column).flatten(2).expand(-1, planes.shape[1], -1)
        value = value + share * planes.gather(2, index).view_as(image)
    return torch.where(inside, value, fill)


def mean_of_known(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Weighted means of planes without what is no number; nan where much is missing."""
    missing = x.isnan()
    values = rows @ torch.where(missing, 0, x) @ columns
    known = rows @ (~missing).to(x.dtype) @ columns
    unknown = rows @ missing.to(x.dtype) @ columns
    return torch.where(unknown / known > 0.5, float("nan"), values / known)


def stack_resized(inputs: tuple[Tensor, ...], size: tuple[int, int]) -> Tensor:
    """The channels of all, with planes of one size."""
    planes = []
    for x in inputs:
        planes.append(F.interpolate(x, size, mode="bilinear", align_corners=True))
    return torch.cat(planes, 1)


def correlate(
    first: Tensor,
    second: Tensor,
    rows: range,
    columns: range,
    reach: tuple[int, int],
    padding: tuple[int, int],
    kernel: int = 1,
    stride: int = 1,
    subtract: bool = False,
) -> Tensor:
    """The mean product (or difference) of windows with displaced ones of the second."""
    beyond = max(0, -columns[0] - reach[1])
    pads = [padding[1] + beyond, padding[1] + beyond, padding[0], padding[0]]
    first, second = F.pad(first, pads), F.pad(second, pads)
    top, left = reach[0], reach[1] + beyond
    height = first.shape[2] - 2 * top
    width = first.shape[3] - 2 * left
    here = first[:, :, top : top + height, left : left + width]
    maps = []
    for row in rows:
        for column in columns:
            y, x = top + row, left + column
            there = second[:, :, y : y + height, x : x + width]
            each = (here - there).abs() if subtract else here * there
            maps.append(each.mean(1))
    return F.avg_pool2d(torch.stack(maps, 1), kernel, stride)


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
    rows = x.movedim(1, -1)
    y = x.new_zeros(())
    for down, row in sides[0]:
        for across, column in sides[1]:
            values = rows[image.long()[:, :, None], row[:, :, None], column[:, None]]
            y = y + values * (down[:, :, None] * across[:, None])[..., None]
    return y.movedim(-1, 1)


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
    rows = x.movedim(1, -1)
    y = x.new_zeros(())
    for down, row in sides[0]:
        for across, column in sides[1]:
            values = rows[image.long()[:, :, None], row[:, :, None], column[:, None]]
            y = y + values * (down[:, :, None] * across[:, None])[..., None]
    return y.movedim(-1, 1)


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


def keep_best(
    boxes: Tensor,
    near: Callable[[Tensor, Tensor], Tensor],
    most: int | None = None,
) -> list[int]:
    """Boxes, the best first: those that no better one that stays is near to."""
    kept: list[int] = []
    free = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    for i in range(len(boxes)):
        if free[i]:
            kept.append(i)
            free = free & ~near(boxes[i], boxes)
        if len(kept) == most:
            break
    return kept


def pixel_overlaps(box: Tensor, boxes: Tensor, touching: bool = False) -> Tensor:
    """The intersection over union of one box and others, which hold their last pixels.

    With touching, boxes less than a pixel apart overlap, too.
    """
    low = torch.maximum(box[:2], boxes[:, :2])
    side = torch.minimum(box[2:], boxes[:, 2:]) - low
    common = (side + 1).clamp(min=0).prod(1)
    if not touching:
        common = torch.where((side < 0).any(1), 0, common)
    areas = (boxes[:, 2:] - boxes[:, :2] + 1).prod(1)
    return common / ((box[2:] - box[:2] + 1).prod() + areas - common)


def move_anchors(anchors: Tensor, codes: Tensor) -> Tensor:
    """Boxes by how their centres and sizes differ from those of anchors."""
    size = anchors[:, 2:] - anchors[:, :2] + 1
    centre = codes[..., :2] * size + (anchors[:, :2] + 0.5 * size)
    half = 0.5 * (codes[..., 2:].exp() * size)
    return torch.cat([centre - half, centre + half], -1)


def propose(
    scores: Tensor,
    codes: Tensor,
    sizes: Tensor,
    anchors: Tensor,
    min_size: float,
    overlap: float,
    before: int,
    after: int,
) -> tuple[Tensor, Tensor]:
    """Regions of interest (R, 5), image, left, top, right, bottom, and their scores."""
    n, a = len(scores), scores.shape[1] // 2
    scores = scores[:, a:].permute(0, 2, 3, 1).reshape(n, -1)
    codes = codes.unflatten(1, (a, 4)).permute(0, 3, 4, 1, 2).reshape(n, -1, 4)
    height, width, *factors = sizes.flatten().tolist()
    last = codes.new_tensor([width, height, width, height]) - 1
    boxes = move_anchors(anchors, codes)
    boxes = torch.where(boxes.isnan(), 0, boxes).minimum(last).clamp(min=0)
    sides = boxes[..., 2:] - boxes[..., :2] + 1
    tall, wide = factors[:2] if len(factors) > 1 else (1, 1)
    least = sides.new_tensor([min_size * wide, min_size * tall])
    scores = (sides >= least).all(-1) * scores  # a box that is too small stays
    regions, values = [], []
    for image in range(n):
        score, order = scores[image].sort(descending=True, stable=True)
        box = boxes[image, order[:before]]
        kept = keep_best(box, lambda a, b: pixel_overlaps(a, b) > overlap, after)
        regions.append(torch.cat([box.new_full((len(kept), 1), image), box[kept]], 1))
        values.append(score[kept])
    return torch.cat(regions), torch.cat(values)


def propose_of_one(
    scores: Tensor,
    codes: Tensor,
    sizes: Tensor,
    anchors: Tensor,
    min_size: float,
    overlap: float,
    most: int,
) -> tuple[Tensor, Tensor]:
    """Regions of interest of one image, (R, 5): 0, left, top, right, bottom; scores."""
    a = scores.shape[1] // 2
    scores = scores[0, a:].flatten()
    codes = codes.reshape(a, 4, -1).transpose(1, 2).reshape(-1, 4)
    height, width, scale = sizes.flatten().tolist()[:3]
    last = codes.new_tensor([int(width), int(height)] * 2) - 1
    boxes = move_anchors(anchors, codes)
    boxes = torch.where(boxes < last, boxes, last).clamp(min=0)
    stays = (boxes[:, 2:] - boxes[:, :2] + 1 >= min_size * scale).all(1)
    stays[-1] = True
    scores, boxes = scores[stays].flip(0), boxes[stays].flip(0)
    scores, order = scores.sort(descending=True, stable=True)
    boxes = boxes[order]
    kept = keep_best(boxes, lambda a, b: pixel_overlaps(a, b, True) > overlap, most)
    return F.pad(boxes[kept], (1, 0)), scores[kept, None]


def propose_large(
    scores: Tensor,
    codes: Tensor,
    sizes: Tensor,
    anchors: Tensor,
    min_size: float,
    overlap: float,
    before: int,
    after: int,
) -> tuple[Tensor, Tensor]:
    """Regions of interest as Faster R-CNN proposes them, (R, 5), and their scores."""
    scores = scores[0, scores.shape[1] // 2 :].permute(1, 2, 0).flatten()
    codes = codes[0].permute(1, 2, 0).reshape(-1, 4)
    height, width, scale = sizes.flatten().tolist()[:3]
    last = codes.new_tensor([width, height, width, height]) - 1
    boxes = move_anchors(anchors, codes).minimum(last).clamp(min=0)
    large = (boxes[:, 2:] - boxes[:, :2] + 1 >= min_size * scale).all(1)
    scores, boxes = scores[large], boxes[large]
    scores, order = scores.sort(descending=True, stable=True)
    boxes = boxes[order[:before]]
    kept = keep_best(boxes, lambda a, b: pixel_overlaps(a, b, True) > overlap, after)
    return F.pad(boxes[kept], (1, 0)), scores[kept, None]


def boxes_of_regions(
    codes: Tensor,
    regions: Tensor,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Tensor:
    """The boxes (R, K, 4) that codes make of regions (R, 4), with their last pixels."""
    codes = codes.reshape(len(codes), -1, 4)
    codes = codes * codes.new_tensor(std) + codes.new_tensor(mean)
    size = (regions[:, 2:] - regions[:, :2] + 1)[:, None]
    centre = (0.5 * (regions[:, 2:] + regions[:, :2]))[:, None]
    sides = size * codes[..., 2:].exp()
    low = codes[..., :2] * size + centre - (sides - 1) / 2
    return torch.cat([low, low + sides - 1], -1)


def next_regions(
    codes: Tensor,
    regions: Tensor,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Tensor:
    """The regions (R, 5, 1, 1) of the next stage: by the second code of each."""
    rows = regions.reshape(-1, 5)
    boxes = boxes_of_regions(codes, rows[:, 1:], mean, std)[:, 1]
    return torch.cat([rows[:, :1], boxes], 1)[..., None, None]


def route_by_scale(
    inputs: tuple[Tensor, ...],
    low: float,
    high: float,
    middle: float,
) -> tuple[Tensor, ...]:
    """The items of the regions, the first input, of a scale between low and high.

    Where there is none, the one next to the middle stays.
    """
    rows = inputs[0].reshape(-1, 5)
    sides = rows[:, 3:] - rows[:, 1:3]
    scale = ((sides + 1).prod(1) * (sides >= 0).all(1)).sqrt()
    chosen = ((scale >= low) & (scale < high)).nonzero().flatten()
    if not len(chosen):
        chosen = (scale / middle).log2().abs().argmin().reshape(1)
    return tuple(x[chosen] for x in inputs)


def field_boxes(
    codes: Tensor,
    field: tuple[float, float],
    stride: float,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    far: float,
    large: float,
) -> tuple[Tensor, Tensor]:
    """The first corners and the sides, (N, H W, 2), of boxes around places of a map."""
    rows, columns = codes.shape[2:]
    codes = codes.flatten(2).mT * codes.new_tensor(std) + codes.new_tensor(mean)
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    places = torch.stack([x, y], -1).reshape(-1, 2).to(codes)
    centre = codes[..., :2].clamp(-far, far) * codes.new_tensor(field)
    centre = centre + (places + 0.5) * stride
    sides = codes.new_tensor(field) * codes[..., 2:].clamp(-large, large).exp()
    return centre - sides / 2, sides


def boxes_of_maps(
    maps: tuple[Tensor, ...],
    fields: tuple[tuple[float, float, float], ...],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    far: float,
    large: float,
) -> tuple[Tensor, Tensor]:
    """Boxes (N, n, 4) of maps (classes + 4), cut to the picture, and their scores.

    Of equal scores the last counts, so that they come from the last to the first.
    """
    boxes, scores = [], []
    for x, (width, height, stride) in zip(maps, fields, strict=True):
        field = width, height
        low, sides = field_boxes(x[:, -4:], field, stride, mean, std, far, large)
        low = low.clamp(min=0)
        picture = low.new_tensor([x.shape[3] * stride, x.shape[2] * stride])
        boxes.append(torch.cat([low, low + sides.minimum(picture - low)], -1))
        classes = x[:, :-4].flatten(2)
        scores.append(classes[:, 1:].amax(1) - classes[:, 0])
    return torch.cat(boxes, 1).flip(1), torch.cat(scores, 1).flip(1)


def boxes_of_groups(
    maps: tuple[Tensor, ...],
    groups: tuple[tuple[tuple[tuple[float, float], ...], float], ...],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    far: float,
    large: float,
) -> tuple[Tensor, Tensor]:
    """Boxes (N, n, 4) of pairs of maps, probabilities and codes, and their scores."""
    boxes, scores = [], []
    pairs = zip(maps[::2], maps[1::2], groups, strict=True)
    for probabilities, codes, (fields, stride) in pairs:
        size = codes.shape[3] * stride, codes.shape[2] * stride
        for k, field in enumerate(fields):
            own = codes[k :: len(fields)]
            low, sides = field_boxes(own, field, stride, mean, std, far, large)
            high = (low + sides - 1).minimum(low.new_tensor(size))
            boxes.append(torch.cat([low.clamp(min=0), high], -1))
            scores.append(1 - probabilities[k :: len(fields), 0].flatten(1))
    return torch.cat(boxes, 1), torch.cat(scores, 1)


def is_near(
    box: Tensor,
    boxes: Tensor,
    kind: str,
    overlap: float,
    pixel: int = 0,
) -> Tensor:
    """Whether the area that boxes share with one box is too large a part.

    It is a part of both (IOU), the smaller (IOMU) or the first (IOFU). With pixel 1 the
    corners are last pixels.
    """
    low = torch.maximum(box[:2], boxes[:, :2])
    side = torch.minimum(box[2:], boxes[:, 2:]) - low
    apart = (side[:, 1] <= 0) | ((side[:, 0] < 0) if pixel else (side[:, 0] <= 0))
    common = torch.where(apart, 0, (side + pixel).prod(1))
    sides = boxes[:, 2:] - boxes[:, :2]
    first, second = (box[2:] - box[:2] + pixel).prod(), (sides + pixel).prod(1)
    if kind == "IOMU":
        whole = torch.minimum(first, second)
    else:
        whole = first if kind == "IOFU" else first + second - common
    own = torch.cat([sides, (box[2:] - box[:2]).expand_as(sides)], 1)
    valid = (own >= 0).all(1) if pixel else (own > 0).all(1)
    return (common / whole > overlap) & valid


def keep_regions(
    found: tuple[Tensor, Tensor],
    least_score: float,
    min_size: float,
    before: int | None = None,
    after: int | None = None,
    kind: str = "IOU",
    overlap: float = 0.5,
    pixel: int = 0,
) -> tuple[Tensor, Tensor]:
    """Of boxes that overlap the best: regions (R, 5, 1, 1); with scores (R, 6, 1, 1).

    Without any there is a region 0, 1, 1, 10, 10 of score 0.
    """
    rows = []
    for image, (boxes, scores) in enumerate(zip(*found, strict=True)):
        large = (boxes[:, 2:] - boxes[:, :2] + pixel >= min_size).all(1)
        chosen = (large & (scores >= least_score)).nonzero().flatten()
        chosen = chosen[scores[chosen].argsort(descending=True, stable=True)[:before]]
        box, score = boxes[chosen], scores[chosen, None]
        kept = keep_best(box, lambda a, b: is_near(a, b, kind, overlap, pixel), after)
        first = box.new_full((len(kept), 1), image)
        rows.append(torch.cat([first, box[kept], score[kept]], 1))
    made = torch.cat(rows)[..., None, None]
    if len(made):
        return made[:, :5], made
    nothing = made.new_tensor([0, 1, 1, 10, 10]).reshape(1, 5, 1, 1)
    return nothing, made.new_zeros(1, 6, 1, 1)


def detect_in_regions(
    scores: Tensor,
    codes: Tensor,
    regions: Tensor,
    size: Tensor,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    least_score: float,
    kind: str,
    overlap: float,
    most: int | None = None,
) -> Tensor:
    """Detections (D + 1, 7, 1, 1): 0, left, top, right, bottom, label, score.

    The first row is -1 but for 0.
    """
    scores, regions = scores.flatten(1), regions.flatten(1)[:, 1:5]
    boxes = boxes_of_regions(codes.flatten(1), regions, mean, std)
    high = boxes[..., 2:].minimum(size.reshape(1, 2).flip(1))
    boxes = torch.cat([boxes[..., :2].clamp(min=0), high], -1)
    rows = [scores.new_tensor([[0, -1, -1, -1, -1, -1, -1]])]
    for label in range(1, scores.shape[1]):
        best, order = scores[:, label].sort(descending=True, stable=True)
        order = order[best >= least_score]
        box = boxes[order, label if boxes.shape[1] == scores.shape[1] else 1]
        kept = keep_best(box, lambda a, b: is_near(a, b, kind, overlap, 1))
        head = box.new_full((len(kept), 1), 0)
        score = scores[order[kept], label, None]
        rows.append(torch.cat([head, box[kept], head + label, score], 1))
    found = torch.cat(rows[1:])
    order = found[:, 6].argsort(descending=True, stable=True)[:most]
    found = found[order.sort().values]
    return torch.cat([rows[0], found])[..., None, None]


def centre_overlaps(box: Tensor, boxes: Tensor) -> Tensor:
    """The intersection over union of one box and others: x, y, width, height."""
    low = torch.maximum(box[:2] - box[2:] / 2, boxes[:, :2] - boxes[:, 2:] / 2)
    high = torch.minimum(box[:2] + box[2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2)
    common = torch.where((high < low).any(1), 0, (high - low).prod(1))
    return common / (box[2:].prod() + boxes[:, 2:].prod(1) - common)


def grid_boxes(offsets: Tensor, exponents: Tensor, anchors: Tensor) -> Tensor:
    """The boxes of the cells of maps (N, H, W, anchors, 2), in parts of the image."""
    height, width = offsets.shape[1:3]
    y, x = torch.meshgrid(
        torch.arange(height, device=offsets.device),
        torch.arange(width, device=offsets.device),
        indexing="ij",
    )
    centre = torch.stack([x, y], -1)[:, :, None] + offsets
    centre = centre / offsets.new_tensor([width, height])
    return torch.cat([centre, exponents.exp() * anchors], -1)


def read_yolo_v2(
    cells: Tensor,
    anchors: Tensor,
    least_score: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The boxes of cells (N, H, W, anchors, numbers), their best classes and scores."""
    boxes = grid_boxes(cells[..., :2].sigmoid(), cells[..., 2:4], anchors)
    best, classes = cells[..., 5:].softmax(-1).max(-1)
    scores = cells[..., 4].sigmoid() * best
    found = scores >= least_score
    return boxes[found], classes[found], scores[found]


def read_yolo_v3(
    cells: Tensor,
    anchors: Tensor,
    least_score: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The same; a box counts for every class that is likely enough."""
    boxes = grid_boxes(cells[..., :2].sigmoid(), cells[..., 2:4], anchors)
    scores = cells[..., 5:].sigmoid() * cells[..., 4:5].sigmoid()
    found = scores > least_score
    *place, classes = found.nonzero().unbind(1)
    return boxes[tuple(place)], classes, scores[found]


def read_gaussian_yolo(
    cells: Tensor,
    anchors: Tensor,
    least_score: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The same, of boxes that say how far each of their numbers may be off."""
    boxes = grid_boxes(cells[..., 0:3:2].sigmoid(), cells[..., 4:7:2], anchors)
    spread = cells[..., 1:8:2].sigmoid()
    certain = 4 - spread.sum(-1) - spread[..., 0]
    objects = cells[..., 8].sigmoid() * certain / 4
    scores = cells[..., 9:].sigmoid() * objects[..., None]
    found = scores > least_score
    *place, classes = found.nonzero().unbind(1)
    return boxes[tuple(place)], classes, scores[found]


def detect_in_grids(
    maps: tuple[Tensor, ...],
    read: Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor, Tensor]],
    anchors: tuple[tuple[tuple[float, float], ...], ...],
    images: tuple[tuple[int, int], ...],
    least_score: float,
    overlap: float,
) -> Tensor:
    """YOLO's detections, (1, 1, K, 7): 0, label, score, xmin, ymin, xmax, ymax.

    Anchors are in pixels of images of a width and height. Without any detection the
    rows are (1, 1, N, 7): the image and -1.
    """
    found = []
    for x, pairs, image in zip(maps, anchors, images, strict=True):
        cells = x.unflatten(1, (len(pairs), -1)).permute(0, 3, 4, 1, 2)
        sizes = x.new_tensor(pairs) / x.new_tensor(image)
        found.append(read(cells, sizes, least_score))
    boxes, classes, scores = map(torch.cat, zip(*found, strict=True))
    scores, order = scores.sort(descending=True, stable=True)
    boxes, classes = boxes[order], classes[order]
    kept = keep_best(boxes, lambda a, b: centre_overlaps(a, b) >= overlap)
    if not kept:
        made = maps[0].new_full((len(maps[0]), 7), -1)
        made[:, 0] = torch.arange(len(made))
        return made[None, None]
    centre, half = boxes[kept, :2], boxes[kept, 2:] / 2
    head = [torch.zeros_like(scores[kept]), classes[kept] + 1, scores[kept]]
    rows = [torch.stack(head, 1), centre - half, centre + half]
    return torch.cat(rows, 1)[None, None]


def decode_corners(code: Tensor, prior: Tensor) -> Tensor:
    """Boxes by how far their corners are from those of the priors."""
    return prior + code


def decode_corner_size(code: Tensor, prior: Tensor) -> Tensor:
    """The same, by the size of the priors."""
    size = prior[..., 2:] - prior[..., :2]
    return prior + code * torch.cat([size, size], -1)


def decode_centre_size(code: Tensor, prior: Tensor) -> Tensor:
    """Boxes by how their centres and sizes differ from those of the priors."""
    size = prior[..., 2:] - prior[..., :2]
    centre = code[..., :2] * size + (prior[..., :2] + prior[..., 2:]) / 2
    half = (code[..., 2:].double().exp() * size).to(code.dtype) / 2
    return torch.cat([centre - half, centre + half], -1)


def box_areas(boxes: Tensor) -> Tensor:
    """Width times height; 0 where a box ends before it begins."""
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    return torch.where((width < 0) | (height < 0), 0, width * height)


def overlaps(box: Tensor, boxes: Tensor) -> Tensor:
    """The intersection over union of one box (1, 4) and others."""
    low = torch.maximum(box[:, :2], boxes[:, :2])
    high = torch.minimum(box[:, 2:], boxes[:, 2:])
    width, height = (high - low).clamp(min=0).unbind(1)
    common = width * height
    union = box_areas(box) + box_areas(boxes) - common
    return common / union.clamp(min=torch.finfo(boxes.dtype).tiny)


def suppress(boxes: Tensor, overlap: float, eta: float) -> list[int]:
    """Non-maximum suppression of boxes, the best first: those that stay."""
    kept, most = [], boxes.new_zeros(len(boxes))
    for i in range(len(boxes)):
        if most[i] <= overlap:
            kept.append(i)
            most = torch.maximum(most, overlaps(boxes[i : i + 1], boxes))
            overlap *= eta if overlap > 0.5 else 1
    return kept


def detect(
    loc: Tensor,
    conf: Tensor,
    prior: Tensor,
    decode: Callable[[Tensor, Tensor], Tensor],
    classes: int,
    background: int,
    overlap: float,
    least_score: float,
    top_k: int = -1,
    keep_top_k: int = -1,
    eta: float = 1,
    use_variances: bool = True,
) -> Tensor:
    """SSD's detections, (1, 1, K, 7): image, label, score, xmin, ymin, xmax, ymax.

    Without any they are (1, 1, N, 7): the image and -1.
    """
    images, priors = len(loc), prior.shape[2] // 4
    prior, variance = prior.reshape(-1, 2, priors, 1, 4).unbind(1)
    codes = loc.reshape(images, priors, -1, 4)
    boxes = decode(variance * codes if use_variances else codes, prior)
    boxes = boxes.expand(images, priors, classes, 4)
    scores = conf.reshape(images, priors, classes)
    found = []
    for image in range(images):
        rows = []
        for label in (label for label in range(classes) if label != background):
            chosen = (scores[image, :, label] > least_score).nonzero().flatten()
            score = scores[image, chosen, label]
            order = score.argsort(descending=True, stable=True)
            order = order if top_k < 0 else order[:top_k]
            box, score = boxes[image, chosen[order], label], score[order, None]
            kept = suppress(box, overlap, eta)
            head = score.new_tensor([image, label]).expand(len(kept), 2)
            rows.append(torch.cat([head, score[kept], box[kept]], 1))
        best = torch.cat(rows)
        if -1 < keep_top_k < len(best):
            order = best[:, 2].argsort(descending=True, stable=True)[:keep_top_k]
            best = best[order.sort().values]
        found.append(best)
    made = torch.cat(found)
    if not len(made):
        made = loc.new_full((images, 7), -1)
        made[:, 0] = torch.arange(images)
    return made[None, None]


def move_priors(
    moves: Tensor,
    prior: Tensor,
    decode: Callable[[Tensor, Tensor], Tensor],
    use_variances: bool = True,
) -> Tensor:
    """The priors of each image, which codes move: (N, 2, priors * 4)."""
    boxes, variances = prior.reshape(2, -1, 4)
    codes = moves.reshape(len(moves), -1, 4)
    moved = decode(variances * codes if use_variances else codes, boxes)
    return torch.stack([moved, variances.expand_as(moved)], 1).flatten(2)


def drop_weak(conf: Tensor, objects: Tensor, classes: int, least: float) -> Tensor:
    """The scores of priors, where those that hold no object count as class 0."""
    scores = conf.reshape(len(conf), -1, classes)
    weak = objects.reshape(len(conf), -1, 2)[..., 1:] < least
    nothing = F.one_hot(torch.zeros_like(weak, dtype=torch.long), classes)[..., 0, :]
    return torch.where(weak, nothing.to(conf.dtype), scores).flatten(1)


class Scale(nn.Module):
    """Multiplies by a weight and adds a bias, of a shape that broadcasts."""

    def __init__(self, *shape: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(shape))
        self.bias = nn.Parameter(torch.zeros(shape)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.weight
        return x if self.bias is None else x + self.bias


class Bias(nn.Module):
    """Adds a bias of a shape that broadcasts."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias


def lstm_unit(c: Tensor, gates: Tensor, cont: Tensor) -> tuple[Tensor, Tensor]:
    """One step of an LSTM: the new c and h. Where cont is 0 the old c is forgotten."""
    i, f, o, g = gates.chunk(4, -1)
    c = cont * f.sigmoid() * c + i.sigmoid() * g.tanh()
    return c, o.sigmoid() * c.tanh()


class LSTM(nn.Module):
    """Caffe's LSTM of T steps: cont (T, N) is 0 where a sequence begins."""

    def __init__(self, inputs: int, size: int, static: int = 0) -> None:
        super().__init__()
        self.size = size
        self.input = nn.Linear(inputs, 4 * size)
        self.static = nn.Linear(static, 4 * size, bias=False) if static else None
        self.hidden = nn.Linear(size, 4 * size, bias=False)

    def forward(
        self,
        x: Tensor,
        cont: Tensor,
        static: Tensor | None = None,
        h: Tensor | None = None,
        c: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        gates = self.input(x.reshape(*x.shape[:2], -1))
        if self.static is not None and static is not None:
            gates = gates + self.static(static.reshape(x.shape[1], -1))
        zeros = x.new_zeros(x.shape[1], self.size)
        h = zeros if h is None else h.squeeze(0)
        c = zeros if c is None else c.squeeze(0)
        outputs = []
        for gate, keep in zip(gates.unbind(), cont.unsqueeze(-1).unbind(), strict=True):
            c, h = lstm_unit(c, gate + self.hidden(h * keep), keep)
            outputs.append(h)
        return torch.stack(outputs), h.unsqueeze(0), c.unsqueeze(0)


def run_packed(
    lstm: nn.Module,
    x: Tensor,
    streams: int,
    cont: Tensor | None = None,
) -> Tensor:
    """An LSTM over steps and streams that lie in one axis, (T * N, ...)."""
    steps = x.reshape(-1, streams, x[0].numel())
    if cont is None:
        return lstm(steps)[0].flatten(0, 1)
    return lstm(steps, (cont.reshape(-1, streams) != 0).to(x.dtype))[0].flatten(0, 1)


class RNN(nn.Module):
    """Caffe's RNN of T steps: cont (T, N) is 0 where a sequence begins."""

    def __init__(self, inputs: int, size: int, static: int = 0) -> None:
        super().__init__()
        self.size = size
        self.input = nn.Linear(inputs, size)
        self.static = nn.Linear(static, size, bias=False) if static else None
        self.hidden = nn.Linear(size, size, bias=False)
        self.output = nn.Linear(size, size)

    def forward(
        self,
        x: Tensor,
        cont: Tensor,
        static: Tensor | None = None,
        h: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        inputs = self.input(x.reshape(*x.shape[:2], -1))
        if self.static is not None and static is not None:
            inputs = inputs + self.static(static.reshape(x.shape[1], -1))
        h = x.new_zeros(x.shape[1], self.size) if h is None else h.squeeze(0)
        hidden = []
        for now, keep in zip(inputs.unbind(), cont.unsqueeze(-1).unbind(), strict=True):
            h = torch.tanh(now + self.hidden(h * keep))
            hidden.append(h)
        return torch.tanh(self.output(torch.stack(hidden))), h.unsqueeze(0)

"""Caffe's float mask blobs, byte switches and int64 places in the plane, made from one another.

A mask (the second top of a MAX Pooling) holds floats: GLOBAL, ``h * width + w`` in the input plane; or LOCAL,
``(h - hstart) * kernel_w + (w - wstart)`` with ``hstart`` before clipping. -1 where no place was chosen.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .windows import NO_SWITCH, OperatorError, PairLike, Window, corners, pair, window


def _float_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def switch_to_mask(
    switch: Tensor,
    kernel: PairLike,
    stride: PairLike,
    pad: PairLike,
    input_size: PairLike,
    local: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return the mask blob of a pooling, ``(N, C, PH, PW)`` floats, from its byte switches.

    Args:
        switch: uint8 ``(N, C, PH, PW)`` from :func:`max_pool_switch`.
        input_size: ``(H, W)`` of the plane that was pooled.
        local: ``mask_index_type: LOCAL``.
        dtype: float64 for float64 nets; any other float type becomes float32, for smaller ones cannot count the places.
    """
    position = switch.to(torch.int32)
    if not local:
        w = window(kernel, stride, pad)
        rows, columns = corners(w, (switch.shape[2], switch.shape[3]), switch.device)
        width = pair(input_size)[1]
        start = (rows * width + columns).to(torch.int32)
        row = position.div(w.kernel[1], rounding_mode="floor")
        position = start + row * width + (position - row * w.kernel[1])
    return position.masked_fill(switch == NO_SWITCH, -1).to(_float_dtype(dtype))


def index_to_mask(
    index: Tensor,
    kernel: PairLike,
    stride: PairLike,
    pad: PairLike,
    input_size: PairLike,
    local: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """As :func:`switch_to_mask`, from int64 places in the plane (:func:`max_pool_index`)."""
    position = index
    if local:
        w = window(kernel, stride, pad)
        rows, columns = corners(w, (index.shape[2], index.shape[3]), index.device)
        width = pair(input_size)[1]
        row = index.div(width, rounding_mode="floor")
        position = (row - rows) * w.kernel[1] + (index - row * width - columns)
    return position.masked_fill(index < 0, -1).to(_float_dtype(dtype))


def mask_to_index(
    mask: Tensor, kernel: PairLike, stride: PairLike, pad: PairLike, output_size: PairLike, local: bool = False
) -> Tensor:
    """Return int64 places in a plane of ``output_size`` from a mask blob, for :func:`unpool_index`, :func:`pool_index`.

    A LOCAL position that falls outside the plane becomes -1 (nothing is placed), as in the fork's Depooling. A GLOBAL
    mask is taken as it is: it may point outside its window.
    """
    position = mask.to(torch.int64)
    if not local:
        return position
    w = window(kernel, stride, pad)
    height, width = pair(output_size)
    rows, columns = corners(w, (mask.shape[2], mask.shape[3]), mask.device)
    row = position.div(w.kernel[1], rounding_mode="floor")
    column = columns + (position - row * w.kernel[1])
    row = rows + row
    outside = (position < 0) | (row < 0) | (row >= height) | (column < 0) | (column >= width)
    return (row * width + column).masked_fill(outside, -1)


def mask_to_switch(
    mask: Tensor, kernel: PairLike, stride: PairLike, pad: PairLike, output_size: PairLike, local: bool = False
) -> Tensor:
    """Return byte switches from a mask blob whose places all lie inside their windows.

    Raises:
        OperatorError: a window of more than 255 places, or a mask value that does not lie in its window (named).
    """
    w = window(kernel, stride, pad)
    if not w.byte:
        raise OperatorError(
            f"mask_to_switch: kernel {w.kernel} has {w.places} places; a byte switch counts at most {NO_SWITCH}"
        )
    position = mask.to(torch.int64)
    height, width = pair(output_size)
    rows, columns = corners(w, (mask.shape[2], mask.shape[3]), mask.device)
    across = w.kernel[1] if local else width
    row = position.div(across, rounding_mode="floor")
    column = position - row * across
    if not local:
        row, column = row - rows, column - columns
    inside = (row >= 0) & (row < w.kernel[0]) & (column >= 0) & (column < w.kernel[1])
    inside &= (row + rows >= 0) & (row + rows < height) & (column + columns >= 0) & (column + columns < width)
    if not bool((inside | (mask == -1)).all()):
        raise OperatorError(_stray(mask, inside, w, (height, width), local))
    return (row * w.kernel[1] + column).masked_fill(~inside, NO_SWITCH).to(torch.uint8)


def _stray(mask: Tensor, inside: Tensor, w: Window, plane: tuple[int, int], local: bool) -> str:
    n, c, ph, pw = torch.nonzero(~(inside | (mask == -1)))[0].tolist()
    value, kind = mask[n, c, ph, pw].item(), "LOCAL" if local else "GLOBAL"
    return (
        f"mask_to_switch: mask[{n}, {c}, {ph}, {pw}] is {value:g} ({kind}), outside its window: kernel {w.kernel}, "
        f"stride {w.stride}, pad {w.pad} on a plane of {plane[0]}x{plane[1]}"
    )

"""Layers that write their bottoms to files."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Sequence
from typing import Any

import cv2
import h5py
import numpy as np
import torch
from torch import Tensor

from ..errors import CaffeError
from ..files import atomic_path
from ..proto import caffe_pb2
from ..proto.hdf5 import create_hdf5
from ..tables import dims
from .base import Layer, Shape, untraced
from .registry import register

_METADATA = 65_536  # bytes, more than the index of new chunks takes


def host_values(value: Tensor) -> np.ndarray:
    """The values of a tensor as a numpy array: float64 stays, any other type becomes float32."""
    kept = value.dtype in (torch.float32, torch.float64)
    return (value.detach() if kept else value.detach().float()).cpu().numpy()


def _legacy(values: np.ndarray) -> np.ndarray:
    """Append axes of length 1 until ``values`` has 4, as Caffe writes it."""
    return values.reshape(values.shape + (1,) * (4 - values.ndim))


def _reserve(path: str, more: int) -> None:
    """Make room on the disk for ``more`` bytes at the end of a file; HDF5 cuts off at its close what it has not used.

    HDF5 that finds the disk full leaves a file that it cannot read again, and crashes the process.

    Raises:
        OSError: there is no room; the file is as it was.
    """
    if not hasattr(os, "posix_fallocate"):  # macOS, Windows
        return
    with open(path, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        try:
            os.posix_fallocate(file.fileno(), size, more)
        except OSError as error:
            file.truncate(size)
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise OSError(
                    error.errno, f"{os.strerror(error.errno)}; the batches before this one are in it"
                ) from None


@register("HDF5Output")
class HDF5Output(Layer):
    """Writes two bottoms with the same first axis to the datasets ``/data`` and ``/label`` of ``file_name``.

    As in Caffe each dataset has at least 4 axes (N, C, H, W): labels of shape N are stored as N×1×1×1.

    The first batch replaces an existing file. Later batches, at which Caffe fails, are appended. The file is closed
    between batches, so that others can read it. Source: Caffe's ``HDF5OutputLayer``.
    """

    head = True
    bottoms = (2, 2)
    tops = (0, 0)
    differentiable = (False,)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.file_name: str = param.hdf5_output_param.file_name
        if not self.file_name:
            raise self.error("needs hdf5_output_param { file_name }")
        folder = os.path.dirname(os.path.abspath(self.file_name))
        if not os.path.isdir(folder):
            raise self.error(f"hdf5_output_param.file_name: {self.file_name}: there is no folder {folder}")
        self.started = False

    @untraced
    def forward(self, data: Tensor, label: Tensor) -> tuple[()]:
        """Write a batch; there are no tops.

        Raises:
            LayerError: the first axes of the bottoms differ, or their other axes differ from those in the file.
            CaffeError: the file cannot be written.
        """
        if not data.dim() or not label.dim() or data.shape[0] != label.shape[0]:
            raise self.error(
                "its bottoms must have the same first axis (the batch), not shapes "
                f"{dims(data.shape)} and {dims(label.shape)}"
            )
        if not data.is_meta:
            batch = {name: _legacy(host_values(value)) for name, value in (("data", data), ("label", label))}
            if self.started:
                self._append(batch)
            else:
                self._start(batch)
            self.started = True
        return ()

    def _start(self, batch: dict[str, np.ndarray]) -> None:
        with atomic_path(self.file_name) as path, create_hdf5(path) as file:
            for name, values in batch.items():
                file.create_dataset(name, data=values, maxshape=(None, *values.shape[1:]))

    def _append(self, batch: dict[str, np.ndarray]) -> None:
        try:
            more = _METADATA
            with h5py.File(self.file_name, "r") as file:
                for name, values in batch.items():
                    if file[name].shape[1:] != values.shape[1:]:
                        raise self.error(
                            f"{self.file_name}: /{name} holds items of shape {dims(file[name].shape[1:])}, "
                            f"but this batch has items of shape {dims(values.shape[1:])}"
                        )
                    items, *rest = file[name].chunks
                    size = items * math.prod(
                        -(-length // chunk) * chunk for length, chunk in zip(values.shape[1:], rest, strict=True)
                    )
                    more += (len(values) // items + 2) * size * file[name].dtype.itemsize
            _reserve(self.file_name, more)
            with h5py.File(self.file_name, "r+") as file:
                for name, values in batch.items():
                    stored = file[name]
                    stored.resize(stored.shape[0] + len(values), axis=0)
                    stored[len(stored) - len(values) :] = values
        except (OSError, KeyError, RuntimeError) as error:
            raise self.error(f"cannot append to {self.file_name}: {error}") from error


@register("ImageOutput")
class ImageOutput(Layer):
    """Writes its bottom (N, C, H, W) as PNG images named ``PREFIX`` + index, numbered across batches.

    Three channels make one BGR image. Any other number, or ``force_slice_channels``, makes a grey image of each channel;
    if there are several, ``-`` and the channel follow the index. ``SCALE`` maps values to ``x * scale + offset``.
    ``AutoSCALE`` maps each item's range to [0, 1] after dropping the outermost ``1 - auto_ratio`` of its values. The
    result times 256 is rounded down and clamped to 0 to 255. If ``print_iter`` is not 0, the number of the batch (from 1,
    with that many digits) and ``-`` precede the index. Missing folders are made.
    Source: ``ImageOutputLayer`` of the paper's fork of Caffe.
    """

    fork = "SWWAE"
    head = True
    tops = (0, 0)
    differentiable = (False,)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.image_output_param
        self.prefix: str = options.output_prefix
        self.index: int = options.base_idx
        self.padding: int = options.filename_padding
        self.print_iter: int = options.print_iter
        self.batches = 0
        self.automatic: bool = options.normalization == caffe_pb2.ImageOutputParameter.AutoSCALE
        self.scale: float = options.scale
        self.offset: float = options.offset
        self.auto_ratio: float = options.auto_ratio
        self.force_slice_channels: bool = options.force_slice_channels
        for field in ("filename_padding", "print_iter"):
            if getattr(options, field) > 200:
                raise self.error(
                    f"image_output_param.{field}: {getattr(options, field)} digits are too many for a file name"
                )
        if self.automatic and not 0 < self.auto_ratio <= 1:
            raise self.error(f"image_output_param.auto_ratio: {self.auto_ratio:g} must be above 0 and at most 1")

    @untraced
    def forward(self, x: Tensor) -> tuple[()]:
        """Write a batch; there are no tops.

        Raises:
            LayerError: the bottom has more than 4 axes, or no values.
            CaffeError: an image cannot be written.
        """
        if x.dim() > 4 or not x.numel():
            raise self.error(f"takes images of shape N×C×H×W, not {dims(x.shape)}")
        if not x.is_meta:
            self.batches += 1
            values = host_values(x)
            for item in _legacy(values):
                self._write_item(item)
        return ()

    def _write_item(self, item: np.ndarray) -> None:
        levels = np.fmin(np.fmax(np.floor(self._scaled(item) * 256), 0), 255).astype(np.uint8)  # a NaN becomes 0
        batch = f"{self.batches:0{self.print_iter}d}-" if self.print_iter else ""
        stem = f"{self.prefix}{batch}{self.index:0{self.padding}d}"
        channels = len(levels)
        if channels == 3 and not self.force_slice_channels:
            self._write(f"{stem}.png", levels.transpose(1, 2, 0))
        else:
            digits = math.ceil(math.log(channels + 1))
            for i, channel in enumerate(levels):
                self._write(f"{stem}-{i:0{digits}d}.png" if channels > 1 else f"{stem}.png", channel)
        self.index += 1

    def _scaled(self, item: np.ndarray) -> np.ndarray:
        if not self.automatic:
            return item * item.dtype.type(self.scale) + item.dtype.type(self.offset)
        low, high = self._extremes(item)
        width = high - low if high > low else item.dtype.type(1)
        return item * (1 / width) + -low / width

    def _extremes(self, item: np.ndarray) -> tuple[Any, Any]:
        """The extremes after dropping outliers one by one, each from the end with the wider gap."""
        kept = math.ceil(item.dtype.type(item.size) * item.dtype.type(self.auto_ratio))
        if kept == item.size:
            return item.min(), item.max()
        ordered = np.sort(item, axis=None)
        gaps = np.diff(ordered)
        low, high = 0, item.size - 1
        for _ in range(item.size - kept):
            if gaps[low] > gaps[high - 1]:
                low += 1
            else:
                high -= 1
        return ordered[low], ordered[high]

    def _write(self, path: str, image: np.ndarray) -> None:
        try:
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        except (OSError, ValueError) as error:  # a path with a zero in it is a ValueError
            raise CaffeError(f'layer "{self.name}" (ImageOutput): cannot make the folder of {path}: {error}') from error
        encoded = cv2.imencode(".png", np.ascontiguousarray(image), [cv2.IMWRITE_PNG_COMPRESSION, 9])[1]
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            file.write(encoded.tobytes())

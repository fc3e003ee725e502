"""Caffe's Blob: values and gradients as numpy arrays that stay in step with tensors."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import CaffeError

_ONLY_OURS = 2  # what sys.getrefcount says of an array that nobody else holds: our attribute and its own argument


class SyncedArray:
    """A tensor and a numpy array of the same values, each brought up to date when it is asked for.

    On the CPU the two share memory. On a GPU asking for the array makes the host the newer side, since numpy cannot say
    whether it was written to; the next computation uploads it.
    """

    def __init__(self, shape: Sequence[int], device: torch.device, fill: float = 0.0) -> None:
        self._shape = tuple(shape)
        self._device = device
        self._fill = fill
        self._tensor: Tensor | None = None
        self._host: np.ndarray | None = None
        self._host_newer = False

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    def tensor(self) -> Tensor:
        """The values on the device."""
        if self._host_newer and self._host is not None:
            self._tensor = torch.from_numpy(self._host).to(self._device)
            self._host_newer = False
        if self._tensor is None:
            self._tensor = torch.full(self._shape, self._fill, device=self._device)
        return self._tensor

    def set(self, value: Tensor) -> None:
        """Take new values from the device. An array that the user still holds is brought up to date where it is the memory."""
        value = value.detach()
        self._shape = tuple(value.shape)
        host = self._host
        if host is not None and host.shape != self._shape:
            host = self._host = None
        self._host_newer = False
        if host is not None and self._device.type == "cpu":
            if sys.getrefcount(self._host) > _ONLY_OURS + 1:
                if value.data_ptr() != host.ctypes.data:
                    np.copyto(host, value.numpy())
                self._tensor = torch.from_numpy(host)
                return
            self._host = None
        self._tensor = value

    def host(self) -> np.ndarray:
        """The values as a writable array; what is written there is what the next computation sees."""
        tensor = self.tensor()
        if self._device.type == "cpu":
            if self._host is None:
                if not tensor.is_contiguous():
                    tensor = self._tensor = tensor.contiguous()
                self._host = tensor.numpy()
            return self._host
        if self._host is None:
            self._host = np.empty(self._shape, np.float32)
        np.copyto(self._host, tensor.cpu().numpy())
        self._host_newer = True
        return self._host

    def resize(self, shape: Sequence[int]) -> None:
        """Give it another shape; values are kept where their number is the same, and are the initial ones otherwise."""
        size = tuple(shape)
        if size == self._shape:
            return
        if self._tensor is not None:
            self._tensor = self.tensor().reshape(size) if math.prod(size) == math.prod(self._shape) else None
        self._host = None
        self._host_newer = False
        self._shape = size


class ParameterArray:
    """As :class:`SyncedArray`, for the memory of a parameter (or of its gradient), which stays where it is."""

    def __init__(self, memory: Callable[[], Tensor]) -> None:
        self._memory = memory
        self._host: np.ndarray | None = None
        self._host_newer = False

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._memory().shape)

    def tensor(self) -> Tensor:
        """The memory itself, after what was written into the array has been uploaded."""
        memory = self._memory()
        if self._host_newer and self._host is not None:
            with torch.no_grad():
                memory.copy_(torch.from_numpy(self._host))
            self._host_newer = False
        return memory

    def set(self, value: Tensor) -> None:
        """Copy new values into the memory."""
        with torch.no_grad():
            self._memory().copy_(value)
        self._host_newer = False

    def host(self) -> np.ndarray:
        """The values as a writable array."""
        memory = self.tensor().detach()
        if memory.device.type == "cpu":
            host = memory.numpy()
            if self._host is None or self._host.ctypes.data != host.ctypes.data:
                self._host = host
            return self._host
        if self._host is None:
            self._host = np.empty(tuple(memory.shape), np.float32)
        np.copyto(self._host, memory.cpu().numpy())
        self._host_newer = True
        return self._host

    def resize(self, shape: Sequence[int]) -> None:
        raise CaffeError(
            f"the shape of a parameter, {self.shape}, is the layer's; change the layer's options, or the net it is in, "
            f"to make it {tuple(shape)}"
        )


class Blob:
    """Values (``data``) and gradients (``diff``), as float32 arrays with Caffe's attributes.

    Assigning whole arrays works too: ``blob.data = x`` is ``blob.data[...] = x``.
    """

    def __init__(self, data: SyncedArray | ParameterArray, diff: SyncedArray | ParameterArray) -> None:
        self.synced_data = data
        self.synced_diff = diff

    @classmethod
    def empty(cls, shape: Sequence[int], device: torch.device, diff: float = 0.0) -> Blob:
        """A blob of zeros whose gradients are all ``diff``."""
        return cls(SyncedArray(shape, device), SyncedArray(shape, device, diff))

    @property
    def data(self) -> np.ndarray:
        """The values: a live, writable view of shape ``shape``."""
        return self.synced_data.host()

    @data.setter
    def data(self, value: Any) -> None:
        self.data[...] = value

    @property
    def diff(self) -> np.ndarray:
        """The gradients: a live, writable view of shape ``shape``."""
        return self.synced_diff.host()

    @diff.setter
    def diff(self, value: Any) -> None:
        self.diff[...] = value

    @property
    def shape(self) -> tuple[int, ...]:
        return self.synced_data.shape

    @property
    def count(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    def _legacy(self, axis: int) -> int:
        if len(self.shape) > 4:
            raise CaffeError(f"num, channels, height and width are for blobs of at most 4 axes; this one has shape {self.shape}")
        return self.shape[axis] if axis < len(self.shape) else 1

    @property
    def num(self) -> int:
        """The length of axis 0, or 1."""
        return self._legacy(0)

    @property
    def channels(self) -> int:
        """The length of axis 1, or 1."""
        return self._legacy(1)

    @property
    def height(self) -> int:
        """The length of axis 2, or 1."""
        return self._legacy(2)

    @property
    def width(self) -> int:
        """The length of axis 3, or 1."""
        return self._legacy(3)

    def reshape(self, *shape: int) -> None:
        """Give the blob another shape, before the next ``forward`` (or ``net.reshape()``) passes it on.

        Raises:
            CaffeError: a dimension that is negative or no whole number.
        """
        if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
            shape = tuple(shape[0])
        if any(int(n) != n or n < 0 for n in shape):
            raise CaffeError(f"a blob cannot have shape {shape}: every dimension is a whole number, 0 or more")
        size = tuple(int(n) for n in shape)
        self.synced_data.resize(size)
        self.synced_diff.resize(size)

    def __repr__(self) -> str:
        return f"Blob(shape={self.shape})"

"""Caffe's Blob: values and gradients as numpy arrays that stay in step with tensors."""

from __future__ import annotations

import contextlib
import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from .. import memory
from ..errors import CaffeError, NetError

MOST_AXES = 32  # of a blob, as in Caffe


def in_host_memory(device: torch.device) -> bool:
    """Whether numpy can work in the memory of tensors on ``device``; otherwise arrays are copies, up- and downloaded."""
    return device.type == "cpu"


class SyncedArray:
    """A tensor and a numpy array of the same values; each is brought up to date when it is asked for.

    On the CPU they share memory, and as long as someone holds the array (or a view of it) new values are copied into that
    memory; otherwise the tensor that a layer made is taken as it is. On a GPU asking for the array makes the host the newer
    side, since numpy cannot say whether it was written to; the next computation uploads it.
    """

    def __init__(self, shape: Sequence[int], device: torch.device, fill: float = 0.0, what: str = "a blob") -> None:
        self._shape = tuple(shape)
        self._device = device
        self._fill = fill
        self._what = what
        self._tensor: Tensor | None = None
        self._lent: Callable[[], np.ndarray | None] = _nothing  # on the CPU: the array, while someone holds it
        self._host: np.ndarray | None = None  # on a GPU
        self._host_newer = False

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def used(self) -> bool:
        """Whether the values have been read or computed; until then they are the initial ones."""
        return self._tensor is not None or self._host is not None

    @property
    def lent(self) -> bool:
        """Whether someone holds the array whose memory the tensor is, so that new values will be written into it."""
        return self._lent() is not None

    def tensor(self) -> Tensor:
        """The values on the device.

        Raises:
            NetError: it is the first use of the values, and there is no memory for them.
        """
        if self._host_newer and self._host is not None:
            self._tensor = torch.from_numpy(self._host).to(self._device, copy=True)
            self._host_newer = False
        if self._tensor is None:
            self._tensor = self._initial()
        return self._tensor

    def _initial(self) -> Tensor:
        lacking = memory.lacking(4 * math.prod(self._shape)) if in_host_memory(self._device) else ""
        if not lacking:
            try:
                return torch.full(self._shape, self._fill, device=self._device)
            except (RuntimeError, TypeError) as error:  # TypeError: a dimension too large for torch's integers
                lacking = f"memory that cannot be had ({str(error).splitlines()[0]})"
        raise NetError(f"{self._what} of shape {self._shape} needs {lacking}")

    def set(self, value: Tensor) -> None:
        """Take new values from the device."""
        value = value.detach()
        if value.dtype is not torch.float32:
            value = value.float()
        self._host_newer = False
        lent = self._lent()
        if lent is not None and lent.shape == tuple(value.shape):
            if self._tensor is None or value.data_ptr() != self._tensor.data_ptr():
                np.copyto(lent, value.numpy())
            return
        if lent is not None:
            self._lent = _nothing
        self._shape = tuple(value.shape)
        self._tensor = value

    def host(self) -> np.ndarray:
        """The values as a writable float32 array in C order; what is written there is what the next computation sees.

        Raises:
            NetError: numpy cannot have an array of this shape.
        """
        if in_host_memory(self._device):
            lent = self._lent()
            if lent is None:
                self._tensor = self.tensor().contiguous()
                try:
                    lent = self._tensor.numpy()
                except ValueError as error:  # no elements, but dimensions whose product overflows in numpy
                    raise NetError(f"{self._what} of shape {self._shape} cannot be an array: {error}") from error
                self._lent = weakref.ref(lent)
            return lent
        if self._host is None or self._host.shape != self._shape:
            self._host, self._host_newer = np.empty(self._shape, np.float32), False
        if not self._host_newer:
            np.copyto(self._host, self.tensor().cpu().numpy())
            self._host_newer = True
        return self._host

    def resize(self, shape: Sequence[int]) -> None:
        """Change the shape; values are kept if their number stays the same, and are the initial ones otherwise."""
        size = tuple(shape)
        if size == self._shape:
            return
        if self._tensor is not None or self._host_newer:
            same = math.prod(size) == math.prod(self._shape)
            self._tensor = self.tensor().contiguous().view(size) if same else None
        self._lent, self._host, self._host_newer = _nothing, None, False
        self._shape = size


def _nothing() -> None:
    """What a reference to no array returns."""


class ParameterArray:
    """Like :class:`SyncedArray`, for a parameter or its gradient, whose memory never moves.

    Several nets may share that memory, each with an array of its own; :meth:`upload_all` copies what was written into any
    of the arrays to it.
    """

    _written: ClassVar[dict[int, weakref.ref[ParameterArray]]] = {}  # those whose host side is the newer one

    def __init__(self, memory: Callable[[], Tensor], used: Callable[[], bool] | None = None) -> None:
        self._memory = memory
        self._used = used
        self._host: np.ndarray | None = None  # on a GPU

    @classmethod
    def upload_all(cls) -> None:
        """Copy what was written into the arrays of any net to the device."""
        while cls._written:
            array = cls._written.pop(next(iter(cls._written)))()
            if array is not None and array._host is not None:
                with torch.no_grad():
                    array._memory().copy_(torch.from_numpy(array._host))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._memory().shape)

    @property
    def used(self) -> bool:
        """Whether there is any memory yet: a gradient gets some once it is needed."""
        return self._used is None or self._used()

    @property
    def lent(self) -> bool:
        """New values never replace the memory."""
        return False

    def tensor(self) -> Tensor:
        """The memory itself, after what was written into arrays has been uploaded."""
        self.upload_all()
        return self._memory()

    def set(self, value: Tensor) -> None:
        """Copy new values into the memory."""
        with torch.no_grad():
            self.tensor().copy_(value)

    def host(self) -> np.ndarray:
        """The values as a writable array."""
        memory = self._memory().detach()
        if in_host_memory(memory.device):
            return memory.numpy()
        if list(self._written) == [id(self)] and self._host is not None:
            return self._host
        self.upload_all()
        if self._host is None:
            self._host = np.empty(tuple(memory.shape), np.float32)
        np.copyto(self._host, memory.cpu().numpy())
        self._written[id(self)] = weakref.ref(self)
        return self._host

    def resize(self, shape: Sequence[int]) -> None:
        if tuple(shape) != self.shape:
            raise CaffeError(
                f"the shape of a parameter, {self.shape}, is set by the layer; change the layer's options, or its net, to make "
                f"it {tuple(shape)}"
            )


class Blob:
    """Values (``data``) and gradients (``diff``), as float32 arrays with Caffe's attributes.

    Assigning whole arrays works too: ``blob.data = x`` is ``blob.data[...] = x``.
    """

    def __init__(self, data: SyncedArray | ParameterArray, diff: SyncedArray | ParameterArray) -> None:
        self.synced_data = data
        self.synced_diff = diff

    @classmethod
    def empty(cls, shape: Sequence[int], device: torch.device, diff: float = 0.0, name: str = "") -> Blob:
        """A blob of zeros whose gradients are all ``diff``. It takes memory when it is first looked at."""
        what = f'blob "{name}"' if name else "a blob"
        return cls(SyncedArray(shape, device, what=what), SyncedArray(shape, device, diff, f"the diff of {what}"))

    @property
    def data(self) -> np.ndarray:
        """The values: a live, writable view of shape ``shape``, a new one each time."""
        return self.synced_data.host()[...]  # what is done to its shape and flags is the user's affair

    @data.setter
    def data(self, value: Any) -> None:
        _assign(self.data, value)

    @property
    def diff(self) -> np.ndarray:
        """The gradients: a live, writable view of shape ``shape``, a new one each time."""
        return self.synced_diff.host()[...]

    @diff.setter
    def diff(self, value: Any) -> None:
        _assign(self.diff, value)

    def fitting(self, value: Any, what: str) -> np.ndarray:
        """``value`` as an array of numbers that this blob can hold: of its very shape, or a single number.

        Raises:
            CaffeError: it is neither; ``what`` says which blob was meant.
        """
        array = numbers(value, what)
        if array.shape not in ((), self.shape):
            raise CaffeError(f"{what} has shape {self.shape}; an array of shape {array.shape} does not fit")
        return array

    def assign(self, value: Any, what: str) -> None:
        """Set the values, those of another blob too. Errors as for :meth:`fitting`."""
        self.data[...] = self.fitting(value, what)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.synced_data.shape

    @property
    def has_diff(self) -> bool:
        """Whether anyone has looked at ``diff``, or a backward pass has made it."""
        return self.synced_diff.used

    @property
    def count(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    def _legacy(self, axis: int) -> int:
        if len(self.shape) > 4:
            raise CaffeError(
                f"num, channels, height and width are for blobs of at most 4 axes; this one has shape {self.shape}"
            )
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

        Values are kept if their number stays the same. Otherwise they are 0 again, and an array taken before the reshape no
        longer belongs to the blob.

        Raises:
            CaffeError: a dimension is negative or not a whole number, or there are more than 32.
        """
        if len(shape) == 1 and isinstance(shape[0], (tuple, list, np.ndarray)):
            shape = tuple(np.ravel(shape[0]).tolist() if isinstance(shape[0], np.ndarray) else shape[0])
        try:
            size = tuple(int(n) for n in shape)
        except (TypeError, ValueError, OverflowError):
            size = (-1,)
        if size != tuple(shape) or min(size, default=0) < 0 or len(size) > MOST_AXES:
            raise CaffeError(
                f"a blob cannot have shape {shape}: at most {MOST_AXES} dimensions, each an integer of at least 0"
            )
        self.synced_data.resize(size)
        self.synced_diff.resize(size)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.data, dtype, copy=True) if copy or dtype is not None else self.data

    def __copy__(self) -> Blob:
        return Blob(self.synced_data, self.synced_diff)

    def __reduce__(self) -> Any:  # for deepcopy and pickle: the values, in memory of their own
        return _restore, (self.data.copy(), self.diff.copy() if self.has_diff else None)

    def __repr__(self) -> str:
        return f"Blob(shape={self.shape})"


def _restore(data: np.ndarray, diff: np.ndarray | None) -> Blob:
    blob = Blob.empty(data.shape, torch.device("cpu"))
    blob.data[...] = data
    if diff is not None:
        blob.diff[...] = diff
    return blob


def numbers(value: Any, what: str) -> np.ndarray:
    """``value`` (an array, tensor, blob, list or number) as an array of real numbers, not copied where that is not needed.

    Raises:
        CaffeError: it is not made of numbers; ``what`` says where they were wanted.
    """
    if isinstance(value, Blob):
        return value.data
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = value.float() if value.is_floating_point() else value
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise CaffeError(f"{what}: numbers expected, but these make no array: {error}") from error
    if array.dtype == object and array.size and not any(item is None for item in array.flat):  # a row of a table, say
        with contextlib.suppress(TypeError, ValueError):
            return array.astype(np.float32)
    if array.dtype.kind not in "biuf":
        raise CaffeError(f"{what}: numbers expected, not a {type(value).__name__} of {array.dtype}")
    return array


def _assign(array: np.ndarray, value: Any) -> None:
    try:
        array[...] = numbers(value, f"a blob of shape {array.shape}")
    except ValueError as error:
        raise CaffeError(f"a blob of shape {array.shape} does not take these values: {error}") from error

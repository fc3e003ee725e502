"""The pooling operators by the CUDA kernels of ``csrc/cuda/switch_pool.cuh``, compiled when first used, through CuPy.

For a GPU without a built extension. Tensors are shared by DLPack, not copied, and kernels run on PyTorch's current stream.
This module chooses the kernel of a call and its arguments as ``csrc/cuda/launch.cu`` decides it for the extension.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .windows import OperatorError, Pair

THREADS, GROUPS = 256, 2
MOST_ITEMS = 2**31 - THREADS
TILE_BYTES, MOST_SHARED = 16 << 10, 48 << 10
SWITCH, SUM, AVERAGE, COUNT = range(4)
TYPES = {torch.float32: "Float", torch.float64: "Double", torch.float16: "Half", torch.bfloat16: "BFloat16"}
SAME_SIZE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

DIVIDER = np.dtype([("divisor", "u4"), ("multiplier", "u4"), ("shift", "u4")], align=True)
SIDES = ("height", "width", "rows", "cols", "kernel_h", "kernel_w", "stride_h", "stride_w", "pad_h", "pad_w")
GEOMETRY = np.dtype([("batch", "i8"), ("channels", "i8"), *((name, "i4") for name in SIDES)], align=True)
POINTERS = ("input", "gate", "switches", "places", "out")
TASK = np.dtype(
    [
        ("g", GEOMETRY),
        *((name, "u8") for name in POINTERS),
        *((name, "i4") for name in ("fixed", "mode", "normalized")),
        ("lower", "f4"),
        ("items", "u4"),
        *((name, DIVIDER) for name in ("d0", "d1", "d2")),
        *((name, "i4") for name in ("tile_planes", "tile_rows", "tiles")),
        ("planes", "i8"),
    ],
    align=True,
)


class Launch(NamedTuple):
    """One kernel to enqueue: its C++ name, blocks, bytes of shared memory, and its only argument."""

    kernel: str
    blocks: int
    shared: int
    task: np.ndarray


def source() -> str:
    """Return the device code as one file.

    Raises:
        FileNotFoundError: neither an installed package nor a checkout.
    """
    here = Path(__file__).parent
    folders = (here / "csrc", here.parents[1] / "csrc")
    folder = next((f for f in folders if (f / "geometry.h").exists()), folders[0])
    text = "\n".join((folder / name).read_text(encoding="utf-8") for name in ("geometry.h", "cuda/switch_pool.cuh"))
    return re.sub(r'^#(pragma once|include "\.\./geometry\.h")$', "", text, flags=re.MULTILINE)


def unavailable() -> str | None:
    """Say why this backend cannot run; None if it can."""
    try:
        import cupy
    except ImportError as error:
        return f"CuPy is not installed ({error})"
    try:
        source()
        cupy.cuda.nvrtc.getVersion()
        return None if cupy.cuda.is_available() else "CuPy finds no CUDA device"
    except Exception as error:  # a library that is missing or does not fit shows in many ways
        return f"CuPy cannot compile kernels: {error}"


def _divider(divisor: int) -> tuple[int, int, int]:
    shift = (divisor - 1).bit_length()
    return divisor, ((1 << 32) * ((1 << shift) - divisor)) // divisor + 1, shift


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


@dataclass(frozen=True)
class Call:
    """A call before its kernel is chosen. Addresses are integers, 0 for none; the first is of the side that is read."""

    operator: str  # max, sum, select, unpool
    dtype: torch.dtype
    channels_last: bool
    batch: int
    channels: int
    plane: Pair
    windows: Pair
    kernel: Pair
    stride: Pair
    pad: Pair
    addresses: dict[str, int]
    fixed: int = 0
    mode: int = SWITCH
    normalized: bool = False
    lower: float = 0.0  # maxima: what smaller values count as

    @property
    def size(self) -> int:
        return self.dtype.itemsize

    @property
    def vector(self) -> int:
        """How many elements make 16 bytes."""
        return 16 // self.size

    @property
    def pooling(self) -> bool:
        return self.operator != "unpool"

    @property
    def result(self) -> Pair:
        return self.windows if self.pooling else self.plane

    @property
    def side(self) -> int:
        """2 or 3 where kernels for such square windows with stride 2 serve the call, else 0."""
        square = self.kernel[0] if self.kernel in ((2, 2), (3, 3)) and self.stride == (2, 2) else 0
        served = self.operator == "sum" or self.mode == SWITCH
        return square if served and self.dtype != torch.float64 else 0

    @property
    def aligned(self) -> bool:
        return all(address % 16 == 0 for address in self.addresses.values())

    def name(self, family: str, *arguments: int | bool) -> str:
        """The C++ name of a kernel of this call's operator and type."""
        space = "switch_pool::device::"
        rest = "".join(f", {str(a).lower()}" for a in arguments)
        return f"{space}{family}_{self.operator}<{space}{TYPES[self.dtype]}{rest}>"

    def task(self, **fields: Any) -> np.ndarray:
        """The kernel's argument."""
        task = np.zeros(1, TASK)
        task["g"]["batch"], task["g"]["channels"] = self.batch, self.channels
        pairs = (*self.plane, *self.windows, *self.kernel, *self.stride, *self.pad)
        for name, value in zip(SIDES, pairs, strict=True):
            task["g"][name] = value
        # Where no place is covered twice, a place that counts was named once.
        overlaps = self.kernel[0] > self.stride[0] or self.kernel[1] > self.stride[1]
        fields |= self.addresses | {
            "fixed": self.fixed,
            "mode": self.mode,
            "normalized": self.normalized and overlaps,
            "lower": self.lower,
            "planes": self.batch * self.channels,
        }
        for name, value in fields.items():
            task[name] = value
        return task

    def slices(self) -> Iterator[Call]:
        """This call, or several over some of the images each, so that 31 bits number what threads share.

        Raises:
            OperatorError: a single image is too large for that.
        """
        places, windows = self.plane[0] * self.plane[1], self.windows[0] * self.windows[1]
        read, written = (places, windows) if self.pooling else (windows, places)
        most = MOST_ITEMS // (self.channels * max(places, windows))
        if most == 0:
            raise OperatorError(f"an image of {self.channels} planes of {self.plane} is too large for the CuPy backend")
        steps = {"input": read * self.size, "out": written * self.size, "gate": windows * self.size}
        for first in range(0, self.batch, most):
            skip = first * self.channels
            moved = {n: a and a + skip * steps.get(n, windows) for n, a in self.addresses.items()}
            yield replace(self, batch=min(most, self.batch - first), addresses=moved)

    def launch(self) -> Launch:
        """Choose the kernel and fill its task."""
        vectors = self.aligned and self.channels % self.vector == 0
        if self.channels_last and vectors and self.side:
            rows, cols = self.result
            if not self.pooling:  # 2x2 places, counted from where the first window starts
                rows, cols = ((self.plane[a] - 1 + self.pad[a]) // 2 + 1 for a in (0, 1))
            return self._one_each(self.name("pixels", self.vector, self.side), self.vector, rows, cols)
        if not self.channels_last and self.aligned and self.side:
            launch = self._pairs() or (self._tiles() if self.operator != "sum" else None)
            if launch is not None:
                return launch
        v = self.vector if self.channels_last and vectors and self.operator != "select" else 1
        arguments = (self.channels_last,) if self.operator == "select" else (v, self.channels_last)
        return self._one_each(self.name("any", *arguments), v, *self.result)

    def _one_each(self, kernel: str, v: int, rows: int, cols: int) -> Launch:
        inner = self.channels // v if self.channels_last else 1
        items = self.batch * (1 if self.channels_last else self.channels) * inner * rows * cols
        task = self.task(items=items, d0=_divider(inner), d1=_divider(cols), d2=_divider(rows))
        return Launch(kernel, _ceil(items, THREADS), 0, task)

    def _pairs(self) -> Launch | None:
        windows = self.batch * self.channels * self.windows[0] * self.windows[1]
        tiles_exactly = self.pad == (0, 0) and self.plane == (2 * self.windows[0], 2 * self.windows[1])
        if self.side != 2 or not tiles_exactly or self.plane[1] % self.vector:
            return None
        group = self.vector // 2
        items = windows // group
        task = self.task(items=items, d1=_divider(self.windows[1] // group))
        return Launch(self.name("pairs", self.vector), _ceil(items, GROUPS * THREADS), 0, task)

    def _tiles(self) -> Launch | None:
        (height, width), (rows, cols) = self.plane, self.windows
        plane, row = height * width * self.size, width * self.size * (2 if self.pooling else 1)
        shared_rows = self.result[0]
        if plane <= TILE_BYTES + TILE_BYTES // 2:
            tile_planes, tile_rows, tiles = max(1, TILE_BYTES // plane), 0, 0
            places, windows = tile_planes * height * width, tile_planes * rows * cols
            blocks = _ceil(self.batch * self.channels, tile_planes)
        else:
            tile_planes, tile_rows = 0, min(max(1, TILE_BYTES // row), shared_rows)
            places = ((tile_rows - 1) * 2 + self.side if self.pooling else tile_rows) * width
            windows = (tile_rows if self.pooling else tile_rows // 2 + self.side) * cols
            tiles = _ceil(shared_rows, tile_rows)
            blocks = self.batch * self.channels * tiles

        def room(count: int, size: int) -> int:
            return _ceil(count, 16 // size) + 1

        shared = room(places, self.size) + room(windows, self.size) + room(windows + 2 * cols * self.pooling, 1)
        if not self.pooling and self.addresses["gate"]:
            shared += room(windows, self.size)
        if shared * 16 > MOST_SHARED:
            return None
        across, down = cols, rows
        if not self.pooling:
            across = (width - 1 + self.pad[1]) // 4 + 1
            down = (height - 1 + self.pad[0]) // 2 + 1 - self.pad[0] // 2
        task = self.task(
            d1=_divider(across), d2=_divider(down), tile_planes=tile_planes, tile_rows=tile_rows, tiles=tiles
        )
        return Launch(self.name("tiles", self.side), blocks, shared * 16, task)


@functools.cache
def _function(kernel: str, device: int) -> Any:
    """The compiled kernel, on a device. CuPy keeps what it compiles on disk."""
    import cupy

    module = cupy.RawModule(code=source(), options=("-std=c++17",), name_expressions=(kernel,))
    return module.get_function(kernel)


class _Stream:
    """PyTorch's current stream by CUDA's stream protocol."""

    def __init__(self, device: torch.device) -> None:
        self.pointer = torch.cuda.current_stream(device).cuda_stream

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.pointer


def _run(call: Call, tensors: dict[str, Tensor | None]) -> None:
    """Enqueue a call whose addresses are those of ``tensors``; DLPack hands them over."""
    import cupy

    device = next(t for t in tensors.values() if t is not None).device
    stream = _Stream(device)
    with cupy.cuda.Device(device.index):
        made = getattr(cupy.cuda.Stream, "from_external", None)
        with made(stream) if made else cupy.cuda.ExternalStream(stream.pointer, device.index):
            shared = {
                name: cupy.from_dlpack(t.detach().view(SAME_SIZE[t.element_size()]))
                for name, t in tensors.items()
                if t is not None
            }
            call = replace(call, addresses={n: shared[n].data.ptr if n in shared else 0 for n in POINTERS})
            for part in call.slices():
                launch = part.launch()
                kernel = _function(launch.kernel, device.index)
                kernel((launch.blocks,), (THREADS,), (launch.task,), shared_mem=launch.shared)


def _call(
    operator: str,
    first: Tensor,
    plane: Sequence[int],
    windows: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    pad: Sequence[int],
    **more: Any,
) -> Call:
    def two(value: Sequence[int]) -> Pair:
        return int(value[0]), int(value[1])

    n, c = first.shape[:2]
    last = not first.is_contiguous()
    return Call(
        operator,
        more.pop("dtype", first.dtype),
        last,
        n,
        c,
        two(plane),
        two(windows),
        two(kernel),
        two(stride),
        two(pad),
        addresses={},
        **more,
    )


def _empty(like: Tensor, size: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
    layout = torch.contiguous_format if like.is_contiguous() else torch.channels_last
    return torch.empty((*like.shape[:2], *size), dtype=dtype or like.dtype, device=like.device, memory_format=layout)


def _pool(call: Call, x: Tensor, switch: Tensor | None, gate: Tensor | None) -> Tensor:
    y = _empty(x, call.windows)
    if y.numel():
        _run(call, {"input": x, "switches": switch, "gate": gate, "out": y})
    return y


def _unpool(call: Call, y: Tensor, switch: Tensor | None, gate: Tensor | None) -> Tensor:
    x = _empty(y, call.plane)
    if x.numel():
        _run(call, {"input": y, "switches": switch, "gate": gate, "out": x})
    return x


def max_pool_switch(
    x: Tensor, kernel: Pair, stride: Pair, pad: Pair, output_size: Pair, relu: bool
) -> tuple[Tensor, Tensor]:
    """Return the maxima and their byte switches."""
    call = _call("max", x, x.shape[2:], output_size, kernel, stride, pad, lower=0.0 if relu else float("-inf"))
    y, switch = _empty(x, call.windows), _empty(x, call.windows, torch.uint8)
    if y.numel():
        _run(call, {"input": x, "places": switch, "out": y})
    return y, switch


def pool_switch(
    x: Tensor, switch: Tensor, kernel: Pair, stride: Pair, pad: Pair, gate: Tensor | None, *, normalized: bool = False
) -> Tensor:
    """Return the value at each window's switch."""
    call = _call("select", x, x.shape[2:], switch.shape[2:], kernel, stride, pad, normalized=normalized)
    return _pool(call, x, switch, gate)


def pool_switch_normalized(
    x: Tensor, switch: Tensor, kernel: Pair, stride: Pair, pad: Pair, gate: Tensor | None
) -> Tensor:
    """Return ``x`` over the number of switches that point there, at each window's switch."""
    return pool_switch(x, switch, kernel, stride, pad, gate, normalized=True)


def unpool_switch(
    y: Tensor,
    switch: Tensor,
    kernel: Pair,
    stride: Pair,
    pad: Pair,
    output_size: Pair,
    gate: Tensor | None,
    *,
    normalized: bool = False,
) -> Tensor:
    """Return planes with each value added at its switch."""
    call = _call("unpool", y, output_size, y.shape[2:], kernel, stride, pad, normalized=normalized)
    return _unpool(call, y, switch, gate)


def unpool_switch_normalized(
    y: Tensor, switch: Tensor, kernel: Pair, stride: Pair, pad: Pair, output_size: Pair, gate: Tensor | None
) -> Tensor:
    """Return :func:`unpool_switch` times one over the number of values added."""
    return unpool_switch(y, switch, kernel, stride, pad, output_size, gate, normalized=True)


def unpool_weights(
    switch: Tensor, kernel: Pair, stride: Pair, pad: Pair, output_size: Pair, dtype: torch.dtype
) -> Tensor:
    """Return how many switches point at each place."""
    call = _call("unpool", switch, output_size, switch.shape[2:], kernel, stride, pad, dtype=dtype, mode=COUNT)
    x = _empty(switch, call.plane, dtype)
    if x.numel():
        _run(call, {"switches": switch, "out": x})
    return x


def _fixed(offset: Pair, stride: Pair) -> tuple[Pair, Pair, int]:
    """Kernel, pad and switch of the windows whose switches all name the place at ``offset``; -1: windows of that one place."""
    if tuple(stride) == (2, 2) and offset[0] in (0, 1) and offset[1] in (0, 1):
        return (2, 2), (0, 0), offset[0] * 2 + offset[1]
    return (1, 1), (-offset[0], -offset[1]), -1


def pool_fixed(x: Tensor, offset: Pair, stride: Pair, output_size: Pair, gate: Tensor | None) -> Tensor:
    """Return the value at ``window * stride + offset``."""
    kernel, pad, place = _fixed(offset, stride)
    operator, more = ("sum", {"mode": SUM}) if place < 0 else ("select", {"fixed": place})
    return _pool(_call(operator, x, x.shape[2:], output_size, kernel, stride, pad, **more), x, None, gate)


def unpool_fixed(y: Tensor, offset: Pair, stride: Pair, output_size: Pair, gate: Tensor | None) -> Tensor:
    """Return planes with each value at ``window * stride + offset``, 0 elsewhere."""
    kernel, pad, place = _fixed(offset, stride)
    more = {"mode": SUM} if place < 0 else {"fixed": place}
    return _unpool(_call("unpool", y, output_size, y.shape[2:], kernel, stride, pad, **more), y, None, gate)


def pool_sum(
    x: Tensor, kernel: Pair, stride: Pair, pad: Pair, output_size: Pair, average: bool, gate: Tensor | None
) -> Tensor:
    """Return the sum, or the average, of each window."""
    mode = AVERAGE if average else SUM
    return _pool(_call("sum", x, x.shape[2:], output_size, kernel, stride, pad, mode=mode), x, None, gate)


def unpool_sum(
    y: Tensor, kernel: Pair, stride: Pair, pad: Pair, output_size: Pair, average: bool, gate: Tensor | None
) -> Tensor:
    """Return planes with each value, or each value over its window's size, added at every place of its window."""
    mode = AVERAGE if average else SUM
    return _unpool(_call("unpool", y, output_size, y.shape[2:], kernel, stride, pad, mode=mode), y, None, gate)

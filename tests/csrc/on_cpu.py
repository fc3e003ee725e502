"""The CUDA side on the CPU: the operators, with launch.cu or the CuPy backend choosing the kernels, over shim.h."""

import ctypes
import os
import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from pycaffe_compat.ops import cupy_backend

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
TYPES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}
GUARD = 256


class Geometry(ctypes.Structure):
    _fields_ = [
        ("batch", ctypes.c_longlong),
        ("channels", ctypes.c_longlong),
        *((name, ctypes.c_int) for name in cupy_backend.SIDES),
    ]


class Launch(NamedTuple):
    kernel: str
    blocks: int
    shared: int
    task: np.ndarray


def compiler():
    return os.environ.get("CXX", "c++").split()[0]


def layout_of(x):
    return torch.contiguous_format if x.is_contiguous() else torch.channels_last


class Library:
    """The shared library of on_cpu.cpp."""

    def __init__(self, folder):
        path = folder / "on_cpu.so"
        flags = ["-std=c++17", "-O1", "-ffp-contract=off", "-fPIC", "-shared", "-w", f"-I{CSRC}", f"-I{HERE}"]
        subprocess.run([compiler(), *flags, str(HERE / "on_cpu.cpp"), "-o", str(path)], check=True)
        self.c = ctypes.CDLL(str(path))
        self.c.launch_kernel.restype = self.c.kernel_name.restype = ctypes.c_char_p
        self.c.launch_blocks.restype = self.c.launch_shared.restype = ctypes.c_longlong
        self.c.launch_task.restype = ctypes.c_void_p
        self.guarded = []

    def kernels(self):
        return [self.c.kernel_name(i).decode() for i in range(self.c.kernel_count())]

    def launches(self):
        """What was launched since :meth:`forget`."""
        size = self.c.task_size()
        assert size == cupy_backend.TASK.itemsize
        return [
            Launch(
                self.c.launch_kernel(i).decode(),
                self.c.launch_blocks(i),
                self.c.launch_shared(i),
                np.frombuffer(ctypes.string_at(self.c.launch_task(i), size), cupy_backend.TASK).copy(),
            )
            for i in range(self.c.launch_count())
        ]

    def forget(self):
        self.c.forget_launches()

    def empty(self, like, size, dtype=None):
        """A tensor full of garbage between guards that :meth:`check_guards` looks at; the format is that of ``like``."""
        dtype = dtype or like.dtype
        shape = (*like.shape[:2], *size)
        count = int(np.prod(shape))
        memory = torch.full((count * dtype.itemsize + 2 * GUARD + 64,), 0xA5, dtype=torch.uint8)
        start = GUARD + -(memory.data_ptr() + GUARD) % 64
        flat = memory[start : start + count * dtype.itemsize].view(dtype)
        self.guarded.append((memory, start, start + count * dtype.itemsize))
        n, c, h, w = shape
        if layout_of(like) is torch.contiguous_format:
            return flat.view(shape)
        return flat.view(n, h, w, c).permute(0, 3, 1, 2)

    def check_guards(self):
        for memory, start, end in self.guarded:
            assert (memory[:start] == 0xA5).all() and (memory[end:] == 0xA5).all(), "a kernel wrote beyond its result"
        self.guarded.clear()


def address(x):
    return ctypes.c_void_p(None if x is None else x.data_ptr())


class ByLaunchCu:
    """The operators as the extension runs them on a GPU: launch.cu chooses the kernels."""

    def __init__(self, library):
        self.library, self.c = library, library.c

    def _start(self, first, plane, windows, kernel, stride, pad, dtype=None):
        g = Geometry(*first.shape[:2], *plane, *windows, *kernel, *stride, *pad)
        last = layout_of(first) is not torch.contiguous_format
        return ctypes.byref(g), TYPES[dtype or first.dtype], int(last)

    @staticmethod
    def _check(error):
        assert error == 0, f"CUDA error {error}"

    def max_pool_switch(self, x, kernel, stride, pad, output_size, relu):
        y, s = self.library.empty(x, output_size), self.library.empty(x, output_size, torch.uint8)
        start = self._start(x, x.shape[2:], output_size, kernel, stride, pad)
        self._check(self.c.max_pool_switch(*start, address(x), int(relu), address(y), address(s)))
        return y, s

    def pool_switch(self, x, switch, kernel, stride, pad, gate, normalized=0):
        y = self.library.empty(x, switch.shape[2:])
        start = self._start(x, x.shape[2:], switch.shape[2:], kernel, stride, pad)
        self._check(self.c.pool_switch(*start, address(x), address(switch), 0, normalized, address(gate), address(y)))
        return y

    def pool_switch_normalized(self, x, switch, kernel, stride, pad, gate):
        return self.pool_switch(x, switch, kernel, stride, pad, gate, 1)

    def unpool_switch(self, y, switch, kernel, stride, pad, output_size, gate, normalized=0):
        x = self.library.empty(y, output_size)
        return self._unpool(cupy_backend.SWITCH, x, y, switch, 0, normalized, gate, kernel, stride, pad)

    def _unpool(self, mode, x, y, switch, fixed, normalized, gate, kernel, stride, pad):
        g, dtype, last = self._start(y, x.shape[2:], y.shape[2:], kernel, stride, pad)
        operands = (address(y), address(switch), fixed, normalized, address(gate), address(x))
        self._check(self.c.unpool(g, dtype, mode, last, *operands))
        return x

    def unpool_switch_normalized(self, y, switch, kernel, stride, pad, output_size, gate):
        return self.unpool_switch(y, switch, kernel, stride, pad, output_size, gate, 1)

    def unpool_weights(self, switch, kernel, stride, pad, output_size, dtype):
        x = self.library.empty(switch, output_size, dtype)
        start = self._start(switch, output_size, switch.shape[2:], kernel, stride, pad, dtype)
        self._check(self.c.unpool_weights(*start, address(switch), address(x)))
        return x

    def pool_sum(self, x, kernel, stride, pad, output_size, average, gate):
        y = self.library.empty(x, output_size)
        start = self._start(x, x.shape[2:], output_size, kernel, stride, pad)
        self._check(self.c.pool_sum(*start, address(x), int(average), address(gate), address(y)))
        return y

    def unpool_sum(self, y, kernel, stride, pad, output_size, average, gate):
        x = self.library.empty(y, output_size)
        mode = cupy_backend.AVERAGE if average else cupy_backend.SUM
        return self._unpool(mode, x, y, None, 0, 0, gate, kernel, stride, pad)

    def pool_fixed(self, x, offset, stride, output_size, gate):
        y = self.library.empty(x, output_size)
        kernel, pad, place = cupy_backend._fixed(offset, stride)
        start = self._start(x, x.shape[2:], output_size, kernel, stride, pad)
        if place < 0:
            self._check(self.c.pool_sum(*start, address(x), 0, address(gate), address(y)))
        else:
            self._check(self.c.pool_switch(*start, address(x), None, place, 0, address(gate), address(y)))
        return y

    def unpool_fixed(self, y, offset, stride, output_size, gate):
        x = self.library.empty(y, output_size)
        kernel, pad, place = cupy_backend._fixed(offset, stride)
        mode = cupy_backend.SUM if place < 0 else cupy_backend.SWITCH
        return self._unpool(mode, x, y, None, place, 0, gate, kernel, stride, pad)


class ByCupy:
    """The operators of the CuPy backend, whose launches run here instead of on a GPU."""

    def __init__(self, library, monkeypatch):
        self.library = library
        monkeypatch.setattr(cupy_backend, "_run", self._run)
        monkeypatch.setattr(cupy_backend, "_empty", library.empty)

    def __getattr__(self, name):
        return getattr(cupy_backend, name)

    def _run(self, call, tensors):
        addresses = {n: t.data_ptr() if (t := tensors.get(n)) is not None else 0 for n in cupy_backend.POINTERS}
        for part in cupy_backend.replace(call, addresses=addresses).slices():
            launch = part.launch()
            name = launch.kernel.replace("switch_pool::device::", "")
            task = launch.task.ctypes.data_as(ctypes.c_void_p)
            error = self.library.c.run(name.encode(), launch.blocks, launch.shared, task)
            assert error == 0, f"{name}: error {error}"

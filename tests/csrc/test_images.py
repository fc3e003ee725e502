"""The device code for byte images, every thread run on the CPU, against the implementation in PyTorch."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from on_cpu import CSRC, GUARD, HERE, compiler

from pycaffe_compat.ops import images as module


class Plane(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int) for name in ("height", "width")),
        *((name, ctypes.c_int64) for name in ("channel", "row", "pixel")),
    ]


class Task(ctypes.Structure):
    _fields_ = [
        ("batch", ctypes.c_int64),
        *((name, ctypes.c_int) for name in ("channels", "height", "width")),
        ("image", Plane),
        ("mean", Plane),
        ("image_size", ctypes.c_int64),
        ("scale", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ("images", "windows", "means", "out")),
    ]


def plane(x):
    return Plane(
        *x.shape[-2:], *(0 if size == 1 else step for size, step in zip(x.shape[-3:], x.stride()[-3:], strict=True))
    )


@pytest.fixture(scope="module")
def transform(tmp_path_factory):
    if shutil.which(compiler()) is None:
        pytest.skip(f"no C++ compiler ({compiler()}) to build the device code with")
    path: Path = tmp_path_factory.mktemp("images") / "images_on_cpu.so"
    flags = ["-std=c++17", "-O1", "-ffp-contract=off", "-fPIC", "-shared", "-w", f"-I{CSRC}", f"-I{HERE}"]
    subprocess.run([compiler(), *flags, str(HERE / "images_on_cpu.cpp"), "-o", str(path)], check=True)
    library = ctypes.CDLL(str(path))

    def run(images, windows, mean, scale, size):
        """The result, which lies between guards."""
        n, channels = images.shape[:2]
        count = n * channels * size[0] * size[1]
        memory = torch.full((count + 2 * GUARD,), 12345.0)
        out = memory[GUARD : GUARD + count].fill_(torch.nan).view(n, channels, *size)
        task = Task(n, channels, *size, plane(images), plane(mean), images.stride(0), scale)
        task.images, task.windows = images.data_ptr(), windows.data_ptr()
        task.means, task.out = mean.data_ptr(), out.data_ptr()
        assert library.transform(ctypes.byref(task)) == 0
        assert (memory[:GUARD] == 12345).all() and (memory[GUARD + count :] == 12345).all(), "written beyond the result"
        return out

    return run


@settings(deadline=None, max_examples=80)
@given(data=st.data())
def test_against_pytorch(transform, data):
    torch.manual_seed(data.draw(st.integers(0, 1000)))
    n, channels = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    shape = data.draw(st.tuples(st.integers(1, 20), st.integers(1, 20)))
    size = tuple(data.draw(st.integers(1, side)) for side in shape)
    images = torch.randint(0, 256, (n, *shape, channels), dtype=torch.uint8).permute(0, 3, 1, 2)
    if data.draw(st.booleans()):
        images = images.contiguous()
    first = [data.draw(st.integers(0, a - b)) for a, b in zip(shape, size, strict=True)]
    windows = torch.tensor([[*first, i % 2] for i in range(n)], dtype=torch.int32)
    mean = torch.randn(data.draw(st.sampled_from(((1, 1, 1), (channels, 1, 1), (channels, *shape))))) * 100
    want = torch.empty(n, channels, *size)
    module._run(want, [images], windows, mean, 0.017)
    assert torch.equal(transform(images, windows, mean, 0.017, size), want)


@pytest.mark.parametrize("stray", ((-5, 0), (0, -1), (99, 0), (0, 4), (-(2**31), 2**31 - 1)))
def test_a_window_outside_is_moved_inside(transform, stray):
    images, mean = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8), torch.rand(3, 8, 8)
    inside = [min(max(first, 0), 3) for first in stray]
    made, want = (
        transform(images, torch.tensor([[*first, 1]], dtype=torch.int32), mean, 1.0, (5, 5))
        for first in (stray, inside)
    )
    assert torch.equal(made, want)

"""Which kernel a call takes, and how large tensors are cut: launch.cu and the CuPy backend decide alike."""

import itertools

import numpy as np
import pytest
import torch
from on_cpu import ByCupy, ByLaunchCu

from pycaffe_compat.ops import cupy_backend, windows

VGG = [(64, 224), (128, 112), (256, 56), (512, 28), (512, 14)]
ALEXNET = [(96, 55), (256, 27), (256, 13)]
LAYOUTS = (torch.contiguous_format, torch.channels_last)


class Fake:
    """As much of a tensor as choosing a kernel looks at: no memory is behind it."""

    def __init__(self, shape, dtype, layout, address=1 << 20):
        self.shape, self.dtype, self.layout, self.address = torch.Size(shape), dtype, layout, address

    def is_contiguous(self):
        return self.layout is torch.contiguous_format

    def data_ptr(self):
        return self.address

    def numel(self):
        return self.shape.numel()


@pytest.fixture
def dry(library, monkeypatch):
    """Both choosers; launches are recorded, nothing runs."""
    library.c.set_dry(1)
    monkeypatch.setattr(
        library,
        "empty",
        lambda like, size, dtype=None: Fake((*like.shape[:2], *size), dtype or like.dtype, like.layout),
    )
    yield library, ByLaunchCu(library), ByCupy(library, monkeypatch)
    library.c.set_dry(0)
    library.forget()


def calls(channels, side, kernel, batch, dtype, layout):
    """The operators of a pooling of that size, as functions of who runs them."""
    window = windows.window(kernel, 2, 0)
    plane, count = (side, side), window.pooled((side, side))
    x, y = Fake((batch, channels, *plane), dtype, layout), Fake((batch, channels, *count), dtype, layout)
    s = Fake(y.shape, torch.uint8, layout)
    return {
        "max": lambda d: d.max_pool_switch(x, *window, count, True),
        "select": lambda d: d.pool_switch(x, s, *window, None),
        "unpool": lambda d: d.unpool_switch(y, s, *window, plane, y),
        "normalized": lambda d: d.unpool_switch_normalized(y, s, *window, plane, None),
        "fixed": lambda d: d.unpool_fixed(y, (1, 1), (2, 2), plane, None),
        "average": lambda d: d.pool_sum(x, *window, count, True, y),
        "weights": lambda d: d.unpool_weights(s, *window, plane, dtype),
    }


def recorded(library, call, device):
    library.forget()
    call(device)
    return library.launches()


def family(kernel):
    return kernel.split("_")[0]


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64, torch.float16, torch.bfloat16))
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("size", "kernel"), [*((s, 2) for s in VGG), *((s, 3) for s in ALEXNET), ((3, 1000), 2), ((5, 7), 4)]
)
def test_both_choose_alike(dry, size, kernel, layout, dtype):
    library, by_launch_cu, by_cupy = dry
    for call in calls(*size, kernel, 4, dtype, layout).values():
        one, other = recorded(library, call, by_launch_cu), recorded(library, call, by_cupy)
        assert [launch[:3] for launch in one] == [launch[:3] for launch in other]
        assert all(a.task == b.task for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("dtype", (torch.float32, torch.float16, torch.bfloat16))
def test_the_fast_kernels_serve_vgg_and_alexnet(dry, dtype):
    library, by_launch_cu, _ = dry
    vector = 16 // dtype.itemsize
    for (channels, side), kernel in [*((s, 2) for s in VGG), *((s, 3) for s in ALEXNET)]:
        for layout, name in itertools.product(LAYOUTS, ("max", "select", "unpool", "normalized")):
            call = calls(channels, side, kernel, 64, dtype, layout)[name]
            (launch,) = recorded(library, call, by_launch_cu)
            rows_fit = kernel == 2 and side % vector == 0
            expected = "pixels" if layout is torch.channels_last else "pairs" if rows_fit else "tiles"
            assert family(launch.kernel) == expected, (channels, side, name, launch.kernel)
            assert launch.shared <= 48 << 10


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("size", "kernel"), (((64, 224), 2), ((512, 14), 2), ((96, 55), 3), ((64, 224), 4)))
def test_more_than_2_to_the_31_elements(dry, size, kernel, layout):
    """Every slice is small enough, and the slices follow each other without a gap."""
    library, by_launch_cu, by_cupy = dry
    channels, side = size
    batch = 3 * 2**31 // (channels * side * side)
    count = windows.window(kernel, 2, 0).pooled((side, side))
    for device in (by_launch_cu, by_cupy):
        launches = recorded(library, calls(channels, side, kernel, batch, torch.float16, layout)["max"], device)
        read = [int(launch.task["input"][0]) for launch in launches]
        written = [int(launch.task["out"][0]) for launch in launches]
        places = [int(launch.task["places"][0]) for launch in launches]
        assert read[0] == written[0] == places[0] == 1 << 20
        for launch in launches:
            assert launch.blocks < 2**31
            assert launch.task["items"][0] < 2**31
        # Steps in the three tensors agree: as many windows read as written.
        windows_per_plane, places_per_plane = count[0] * count[1], side * side
        for a, b, c in zip(np.diff(read), np.diff(written), np.diff(places), strict=True):
            assert c * 2 == b
            assert a * windows_per_plane == b * places_per_plane
            assert a > 0


def fields(dtype, start=0):
    """Where the numbers of a structure lie."""
    for part, offset in dtype.fields.values():
        if part.fields:
            yield from fields(part, start + offset)
        else:
            yield start + offset


def test_cupy_arguments_have_the_layout_that_kernels_read(library):
    ours = list(fields(cupy_backend.TASK))
    assert [library.c.task_offset(i) for i in range(len(ours) + 1)] == [*ours, -1]
    assert library.c.task_size() == cupy_backend.TASK.itemsize

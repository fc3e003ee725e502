"""The device code, every thread of every block run on the CPU, against Caffe's definition and against the CPU kernels.

Both that choose kernels are run: launch.cu, and the CuPy backend. Results lie in garbage between guards, so an element that
is not written, or written outside, shows.
"""

import caffe_reference as caffe
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from on_cpu import ByCupy, ByLaunchCu, layout_of

from pycaffe_compat.ops import backends, torch_backend, windows

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
SQUARES = (((2, 2), (2, 2)), ((3, 3), (2, 2)))
drawn = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(params=("launch.cu", "cupy"))
def device(request, library, monkeypatch):
    """The operators, their kernels chosen by one of the two."""
    return ByLaunchCu(library) if request.param == "launch.cu" else ByCupy(library, monkeypatch)


@pytest.fixture(scope="module")
def cpu():
    """The CPU kernels."""
    why = backends.unavailable("extension", "cpu")
    assert why is None, f"the extension is to be built before its kernels are tested: {why}"
    return torch.ops.pycaffe_compat


@st.composite
def cases(draw, side, channels):
    """A window, often one that has kernels of its own; a plane; Caffe's number of windows; a batch; a type and a layout."""
    sides = st.tuples(st.integers(1, 5), st.integers(1, 5))
    kernel, stride = draw(st.one_of(st.sampled_from(SQUARES), st.tuples(sides, sides)))
    pad = tuple(draw(st.integers(0, k - 1)) for k in kernel)
    window = windows.Window(kernel, stride, pad)
    plane = draw(st.tuples(st.integers(1, side), st.integers(1, side)))
    count = window.pooled(plane, draw(st.booleans()))
    if window.problem(plane, count) is not None:
        count = tuple((plane[a] + pad[a] - 1) // stride[a] + 1 if stride[a] > kernel[a] else 1 for a in (0, 1))
    batch = draw(st.tuples(st.integers(1, 2), st.sampled_from(channels)))
    layout = draw(st.sampled_from((torch.contiguous_format, torch.channels_last)))
    return window, plane, count, batch, draw(st.sampled_from(DTYPES)), layout, draw(st.integers(0, 2**32 - 1))


def values(rng, shape, dtype, layout, odd=False):
    """Random values, many of them ties; ``odd``: NaN, infinities and the lowest float among them."""
    x = np.where(rng.random(shape) < 0.5, rng.integers(-2, 3, shape), rng.standard_normal(shape))
    x = torch.from_numpy(x).to(dtype)
    if odd:
        extremes = torch.tensor([np.nan, np.inf, -np.inf, torch.finfo(dtype).min, -0.0, 6e-8], dtype=torch.float64)
        chosen = extremes[torch.from_numpy(rng.integers(0, len(extremes), shape))].to(dtype)
        x = torch.where(torch.from_numpy(rng.random(shape) < 0.4), chosen, x)
    return x.contiguous(memory_format=layout)


def array(x):
    return x.to(torch.float64 if x.dtype == torch.float64 else torch.float32).contiguous().numpy()


def same(have, want):
    want = torch.from_numpy(want).to(have.dtype) if isinstance(want, np.ndarray) else want
    torch.testing.assert_close(have, want, rtol=0, atol=0, equal_nan=True)


@drawn
@given(case=cases(9, (1, 2, 3, 8)))
def test_against_caffe(device, case):
    window, plane, count, batch, dtype, layout, seed = case
    rng = np.random.default_rng(seed)
    x = values(rng, (*batch, *plane), dtype, layout, odd=seed % 2)
    relu = bool(seed % 3)
    y, switch = device.max_pool_switch(x, *window, count, relu)
    want, places = caffe.max_pool(array(x.relu() if relu else x), window, count, torch_backend.lowest(dtype))
    same(y, want)
    same(switch, places)

    first = values(rng, (*batch, *count), dtype, layout)
    where = torch.from_numpy(places).contiguous(memory_format=layout_of(first))
    gate = values(rng, (*batch, *count), dtype, layout_of(first)) if seed % 5 else None
    opened = first if gate is None else torch.where(gate <= 0, 0, first)
    want, weights = caffe.unpool_switch(array(opened), places, window, plane)
    same(device.unpool_switch(first, where, *window, plane, gate), want)
    same(device.unpool_weights(where, *window, plane, dtype), weights)
    inverse = torch.from_numpy(caffe.safe_inverse(weights)).to(dtype)
    normalized = device.unpool_switch_normalized(first, where, *window, plane, gate)
    same(normalized, torch.from_numpy(want).to(dtype) * inverse)
    average = bool(seed % 7 < 3)
    same(
        device.unpool_sum(first, *window, plane, average, gate), caffe.unpool_sum(array(opened), window, plane, average)
    )
    position = tuple(int(rng.integers(k)) for k in window.kernel)
    offset = tuple(position[a] - window.pad[a] for a in (0, 1))
    want = caffe.unpool_fixed(array(opened), window, plane, position)
    same(device.unpool_fixed(first, offset, window.stride, plane, gate), want)

    x = values(rng, (*batch, *plane), dtype, layout)
    where = torch.from_numpy(places).contiguous(memory_format=layout_of(x))
    gate = gate if gate is None else gate.contiguous(memory_format=layout_of(x))
    closed = np.zeros(where.shape, bool) if gate is None else array(gate) <= 0
    same(device.pool_switch(x, where, *window, gate), np.where(closed, 0, caffe.pool_switch(array(x), places, window)))
    want = caffe.pool_switch(array(x * inverse), places, window)
    same(device.pool_switch_normalized(x, where, *window, gate), np.where(closed, 0, want))
    want = np.where(closed, 0, caffe.pool_sum(array(x), window, count, average))
    same(device.pool_sum(x, *window, count, average, gate), want)
    want = np.where(closed, 0, caffe.pool_fixed(array(x), window, count, position))
    same(device.pool_fixed(x, offset, window.stride, count, gate), want)
    device.library.check_guards()


@drawn
@given(case=cases(90, (1, 3, 8, 16)))
def test_against_the_cpu_kernels(device, cpu, case):
    """Larger planes: tiles that are bands of a plane, several planes, ends that are not multiples of 16 bytes."""
    window, plane, count, batch, dtype, layout, seed = case
    rng = np.random.default_rng(seed)
    x = values(rng, (*batch, *plane), dtype, layout, odd=seed % 2)
    relu = bool(seed % 3)
    y, switch = device.max_pool_switch(x, *window, count, relu)
    want, places = cpu.max_pool_switch(x, *window, count, relu)
    same(y, want)
    same(switch, places)
    first = values(rng, (*batch, *count), dtype, layout)
    where = places.contiguous(memory_format=layout_of(first))
    gate = values(rng, (*batch, *count), dtype, layout_of(first)) if seed % 5 else None
    for name in ("unpool_switch", "unpool_switch_normalized"):
        operands = (first, where, *window, plane, gate)
        same(getattr(device, name)(*operands), getattr(cpu, name)(*operands))
    same(device.unpool_weights(where, *window, plane, dtype), cpu.unpool_weights(where, *window, plane, dtype))
    x = values(rng, (*batch, *plane), dtype, layout)
    where = places.contiguous(memory_format=layout_of(x))
    gate = gate if gate is None else gate.contiguous(memory_format=layout_of(x))
    for name in ("pool_switch", "pool_switch_normalized"):
        same(getattr(device, name)(x, where, *window, gate), getattr(cpu, name)(x, where, *window, gate))
    operands = (x, *window, count, bool(seed % 2), gate)
    same(device.pool_sum(*operands), cpu.pool_sum(*operands))
    device.library.check_guards()


@pytest.mark.parametrize("shape", ((2, 24, 14, 16), (1, 1, 2, 8), (3, 5, 46, 40)))
@pytest.mark.parametrize("dtype", DTYPES)
def test_windows_that_tile_rows_of_whole_vectors(device, cpu, dtype, shape):
    """The kernels of VGG's large poolings: less than a block, and several blocks of which the last is not full."""
    window, plane, count = windows.window(2, 2, 0), shape[2:], (shape[2] // 2, shape[3] // 2)
    rng = np.random.default_rng(0)
    x, y, gate = (values(rng, (*shape[:2], *size), dtype, torch.contiguous_format) for size in (plane, count, count))
    device.library.forget()
    pooled, switch = device.max_pool_switch(x, *window, count, True)
    if dtype != torch.float64:
        assert device.library.launches()[0].kernel.startswith("pairs_max")
    for have, want in zip((pooled, switch), cpu.max_pool_switch(x, *window, count, True), strict=True):
        same(have, want)
    for g in (None, gate):
        same(device.unpool_switch(y, switch, *window, plane, g), cpu.unpool_switch(y, switch, *window, plane, g))
        same(device.pool_switch(x, switch, *window, g), cpu.pool_switch(x, switch, *window, g))
        same(device.unpool_fixed(y, (1, 0), (2, 2), plane, g), cpu.unpool_fixed(y, (1, 0), (2, 2), plane, g))
        same(device.pool_fixed(x, (0, 1), (2, 2), count, g), cpu.pool_fixed(x, (0, 1), (2, 2), count, g))
        for average in (False, True):
            device.library.forget()
            have = device.pool_sum(x, *window, count, average, g)
            assert dtype == torch.float64 or device.library.launches()[0].kernel.startswith("pairs_sum")
            same(have, cpu.pool_sum(x, *window, count, average, g))
    device.library.check_guards()


@pytest.mark.parametrize("layout", (torch.contiguous_format, torch.channels_last))
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("kernel", "stride", "pad"), ((2, 2, 0), (3, 2, 0), (3, 2, 1), (4, 3, 1)))
def test_stray_switches_write_nothing(device, kernel, stride, pad, dtype, layout):
    window = windows.window(kernel, stride, pad)
    plane, batch = (13, 16), (2, 16)
    count = window.pooled(plane)
    generator = torch.Generator().manual_seed(0)
    switch = torch.randint(0, 256, (*batch, *count), dtype=torch.uint8, generator=generator)
    switch = switch.contiguous(memory_format=layout)
    y = torch.randn(*batch, *count, generator=generator).to(dtype).contiguous(memory_format=layout)
    want, weights = caffe.unpool_switch(array(y), switch.numpy(), window, plane)
    same(device.unpool_switch(y, switch, *window, plane, None), want)
    same(device.unpool_weights(switch, *window, plane, dtype), weights)
    x = torch.randn(*batch, *plane, generator=generator).to(dtype).contiguous(memory_format=layout)
    same(device.pool_switch(x, switch, *window, None), caffe.pool_switch(array(x), switch.numpy(), window))
    device.unpool_switch_normalized(y, switch, *window, plane, None)
    device.pool_switch_normalized(x, switch, *window, None)
    device.library.check_guards()


@pytest.mark.parametrize("dtype", DTYPES)
def test_unaligned_memory(device, cpu, dtype):
    """A view that starts in the middle of 16 bytes takes the kernels that need no alignment."""
    window = windows.window(2, 2, 0)
    for layout in (torch.contiguous_format, torch.channels_last):
        base = torch.randn(2 * 16 * 8 * 16 + 1).to(dtype)[1:]
        x = (
            base.view(2, 16, 8, 16)
            if layout is torch.contiguous_format
            else base.view(2, 8, 16, 16).permute(0, 3, 1, 2)
        )
        device.library.forget()
        y, switch = device.max_pool_switch(x, *window, (4, 8), False)
        assert device.library.launches()[0].kernel.startswith("any_max")
        want, places = cpu.max_pool_switch(x, *window, (4, 8), False)
        same(y, want)
        same(switch, places)

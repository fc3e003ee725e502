"""The compiled extension on the CPU: what it refuses, its instruction sets, its threads, and memory that is used again."""

import os
import subprocess
import sys

import pytest
import torch
import warm_start

from pycaffe_compat import memory, ops
from pycaffe_compat.ops import backends, torch_backend

WINDOW = ((2, 2), (2, 2), (0, 0))


@pytest.fixture(scope="module")
def ext():
    why = backends.unavailable("extension", "cpu")
    assert why is None, f"the extension is to be built before it is tested: {why}"
    with ops.use_backend("extension"):
        yield torch.ops.pycaffe_compat


def pooled(ext, shape=(2, 3, 4, 6), **options):
    x = torch.randn(shape, **options)
    return x, *ext.max_pool_switch(x, *WINDOW, (shape[2] // 2, shape[3] // 2), False)


@pytest.mark.parametrize("layout", (torch.contiguous_format, torch.channels_last))
@pytest.mark.parametrize("kernel", (2, 3, 4))
def test_stray_switches_are_errors(ext, kernel, layout):
    window = ((kernel, kernel), (2, 2), (1, 1))
    x = torch.randn(2, 5, 30, 31).contiguous(memory_format=layout)
    size = (15, 16)
    y, switch = ext.max_pool_switch(x, *window, size, False)
    # past the window; in the window but above the plane; left of it; past its end
    strays = {(1, 4, 7, 8): kernel * kernel, (0, 2, 0, 5): 1, (1, 3, 9, 0): kernel, (0, 1, 14, 15): kernel * kernel - 1}
    for place, value in strays.items():
        wrong = switch.clone()
        wrong[place] = value
        if place == (0, 1, 14, 15) and kernel < 4:
            continue  # that window ends inside the plane
        message = (
            rf"switch\[{', '.join(map(str, place))}\] is {value}, outside its window: kernel \({kernel}, {kernel}\)"
        )
        for run in (
            lambda s: ext.unpool_switch(y, s, *window, (30, 31), None),
            lambda s: ext.unpool_switch_normalized(y, s, *window, (30, 31), None),
            lambda s: ext.pool_switch(x, s, *window, None),
            lambda s: ext.pool_switch_normalized(x, s, *window, None),
            lambda s: ext.unpool_weights(s, *window, (30, 31), torch.float32),
        ):
            with pytest.raises(ops.OperatorError, match=message):
                run(wrong)


def test_empty_batches(ext):
    for shape in ((0, 3, 4, 6), (2, 0, 4, 6)):
        x, y, switch = pooled(ext, shape)
        assert y.shape == switch.shape == (*shape[:2], 2, 3)
        assert ext.unpool_switch(y, switch, *WINDOW, (4, 6), y).shape == x.shape
        assert ext.pool_switch(x, switch, *WINDOW, None).shape == y.shape
        assert ext.unpool_sum(y, *WINDOW, (4, 6), True, None).shape == x.shape


SAME_EVERYWHERE = """
import hashlib, numpy, torch
from pycaffe_compat.ops import backends
assert backends.unavailable("extension", "cpu") is None
ext = torch.ops.pycaffe_compat
digest = hashlib.sha256()
for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
    for kernel, pad in ((2, 0), (3, 0), (3, 1), (5, 2)):
        for channels, side, layout in ((3, 61, torch.contiguous_format), (40, 23, torch.channels_last)):
            rng = numpy.random.default_rng(kernel)  # PyTorch's numbers depend on the instruction set
            draw = lambda *shape: torch.from_numpy(rng.standard_normal(shape)).to(dtype).contiguous(memory_format=layout)
            x = draw(2, channels, side, side)
            window = ((kernel, kernel), (2, 2), (pad, pad))
            size = ((side + 2 * pad - kernel) // 2 + 1,) * 2
            y, s = ext.max_pool_switch(x, *window, size, True)
            g = draw(*y.shape)
            for result in (
                y,
                s,
                ext.unpool_switch(g, s, *window, (side, side), y),
                ext.unpool_switch_normalized(g, s, *window, (side, side), None),
                ext.unpool_weights(s, *window, (side, side), dtype),
                ext.pool_switch(x, s, *window, g),
                ext.pool_switch_normalized(x, s, *window, None),
                ext.pool_fixed(x, (1, 1), (2, 2), size, None),
                ext.unpool_fixed(g, (1, 1), (2, 2), (side, side), y),
                ext.pool_sum(x, *window, size, True, g),
                ext.unpool_sum(g, *window, (side, side), True, y),
            ):
                digest.update(result.contiguous().view(torch.uint8).numpy().tobytes())
print(ext.instruction_set(), digest.hexdigest())
"""


def test_every_instruction_set_and_number_of_threads_gives_the_same_bits():
    results = {}
    for threads in (1, 2):
        done = warm_start.run("-c", f"import torch\ntorch.set_num_threads({threads})\n" + SAME_EVERYWHERE)
        results["", threads] = done.stdout.split()
    for capability in ("avx2", "default"):  # is chosen while PyTorch is imported
        environment = {**os.environ, "OMP_NUM_THREADS": "2", "ATEN_CPU_CAPABILITY": capability}
        command = [sys.executable, "-c", SAME_EVERYWHERE]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        results[capability, 2] = run.stdout.split()
    assert results["default", 2][0] == "portable"
    assert len({digest for _, digest in results.values()}) == 1, results


PLANES = (  # images and channels, plane, window: what is done row by row, and in groups and bands of planes side by side
    ((2, 17), (28, 28), ((3, 3), (1, 1), (1, 1))),
    ((5, 16), (7, 7), ((7, 7), (1, 1), (0, 0))),
    ((1, 40), (14, 14), ((5, 5), (3, 3), (0, 0))),
    ((3, 1), (40, 37), ((4, 2), (1, 3), (3, 1))),
    ((1, 70), (13, 13), ((3, 3), (2, 2), (0, 0))),
    ((1, 33), (15, 14), ((2, 2), (2, 2), (0, 0))),
    ((2, 3), (50, 57), ((3, 3), (2, 2), (1, 1))),
    ((2, 3), (41, 43), ((2, 2), (2, 2), (1, 1))),
    ((1, 20), (230, 95), ((5, 3), (2, 1), (2, 0))),
    ((1, 18), (300, 40), ((3, 3), (4, 4), (1, 0))),
)


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64, torch.float16, torch.bfloat16))
@pytest.mark.parametrize("layout", (torch.contiguous_format, torch.channels_last), ids=("NCHW", "NHWC"))
@pytest.mark.parametrize("case", PLANES, ids=str)
def test_many_planes_and_long_ones(ext, case, layout, dtype):
    images, plane, window = case
    count = ops.pooled_size(plane, *window)

    def draw(*size):
        return torch.randn(*images, *size).to(dtype).contiguous(memory_format=layout)

    x, dx, dy, gate = draw(*plane), draw(*plane), draw(*count), draw(*count)
    _, switch = torch_backend.max_pool_switch(x, *window, count, True)
    calls = {
        "max_pool_switch": (x, *window, count, True),
        "pool_switch": (dx, switch, *window, gate),
        "pool_switch_normalized": (dx, switch, *window, None),
        "unpool_switch": (dy, switch, *window, plane, gate),
        "unpool_switch_normalized": (dy, switch, *window, plane, None),
        "unpool_weights": (switch, *window, plane, dtype),
        "pool_sum": (dx, *window, count, True, gate),
        "unpool_sum": (dy, *window, plane, True, None),
        "pool_fixed": (dx, (-1, 2), window[1], count, gate),
        "unpool_fixed": (dy, (1, -1), window[1], plane, None),
    }
    for name, arguments in calls.items():
        have, want = (getattr(backend, name)(*arguments) for backend in (ext, torch_backend))
        for mine, other in zip(*((r if isinstance(r, tuple) else (r,)) for r in (have, want)), strict=True):
            assert torch.equal(mine, other), name


@pytest.mark.parametrize("layout", (torch.contiguous_format, torch.channels_last))
def test_large_results_in_memory_that_was_used_before(ext, layout):
    """Results past 8 MB lie in pages that are kept, and are written past the caches."""
    x = torch.randn(1, 33, 370, 366).contiguous(memory_format=layout)
    want, places = torch_backend.max_pool_switch(x, *WINDOW, (185, 183), True)
    for _ in range(3):
        y, switch = ext.max_pool_switch(x, *WINDOW, (185, 183), True)
        assert torch.equal(y, want)
        assert torch.equal(switch, places)
        unpooled = ext.unpool_switch(y, switch, *WINDOW, (370, 366), None)
        assert torch.equal(ext.pool_switch(unpooled, switch, *WINDOW, None), y)
        assert unpooled.count_nonzero() == y.count_nonzero()
        address = unpooled.data_ptr()
        del unpooled
        again = ext.unpool_switch(-y, switch, *WINDOW, (370, 366), None)
        if sys.platform == "linux":
            assert again.data_ptr() == address
        assert torch.equal(ext.pool_switch(again, switch, *WINDOW, None), -y)
        again.resize_(5)  # an ordinary tensor in every way
        assert again.shape == (5,)


def test_kept_memory_is_bounded(ext):
    """Results of many sizes come and go; what is kept of them is half a gigabyte at most."""
    if sys.platform != "linux":
        pytest.skip("only Linux keeps pages")

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    memory.recycle(False)
    y = torch.zeros(1, 4, 500, 500)
    switch = torch.zeros(1, 4, 500, 500, dtype=torch.uint8)
    before = resident()
    for i in range(40):
        side = 1000 + 2 * 150 * i // 4
        ext.unpool_switch(y, switch, *WINDOW, (side, side), None)
    assert resident() - before < 640 << 20

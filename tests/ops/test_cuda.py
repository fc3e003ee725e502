"""The operators on a GPU, every backend that serves it: bit for bit what the CPU gives, on any stream, in graphs."""

import itertools

import pytest
import torch

from pycaffe_compat import ops
from pycaffe_compat.ops import backends, windows

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
LAYOUTS = (torch.contiguous_format, torch.channels_last)
# kernel, stride, pad, channels, height, width: pairs, tiles of planes, tiles of rows, pixels, the general kernels
CASES = (
    (2, 2, 0, 64, 32, 32),
    (2, 2, 0, 16, 14, 14),
    (2, 2, 0, 8, 120, 121),
    (3, 2, 0, 16, 55, 55),
    (3, 2, 1, 24, 13, 14),
    (3, 2, 0, 8, 150, 100),
    (3, 1, 1, 5, 9, 11),
    ((4, 3), (3, 2), (1, 2), 8, 17, 19),
    (15, 4, 7, 3, 40, 41),
)
OPERATORS = torch.ops.pycaffe_compat


@pytest.fixture(params=[n for n in backends.PREFERENCE["cuda"] if backends.unavailable(n, "cuda") is None])
def backend(request):
    with ops.use_backend(request.param):
        yield request.param


def both(x):
    """A tensor and its copy on the GPU."""
    return x, x.cuda()


def same(on_gpu, on_cpu):
    assert on_gpu.is_cuda
    assert on_gpu.stride() == on_cpu.stride()
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_as_on_the_cpu(backend, case, dtype, layout):
    *window, channels, height, width = case
    w = windows.window(*window)
    size, plane = w.pooled((height, width)), (height, width)
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        x = torch.randn(*shape, generator=generator)
        x = torch.where(torch.rand(*shape, generator=generator) < 0.2, x.round(), x)
        x[torch.rand(*shape, generator=generator) < 0.02] = float("nan")
        return both(x.to(dtype).contiguous(memory_format=layout))

    def compare(operator, *arguments):
        on_gpu = operator(*(a[1] if isinstance(a, tuple) and torch.is_tensor(a[0]) else a for a in arguments))
        with ops.use_backend("auto"):
            on_cpu = operator(*(a[0] if isinstance(a, tuple) and torch.is_tensor(a[0]) else a for a in arguments))
        for gpu, cpu in zip(*((r if isinstance(r, tuple) else (r,)) for r in (on_gpu, on_cpu)), strict=True):
            same(gpu, cpu)
        return on_cpu

    x = draw(3, channels, *plane)
    for relu in (False, True):
        _, switch = compare(OPERATORS.max_pool_switch, x, *w, size, relu)
    switch = both(switch)
    y, gate = draw(3, channels, *size), draw(3, channels, *size)
    for g in (None, gate):
        compare(OPERATORS.unpool_switch, y, switch, *w, plane, g)
        compare(OPERATORS.unpool_switch_normalized, y, switch, *w, plane, g)
        compare(OPERATORS.pool_switch, x, switch, *w, g)
        compare(OPERATORS.pool_switch_normalized, x, switch, *w, g)
        compare(OPERATORS.pool_fixed, x, (1, 0), w.stride, size, g)
        compare(OPERATORS.unpool_fixed, y, (1, 0), w.stride, plane, g)
    compare(OPERATORS.unpool_weights, switch, *w, plane, dtype)
    if backend != "torch":
        for average, g in itertools.product((False, True), (None, gate)):
            compare(OPERATORS.pool_sum, x, *w, size, average, g)
            compare(OPERATORS.unpool_sum, y, *w, plane, average, g)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kernel", (2, 3, 4))
def test_stray_switches_are_left_out(backend, kernel, layout):
    switch = torch.randint(0, 256, (2, 16, 8, 8), dtype=torch.uint8).contiguous(memory_format=layout)
    y = torch.randn(2, 16, 8, 8).contiguous(memory_format=layout)
    window = ((kernel, kernel), (2, 2), (1, 1))
    tidy = torch.full_like(switch, ops.NO_SWITCH)
    rows, columns = windows.corners(windows.window(*window), (8, 8))
    h, w = rows + switch.int() // kernel, columns + switch.int() % kernel
    fine = (switch < kernel * kernel) & (h >= 0) & (h < 15) & (w >= 0) & (w < 15)
    tidy[fine] = switch[fine]
    wild = OPERATORS.unpool_switch(y.cuda(), switch.cuda(), *window, (15, 15), None)
    with ops.use_backend("auto"):
        want = OPERATORS.unpool_switch(y, tidy, *window, (15, 15), None)
    same(wild, want)
    assert torch.equal(wild, OPERATORS.unpool_switch(y.cuda(), tidy.cuda(), *window, (15, 15), None))
    x = torch.randn(2, 16, 15, 15).contiguous(memory_format=layout).cuda()
    for operator in (OPERATORS.pool_switch, OPERATORS.pool_switch_normalized):
        a, b = (operator(x, s.cuda(), *window, None) for s in (switch, tidy))
        assert torch.equal(a, b)


def test_the_current_stream(backend):
    x = torch.zeros(8, 64, 112, 112, device="cuda")
    y, _ = ops.max_pool_switch(x, 2, 2)  # compiled before, where that is done late
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda._sleep(50_000_000)
        x.fill_(3)
        y, switch = ops.max_pool_switch(x, 2, 2)
        unpooled = ops.unpool_switch(y, switch, 2, 2)
    side.synchronize()
    assert (y == 3).all()
    assert unpooled.sum() == 3 * y.numel()


def test_in_a_cuda_graph(backend):
    if backend == "torch":
        pytest.skip("PyTorch's own operators look their places up in tables that come from the host")
    x = torch.randn(2, 16, 55, 55, device="cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())

    def step():
        y, switch = ops.max_pool_switch(x, 3, 2, relu=True)
        return y, switch, ops.unpool_switch_normalized(y, switch, 3, 2, output_size=(55, 55))

    with torch.cuda.stream(side):
        step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for _ in range(3):
        x.normal_()
        graph.replay()
        torch.cuda.synchronize()
        for have, want in zip(captured, step(), strict=True):
            assert torch.equal(have, want)


def test_backward_in_a_cuda_graph(backend):
    if backend == "torch":
        pytest.skip("as above")
    x = torch.randn(2, 16, 28, 32, device="cuda", requires_grad=True)

    def step():
        y, switch = ops.max_pool_switch(x, 2, 2, relu=True)
        return torch.autograd.grad(ops.unpool_switch(y * y, switch, 2, 2).sum(), x)[0]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        x.normal_()
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(captured, step())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=str)
def test_memory_that_begins_anywhere(backend, dtype, layout):
    """Views that start within 16 bytes, and operands of other formats than the first."""
    n, c, h, w = 2, 16, 12, 16

    def view(*shape, of=dtype):
        flat = torch.randint(0, 4, (shape[0] * shape[1] * shape[2] * shape[3] + 1,)).to(of)[1:]
        if layout is torch.contiguous_format:
            return both(flat.view(shape))
        return both(flat.view(shape[0], shape[2], shape[3], shape[1]).permute(0, 3, 1, 2))

    def moved(pair):
        """The same, but on the GPU too where it starts within 16 bytes."""
        on_cpu, on_gpu = pair
        memory = torch.empty(on_gpu.numel() + 1, dtype=on_gpu.dtype, device=on_gpu.device)[1:]
        return on_cpu, memory.as_strided(on_gpu.shape, on_gpu.stride(), memory.storage_offset()).copy_(on_gpu)

    other = LAYOUTS[layout is LAYOUTS[0]]
    x, y, switch = moved(view(n, c, h, w)), moved(view(n, c, h // 2, w // 2)), moved(view(n, c, 6, 8, of=torch.uint8))
    gate = both(torch.randn(n, c, 6, 8).to(dtype).contiguous(memory_format=other))
    window = windows.window(2, 2, 0)
    for i, operands in enumerate(((y, switch, gate), (y, gate))):
        if i == 0:
            a, b = (OPERATORS.unpool_switch(o[0], o[1], *window, (h, w), o[2]) for o in zip(*operands, strict=True))
        else:
            a, b = (OPERATORS.unpool_fixed(o[0], (1, 1), (2, 2), (h, w), o[1]) for o in zip(*operands, strict=True))
        same(b, a)
    for have, want in zip(*(OPERATORS.max_pool_switch(t, *window, (6, 8), True) for t in reversed(x)), strict=True):
        same(have, want)
    sliced = tuple(t[:, ::2, :, 1:] for t in x)
    for have, want in zip(*(ops.max_pool_switch(t, 3, 2) for t in reversed(sliced)), strict=True):
        same(have, want)


def test_no_images(backend):
    x = torch.empty(0, 4, 6, 6, device="cuda", requires_grad=True)
    y, switch = ops.max_pool_switch(x, 2, 2)
    assert (y.shape, switch.shape) == ((0, 4, 3, 3), (0, 4, 3, 3))
    ops.unpool_switch(y, switch, 2, 2).sum().backward()
    assert x.grad.shape == x.shape


def test_gradients(backend):
    x = torch.randn(2, 8, 13, 13, dtype=torch.float64)
    gradients = []
    for device in ("cpu", "cuda"):
        with ops.use_backend("auto" if device == "cpu" else backend):
            leaf = x.to(device).requires_grad_()
            y, switch = ops.max_pool_switch(leaf, 3, 2, relu=True)
            ops.unpool_switch_normalized(y * y, switch, 3, 2, output_size=(13, 13)).pow(2).sum().backward()
            gradients.append(leaf.grad.cpu())
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("kernel", "pad"), ((2, 0), (3, 1), (4, 0)))
def test_more_than_2_to_the_31_elements(backend, kernel, pad, layout):
    if backend == "torch":
        pytest.skip("PyTorch's own operators are not what is tested")
    if torch.cuda.mem_get_info()[0] < 24 << 30:
        pytest.skip("less than 24 GB of GPU memory are free")
    channels, side = 8, 4096
    batch = 17  # 2.3e9 elements
    window = windows.window(kernel, 2, pad)
    size = window.pooled((side, side))
    x = torch.empty(batch, channels, side, side, dtype=torch.float16, device="cuda", memory_format=layout)
    x.random_(-1000, 1000)
    y, switch = OPERATORS.max_pool_switch(x, *window, size, False)
    unpooled = OPERATORS.unpool_switch(y, switch, *window, (side, side), None)
    for i in (0, batch // 2, batch - 1):
        part, places = OPERATORS.max_pool_switch(x[i : i + 1].clone(memory_format=layout), *window, size, False)
        assert torch.equal(y[i : i + 1], part)
        assert torch.equal(switch[i : i + 1], places)
        assert torch.equal(unpooled[i : i + 1], OPERATORS.unpool_switch(part, places, *window, (side, side), None))


@pytest.mark.parametrize("interleaved", (False, True))
@pytest.mark.parametrize("mean", ((1, 1, 1), (3, 1, 1), (3, 41, 50)))
def test_byte_images_as_on_the_cpu(backend, mean, interleaved):
    images = torch.randint(0, 256, (9, 41, 50, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    if not interleaved:
        images = images.contiguous()
    corners = torch.randint(0, 10, (9, 2)), torch.randint(0, 2, (9, 1))
    windows, means = torch.cat(corners, 1).int(), torch.rand(mean) * 255
    out = [torch.empty(9, 3, 31, 37, device=device) for device in ("cpu", "cuda")]
    ops.transform_images([images], windows, means, 0.017, out[0])
    ops.transform_images([images[:4].cuda(), images[4:].cuda()], windows.cuda(), means.cuda(), 0.017, out[1])
    same(out[1], out[0])

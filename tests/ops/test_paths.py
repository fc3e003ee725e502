"""The paths of the CPU kernels give the same bits, whichever the rule takes."""

import ctypes
import importlib.util
import random

import pytest
import torch

from pycaffe_compat import ops

TURNED, WINDOWS = 2, 3  # Path in csrc/cpu/dispatch.cpp
KERNELS = ((2, 2), (3, 3), (1, 1), (4, 2), (3, 5), (2, 3))


@pytest.fixture
def force():
    spec = importlib.util.find_spec("pycaffe_compat._C")
    if spec is None or ops.backend_info()["cpu"]["backend"] != "extension":
        pytest.skip("the extension is not built")
    function = ctypes.CDLL(spec.origin).switch_pool_force_path
    yield function
    function(-1)


def operators(draw, dtype, layout):
    """The operators with switches, over drawn windows and planes."""
    kernel = draw.choice(KERNELS)
    stride = draw.choice(((1, 1), (2, 2), (3, 1), (2, 3), kernel))
    pad = (draw.randrange(kernel[0]), draw.randrange(kernel[1]))
    size = tuple(draw.choice((5, 8, 13, 28, 70, 300)) for _ in range(2))
    x = torch.randn(draw.choice((1, 2, 3)), draw.choice((1, 3, 16, 33)), *size).to(dtype)
    x[torch.rand(x.shape) < 0.3] = float("nan")
    x = x.contiguous(memory_format=layout)
    window = (kernel, stride, pad)
    y, s = ops.max_pool_switch(x, *window)
    v = torch.randn(y.shape).to(dtype).contiguous(memory_format=layout)

    def normalized_backward():
        leaf = v.clone().requires_grad_()
        return torch.autograd.grad(ops.unpool_switch_normalized(leaf, s, *window, output_size=size), leaf, x)[0]

    yield window, lambda: ops.unpool_switch(v, s, *window, output_size=size)
    yield window, lambda: ops.unpool_switch(v, s, *window, output_size=size, relu=True)
    yield window, lambda: ops.unpool_switch_normalized(v, s, *window, output_size=size, relu=True)
    yield window, lambda: ops.unpool_weights(s, *window, output_size=size, dtype=dtype)
    yield window, lambda: ops.pool_switch(x, s, *window)
    yield window, normalized_backward
    yield window, lambda: ops.max_pool_switch(x, *window, relu=True)[0]
    yield window, lambda: ops.pool_average(x, *window)


def bits(x):
    return x.clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8)


@pytest.mark.parametrize("layout", (torch.contiguous_format, torch.channels_last))
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64, torch.float16, torch.bfloat16))
def test_paths_agree(force, dtype, layout):
    draw = random.Random(0)
    torch.manual_seed(0)
    for _ in range(12):
        for window, run in operators(draw, dtype, layout):
            results = []
            for path in (-1, 0, TURNED, WINDOWS):
                force(path)
                results.append(bits(run()))
            force(-1)
            assert all(torch.equal(results[0], other) for other in results[1:]), window

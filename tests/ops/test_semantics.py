"""Every operator against Caffe's definition, bit for bit, over drawn windows, layouts, types and values."""

import caffe_reference as caffe
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings

from pycaffe_compat import ops
from pycaffe_compat.ops import torch_backend

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
drawn = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def poolings(draw):
    """A window, the plane it lies on and how many windows there are: Caffe's number, or one or two more or fewer."""
    sides = st.tuples(st.integers(1, 4), st.integers(1, 4))
    kernel, stride = draw(sides), draw(sides)
    pad = tuple(draw(st.integers(0, k - 1)) for k in kernel)
    window = ops.Window(kernel, stride, pad)
    plane = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    count = window.pooled(plane, draw(st.booleans()))
    count = tuple(n + draw(st.sampled_from((0, 0, 0, -1, 1))) for n in count)
    if window.problem(plane, count) is not None:
        count = tuple((plane[a] + pad[a] - 1) // stride[a] + 1 if stride[a] > kernel[a] else 1 for a in (0, 1))
    return window, plane, count


@st.composite
def layouts(draw):
    """A function that lays the same values out in memory in some way."""
    return draw(
        st.sampled_from(
            (
                lambda t: t.contiguous(),
                lambda t: t.contiguous(memory_format=torch.channels_last),
                lambda t: torch.stack((t, t), -1)[..., 0],
                lambda t: t.transpose(2, 3).contiguous().transpose(2, 3),
            )
        )
    )


def values(rng, shape, dtype, ties=False, odd=False):
    """Random values; ``ties`` from a few integers, ``odd`` with NaN, infinities and the lowest float among them."""
    x = rng.integers(-2, 3, shape) if ties else rng.standard_normal(shape)
    x = torch.from_numpy(np.asarray(x, np.float64)).to(dtype)
    if odd:
        extremes = [np.nan, np.inf, -np.inf, torch.finfo(dtype).min, -0.0]
        chosen = torch.from_numpy(rng.choice(extremes, shape)).to(dtype)
        x = torch.where(torch.from_numpy(rng.random(shape) < 0.7), chosen, x)
    return x


def array(x):
    return x.to(torch.float64 if x.dtype == torch.float64 else torch.float32).contiguous().numpy()


def same(have, want, dtype, layout_of):
    want = torch.from_numpy(want).to(dtype)
    assert have.dtype == dtype
    torch.testing.assert_close(have, want, rtol=0, atol=0, equal_nan=True)
    channels_last = not layout_of.is_contiguous() and layout_of.is_contiguous(memory_format=torch.channels_last)
    assert have.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


draws = given(
    pooling=poolings(),
    batch=st.tuples(st.integers(0, 2), st.integers(1, 3)),
    dtype=st.sampled_from(DTYPES),
    layout=layouts(),
    seed=st.integers(0, 2**32 - 1),
)


@pytest.mark.parametrize("relu", (False, True))
@drawn
@draws
def test_max_pool_switch(backend, relu, pooling, batch, dtype, layout, seed):
    window, plane, count = pooling
    rng = np.random.default_rng(seed)
    x = values(rng, (*batch, *plane), dtype, ties=seed % 2, odd=seed % 3 == 0)
    y, switch = caffe.max_pool(array(x.relu() if relu else x), window, count, torch_backend.lowest(dtype))
    x = layout(x)
    have, places = ops.max_pool_switch(x, *window, relu=relu, output_size=count)
    same(have, y, dtype, x)
    same(places, switch, torch.uint8, x)
    have, index = ops.max_pool_index(x.relu() if relu else x, *window, output_size=count)
    torch.testing.assert_close(have, torch.from_numpy(y).to(dtype), rtol=0, atol=0)
    mask = ops.switch_to_mask(places, *window, plane)
    torch.testing.assert_close(mask, index.float(), rtol=0, atol=0)
    for local in (False, True):
        mask = ops.switch_to_mask(places, *window, plane, local)
        assert torch.equal(ops.index_to_mask(index, *window, plane, local), mask)
        assert torch.equal(ops.mask_to_index(mask, *window, plane, local), index)
        assert torch.equal(ops.mask_to_switch(mask, *window, plane, local), places)


def switches(rng, batch, window, plane, count):
    """Random switches that point into the plane, some at nothing."""
    x = rng.standard_normal((*batch, *plane)).astype(np.float32)
    x[rng.random(x.shape) < 0.2] = np.nan
    return caffe.max_pool(x, window, count)[1]


@pytest.mark.parametrize("relu", (False, True))
@drawn
@draws
def test_switch_pair(backend, relu, pooling, batch, dtype, layout, seed):
    window, plane, count = pooling
    rng = np.random.default_rng(seed)
    switch = switches(rng, batch, window, plane, count)
    where = torch.from_numpy(switch)
    y = values(rng, (*batch, *count), dtype)
    x, weights = caffe.unpool_switch(array(y.relu() if relu else y), switch, window, plane)
    y = layout(y)
    same(ops.unpool_switch(y, where, *window, plane, relu), x, dtype, y)
    torch.testing.assert_close(
        ops.unpool_weights(where, *window, plane, dtype), torch.from_numpy(weights).to(dtype), rtol=0, atol=0
    )
    three = torch.from_numpy(x).to(dtype) * torch.from_numpy(caffe.safe_inverse(weights)).to(dtype)
    normalized = ops.unpool_switch_normalized(y, where, *window, plane, relu)
    torch.testing.assert_close(normalized, three, rtol=0, atol=0)

    x = layout(values(rng, (*batch, *plane), dtype))
    same(ops.pool_switch(x, where, *window), caffe.pool_switch(array(x), switch, window), dtype, x)
    inverse = torch.from_numpy(caffe.safe_inverse(weights)).to(dtype)
    want = caffe.pool_switch(array(x * inverse), switch, window)
    gate = values(rng, (*batch, *count), dtype) if relu else None
    if gate is not None:
        want = np.where(array(gate) <= 0, 0, want)
    same(torch.ops.pycaffe_compat.pool_switch_normalized(x, where, *window, gate), want, dtype, x)


@pytest.mark.parametrize("average", (False, True))
@drawn
@draws
def test_sum_pair(backend, average, pooling, batch, dtype, layout, seed):
    window, plane, count = pooling
    rng = np.random.default_rng(seed)
    x = layout(values(rng, (*batch, *plane), dtype))
    pool, unpool = (ops.pool_average, ops.unpool_average) if average else (ops.pool_sum, ops.unpool_sum)
    same(pool(x, *window, output_size=count), caffe.pool_sum(array(x), window, count, average), dtype, x)
    y = layout(values(rng, (*batch, *count), dtype))
    relu = bool(seed % 2)
    want = caffe.unpool_sum(array(y.relu() if relu else y), window, plane, average)
    same(unpool(y, *window, plane, relu), want, dtype, y)
    ones = caffe.unpool_sum(np.ones((1, 1, *count), np.float64), window, plane, average)
    weights = ops.unpool_average_weights if average else ops.unpool_sum_weights
    torch.testing.assert_close(
        weights(count, *window, plane, torch.float64), torch.from_numpy(ones), rtol=1e-15, atol=1e-15
    )


@drawn
@draws
def test_fixed_pair(backend, pooling, batch, dtype, layout, seed):
    window, plane, count = pooling
    rng = np.random.default_rng(seed)
    position = tuple(int(rng.integers(k)) for k in window.kernel)
    x = layout(values(rng, (*batch, *plane), dtype))
    have = ops.pool_fixed(x, *window, position, output_size=count)
    same(have, caffe.pool_fixed(array(x), window, count, position), dtype, x)
    y = layout(values(rng, (*batch, *count), dtype))
    relu = bool(seed % 2)
    want = caffe.unpool_fixed(array(y.relu() if relu else y), window, plane, position)
    same(ops.unpool_fixed(y, *window, plane, position, relu), want, dtype, y)
    ones = caffe.unpool_fixed(np.ones((1, 1, *count), np.float32), window, plane, position)
    assert torch.equal(ops.unpool_fixed_weights(count, *window, plane, position), torch.from_numpy(ones))


@drawn
@draws
def test_index_pair_is_the_switch_pair(pooling, batch, dtype, layout, seed):
    window, plane, count = pooling
    rng = np.random.default_rng(seed)
    switch = switches(rng, batch, window, plane, count)
    mask = ops.switch_to_mask(torch.from_numpy(switch), *window, plane)
    index = ops.mask_to_index(mask, *window, plane)
    y = layout(values(rng, (*batch, *count), dtype))
    same(ops.unpool_index(y, index, plane), caffe.unpool_switch(array(y), switch, window, plane)[0], dtype, y)
    x = layout(values(rng, (*batch, *plane), dtype))
    same(ops.pool_index(x, index), caffe.pool_switch(array(x), switch, window), dtype, x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_window_of_nothing_has_no_switch(backend, dtype):
    x = torch.full((1, 1, 2, 6), float("nan"), dtype=dtype)
    x[..., 2:4] = float("-inf")
    x[..., 4:6] = torch.finfo(dtype).min if dtype != torch.float64 else -caffe.FLT_MAX
    y, switch = ops.max_pool_switch(x, 2, 2)
    assert switch.tolist() == [[[[255, 255, 255]]]]
    assert torch.equal(y, torch.full_like(y, torch_backend.lowest(dtype)))
    _, switch = ops.max_pool_switch(x, 2, 2, relu=True)
    assert switch.tolist() == [[[[255, 0, 0]]]]


@pytest.mark.parametrize("kernel", ((15, 15), (1, 255), (255, 1), (5, 51)))
def test_the_largest_byte_windows(backend, kernel):
    x = torch.randn(2, 2, kernel[0] + 3, kernel[1] + 3)
    y, switch = ops.max_pool_switch(x, kernel, 1)
    want, index = torch.nn.functional.max_pool2d(x, kernel, 1, return_indices=True)
    assert torch.equal(y, want)
    assert torch.equal(ops.switch_to_mask(switch, kernel, 1, 0, x.shape[2:]), index.float())
    unpooled = ops.unpool_switch(y, switch, kernel, 1, 0, x.shape[2:])
    want, _ = caffe.unpool_switch(y.numpy(), switch.numpy(), (kernel, (1, 1), (0, 0)), x.shape[2:])
    assert torch.equal(unpooled, torch.from_numpy(want))


def test_global_max_of_a_large_plane():
    x = torch.randn(1, 2, 112, 100, requires_grad=True)
    y, index = ops.max_pool_index(x, (112, 100), 1)
    assert torch.equal(y, x.amax((2, 3), keepdim=True))
    y.sum().backward()
    assert torch.equal(x.grad.flatten(2).argmax(2), index.flatten(1))
    assert x.grad.sum() == 2


def test_a_local_mask_that_points_past_the_right_edge_places_nothing():
    mask = torch.tensor([[[[1.0, 0.0], [3.0, 1.0]]]])  # the second window of each row covers columns 2 and 3 of 3
    index = ops.mask_to_index(mask, 2, 2, 0, (4, 3), local=True)
    assert index.flatten().tolist() == [1, 2, 10, -1]

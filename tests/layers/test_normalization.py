"""BatchNorm, LRN and MVN: Caffe's numbers, gradients of every option, running statistics, bad options."""

import golden_layer as gl
import pytest
import torch
import torch.nn.functional as F

from pycaffe_compat.errors import LayerError


@pytest.mark.parametrize("name", gl.names("bn_", "lrn_", "mvn"))
def test_golden(name):
    gl.check(name)


@pytest.mark.parametrize(
    "prototxt, shape",
    [
        ('"BatchNorm"', (4, 3)),
        ('"BatchNorm"', (5,)),
        ('"BatchNorm" batch_norm_param { eps: 0.1 }', (2, 3, 2, 2)),
        ('"BatchNorm" batch_norm_param { use_global_stats: true }', (2, 3, 2)),
        ('"LRN" lrn_param { local_size: 1 beta: 2 }', (1, 2, 2, 3)),
        ('"LRN" lrn_param { alpha: 2 k: 3 engine: CAFFE }', (1, 7, 2, 2)),
        ('"LRN" lrn_param { norm_region: WITHIN_CHANNEL alpha: 2 k: 3 }', (1, 2, 3, 4)),
        ('"MVN"', (2, 3, 2, 2)),
        ('"MVN" mvn_param { across_channels: true normalize_variance: false }', (2, 3, 4)),
        ('"MVN" mvn_param { across_channels: true }', (2, 3, 4)),
    ],
)
def test_gradients(prototxt, shape):
    layer = gl.build(f"type: {prototxt}", shape, dtype=torch.float64)
    for blob in layer.blobs:
        blob.uniform_(1, 2)
    layer.fraction = 1e-9  # gradcheck calls again and again: let the running statistics forget
    gl.check_gradients(layer, torch.randn(shape, dtype=torch.float64))


def test_batch_norm_sums_statistics():
    layer = gl.build('type: "BatchNorm" batch_norm_param { moving_average_fraction: 0.5 }', (2, 3, 4))
    assert list(dict(layer.named_buffers())) == ["running_mean", "running_var", "scale_factor"]
    assert not list(layer.parameters())
    a, b = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    layer(a)
    layer(b)
    torch.testing.assert_close(layer.scale_factor, torch.tensor([1.5]))
    torch.testing.assert_close(layer.running_mean, a.mean((0, 2)) * 0.5 + b.mean((0, 2)))
    torch.testing.assert_close(layer.running_var, a.var((0, 2)) * 0.5 + b.var((0, 2)))
    before = [blob.clone() for blob in layer.blobs]
    want = F.batch_norm(a, layer.running_mean / 1.5, layer.running_var / 1.5)
    torch.testing.assert_close(layer.eval()(a), want)
    assert all(map(torch.equal, before, layer.blobs))


def test_use_global_stats_decides_over_the_phase():
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)) * 4
    frozen = gl.build('type: "BatchNorm" batch_norm_param { use_global_stats: true }', (4, 3))
    frozen.running_var.fill_(4)
    frozen.scale_factor.fill_(1)
    torch.testing.assert_close(frozen(x), x / 2, rtol=1e-5, atol=0)  # eps is there too
    assert frozen.scale_factor.item() == 1
    moving = gl.build('type: "BatchNorm" batch_norm_param { use_global_stats: false }', (4, 3), phase=1)
    torch.testing.assert_close(moving(x), (x - x.mean(0)) / x.std(0, unbiased=False), rtol=1e-4, atol=1e-4)
    assert moving.scale_factor.item() == 1


def test_batch_norm_without_statistics_divides_by_the_root_of_eps():
    layer = gl.build('type: "BatchNorm" batch_norm_param { eps: 0.25 }', (2, 3), phase=1)
    torch.testing.assert_close(layer(torch.ones(2, 3)), torch.full((2, 3), 2.0))


def test_batch_norm_of_one_element_a_channel():
    """Its variance is 0, uncorrected: there is no m / (m - 1)."""
    layer = gl.build('type: "BatchNorm"', (1, 3))
    x = torch.tensor([[1.0, 2, 3]], requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert y.tolist() == [[0, 0, 0]] and x.grad.tolist() == [[0, 0, 0]]
    assert layer.running_mean.tolist() == [1, 2, 3] and layer.running_var.tolist() == [0, 0, 0]


def test_batch_norm_of_an_empty_batch_learns_nothing():
    layer = gl.build('type: "BatchNorm"', (2, 3))
    assert layer(torch.ones(0, 3)).shape == (0, 3)
    assert layer.scale_factor.item() == 0


def test_batch_norm_without_eps():
    x = torch.randn(4, 3)
    y = gl.build('type: "BatchNorm" batch_norm_param { eps: 0 }', (4, 3))(x)
    torch.testing.assert_close(y, (x - x.mean(0)) / x.std(0, unbiased=False))


def test_batch_norm_on_meta_keeps_its_statistics_alone():
    layer = gl.build('type: "BatchNorm"', (2, 3))
    for i in range(3):
        layer.set_blob(i, layer.blob(i).to("meta"))
    assert gl.meta_shapes(layer, [(5, 3, 2)]) == [(5, 3, 2)]


def test_mvn_differentiates_as_caffe_does():
    """Caffe takes std + eps for the root of the variance: seen with a large eps, and with a constant map, finite."""
    layer = gl.build('type: "MVN" mvn_param { eps: 0.5 }', (1, 1, 8), dtype=torch.float64)
    x = torch.randn(1, 1, 8, dtype=torch.float64, requires_grad=True)
    y, dy = layer(x), torch.randn(1, 1, 8, 1, dtype=torch.float64)
    y.backward(dy)
    deviation = x.detach().std(unbiased=False) + 0.5
    y, gradient = y.detach().reshape(1, 1, 8), x.grad
    torch.testing.assert_close(y, (x.detach() - x.detach().mean()) / deviation)
    dy = dy.reshape(1, 1, 8)
    torch.testing.assert_close(gradient, (dy - dy.mean() - y * (dy * y).mean()) / deviation)
    constant = torch.ones(1, 1, 8, dtype=torch.float64, requires_grad=True)
    layer(constant).backward(dy.reshape(1, 1, 8, 1))
    torch.testing.assert_close(constant.grad, (dy - dy.mean()) / 0.5)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 3, 4), (2, 3, 4, 5)])
def test_mvn_makes_four_axes(shape):
    x = torch.randn(shape)
    four = x.reshape(*shape, *(1,) * (4 - len(shape)))
    layer = gl.build('type: "MVN" mvn_param { normalize_variance: false }', shape)
    assert gl.meta_shapes(layer, [shape]) == [tuple(four.shape)]
    torch.testing.assert_close(layer(x), four - four.mean((2, 3), keepdim=True))


def test_mvn_of_maps_of_one_element():
    assert gl.build('type: "MVN"', (2, 3))(torch.randn(2, 3)).flatten().tolist() == [0] * 6


def test_mvn_in_place_has_the_gradient_that_is_left_of_what_caffe_overwrote():
    layer = gl.build('type: "MVN" bottom: "x" top: "x"', (2, 3, 4, 5), dtype=torch.float64)
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    y, dy = layer(x), torch.randn(2, 3, 4, 5, dtype=torch.float64)
    y.backward(dy)
    y, deviation = y.detach(), x.detach().std((2, 3), unbiased=False, keepdim=True)
    torch.testing.assert_close(y, (x.detach() - x.detach().mean((2, 3), keepdim=True)) / deviation)
    total = y * (y * dy).sum((2, 3), keepdim=True)  # here the gradient was; what follows reads the total in its place
    total = total / -20 + total / -20
    torch.testing.assert_close(x.grad, total / deviation)


@pytest.mark.parametrize("region", ["ACROSS_CHANNELS", "WITHIN_CHANNEL"])
def test_lrn_window_larger_than_its_bottom(region):
    x = torch.randn(2, 3, 4, 4)
    layer = gl.build(f'type: "LRN" lrn_param {{ local_size: 4294967295 norm_region: {region} alpha: 1e10 }}', x.shape)
    total = x.square().sum((2, 3), keepdim=True) / 4294967295 if layer.within else x.square().sum(1, keepdim=True)
    torch.testing.assert_close(layer(x), x * (1 + 1e10 / 4294967295 * total) ** -0.75)


def test_lrn_within_does_not_read_k():
    x = torch.randn(1, 2, 5, 5)
    a, b = (gl.build(f'type: "LRN" lrn_param {{ norm_region: WITHIN_CHANNEL k: {k} }}', x.shape)(x) for k in (1, 7))
    assert torch.equal(a, b)


@pytest.mark.parametrize(
    "prototxt, shape, says",
    [
        ('"LRN" lrn_param { local_size: 4 }', (1, 2, 3, 3), "local_size: 4 must be odd"),
        ('"LRN" lrn_param { local_size: 0 }', (1, 2, 3, 3), "local_size: 0 must be odd"),
        ('"LRN"', (1, 2, 3), r"needs a bottom \(num, channels, height, width\), not of shape 1×2×3"),
        ('"BatchNorm"', (), "at least 1 axis"),
        ('"BatchNorm" batch_norm_param { eps: -1e-5 }', (2, 3), "eps: -1e-05 must not be negative"),
    ],
)
def test_bad_options(prototxt, shape, says):
    with pytest.raises(LayerError, match=says):
        gl.build(f"type: {prototxt}", shape)

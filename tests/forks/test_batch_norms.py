"""BatchNorm of NVIDIA's, Intel's, happynear's and PSPNet's Caffe: which is meant, their formulas, statistics and weights."""

from __future__ import annotations

import logging
from pathlib import Path

import golden_layer as gl
import numpy as np
import pytest
import torch

from pycaffe_compat.errors import LayerError, WeightsError
from pycaffe_compat.layers import Layer
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text, read_weights, write_message

SHAPE = (4, 3, 2, 5)
INPUT = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 4 dim: 3 dim: 2 dim: 5 } } }'


def build(options: str, phase: int = 0, dtype: torch.dtype = torch.float32) -> Layer:
    return gl.build(f'name: "b" type: "BatchNorm" batch_norm_param {{ {options} }}', SHAPE, phase=phase, dtype=dtype)


def net_of(layers: str, phase: str = "TEST", fork: str = "") -> Net:
    return Net(parse_text(INPUT + layers, caffe_pb2.NetParameter(fork=fork)), phase, file="net.prototxt")


def batch(seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(SHAPE) * 2 + 1).float()


def per_channel(x: torch.Tensor) -> np.ndarray:
    return x.double().transpose(0, 1).flatten(1).numpy()


def stored(path: Path, *blobs: list[float]) -> Path:
    net = caffe_pb2.NetParameter()
    layer = net.layer.add(name="b", type="BatchNorm")
    for values in blobs:
        layer.blobs.add(data=values).shape.dim.append(len(values))
    write_message(path, net)
    return path


@pytest.mark.parametrize(
    ("options", "fork", "blobs"),
    [
        ("", "", 3),
        ("scale_bias: true", "nvidia", 5),
        ("scale_bias: true engine: CUDNN scale_filler { value: 2 }", "nvidia", 5),
        ("scale_filler { value: 2 }", "nvidia", 5),
        ("use_weight_bias: true", "intel", 5),
        ("bias_term: false", "intel", 4),
        ("use_weight_bias: false", "intel", 3),
        ("filler { value: 2 } engine: CAFFE", "intel", 3),
        ("stats_batch_size: 2", "intel", 3),
        ("disable_variance: true", "happynear", 3),
        ("disable_mean: true scale_filler { value: 1 }", "happynear", 3),
        ("update_global_stats: true use_global_stats: true", "pspnet", 3),
    ],
)
def test_the_fields_tell_whose_it_is(options: str, fork: str, blobs: int) -> None:
    layer = build(options, phase=1)
    assert layer.fork == fork and len(layer.blob_specs) == blobs


@pytest.mark.parametrize(
    "options",
    [
        "scale_bias: true",
        "scale_bias: true engine: CAFFE",
        "use_weight_bias: true stats_batch_size: 2",
        "bias_term: false",
        "disable_mean: true",
        "disable_variance: true",
        "disable_mean: true disable_variance: true",
        "disable_mean: true use_global_stats: true",
    ],
)
def test_gradients(options: str) -> None:
    layer = build(options, dtype=torch.float64)
    for blob in layer.blobs:
        blob.data.uniform_(1, 2)
    layer.fraction = 1e-9  # gradcheck calls again and again
    gl.check_gradients(layer, batch().double())


@pytest.mark.parametrize(("engine", "first", "corrected"), [("", 1, True), ("engine: CAFFE", 2, False)])
def test_nvidias_running_statistics_are_averages(engine: str, first: int, corrected: bool) -> None:
    """batch_norm_layer.cu, cudnn_batch_norm_layer.cu: the first batches replace the averages, later ones are mixed in."""
    layer = build(f"scale_bias: true moving_average_fraction: 0.75 {engine}")
    assert layer.blob(2).tolist() == [1] and layer.blob(3).tolist() == [1] * 3
    mean, variance = np.zeros(3), np.zeros(3)
    for i in range(4):
        x = batch(i)
        layer(x)
        keep = 0 if i < first else 0.75
        flat = per_channel(x)
        mean = keep * mean + (1 - keep) * flat.mean(1)
        variance = keep * variance + (1 - keep) * flat.var(1, ddof=int(corrected))
    np.testing.assert_allclose(layer.blob(0), mean, rtol=1e-5)
    np.testing.assert_allclose(layer.blob(1), variance, rtol=1e-5)
    assert layer.blob(2).tolist() == [1]
    layer.eval()
    x = batch(9)
    layer.blob(3).data.copy_(torch.tensor([1.0, 2, 3]))
    layer.blob(4).data.copy_(torch.tensor([4.0, 5, 6]))
    want = (x.numpy() - mean[:, None, None]) / np.sqrt(variance + 1e-5)[:, None, None]
    want = want * np.array([1, 2, 3])[:, None, None] + np.array([4, 5, 6])[:, None, None]
    np.testing.assert_allclose(layer(x).detach(), want, rtol=1e-4, atol=1e-4)


def test_nvidias_averages_go_on_after_a_restart() -> None:
    layer = build("scale_bias: true")
    assert layer.state() == {}
    layer(batch())
    again = build("scale_bias: true")
    again.load_state_dict(layer.state_dict())
    again.seek(layer.state())
    for each in (layer, again):
        each(batch(1))
    assert torch.equal(layer.blob(0), again.blob(0)) and torch.equal(layer.blob(1), again.blob(1))


def test_nvidias_eps_has_a_least_value_and_the_phase_decides(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        layer = build("scale_bias: true eps: 0 use_global_stats: true")
    assert layer.eps == 1e-5 and "use_global_stats: true has no effect in NVIDIA's Caffe" in caplog.text
    flat = per_channel(layer(batch()).detach())
    np.testing.assert_allclose(flat.mean(1), 0, atol=1e-6)


def test_nvidia_takes_bvlcs_weights_as_averages() -> None:
    net = net_of('layer { name: "b" type: "BatchNorm" bottom: "x" top: "y" }', "TRAIN", "nvidia")
    layer = net.layers["b"]
    for blob, values in zip(layer.blobs, ([4.0] * 3, [8.0] * 3, [4.0]), strict=True):
        blob.copy_(torch.tensor(values))
    net.eval()
    np.testing.assert_allclose(net(x=torch.ones(SHAPE) * 3)["y"], 2 / np.sqrt(2 + 1e-5), rtol=1e-5)


def test_the_weights_of_digits_first_models_are_put_in_order(tmp_path: Path) -> None:
    scale, bias, mean, variance = ([float(10 * i + c) for c in range(3)] for i in range(1, 5))
    net = net_of('layer { name: "b" type: "BatchNorm" bottom: "x" top: "y" batch_norm_param { scale_bias: true } }')
    for name, blobs in {
        "old": (scale, bias, mean, variance, [1.0]),
        "new": (mean, variance, [1.0], scale, bias),
    }.items():
        net.load_weights(stored(tmp_path / f"{name}.caffemodel", *blobs))
        assert [blob.tolist() for blob in net.layers["b"].blobs] == [mean, variance, [1], scale, bias]


def test_weights_of_another_forks_layer_are_named(tmp_path: Path) -> None:
    net = net_of('layer { name: "b" type: "BatchNorm" bottom: "x" top: "y" }')
    five = stored(tmp_path / "five.caffemodel", *([1.0] * n for n in (3, 3, 1, 3, 3)))
    with pytest.raises(WeightsError, match=r'"b" has 3 blobs in net\.prototxt, but 5 in ') as caught:
        net.load_weights(five)
    assert "A BatchNorm of " in str(caught.value) and "NVIDIA Caffe (nvidia)" in str(caught.value)
    assert "is the net of another fork than its weights?" in str(caught.value)


def test_a_scale_layer_gets_its_weights_from_the_batch_norm_that_has_them(tmp_path: Path) -> None:
    """Intel's Caffe saves one layer for the two; NVIDIA's has one, and its nets are rewritten for BVLC's."""
    text = """layer { name: "b" type: "BatchNorm" bottom: "x" top: "x" }
              layer { name: "s" type: "Scale" bottom: "x" top: "x" scale_param { bias_term: true } }"""
    mean, variance, scale, bias = ([float(10 * i + c) for c in range(3)] for i in range(1, 5))
    path = stored(tmp_path / "merged.caffemodel", mean, variance, [2.0], scale, bias)
    net = net_of(text)
    report = net.load_weights(path)
    assert report.loaded == ["b", "s"] and not report.missing and not report.ignored
    assert [blob.tolist() for name in "bs" for blob in net.layers[name].blobs] == [mean, variance, [2], scale, bias]
    with pytest.raises(WeightsError, match=r'"b" has 3 blobs in net\.prototxt, but 5 in '):
        net_of(text.replace("bias_term: true", "")).load_weights(path)


def test_intels_statistics_may_be_of_parts_of_a_batch() -> None:
    """batch_norm_layer.cpp of intel/caffe: each part is normalised by itself, and added to the sums in turn."""
    layer = build("stats_batch_size: 2 moving_average_fraction: 0.5")
    x = batch()
    y = layer(x)
    mean, variance, factor = np.zeros(3), np.zeros(3), 0.0
    for part, out in zip(x.split(2), y.split(2), strict=True):
        flat = per_channel(part)
        want = (part.numpy() - flat.mean(1)[:, None, None]) / np.sqrt(flat.var(1) + 1e-5)[:, None, None]
        np.testing.assert_allclose(out, want, rtol=1e-4, atol=1e-5)
        mean, variance, factor = mean * 0.5 + flat.mean(1), variance * 0.5 + flat.var(1, ddof=1), factor * 0.5 + 1
    for blob, value in zip(layer.blobs, (mean, variance, [factor]), strict=True):
        np.testing.assert_allclose(blob, value, rtol=1e-5)


def test_intels_parts_must_divide_the_batch() -> None:
    with pytest.raises(LayerError, match="stats_batch_size: 3 must divide the number of images, which is 4"):
        build("stats_batch_size: 3")
    assert build("stats_batch_size: 3", phase=1)(batch()).shape == SHAPE


def test_intels_relu_is_for_testing() -> None:
    layer = build("relu: true use_weight_bias: true filler { value: -1 }", phase=1)
    layer.scale_factor.fill_(1)
    layer.running_var.fill_(1)
    np.testing.assert_allclose(layer(batch()).detach(), np.maximum(-batch().numpy(), 0), rtol=1e-4)
    with pytest.raises(LayerError, match="relu: true has no gradient in Intel's Caffe"):
        build("relu: true")


def test_intels_scale_layer_takes_the_place_of_the_layers_own_scale() -> None:
    layer = 'layer { name: "b" type: "BatchNorm" bottom: "x" top: "b" batch_norm_param { use_weight_bias: true } }'
    scale = 'layer { name: "s" type: "Scale" bottom: "b" top: "y" scale_param { bias_term: true } }'
    assert len(net_of(layer).layers["b"].blobs) == 5
    assert [len(net_of(layer + scale).layers[name].blobs) for name in "bs"] == [3, 2]


@pytest.mark.parametrize(("mean", "variance"), [(True, False), (False, True), (True, True)])
def test_happynear_leaves_out_the_mean_or_the_variance(mean: bool, variance: bool) -> None:
    """batch_norm_layer.cpp of happynear/caffe-windows."""
    layer = build(" ".join(f"disable_{n}: true" for n, off in (("mean", mean), ("variance", variance)) if off))
    x = batch()
    flat = per_channel(x)
    centre = np.zeros(3) if mean else flat.mean(1)
    squares = ((flat - centre[:, None]) ** 2).mean(1)
    want = x.numpy() - centre[:, None, None]
    if not variance:
        want = want / np.sqrt(squares + 1e-5)[:, None, None]
    np.testing.assert_allclose(layer(x), want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.running_mean, 0 if mean else flat.mean(1), rtol=1e-5)
    np.testing.assert_allclose(layer.running_var, 0 if variance else squares * 40 / 39, rtol=1e-5)
    layer(x)
    np.testing.assert_allclose(layer.scale_factor, [1.99], rtol=1e-6)
    np.testing.assert_allclose(layer.eval()(x), want, rtol=1e-2, atol=1e-2)


def test_pspnets_update_of_global_statistics_is_refused_in_training() -> None:
    with pytest.raises(LayerError, match=r"update_global_stats: true is not supported in training"):
        build("update_global_stats: true")


def test_options_of_two_forks_are_an_error() -> None:
    with pytest.raises(LayerError, match="its options are of no one fork") as caught:
        build("scale_bias: true bias_term: false")
    assert "NVIDIA Caffe (nvidia) has no batch_norm_param.bias_term" in str(caught.value)


@pytest.mark.parametrize(
    ("fork", "shape"), [("tsn", (1, 3)), ("person_search", (1, 3)), ("happynear", (1, 3)), ("pspnet", (1, 3, 1, 1))]
)
def test_bn_has_the_blobs_of_its_fork_and_loads_both_kinds(fork: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    """yjxiong/caffe and hszhao/PSPNet, bn_layer.cpp: 1 x channels, and with two axes more."""
    net = net_of('layer { name: "b" type: "BN" bottom: "x" top: "y" }', fork=fork)
    for other in ([1, 3], [1, 3, 1, 1]):
        stored = caffe_pb2.NetParameter()
        layer = stored.layer.add(name="b", type="BN")
        for i in range(4):
            blob = layer.blobs.add(data=[i, i + 0.25, i + 0.5])
            blob.shape.dim.extend(other)
        write_message(tmp_path / "stored.caffemodel", stored)
        net.load_weights(tmp_path / "stored.caffemodel")
        np.testing.assert_array_equal(net.layers["b"].running_var.flatten(), [3, 3.25, 3.5])
    net.save(tmp_path / "saved.caffemodel")
    assert [blob.shape for blob in read_weights(tmp_path / "saved.caffemodel")["b"]] == [shape] * 4


def test_bn_of_segnet_takes_a_matrix_as_planes_of_one_place() -> None:
    text = 'name: "b" type: "BN" bn_param { scale_filler { value: 2 } shift_filler { value: 1 } }'
    x = torch.randn(6, 3)
    y = gl.build(text, (6, 3))(x)
    assert y.shape == (6, 3, 1, 1)
    torch.testing.assert_close(y, gl.build(text, (6, 3, 1, 1))(x[..., None, None]))


def test_bn_of_yjxiongs_caffe_of_2015() -> None:
    """bn_layer.cpp of yjxiong/caffe, commit 99449d88: eps is 1e-7, and the running variance starts with 1."""
    options = "slope_filler { value: 2 } bias_filler { value: 0.5 } moving_average: true"
    layer = gl.build(f'name: "b" type: "BN" bn_param {{ {options} }}', SHAPE, phase=0, dtype=torch.float64)
    assert [tuple(each.shape) for each in layer.blobs] == [(1, 3)] * 4
    assert layer.eps == pytest.approx(1e-7, rel=1e-6)
    x = batch().double()
    flat = per_channel(x)
    mean, variance = flat.mean(1), flat.var(1)
    along = (1, 3, 1, 1)
    want = (x.numpy() - mean.reshape(along)) / np.sqrt(variance + 1e-7).reshape(along) * 2 + 0.5
    np.testing.assert_allclose(layer(x).detach(), want, rtol=1e-6)
    np.testing.assert_allclose(layer.running_mean[0], 0.1 * mean, rtol=1e-6)
    np.testing.assert_allclose(layer.running_var[0], 0.9 + 0.1 * variance, rtol=1e-6)
    layer.eval()
    want = (x.numpy() - 0.1 * mean.reshape(along)) / np.sqrt(0.9 + 0.1 * variance + 1e-7).reshape(along) * 2 + 0.5
    np.testing.assert_allclose(layer(x).detach(), want, rtol=1e-5, atol=1e-6)
    with pytest.raises(LayerError, match="moving_average: false is not supported"):
        gl.build('name: "b" type: "BN" bn_param { slope_filler {} moving_average: false }', SHAPE)

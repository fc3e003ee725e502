"""The pycaffe interface as pycaffe scripts use it: live arrays, partial passes, surgery."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

import pycaffe_compat as caffe
from pycaffe_compat.errors import CaffeError, LayerError, UnknownNameError, WeightsError

NET = """
name: "testnet" force_backward: true
layer { name: "data" type: "Input" top: "data" top: "label"
  input_param { shape { dim: 5 dim: 2 dim: 6 dim: 6 } shape { dim: 5 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 1 } param { lr_mult: 2 }
  convolution_param { num_output: 3 kernel_size: 3
    weight_filler { type: "gaussian" std: 1 } bias_filler { type: "constant" value: 2 } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  inner_product_param { num_output: 7 weight_filler { type: "gaussian" std: 0.3 } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "net.prototxt"
    path.write_text(NET)
    return path


@pytest.fixture
def net(file: Path) -> caffe.Net:
    net = caffe.Net(str(file), caffe.TRAIN)
    net.blobs["data"].data[...] = np.random.default_rng(0).standard_normal(net.blobs["data"].shape)
    net.blobs["label"].data[...] = np.arange(5)
    return net


def test_the_parts_of_a_net(net: caffe.Net) -> None:
    assert net.inputs == ["data", "label"] and net.outputs == ["loss"]
    assert list(net.blobs) == ["data", "label", "conv", "ip", "loss"]
    assert list(net.params) == ["conv", "ip"]
    assert [blob.data.shape for blob in net.params["conv"]] == [(3, 2, 3, 3), (3,)]
    assert [layer.type for layer in net.layers] == ["Input", "Convolution", "ReLU", "InnerProduct", "SoftmaxWithLoss"]
    assert net.layer_dict["conv"].blobs[0] is net.params["conv"][0]
    assert net.top_names["data"] == ["data", "label"] and net.bottom_names["loss"] == ["ip", "label"]
    blob = net.blobs["data"]
    assert (blob.num, blob.channels, blob.height, blob.width, blob.count) == (5, 2, 6, 6, 360)
    assert net.blobs["loss"].data.shape == ()
    assert type(net.params["conv"]) is caffe.pycaffe.BlobVec  # as scripts ask that merge batch normalisations
    assert net._input_list == net.inputs and net._output_list == net.outputs


def test_arrays_are_live_in_both_directions(net: caffe.Net) -> None:
    held = net.blobs["ip"].data
    row = net.blobs["ip"].data[1]
    net.forward()
    first = held.copy()
    assert np.abs(first).max() > 0
    np.testing.assert_array_equal(row, held[1])
    net.params["ip"][0].data[...] *= 2
    net.params["ip"][1].data[:] = 1
    net.forward()
    np.testing.assert_allclose(held, 2 * first + 1, rtol=1e-5)
    np.testing.assert_array_equal(net.blobs["ip"].data, held)


def test_the_next_layer_reads_what_was_written_into_a_blob(net: caffe.Net) -> None:
    net.forward()
    net.blobs["conv"].data[...] = 0
    net.forward(start="ip")
    np.testing.assert_array_equal(net.blobs["ip"].data, 0)
    net.blobs["conv"].data[...] = -1
    net.forward(start="relu", end="relu")
    np.testing.assert_array_equal(net.blobs["conv"].data, 0)


def test_forward_takes_inputs_and_returns_outputs_and_more(net: caffe.Net) -> None:
    data, label = np.ones((5, 2, 6, 6), np.float32), np.zeros(5)
    out = net.forward(blobs=["ip"], data=data, label=label)
    assert set(out) == {"loss", "ip"}
    assert set(net.forward(end="ip")) == {"ip"}
    net.forward(data=np.arange(5).reshape(5, 1, 1, 1), label=label)
    np.testing.assert_array_equal(net.blobs["data"].data[3], np.full((2, 6, 6), 3))
    with pytest.raises(UnknownNameError, match="do not match"):
        net.forward(data=data)
    with pytest.raises(CaffeError, match="reshape the blob first"):
        net.forward(data=data[:2], label=label[:2])
    with pytest.raises(UnknownNameError, match=r'no layer "con".*did you mean conv'):
        net.forward(start="con")
    with pytest.raises(UnknownNameError, match=r'no blob "cnv".*did you mean conv'):
        net.blobs["cnv"]


def test_param_diffs_add_up_until_cleared(net: caffe.Net) -> None:
    net.forward()
    net.backward()
    once = net.params["conv"][0].diff.copy()
    assert np.abs(once).max() > 0
    net.backward()
    np.testing.assert_allclose(net.params["conv"][0].diff, 2 * once, rtol=1e-5)
    net.clear_param_diffs()
    assert not net.params["conv"][0].diff.any()


def test_backward_from_a_layer_starts_at_the_diff_that_was_written(net: caffe.Net) -> None:
    net.forward()
    net.blobs["ip"].diff[...] = 0
    net.blobs["ip"].diff[0, 3] = 1
    got = net.backward(start="ip")
    weight = net.params["ip"][0].data[3].reshape(3, 4, 4)
    np.testing.assert_allclose(net.blobs["ip"].diff.sum(), 1)
    np.testing.assert_array_equal(got["data"][1:], 0)
    # conv's diff is that of its first value, before the ReLU in place
    np.testing.assert_allclose(net.blobs["conv"].diff[0], weight * (net.blobs["conv"].data[0] > 0), rtol=1e-5)
    ends = net.backward(start="ip", end="ip")
    assert list(ends) == ["conv"]
    np.testing.assert_allclose(ends["conv"][0], weight, rtol=1e-5)


def test_deconvolution_lets_a_relu_pass_what_is_above_0_of_its_diff(net: caffe.Net) -> None:
    """As the deep visualization toolbox wants it, whose Caffe has these methods."""
    net.forward()
    diff = np.zeros((5, 7), np.float32)
    diff[0, 3] = 1
    plain = {name: array.copy() for name, array in net.backward_from_layer("ip", diff, ["conv"], True).items()}
    weight = net.params["ip"][0].data[3].reshape(3, 4, 4)
    assert set(plain) == {"data", "label", "conv"} and net.blobs["loss"].diff == 0
    np.testing.assert_allclose(plain["conv"][0], weight * (net.blobs["conv"].data[0] > 0), rtol=1e-5)
    turned = net.deconv_from_layer("ip", diff, ["conv"])
    np.testing.assert_allclose(turned["conv"][0], np.maximum(weight, 0), rtol=1e-5)
    assert not np.allclose(turned["data"], plain["data"])
    np.testing.assert_array_equal(net.backward_from_layer("ip", diff)["data"], plain["data"])
    with pytest.raises(CaffeError, match=r"shape \(7,\) given, the blob has \(5, 7\)"):
        net.backward_from_layer("ip", diff[0])


def test_the_loss_diff_is_its_weight_and_scales_everything(net: caffe.Net) -> None:
    assert net.blobs["loss"].diff == 1
    net.forward()
    before = net.backward()["data"].copy()
    net.blobs["loss"].diff[...] = 3
    np.testing.assert_allclose(net.backward()["data"], 3 * before, rtol=1e-4, atol=1e-7)


def test_backward_before_forward_is_an_error(net: caffe.Net) -> None:
    with pytest.raises(LayerError, match="backward before forward"):
        net.backward()


def test_forward_all_runs_any_number_of_rows_in_batches(net: caffe.Net) -> None:
    data = np.random.default_rng(1).standard_normal((12, 2, 6, 6)).astype(np.float32)
    out = net.forward_all(blobs=["ip"], data=data, label=np.zeros(12))
    assert out["ip"].shape == (12, 7)
    net.blobs["data"].data[...] = data[5:10]
    net.forward()
    np.testing.assert_allclose(out["ip"][5:10], net.blobs["ip"].data, rtol=1e-5)


def test_reshape_changes_the_batch(net: caffe.Net) -> None:
    net.blobs["data"].reshape(2, 2, 6, 6)
    net.blobs["label"].reshape(2)
    net.reshape()
    assert net.blobs["ip"].data.shape == (2, 7)
    net.forward()
    net.backward()
    assert net.blobs["data"].diff.shape == (2, 2, 6, 6)
    net.blobs["data"].reshape(2, 2, 7, 7)
    with pytest.raises(LayerError, match='layer "ip"'):
        net.reshape()
    with pytest.raises(LayerError, match='layer "ip"'):
        net.forward()


def test_saving_and_copying_weights(net: caffe.Net, file: Path, tmp_path: Path) -> None:
    for path, save in ((tmp_path / "a.caffemodel", net.save), (tmp_path / "a.h5", net.save_hdf5)):
        save(str(path))
        other = caffe.Net(str(file), str(path), caffe.TEST)
        also = caffe.Net(str(file), caffe.TEST, weights=str(path))
        third = caffe.Net(str(file), phase=caffe.TEST)
        third.copy_from(str(path))
        for name in net.params:
            for i, blob in enumerate(net.params[name]):
                for twin in (other, also, third):
                    np.testing.assert_array_equal(twin.params[name][i].data, blob.data)
    file.write_text(NET.replace("num_output: 7", "num_output: 8"))
    with pytest.raises(WeightsError, match=r"8×48.*7×48"):
        caffe.Net(str(file), str(tmp_path / "a.caffemodel"), caffe.TEST)


def test_names_of_files_may_be_bytes(net: caffe.Net, file: Path, tmp_path: Path) -> None:
    name, weights = os.fsencode(file), os.fsencode(tmp_path / "saved.caffemodel")
    net.save(weights)
    net.save_hdf5(weights + b".h5")
    for other in (
        caffe.Net(name, weights, caffe.TEST),
        caffe.Net(name, caffe.TEST, weights=weights + b".h5"),
        caffe.Net(name, caffe.TEST),
    ):
        other.copy_from(weights)
        np.testing.assert_array_equal(other.params["ip"][0].data, net.params["ip"][0].data)


def test_share_with_is_the_same_memory(net: caffe.Net, file: Path) -> None:
    other = caffe.Net(str(file), caffe.TEST)
    other.share_with(net)
    net.params["conv"][0].data[...] = 5
    np.testing.assert_array_equal(other.params["conv"][0].data, 5)


def test_shared_arrays_are_those_of_the_layer_of_the_same_name(tmp_path: Path) -> None:
    def net(sharing: str) -> caffe.Net:
        path = tmp_path / "n.prototxt"
        layers = (f'layer {{ name: "{n}" {IP} bottom: "x" top: "{n}" {sharing} }} ' for n in "ab")
        path.write_text(
            'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 4 dim: 3 } } } ' + "".join(layers)
        )
        return caffe.Net(str(path), caffe.TEST)

    source, target = net(""), net('param { name: "w" } param { name: "b" }')
    held = target.params["b"]
    target.share_with(source)
    source.params["a"][0].data[...] = 1
    source.params["b"][0].data[...] = 2
    assert (held[0].data == 2).all() and (target.params["a"][0].data == 1).all()
    target.params["b"][0].data[...] = 7
    assert (source.params["b"][0].data == 7).all() and (source.params["a"][0].data == 1).all()
    target.blobs["x"].data[...] = 1
    assert (target.forward()["b"] == 21).all()


def test_a_parameter_keeps_its_shape(net: caffe.Net) -> None:
    with pytest.raises(ValueError, match="broadcast"):
        net.params["conv"][0].data[...] = np.zeros((4, 4))
    with pytest.raises(CaffeError, match="shape of a parameter"):
        net.params["conv"][0].reshape(1, 2)


def test_callbacks_see_every_layer(net: caffe.Net) -> None:
    seen: list[tuple[str, int]] = []
    net.before_forward(lambda i: seen.append(("bf", i)))
    net.after_forward(lambda i: seen.append(("af", i)))
    net.before_backward(lambda i: seen.append(("bb", i)))
    net.after_backward(lambda i: seen.append(("ab", i)))
    net.forward()
    net.backward()
    assert [i for kind, i in seen if kind == "bf"] == [0, 1, 2, 3, 4]
    assert [i for kind, i in seen if kind == "ab"] == [4, 3, 2, 1, 0]
    assert seen[:2] == [("bf", 0), ("af", 0)]


def test_a_net_without_layers_does_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.prototxt").write_text('name: "empty"')
    net = caffe.Net(str(tmp_path / "empty.prototxt"), caffe.TEST)
    net.reshape()
    assert net.forward() == net.backward() == {} and net.name == "empty" and not net.layers


def test_a_file_that_is_not_there_names_its_neighbours(file: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"net\.prototx\b.*did you mean net\.prototxt"):
        caffe.Net(str(file)[:-1], caffe.TEST)
    with pytest.raises(RuntimeError, match=r"weights not found: .*no\.caffemodel"):  # as pycaffe's
        caffe.Net(str(file), caffe.TEST, weights=str(file.parent / "no.caffemodel"))


def trained_on_random_numbers(prototxt: str, tmp_path: Path) -> caffe.Net:
    """The net (input ``x``, 4×3) after one pass forward and backward."""
    path = tmp_path / "random.prototxt"
    path.write_text(
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 4 dim: 3 } } }\n' + prototxt,
    )
    net = caffe.Net(str(path), caffe.TRAIN)
    net.blobs["x"].data[...] = np.random.default_rng(0).standard_normal((4, 3))
    net.forward()
    net.backward()
    return net


IP = 'type: "InnerProduct" inner_product_param { num_output: 3 weight_filler { type: "gaussian" std: 0.3 } }'


def test_a_gradient_that_one_of_several_readers_asks_for_stays_with_it(tmp_path: Path) -> None:
    alone = (
        f'layer {{ name: "a" {IP} bottom: "x" top: "a" propagate_down: true }} '
        'layer { name: "l" type: "Reduction" bottom: "a" top: "l" loss_weight: 1 }'
    )
    assert np.abs(trained_on_random_numbers(alone, tmp_path).blobs["x"].diff).max() > 0
    shared = alone + ' layer { name: "s" type: "Silence" bottom: "x" }'
    assert not trained_on_random_numbers(shared, tmp_path).blobs["x"].diff.any()


def test_gradients_reach_a_batch_normalisation_that_says_no_lr_mult(tmp_path: Path) -> None:
    net = (
        'layer { name: "n" type: "BatchNorm" bottom: "x" top: "n" } '
        f'layer {{ name: "a" {IP} bottom: "n" top: "a" }} '
        'layer { name: "l" type: "Reduction" bottom: "a" top: "l" loss_weight: 1 }'
    )
    frozen = net.replace('top: "n"', 'top: "n"' + " param { lr_mult: 0 }" * 3)
    assert not trained_on_random_numbers(frozen, tmp_path).blobs["n"].diff.any()
    silent = trained_on_random_numbers(net, tmp_path)
    np.testing.assert_allclose(silent.blobs["n"].diff, np.ones((4, 3)) @ silent.params["a"][0].data, rtol=1e-5)


def test_a_blob_that_a_layer_has_in_two_places_gets_its_gradient_once(tmp_path: Path) -> None:
    net = trained_on_random_numbers(
        'layer { name: "s" type: "Scale" bottom: "x" top: "s" param { name: "v" } param { name: "v" } '
        "scale_param { bias_term: true } } "
        'layer { name: "l" type: "Reduction" bottom: "s" top: "l" loss_weight: 1 }',
        tmp_path,
    )
    np.testing.assert_allclose(net.params["s"][0].diff, (net.blobs["x"].data + 1).sum(0), rtol=1e-5)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize(
    ("layer", "function", "slope"),
    [
        ("Sigmoid", sigmoid, lambda bottom, top: top * (1 - top)),
        ("TanH", np.tanh, lambda bottom, top: 1 - top**2),
        ("ELU", lambda x: np.where(x > 0, x, np.exp(x) - 1), lambda bottom, top: np.where(bottom > 0, 1, 1 + top)),
        ("Exp", np.exp, lambda bottom, top: top),
        ("ReLU", lambda x: np.maximum(x, 0), lambda bottom, top: bottom > 0),
        ("BNLL", lambda x: np.log1p(np.exp(x)), lambda bottom, top: sigmoid(bottom)),
    ],
)
def test_a_slope_is_read_where_later_layers_have_written(layer, function, slope, in_place, tmp_path: Path) -> None:
    top = "p" if in_place else "a"
    net = trained_on_random_numbers(
        "force_backward: true "
        'layer { name: "p" type: "Power" bottom: "x" top: "p" power_param { scale: 0.5 } } '
        f'layer {{ name: "a" type: "{layer}" bottom: "p" top: "{top}" }} '
        f'layer {{ name: "b" type: "Bias" bottom: "{top}" top: "{top}" bias_param {{ filler {{ value: -0.4 }} }} }} '
        f'layer {{ name: "l" type: "Reduction" bottom: "{top}" top: "l" loss_weight: 3 }}',
        tmp_path,
    )
    bottom = net.blobs["x"].data / 2
    end = function(bottom) - 0.4
    want = 0.5 * slope(end if in_place else bottom, end) * 3
    np.testing.assert_allclose(net.blobs["x"].diff, want, rtol=1e-4, atol=1e-6)
    given = torch.from_numpy(net.blobs["x"].data.copy()).requires_grad_()
    net.module.objective(x=given)[0].backward()
    np.testing.assert_allclose(given.grad, want, rtol=1e-4, atol=1e-6)


def test_dropout_in_place_leaves_the_relu_before_it_as_it_is(tmp_path: Path) -> None:
    net = trained_on_random_numbers(
        'layer { name: "p" type: "Power" bottom: "x" top: "p" } layer { name: "a" type: "ReLU" bottom: "p" top: "p" } '
        'layer { name: "d" type: "Dropout" bottom: "p" top: "p" }',
        tmp_path,
    )
    assert not net.module.layers["a"].rewritten


@pytest.mark.parametrize(("given", "reader", "total"), [("", 3, 3), ("loss_weight: 1", 3, 4), ("", 0, 0)])
def test_a_loss_that_is_read_has_its_own_gradient_only_if_its_weight_is_given(
    given: str, reader: float, total: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weighted = f'type: "Power" top: "q" power_param {{ scale: {reader} }} loss_weight: 1'
    net = trained_on_random_numbers(
        'layer { name: "p" type: "PReLU" bottom: "x" top: "p" } '
        f'layer {{ name: "l" type: "EuclideanLoss" bottom: "p" bottom: "x" top: "l" {given} }} '
        f'layer {{ name: "q" bottom: "l" {weighted if reader else """type: "Silence" """} }}',
        tmp_path,
    )
    x = net.blobs["x"].data
    slope = net.params["p"][0].data
    want = total * (np.where(x > 0, 0, slope * x - x) * np.where(x > 0, 0, x)).sum(0) / 4
    np.testing.assert_allclose(net.params["p"][0].diff, want, rtol=1e-4, atol=1e-7)
    objective, _ = net.module.objective(x=torch.from_numpy(x.copy()))
    np.testing.assert_allclose(float(objective.detach()), (1 + reader) * net.blobs["l"].data, rtol=1e-5)
    if total:
        net.clear_param_diffs()
        objective.backward()
        np.testing.assert_allclose(net.module.layers["p"].weight.grad, want, rtol=1e-4, atol=1e-7)
    assert objective.requires_grad == bool(total)
    assert ("loss weight" in caplog.text) == (not given)


def test_a_blob_whose_reader_hands_nothing_back_has_no_gradient(tmp_path: Path) -> None:
    """Backward from the reader, which is the first of the pass: what stood in ``diff`` is not taken for a gradient."""
    (tmp_path / "n.prototxt").write_text(
        'input: "x" input_shape { dim: 4 dim: 3 } '
        f'layer {{ name: "ip" {IP} bottom: "x" top: "y" }} '
        'layer { name: "cut" type: "Power" bottom: "y" top: "z" propagate_down: false } '
        'layer { name: "sum" type: "Reduction" bottom: "y" top: "loss" loss_weight: 1 }'
    )
    net = caffe.Net(str(tmp_path / "n.prototxt"), caffe.TRAIN)
    net.blobs["x"].data[...] = 1
    net.forward()
    net.blobs["y"].diff[...] = 7
    net.backward(start="cut")
    assert not net.blobs["y"].diff.any() and not net.params["ip"][0].diff.any()
    net.backward()
    assert (net.blobs["y"].diff == 1).all() and (net.params["ip"][0].diff == 4).all()


def test_a_net_with_debug_info_logs_its_passes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "pycaffe_compat")
    (tmp_path / "net.prototxt").write_text(
        """debug_info: true
        layer { name: "d" type: "Input" top: "d" input_param { shape { dim: 1 dim: 3 } } }
        layer { name: "ip" type: "InnerProduct" bottom: "d" top: "ip" param { name: "w" }
          inner_product_param { num_output: 2 weight_filler { type: "constant" value: 1 } } }
        layer { name: "sum" type: "Reduction" bottom: "ip" top: "sum" loss_weight: 1 }"""
    )
    net = caffe.Net(tmp_path / "net.prototxt", caffe.TRAIN)
    caplog.clear()
    net.forward(d=np.full((1, 3), 2))
    net.backward()
    assert [record.getMessage().strip() for record in caplog.records] == [
        "[Forward] Layer d, top blob d data: 2",
        "[Forward] Layer ip, top blob ip data: 6",
        "[Forward] Layer ip, param blob w data: 1",
        "[Forward] Layer ip, param blob 1 data: 0",
        "[Forward] Layer sum, top blob sum data: 12",
        "[Backward] Layer sum, bottom blob ip diff: 1",
        "[Backward] Layer ip, param blob 0 diff: 2",
        "[Backward] Layer ip, param blob 1 diff: 1",
    ]


def test_passes_of_deep_generators_step_by_step_equal_a_step_of_the_solver(tmp_path: Path) -> None:
    (tmp_path / "s.prototxt").write_text(
        """base_lr: 0.1 momentum: 0.9 type: "Adam" lr_policy: "fixed" net_param {
        layer { name: "d" type: "DummyData" top: "d" dummy_data_param { shape { dim: 2 dim: 3 } data_filler { value: 2 } } }
        layer { name: "ip" type: "InnerProduct" bottom: "d" top: "ip"
          inner_product_param { num_output: 2 weight_filler { value: 1 } } }
        layer { name: "loss" type: "Reduction" bottom: "ip" top: "loss" loss_weight: 0.5 } }"""
    )
    one, other = caffe.AdamSolver(str(tmp_path / "s.prototxt")), caffe.get_solver(str(tmp_path / "s.prototxt"))
    assert other.net._blob_loss_weights[other.net._blob_names_index["loss"]] == 0.5
    for _ in range(3):
        one.step(1)
        assert other.net.forward_simple() is None
        other.net.clear_param_diffs()
        other.net.backward_simple()
        other.apply_update()
        other.increment_iter()
    assert one.iter == other.iter == 3
    for mine, theirs in zip(one.net.params["ip"], other.net.params["ip"], strict=True):
        np.testing.assert_array_equal(mine.data, theirs.data)


def test_a_net_takes_another_name_and_keeps_it_in_copies(net: caffe.Net) -> None:
    assert net.name == net.module.caffe_name
    net.name = "VGG16"  # as test_net.py of Faster R-CNN does
    assert net.name == pickle.loads(pickle.dumps(net)).name == "VGG16"

"""Arrays of blobs that are held, viewed, written to and outlived: always the values that the net works with."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import numpy as np
import pytest

import pycaffe_compat as caffe
from pycaffe_compat.errors import CaffeError, NetError

CONV = 'convolution_param { num_output: 3 kernel_size: 3 weight_filler { type: "gaussian" std: 1 } }'
CHAIN = f"""
force_backward: true
layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: 2 dim: 2 dim: 5 dim: 5 }} }} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv" {CONV} }}
layer {{ name: "act" type: "%s" bottom: "conv" top: "conv" %s }}
layer {{ name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  inner_product_param {{ num_output: 4 weight_filler {{ type: "gaussian" std: 1 }} }} }}
layer {{ name: "loss" type: "Reduction" bottom: "ip" top: "loss" loss_weight: 1 reduction_param {{ operation: SUMSQ }} }}
"""
RELU = CHAIN % ("ReLU", "")


def make(tmp_path: Path, text: str, phase: int = caffe.TRAIN) -> caffe.Net:
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    return caffe.Net(str(path), phase)


def data(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_every_array_is_float32_in_c_order_and_writable(tmp_path: Path) -> None:
    text = RELU + (
        'layer { name: "slice" type: "Slice" bottom: "conv" top: "a" top: "b" slice_param { axis: 1 slice_point: 1 } }'
        'layer { name: "argmax" type: "ArgMax" bottom: "ip" top: "argmax" }'
        'layer { name: "crop" type: "Crop" bottom: "data" bottom: "a" top: "crop" crop_param { axis: 2 } }'
        'layer { name: "s" type: "Silence" bottom: "b" bottom: "crop" bottom: "argmax" }'
    )
    net = make(tmp_path, text)
    net.blobs["data"].data[...] = data(2, 2, 5, 5).astype(np.float64)
    for _ in range(2):
        net.forward()
        net.backward()
        arrays = [a for b in net.blobs.values() for a in (b.data, b.diff)]
        arrays += [a for blobs in net.params.values() for b in blobs for a in (b.data, b.diff)]
        for array in arrays:
            assert array.dtype == np.float32 and array.flags.c_contiguous and array.flags.writeable


def test_views_of_views_follow_every_forward_pass(tmp_path: Path) -> None:
    net = make(tmp_path, RELU)
    views = [
        net.blobs["ip"].data[1],
        net.blobs["ip"].data[1][2:],
        net.blobs["ip"].data.reshape(-1)[4:],
        net.blobs["ip"].data.T[:, 1],
        np.asarray(memoryview(net.blobs["ip"].data))[1],
        np.asarray(net.blobs["ip"].data, np.float32)[1],
    ]
    flat = net.blobs["ip"].data.flat
    for seed in range(3):
        net.blobs["data"].data[...] = data(2, 2, 5, 5, seed=seed)
        net.forward()
        gc.collect()
        want = net.blobs["ip"].data
        for view in views:
            np.testing.assert_array_equal(view[-1], want[1, -1])
        np.testing.assert_array_equal(np.array(flat), want.ravel())
    views[0][...] = 7
    np.testing.assert_array_equal(net.blobs["ip"].data[1], 7)


def test_arrays_kept_in_a_list_are_one_array_and_copies_are_not(tmp_path: Path) -> None:
    net = make(tmp_path, RELU)
    kept, copies = [], []
    for seed in range(4):
        kept.append(net.forward(blobs=["ip"], data=data(2, 2, 5, 5, seed=seed))["ip"])
        copies.append(kept[-1].copy())
    for array in kept:
        np.testing.assert_array_equal(array, copies[-1])
    assert not np.array_equal(copies[0], copies[1])


def test_all_ways_to_write_are_seen_by_the_next_layer(tmp_path: Path) -> None:
    net = make(tmp_path, RELU)
    values = data(2, 2, 5, 5)
    blob = net.blobs["data"]
    net.forward()

    def result() -> np.ndarray:
        return net.forward(end="conv")["conv"].copy()

    blob.data[...] = values
    want = result()
    for write in (
        lambda: np.copyto(blob.data, values),
        lambda: setattr(blob, "data", values),
        lambda: setattr(blob.data, "flat", values.ravel()),
        lambda: blob.data.flat.__setitem__(slice(None), values.ravel()),
        lambda: blob.data.put(np.arange(values.size), values),
        lambda: np.add(values, 0, out=blob.data),
        lambda: [row.__setitem__(Ellipsis, v) for row, v in zip(blob.data, values, strict=True)],
    ):
        blob.data.fill(0)
        assert np.abs(result() - want).max() > 0
        write()
        np.testing.assert_array_equal(result(), want)
    blob.data += 1
    np.testing.assert_allclose(blob.data, values + 1)
    held = blob.data
    held -= 1
    np.testing.assert_allclose(result(), want, atol=1e-5)


@pytest.mark.parametrize(
    "kind, options",
    [
        ("ReLU", ""),
        ("ReLU", "relu_param { negative_slope: 0.1 }"),
        ("PReLU", ""),
        ("ELU", ""),
        ("Power", "power_param { power: 2 shift: 0.5 }"),
        ("Scale", 'scale_param { bias_term: true filler { type: "gaussian" std: 1 } }'),
        ("BatchNorm", ""),
        ("Sigmoid", ""),
        ("Exp", "exp_param { scale: 0.3 }"),
    ],
)
def test_holding_arrays_of_a_net_in_place_changes_no_number(tmp_path: Path, kind: str, options: str) -> None:
    net = make(tmp_path, CHAIN % (kind, options))
    values = data(2, 2, 5, 5)
    start = {name: [b.data.copy() for b in blobs] for name, blobs in net.params.items()}

    def gradients() -> dict[str, np.ndarray]:
        for name, arrays in start.items():
            for blob, array in zip(net.params[name], arrays, strict=True):
                blob.data[...] = array
        net.clear_param_diffs()
        net.forward(data=values)
        net.backward()
        found = {f"{n}{i}": b.diff.copy() for n, blobs in net.params.items() for i, b in enumerate(blobs)}
        return {**found, "data": net.blobs["data"].diff.copy(), "loss": net.blobs["loss"].data.copy()}

    want = gradients()
    held = [array for blob in net.blobs.values() for array in (blob.data, blob.diff)]
    for _ in range(2):
        for name, array in gradients().items():
            np.testing.assert_allclose(array, want[name], rtol=1e-5, atol=1e-6, err_msg=name)
    assert len(held) == 2 * len(net.blobs)


def test_blobs_have_memory_of_their_own(tmp_path: Path) -> None:
    net = make(
        tmp_path,
        """
force_backward: true
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 4 dim: 3 } } }
layer { name: "drop" type: "Dropout" bottom: "data" top: "drop" }
layer { name: "slice" type: "Slice" bottom: "data" top: "a" top: "b" slice_param { axis: 0 } }
layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b" top: "sum" }
""",
        caffe.TEST,
    )
    net.blobs["data"].data[...] = want = data(4, 3)
    net.forward()
    net.blobs["sum"].diff[...] = 1
    for name in ("drop", "a", "b", "sum"):
        net.blobs[name].data[...] = 99
    np.testing.assert_array_equal(net.blobs["data"].data, want)
    net.backward()
    net.blobs["a"].diff[...] = 5
    np.testing.assert_array_equal(net.blobs["b"].diff, 1)
    np.testing.assert_array_equal(net.blobs["sum"].diff, 1)


def test_flatten_and_reshape_share_their_bottoms_memory_as_in_caffe(tmp_path: Path) -> None:
    net = make(
        tmp_path,
        """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 4 } } }
layer { name: "flat" type: "Flatten" bottom: "data" top: "flat" }
""",
    )
    net.forward()
    net.blobs["flat"].data[1, 11] = 3
    assert net.blobs["data"].data[1, 2, 3] == 3


def test_a_blob_read_before_and_after_it_is_rewritten_has_both_gradients(tmp_path: Path) -> None:
    net = make(
        tmp_path,
        """
force_backward: true
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "x" type: "Power" bottom: "data" top: "x" power_param { scale: 2 } }
layer { name: "square" type: "Power" bottom: "x" top: "square" power_param { power: 2 } }
layer { name: "relu" type: "ReLU" bottom: "x" top: "x" }
layer { name: "sum" type: "Eltwise" bottom: "x" bottom: "square" top: "sum" }
layer { name: "loss" type: "Reduction" bottom: "sum" top: "loss" loss_weight: 1 }
""",
    )
    values = data(2, 3)
    held = net.blobs["x"].data
    for _ in range(2):
        net.forward(data=values)
        net.backward()
        np.testing.assert_allclose(net.blobs["data"].diff, 2 * (values > 0) + 8 * values, rtol=1e-5)
    np.testing.assert_allclose(held, np.maximum(2 * values, 0))


def test_scalars_are_arrays_without_axes(tmp_path: Path) -> None:
    net = make(tmp_path, RELU)
    loss = net.blobs["loss"].data
    net.forward(data=data(2, 2, 5, 5))
    assert loss.shape == () and float(loss) == net.blobs["loss"].data.item() > 0
    net.blobs["loss"].diff[...] = 2
    net.blobs["loss"].data[()] = 1
    assert loss == 1 and list(net.blobs["loss"].data.flat) == [1]


def test_arrays_over_a_reshape(tmp_path: Path) -> None:
    net = make(tmp_path, RELU)
    blob = net.blobs["data"]
    before, ip = blob.data, net.blobs["ip"].data
    before[...] = values = data(2, 2, 5, 5)
    blob.reshape(2, 2, 5, 5)
    assert np.shares_memory(blob.data, before)  # the shape is the same: nothing happened
    blob.reshape(4, 1, 5, 5)
    np.testing.assert_array_equal(blob.data.ravel(), values.ravel())
    blob.reshape(3, 2, 5, 5)
    assert not blob.data.any() and blob.diff.shape == blob.data.shape == (3, 2, 5, 5)
    blob.data[...] = 1
    np.testing.assert_array_equal(before, values)  # sound memory still, though no longer the blob's
    net.reshape()
    net.forward()
    assert net.blobs["ip"].data.shape == (3, 4) and ip.shape == (2, 4)
    ip[...] = 5
    assert not (net.blobs["ip"].data == 5).any()
    blob.reshape(1, 2, 5, 5)
    blob.data[...] = values[:1]
    net.forward()  # without net.reshape(): every layer follows its bottoms
    assert net.blobs["ip"].data.shape == (1, 4) == net.blobs["ip"].diff.shape


def test_parameters_shared_by_layers_are_one_array(tmp_path: Path) -> None:
    shared = CONV.replace("num_output: 3", "num_output: 2 bias_term: false")
    net = make(
        tmp_path,
        f"""
layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: 1 dim: 2 dim: 7 dim: 7 }} }} }}
layer {{ name: "a" type: "Convolution" bottom: "data" top: "a" param {{ name: "w" }} {shared} }}
layer {{ name: "b" type: "Convolution" bottom: "a" top: "b" param {{ name: "w" }} {shared} }}
layer {{ name: "loss" type: "Reduction" bottom: "b" top: "loss" loss_weight: 1 }}
""",
    )
    assert net.params["a"][0] is net.params["b"][0]
    held, diff = net.params["a"][0].data, net.params["b"][0].diff
    held[...] = 0.5
    net.forward(data=data(1, 2, 7, 7))
    net.backward()
    np.testing.assert_array_equal(net.params["b"][0].data, 0.5)
    assert np.abs(diff).max() > 0
    once = diff.copy()
    net.backward()
    np.testing.assert_allclose(diff, 2 * once, rtol=1e-5)


def test_arrays_and_blobs_outlive_the_net_and_the_net_goes_at_once(tmp_path: Path) -> None:
    net = make(tmp_path, RELU)
    net.forward(data=data(2, 2, 5, 5))
    net.backward()
    array, weight, blob = net.blobs["ip"].data, net.params["ip"][0].data, net.blobs["conv"]
    parameters = [b for blobs in net.params.values() for b in blobs]
    want = array.sum(), weight.sum(), blob.data.sum()
    gone = weakref.ref(net.module)
    gc.disable()
    try:
        del net
        assert gone() is None  # no cycle keeps a net (and its weights) until the next garbage collection
    finally:
        gc.enable()
    np.empty(10**6).fill(1)
    assert (array.sum(), weight.sum(), blob.data.sum()) == want
    assert all(np.isfinite(b.data.sum() + b.diff.sum()) for b in parameters)


def test_values_that_do_not_fit_are_errors(tmp_path: Path) -> None:
    net = make(tmp_path, RELU)
    with pytest.raises(CaffeError, match=r"blob of shape \(2, 2, 5, 5\)"):
        net.blobs["data"].data = np.zeros((2, 5))
    with pytest.raises(CaffeError, match="blob of shape"):
        net.params["conv"][1].diff = "many"
    for shape in ((2, -1), (1.5,), ("a",), (1,) * 33, (None,)):
        with pytest.raises(CaffeError, match="cannot have shape"):
            net.blobs["data"].reshape(*shape)
    with pytest.raises(CaffeError, match="numbers expected"):
        net.forward(data=np.full((2, 2, 5, 5), "x"))
    net.blobs["data"].reshape(10**6, 10**6, 10, 10)  # nothing is allocated until it is looked at
    with pytest.raises(NetError, match=r'blob "data" of shape .* needs .* of memory'):
        net.blobs["data"].data  # noqa: B018
    with pytest.raises(NetError, match=r'blob "data" of shape'):
        net.forward()
    net.blobs["data"].reshape(10**12, 10**12, 10**12, 10**12)
    with pytest.raises(NetError, match=r'diff of blob "data" of shape'):
        net.blobs["data"].diff  # noqa: B018


def test_an_arrays_shape_and_flags_are_its_own(tmp_path: Path) -> None:
    """As in pycaffe, where each look at a blob makes an array of its own."""
    (tmp_path / "net.prototxt").write_text(
        """layer { name: "d" type: "Input" top: "d" input_param { shape { dim: 2 dim: 3 } } }
        layer { name: "ip" type: "InnerProduct" bottom: "d" top: "ip" inner_product_param { num_output: 2 } }"""
    )
    net = caffe.Net(tmp_path / "net.prototxt", caffe.TEST)
    for blob in (net.blobs["d"], net.params["ip"][0]):
        turned = np.reshape(blob.data, -1)
        for held in (blob.data, blob.diff):
            held.flags.writeable = False
        blob.data[...] = 4
        assert blob.data.shape == blob.shape and (turned == 4).all()  # still the same memory
    assert net.forward(d=np.ones((2, 3)))["ip"].tolist() == [[12, 12], [12, 12]]

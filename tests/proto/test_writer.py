"""Writing weights: what is written is what Caffe writes, and comes back."""

import os

import h5py
import numpy as np
import pytest
import torch
from golden_files import ROOT, golden, names

from pycaffe_compat.errors import CaffeError, WeightsError
from pycaffe_compat.proto import (
    array_to_blob,
    caffe_pb2,
    parse_text,
    read_message,
    read_weights,
    write_weights,
    writer,
)

NET = caffe_pb2.NetParameter

SKELETON = """
name: "net"
layer { name: "data" type: "Input" top: "data" }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 2 } phase: TRAIN
        convolution_param { num_output: 2 } }
layer { name: "conv/relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "conv/bn" type: "BatchNorm" bottom: "conv" top: "bn" loss_weight: 0.5 include { stage: "x" } }
"""


@pytest.fixture
def net():
    return parse_text(SKELETON, NET)


@pytest.fixture
def blobs():
    rng = np.random.default_rng(0)
    return {
        "conv": [rng.standard_normal((2, 3, 1, 1)).astype(np.float32), torch.arange(2.0)],
        "conv/bn": [torch.ones(3, 2).T, torch.zeros(0, 4), np.float64(7)],
    }


def arrays(blobs):
    return {name: [np.asarray(blob) for blob in values] for name, values in blobs.items()}


def assert_holds(weights, blobs, net):
    assert set(weights) >= set(blobs)
    for name in weights:
        for got, want in zip(weights[name], blobs.get(name, []), strict=True):
            want = np.asarray(want)
            assert got.dtype == want.dtype and got.shape == want.shape
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("name", names("solvers"))
def test_byte_for_byte_caffes_own_snapshot(tmp_path, name):
    theirs = golden("solvers", name).arrays["file/caffemodel"].tobytes()
    (tmp_path / "theirs").write_bytes(theirs)
    weights = read_weights(tmp_path / "theirs")
    write_weights(tmp_path / "ours.caffemodel", weights.skeleton(), weights)
    assert (tmp_path / "ours.caffemodel").read_bytes() == theirs


@pytest.mark.parametrize("with_diffs", [False, True])
def test_equals_the_message_built_the_ordinary_way(tmp_path, net, blobs, with_diffs):
    diffs = {name: [-blob for blob in values] for name, values in blobs.items()} if with_diffs else None
    given = parse_text("force_backward: true state { level: 1 }", NET)  # not stored by Caffe
    given.MergeFrom(net)
    write_weights(tmp_path / "m.caffemodel", given, blobs, diffs)
    for layer in net.layer:
        for index, blob in enumerate(blobs.get(layer.name, [])):
            layer.blobs.append(array_to_blob(blob, None if diffs is None else diffs[layer.name][index]))
    assert read_message(tmp_path / "m.caffemodel", NET) == net
    assert (tmp_path / "m.caffemodel").read_bytes() == net.SerializeToString()
    assert [path.name for path in tmp_path.iterdir()] == ["m.caffemodel"]


@pytest.mark.parametrize("file", ["m.caffemodel", "m.caffemodel.h5"])
def test_round_trip(tmp_path, net, blobs, file):
    diffs = {name: [blob + 1 for blob in values] for name, values in blobs.items()}
    write_weights(tmp_path / file, net, blobs, diffs)
    weights = read_weights(tmp_path / file)
    assert_holds(weights, blobs, net)
    for name, values in arrays(diffs).items():
        for got, want in zip(weights.diffs(name), values, strict=True):
            np.testing.assert_array_equal(want if got is None else got, want)
    write_weights(tmp_path / f"again-{file}", net, weights)
    assert_holds(read_weights(tmp_path / f"again-{file}"), blobs, net)


def test_old_file_to_hdf5_and_back(tmp_path):
    old = read_weights(ROOT / "upgrade" / "v1.caffemodel")
    write_weights(tmp_path / "v1.caffemodel.h5", old.skeleton(), old)
    write_weights(tmp_path / "v2.caffemodel", old.skeleton(), read_weights(tmp_path / "v1.caffemodel.h5"))
    new = read_weights(tmp_path / "v2.caffemodel")
    assert_holds(new, old, old.skeleton())
    assert new.layer_types == old.layer_types
    assert not read_message(tmp_path / "v2.caffemodel", NET).layer[0].blobs[0].HasField("num")


def test_hdf5_layout(tmp_path, net, blobs):
    write_weights(tmp_path / "m.h5", net, blobs)
    with h5py.File(tmp_path / "m.h5") as file:
        assert sorted(file) == ["data"] and sorted(file["data"]) == ["conv", "data"]
        assert sorted(file["data/conv"]) == ["0", "1", "bn"]  # no group for conv/relu: Caffe counts the links of conv
        assert file["data/conv/0"].shape == (2, 3, 1, 1) and file["data/conv/0"].chunks is None
        assert sorted(file["data/conv/bn"]) == ["0", "1", "2"]


def test_hdf5_by_argument(tmp_path, net, blobs):
    write_weights(tmp_path / "model", net, blobs, hdf5=True)
    assert h5py.is_hdf5(tmp_path / "model")
    assert_holds(read_weights(tmp_path / "model"), blobs, net)


def test_shared_blobs_are_stored_once(tmp_path):
    net = parse_text('layer { name: "a" } layer { name: "b" } layer { name: "c" }', NET)
    shared = torch.rand(1000)
    blobs = {"a": [shared], "b": [shared, torch.rand(1000)], "c": [shared.clone()]}
    write_weights(tmp_path / "m.h5", net, blobs)
    with h5py.File(tmp_path / "m.h5") as file:
        data = file["data"]
        assert data["a/0"] == data["b/0"] and data["a/0"] != data["b/1"] and data["a/0"] != data["c/0"]
    assert_holds(read_weights(tmp_path / "m.h5"), blobs, net)


def test_blobs_made_on_the_way_are_not_taken_for_shared(tmp_path):
    class Fresh(dict):
        def get(self, name, default=None):
            return [torch.full((1000,), float(name))]

    net = NET(layer=[{"name": str(index)} for index in range(20)])
    write_weights(tmp_path / "m.h5", net, Fresh.fromkeys(map(str, range(20))))
    weights = read_weights(tmp_path / "m.h5")
    assert [weights[str(index)][0][0] for index in range(20)] == list(range(20))


def test_half_precision_becomes_float32(tmp_path):
    net = parse_text('layer { name: "a" }', NET)
    write_weights(tmp_path / "m.caffemodel", net, {"a": [torch.ones(3, dtype=torch.bfloat16), np.ones(3, np.float16)]})
    assert [blob.dtype for blob in read_weights(tmp_path / "m.caffemodel")["a"]] == [np.float32, np.float32]


@pytest.mark.parametrize(
    "blobs, diffs, words",
    [
        ({"cnov": []}, None, "cnov"),
        ({"conv": [np.zeros(3)]}, {"conv": [np.zeros(4)]}, r"\(4,\)"),
        ({"conv": [np.zeros(3)]}, {"data": []}, None),
        ({"conv": [np.zeros(3)]}, {"conv": []}, "conv"),
    ],
)
def test_blobs_that_do_not_fit(tmp_path, net, blobs, diffs, words):
    path = tmp_path / "m.caffemodel"
    if words is None:
        write_weights(path, net, blobs, diffs)
        return
    with pytest.raises(WeightsError, match=words):
        write_weights(path, net, blobs, diffs)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("layers", [[""], ["/abs"], ["a//b"], ["a", "a/0"], ["a/0", "a"], ["."]])
def test_names_that_hdf5_cannot_hold(tmp_path, layers):
    net = NET(layer=[{"name": name} for name in layers])
    with pytest.raises(WeightsError, match="HDF5 cannot hold"):
        write_weights(tmp_path / "m.h5", net, {name: [np.zeros(2)] for name in layers})
    assert not list(tmp_path.iterdir())


def test_a_failed_write_keeps_the_old_file(tmp_path, net):
    class Failing:
        shape = (3,)

        def detach(self):
            raise KeyboardInterrupt

    path = tmp_path / "m.caffemodel"
    path.write_bytes(b"before")
    with pytest.raises(KeyboardInterrupt):
        write_weights(path, net, {"conv": [np.zeros(2), Failing()]})
    assert path.read_bytes() == b"before" and os.listdir(tmp_path) == ["m.caffemodel"]
    with pytest.raises(CaffeError, match="cannot write"):
        write_weights(tmp_path / "no" / "m.caffemodel", net, {})


def test_a_file_that_protobuf_could_not_parse_gets_a_warning(net, blobs, tmp_path, monkeypatch, caplog):
    write_weights(tmp_path / "small.caffemodel", net, blobs)
    assert not caplog.messages
    monkeypatch.setattr(writer, "ONE_MESSAGE", 100)
    write_weights(tmp_path / "net.h5", net, blobs)
    assert not caplog.messages
    write_weights(tmp_path / "net.caffemodel", net, blobs)
    assert "net.caffemodel: over 2 GB; this package can read it, but Caffe cannot" in caplog.messages[0]

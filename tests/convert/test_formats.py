"""Files of every format: nothing is lost between any two, and bad files are errors that name them."""

import itertools
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from weight_formats import FORMATS, assert_same

from pycaffe_compat.convert import (
    Model,
    read_model,
    suffix_of,
    write_model,
)
from pycaffe_compat.errors import CaffeError, MissingFileError, ParseError, WeightsError
from pycaffe_compat.net import Net
from pycaffe_compat.proto import write_weights

GOLDENS = Path(__file__).parents[1] / "goldens"
V1 = GOLDENS / "upgrade/v1.caffemodel"


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(FORMATS, 2)))
def test_there_and_back_again_is_bit_for_bit(model, tmp_path, first, second):
    write_model(tmp_path / f"a{first}", model)
    write_model(tmp_path / f"b{second}", read_model(tmp_path / f"a{first}"))
    write_model(tmp_path / f"c{first}", read_model(tmp_path / f"b{second}"))
    assert_same(model, read_model(tmp_path / f"b{second}"))
    assert_same(model, read_model(tmp_path / f"c{first}"))


def test_a_caffemodel_keeps_layers_types_and_options(model, tmp_path):
    model.skeleton.layer.add(name="relu", type="ReLU", bottom=["ip"], top=["ip"]).relu_param.negative_slope = 0.5
    write_model(tmp_path / "a.caffemodel", model)
    write_model(tmp_path / "b.caffemodel", read_model(tmp_path / "a.caffemodel"))
    assert (tmp_path / "a.caffemodel").read_bytes() == (tmp_path / "b.caffemodel").read_bytes()
    assert read_model(tmp_path / "b.caffemodel").skeleton.layer[-1].relu_param.negative_slope == 0.5


def test_safetensors_keep_order_and_types(model, tmp_path):
    write_model(tmp_path / "a.safetensors", model)
    back = read_model(tmp_path / "a.safetensors")
    assert list(back.blobs) == list(model.blobs)
    assert [layer.type for layer in back.skeleton.layer] == [layer.type for layer in model.skeleton.layer]


def test_an_old_caffemodel_has_the_weights_that_caffe_reads(tmp_path):
    golden = np.load(GOLDENS / "upgrade/v1_caffemodel.npz")
    write_model(tmp_path / "v1.npz", read_model(V1))
    state = np.load(tmp_path / "v1.npz")
    assert list(state) == ["conv1.weight", "conv1.bias", "fc.weight", "fc.bias"]
    for name in golden:
        layer, index = name.split("/")[-2:]
        np.testing.assert_array_equal(state[f"{layer}.{('weight', 'bias')[int(index)]}"].ravel(), golden[name].ravel())


def test_a_checkpoint_of_a_wrapped_module_is_read(tmp_path):
    state = {"module.conv.bias": torch.ones(2), "module.conv.weight": torch.zeros(2, 1, 1, 1).half()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "a.pth")
    model = read_model(tmp_path / "a.pth")
    assert [a.shape for a in model.blobs["conv"]] == [(2, 1, 1, 1), (2,)]
    assert model.blobs["conv"][0].dtype == np.float32


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_a_truncated_file_is_an_error_of_our_family(model, tmp_path, suffix, keep):
    path = tmp_path / f"a{suffix}"
    write_model(path, model)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(CaffeError, match="a\\."):
        read = read_model(path)
        [array.sum() for arrays in read.blobs.values() for array in arrays]


class Evil:
    def __reduce__(self):
        return (os.mkdir, ("executed",))


def test_only_tensors_are_unpickled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"a.weight": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Evil(), 2))
    np.savez(tmp_path / "evil.npz", **{"a.weight": np.array([Evil()], dtype=object)}, allow_pickle=True)
    for name in ("evil.pt", "raw.pt", "evil.npz"):
        with pytest.raises(ParseError, match=name):
            read_model(tmp_path / name)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.zeros(3), "holds a Tensor; a state_dict"),
        ({"a.weight": 3}, '"a.weight" is a int'),
        ({"a.weight": torch.zeros(2, dtype=torch.int64)}, '"a.weight" holds torch.int64'),
        ({"weight": torch.zeros(2)}, 'the name "weight" names no layer'),
        (torch.nn.Linear(2, 2), "holds more than tensors (a whole module, say)"),
    ],
)
def test_a_pt_file_of_something_else(tmp_path, content, message):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(CaffeError) as caught:
        read_model(tmp_path / "a.pt")
    assert message in str(caught.value)


def test_bad_files(tmp_path):
    with pytest.raises(MissingFileError):
        read_model(tmp_path / "none.pt")
    np.savez(tmp_path / "ints.npz", **{"a.weight": np.arange(3)})
    with pytest.raises(WeightsError, match=r'"a\.weight" holds int64'):
        read_model(tmp_path / "ints.npz")
    torch.save(torch.nn.BatchNorm2d(2).state_dict(), tmp_path / "norm.pt")
    torch.save({f"n.{name}": value for name, value in torch.load(tmp_path / "norm.pt").items()}, tmp_path / "norm.pt")
    with pytest.raises(
        WeightsError, match=r'"n\.num_batches_tracked" belongs to a PyTorch BatchNorm.*caffe-from-torch'
    ):
        read_model(tmp_path / "norm.pt")
    header = json.dumps({"__metadata__": {"pycaffe_compat.layers": "3"}}).encode()
    (tmp_path / "meta.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ParseError, match=r"meta\.safetensors"):
        read_model(tmp_path / "meta.safetensors")
    for name in ("a.bin", "a"):
        with pytest.raises(WeightsError, match="the file name's ending must be one of"):
            suffix_of(name)
    with pytest.raises(WeightsError, match="caffe-export-net writes whole nets"):
        suffix_of("net.onnx")


def test_layers_without_names_and_files_without_layers(tmp_path):
    write_model(tmp_path / "a.pt", Model("memory", {"": [np.ones((1, 2), "f4")]}))
    assert_same(read_model(tmp_path / "a.pt"), Model("", {"": [np.ones((1, 2), "f4")]}))
    torch.save({}, tmp_path / "empty.pt")
    with pytest.raises(
        WeightsError, match=r"empty\.pt holds no layers, so there is nothing to write to .*b\.caffemodel"
    ):
        write_model(tmp_path / "b.caffemodel", read_model(tmp_path / "empty.pt"))


def test_endings_in_capitals(model, tmp_path):
    write_model(tmp_path / "A.CAFFEMODEL.H5", model)
    assert (tmp_path / "A.CAFFEMODEL.H5").read_bytes().startswith(b"\x89HDF")


def test_a_failed_write_leaves_the_old_file(model, tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(b"old")

    class Full(Exception):
        pass

    def fail(_):
        raise Full

    with pytest.raises(Full):
        write_model(path, model, fail)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.npz"]


def test_a_converted_caffemodel_equals_a_written_one(prototxt, tmp_path):
    net = Net(prototxt)
    net.save(tmp_path / "a.caffemodel")
    arrays = {name: [b.numpy() for b in blobs] for name, blobs in net.weights().items()}
    write_weights(tmp_path / "b.caffemodel", net.param, arrays)
    write_model(tmp_path / "c.caffemodel", read_model(tmp_path / "a.caffemodel"))
    assert (tmp_path / "c.caffemodel").read_bytes() == (tmp_path / "b.caffemodel").read_bytes()

"""net.blobs and net.params: dicts and lists that can be copied, and whose items set values or refuse."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pycaffe_compat as caffe
from pycaffe_compat.errors import CaffeError, UnknownNameError

NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 2 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 2 } }
layer { name: "scale" type: "Scale" bottom: "ip" top: "scale" scale_param { filler { value: 3 } } }
"""


@pytest.fixture
def net(tmp_path: Path) -> caffe.Net:
    (tmp_path / "net.prototxt").write_text(NET)
    made = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    made.blobs["data"].data[...] = 1
    made.params["ip"][0].data[...] = [[1, 2], [3, 4]]
    return made


@pytest.mark.parametrize("of", ["blobs", "params", "layer_dict", "top_names", "bottom_names", "blob_loss_weights"])
def test_dicts_are_copied_like_the_ordered_dicts_of_pycaffe(net: caffe.Net, of: str) -> None:
    held = getattr(net, of)
    assert isinstance(held, OrderedDict)
    for made in (held.copy(), copy.copy(held), {**held}, dict(held), OrderedDict(held), held | {}, {} | held):
        assert list(made.items()) == list(held.items())
        made["other"] = made.pop("ip")  # a copy is nobody's
        assert "other" not in held and "ip" in held
    assert type(held).fromkeys("ab", 1) == {"a": 1, "b": 1}


@pytest.mark.parametrize("again", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_deep_copies_keep_the_values_of_their_time(net: caffe.Net, again: Callable[[Any], Any]) -> None:
    net.params["ip"][0].diff[...] = 7
    params, blobs, tops = again(net.params), again(net.blobs), again(net.top_names)
    net.params["ip"][0].data[...] = 0
    net.params["ip"][0].diff[...] = 0
    net.blobs["data"].data[...] = 0
    assert params["ip"][0].data.tolist() == [[1, 2], [3, 4]] and (params["ip"][0].diff == 7).all()
    assert (blobs["data"].data == 1).all() and tops == net.top_names
    params["ip"][0].data[...] = 9
    params["ip"].append(params["ip"].pop(0))
    assert not net.params["ip"][0].data.any()
    with pytest.raises(UnknownNameError, match="did you mean ip"):
        params["ipp"]
    shallow = copy.copy(net.params["ip"][0])
    shallow.data[...] = 5
    assert (net.params["ip"][0].data == 5).all()


def test_assigning_an_item_sets_the_values(net: caffe.Net) -> None:
    weight, bias = net.params["ip"]
    held = weight.data
    net.params["ip"][0] = np.full((2, 2), 2)
    assert net.forward()["scale"].tolist() == [[12, 12]] and (held == 2).all()
    net.params["ip"][-1] = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    assert net.forward(["ip"])["ip"].tolist() == [[5, 6]]
    net.params["ip"] = [[[1, 0], [0, 1]], 0]
    assert net.forward(["ip"])["ip"].tolist() == [[1, 1]]
    net.params["ip"][:] = [weight.data.T * 4, np.array([1, 2])]
    net.params["ip"][1:] = (5,)
    assert net.forward(["ip"])["ip"].tolist() == [[9, 9]]
    net.params.update(scale=[2])
    assert net.forward()["scale"].tolist() == [[18, 18]]
    net.params["ip"][0] = copy.deepcopy(net.params)["ip"][0]
    net.layers[1].blobs = [np.eye(2), bias]
    net.blobs["data"] = np.array([[3, 4]])
    assert net.forward(["ip"])["ip"].tolist() == [[8, 9]]
    net.blobs["data"] = net.blobs["scale"]
    assert net.blobs["data"].data.tolist() == [[16, 18]]
    net.params["ip"][0].data += 1
    net.blobs["data"].data = 1
    assert net.params["ip"][0] is weight and weight.data is not None and net.params["ip"][1] is bias
    assert net.forward(["ip"])["ip"].tolist() == [[8, 8]]


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda n: n.params["ip"].__setitem__(0, np.ones(2)),
            r'parameter 0 of layer "ip" has shape \(2, 2\); .* \(2,\)',
        ),
        (lambda n: n.params["ip"].__setitem__(0, np.ones((1, 1, 2, 2))), "does not fit"),
        (lambda n: n.params["ip"].__setitem__(0, "values"), "numbers expected, not a str"),
        (lambda n: n.params["ip"].__setitem__(0, {1.0, 2.0}), "numbers expected, not a set"),
        (lambda n: n.params["ip"].__setitem__(0, None), "numbers expected, not a NoneType"),
        (lambda n: n.params["ip"].__setitem__(0, [[1, 2], [3]]), "these make no array"),
        (
            lambda n: n.params["ip"].__setitem__(0, np.ones((2, 2)) * 1j),
            "numbers expected, not a ndarray of complex128",
        ),
        (lambda n: n.params["ip"].__setitem__(slice(None), [np.zeros((2, 2))]), "a list of 2 arrays .* not 1 values"),
        (lambda n: n.params["ip"].__setitem__(slice(None), [np.zeros((2, 2)), np.zeros(3)]), "parameter 1 of layer"),
        (lambda n: n.params.__setitem__("ip", np.zeros((2, 2))), r"shapes \(2, 2\), \(2,\); .* not a ndarray"),
        (lambda n: n.params.__setitem__("ip", {0: 1, 1: 2}), "not a dict"),
        (lambda n: n.params.__setitem__("ip2", [1, 2]), 'no layer with parameters "ip2"'),
        (lambda n: n.params.update({"ipp": [1]}), "did you mean ip"),
        (lambda n: n.params.setdefault("new", []), 'no layer with parameters "new"'),
        (lambda n: n.blobs.__setitem__("data", np.ones((2, 2))), r'blob "data" has shape \(1, 2\)'),
        (lambda n: n.blobs.__setitem__("dat", 1), "did you mean data"),
        (lambda n: n.params["ip"].append(1), "none can be added, removed or moved"),
        (lambda n: n.params["ip"].extend([]), "none can be added"),
        (lambda n: n.params["ip"].insert(0, 1), "none can be added"),
        (lambda n: n.params["ip"].pop(), "none can be added"),
        (lambda n: n.params["ip"].remove(n.params["ip"][0]), "none can be added"),
        (lambda n: n.params["ip"].clear(), "none can be added"),
        (lambda n: n.params["ip"].reverse(), "none can be added"),
        (lambda n: n.params["ip"].sort(), "none can be added"),
        (lambda n: n.params["ip"].__delitem__(0), "none can be added"),
        (lambda n: n.params["ip"].__iadd__([1]), "none can be added"),
        (lambda n: n.params["ip"].__imul__(2), "none can be added"),
        (lambda n: n.params.pop("ip"), "none can be removed"),
        (lambda n: n.params.popitem(), "none can be removed"),
        (lambda n: n.params.clear(), "none can be removed"),
        (lambda n: n.params.move_to_end("ip"), "none can be removed"),
        (lambda n: n.blobs.__delitem__("data"), "none can be removed"),
        (lambda n: setattr(n.blobs["data"], "data", "5"), "numbers expected"),
    ],
)
def test_changes_that_would_not_reach_the_net_are_errors(
    net: caffe.Net, change: Callable[[Any], Any], message: str
) -> None:
    before = [list(net.blobs), [b.data.tolist() for blobs in net.params.values() for b in blobs]]
    with pytest.raises(CaffeError, match=message):
        change(net)
    assert [list(net.blobs), [b.data.tolist() for blobs in net.params.values() for b in blobs]] == before


def test_the_dicts_themselves_cannot_be_replaced(net: caffe.Net) -> None:
    for name in ("blobs", "params", "inputs", "outputs"):
        with pytest.raises(AttributeError):
            setattr(net, name, {})


def test_a_list_of_ones_own_is_a_list() -> None:
    blobs = caffe.BlobVec()
    blobs.add_blob(2, 3)
    blobs.append(blobs[0])
    blobs[1] = blobs[0]
    del blobs[0]
    assert [blob.shape for blob in blobs] == [(2, 3)]


@pytest.mark.parametrize("again", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_deep_copy_of_a_net_has_values_and_parameters_of_its_own(net: caffe.Net, again: Callable[[Any], Any]) -> None:
    net.forward()
    net.blobs["ip"].diff[...] = 4
    net.note = "mine"
    other = again(net)
    assert type(other) is caffe.Net and other.note == "mine"
    assert other.blobs["scale"].data.tolist() == [[9, 21]] and (other.blobs["ip"].diff == 4).all()
    other.params["ip"][0] = np.eye(2)
    assert other.forward()["scale"].tolist() == [[3, 3]]
    assert net.params["ip"][0].data.tolist() == [[1, 2], [3, 4]] and net.forward()["scale"].tolist() == [[9, 21]]
    shallow = copy.copy(net)
    shallow.params["ip"][0] = 0
    shallow.blobs["data"] = 5
    assert not net.params["ip"][0].data.any() and (net.blobs["data"].data == 1).all()


def test_a_blob_is_an_array_for_numpy(net: caffe.Net) -> None:
    blob = net.params["ip"][0]
    assert np.array(blob).tolist() == [[1, 2], [3, 4]] and np.asarray(blob, np.int64).sum() == 10
    np.asarray(blob)[...] = 1
    np.array(blob)[...] = 2
    assert (blob.data == 1).all()

"""What a script may get wrong with the pycaffe interface: one error of the family each, which says what would be right."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

import pycaffe_compat as caffe
from pycaffe_compat.errors import CaffeError, LayerError, NetError, UnknownNameError, WeightsError
from pycaffe_compat.layers import python_layer

NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 4 dim: 4 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 2 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "score" type: "InnerProduct" bottom: "conv1" top: "score" inner_product_param { num_output: 2 } }
"""


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> caffe.Net:
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text("force_backward: true " + NET)
    return caffe.Net("net.prototxt", caffe.TEST)


@pytest.mark.parametrize("name", ["conv1_relu1_0_split_0", "conv1_relu1_0_split"])
def test_a_blob_that_caffe_splits_is_answered_with_the_one_that_is_here(net: caffe.Net, name: str) -> None:
    with pytest.raises(UnknownNameError, match=f'no blob "{name}"; Caffe splits "conv1"'):
        net.blobs[name]
    with pytest.raises(UnknownNameError, match=r'no blob "other_0_split_1"$'):
        net.blobs["other_0_split_1"]


def test_a_name_of_the_oldest_pycaffe_is_answered_with_what_takes_its_place(net: caffe.Net) -> None:
    for name, instead in (
        ("set_phase_test", r"caffe\.TEST"),
        ("set_mode_gpu", r"caffe\.set_mode_gpu\(\)"),
        ("set_mean", r"Transformer\(.*\) has set_mean"),
    ):
        with pytest.raises(AttributeError, match=instead):
            getattr(net, name)
    with pytest.raises(AttributeError, match=r"caffe\.TEST"):
        caffe.pycaffe.set_phase_test()
    with pytest.raises(AttributeError, match=r"has no attribute 'weights'$"):
        _ = net.weights


@pytest.mark.parametrize(
    "use, near",
    [
        (lambda n: n.blobs["conv"], "conv1"),
        (lambda n: n.blobs["Data"], "data"),
        (lambda n: n.params["conv"], "conv1"),
        (lambda n: n.layer_dict["relu"], "relu1"),
        (lambda n: n.top_names["scores"], "score"),
        (lambda n: n.bottom_names["scores"], "score"),
        (lambda n: n.forward(start="conv"), "conv1"),
        (lambda n: n.forward(end="scor"), "score"),
        (lambda n: n.forward(blobs=["con1"]), "conv1"),
        (lambda n: n.backward(start="scores"), "score"),
        (lambda n: n.backward(diffs=["con1"]), "conv1"),
        (lambda n: n.forward(date=np.zeros((2, 3, 4, 4))), "data"),
        (lambda n: n.forward_all(date=np.zeros((2, 3, 4, 4))), "data"),
        (lambda n: n.forward_backward_all(date=np.zeros((2, 3, 4, 4))), "data"),
        (lambda n: n.backward(scores=np.zeros((2, 2))), "score"),
    ],
)
def test_an_unknown_name_is_answered_with_its_neighbours(net: caffe.Net, use: Callable[[Any], Any], near: str) -> None:
    with pytest.raises(UnknownNameError, match=rf"did you mean .*{near}"):
        use(net)
    with pytest.raises(KeyError):
        use(net)


@pytest.mark.parametrize(
    "use, message",
    [
        (
            lambda n: n.forward(data=np.zeros((3, 3, 4, 4))),
            r"data of \"data\": the batch has \(3,\) where the blob has \(2,\)",
        ),
        (lambda n: n.forward(data=np.zeros((2, 3, 4, 5))), r"shape \(2, 3, 4, 5\) given, the blob has \(2, 3, 4, 4\)"),
        (lambda n: n.forward(data=5), r"the batch has \(\)"),
        (lambda n: n.forward(data=np.zeros((2, 4, 4, 3))), r"shape \(2, 4, 4, 3\) given, the blob has \(2, 3, 4, 4\)"),
        (lambda n: n.forward(data=np.full((2, 3, 4, 4), "a")), "numbers expected"),
        (lambda n: n.backward(score=np.zeros((2, 3))), r"diff of \"score\": shape \(2, 3\) given"),
        (lambda n: n.forward_all(), "takes arrays for the inputs, data"),
        (lambda n: n.forward_backward_all(), "do not match"),
        (lambda n: n._forward(0, 9), "there is no layer 9: the net has 4"),
        (lambda n: n._backward(-1, 0), "there is no layer -1"),
        (lambda n: n.backward(), r'layer "score" \(InnerProduct\): backward before forward'),
        (lambda n: n.set_input_arrays(np.zeros((1, 1, 1, 1))), 'first layer is MemoryData; layer "data" is Input'),
        (lambda n: n.copy_from("nothing.caffemodel"), "nothing.caffemodel"),
        (lambda n: n.save("no/such/folder/x.caffemodel"), "no/such/folder"),
    ],
)
def test_arrays_ranges_and_files_that_do_not_fit(net: caffe.Net, use: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(CaffeError, match=message):
        use(net)


def test_batches_of_different_lengths_and_of_none(net: caffe.Net) -> None:
    Path("two.prototxt").write_text(NET.replace('top: "data"', 'top: "data" top: "more"'))
    two = caffe.Net("two.prototxt", caffe.TEST)
    with pytest.raises(CaffeError, match=r"different lengths: {'data': 3, 'more': 4}"):
        two.forward_all(data=np.zeros((3, 3, 4, 4)), more=np.zeros((4, 3, 4, 4)))
    net.blobs["data"].reshape(0, 3, 4, 4)
    with pytest.raises(CaffeError, match="there are no batches"):
        net.forward_all(data=np.zeros((3, 3, 4, 4)))


def test_a_reshape_that_a_layer_cannot_follow_leaves_a_net_that_works(net: caffe.Net) -> None:
    net.forward()
    net.blobs["data"].reshape(2, 3, 9, 9)
    with pytest.raises(LayerError, match='layer "score"'):
        net.reshape()
    with pytest.raises(LayerError, match='layer "score"'):
        net.forward()
    assert net.forward(end="relu1")["conv1"].shape == (2, 2, 7, 7)  # as far as it fits
    net.blobs["data"].reshape(1, 3, 4, 4)
    assert net.forward()["score"].shape == (1, 2)
    net.blobs["score"].diff[...] = 1
    net.blobs["score"].reshape(5, 2)
    with pytest.raises(LayerError, match=r'diff of "score" has shape 5×2, but the last forward pass made 1×2'):
        net.backward()


@pytest.mark.parametrize(
    "arguments, options, kind, message",
    [
        ((), {}, TypeError, "needs a phase"),
        ((None, caffe.TEST), {}, TypeError, "weights_file is None; leave it out"),
        ((caffe.TEST, 0, None, None, 1), {}, TypeError, "too many"),
        ((caffe.TEST,), {"phase": caffe.TEST}, TypeError, "phase is given twice"),
        (("a.caffemodel", caffe.TEST), {"weights": "b.caffemodel"}, TypeError, "weights is given twice"),
        (("a.caffemodel", caffe.TEST, 1), {}, TypeError, "too many"),
        ((), {"phase": "VALIDATE"}, NetError, 'unknown phase "VALIDATE"'),
    ],
)
def test_constructors(net: caffe.Net, arguments: Any, options: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        caffe.Net("net.prototxt", *arguments, **options)


def test_weights_that_do_not_fit_name_both_files(net: caffe.Net) -> None:
    net.save_hdf5("w.h5")
    with h5py.File("w.h5", "a") as file:
        del file["data/conv1/1"]
    with pytest.raises(WeightsError, match=r"conv1.*w\.h5"):
        net.load_hdf5("w.h5")
    with h5py.File("w.h5", "a") as file:
        file["data/conv1/1"] = np.zeros(5, np.float32)
    with pytest.raises(WeightsError, match=r'layer "conv1", blob 1 \(bias\): shape 2 in net\.prototxt, but 5 in w\.h5'):
        caffe.Net("net.prototxt", "w.h5", caffe.TEST)


def test_gpu_mode_without_a_gpu() -> None:
    if torch.cuda.is_available():
        with pytest.raises(CaffeError, match="numbered from 0"):
            caffe.set_device(99)
    else:
        with pytest.raises(CaffeError, match="use set_mode_cpu"):
            caffe.set_mode_gpu()


PYTHON = """
import caffe

class Odd(caffe.Layer):
    def setup(self, bottom, top):
        self.fail = self.param_str

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)
        if self.fail == "reshape" and bottom[0].shape[0] == 1:
            raise ValueError("one is too few")

    def forward(self, bottom, top):
        if self.fail == "forward":
            self.helper()
        top[0].data[...] = bottom[0].data

    def helper(self):
        return {}["missing"]

    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = top[0].diff[0, :99, None, None, None, None]

class NoLayer:
    pass
"""


def odd(fail: str, layer: str = "Odd") -> caffe.Net:
    Path("net.prototxt").write_text(
        'force_backward: true input: "x" input_shape { dim: 2 dim: 3 } '
        'layer { name: "odd one" type: "Python" bottom: "x" top: "y" '
        f'python_param {{ module: "odd_layers" layer: "{layer}" param_str: "{fail}" }} }}'
    )
    return caffe.Net("net.prototxt", caffe.TRAIN)


def test_a_python_layer_that_raises_is_named_with_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(__import__("sys").modules, "caffe", caffe)
    monkeypatch.setattr(python_layer, "_allowed", False)
    monkeypatch.delenv(python_layer.VARIABLE, raising=False)
    Path("odd_layers.py").write_text(textwrap.dedent(PYTHON))
    with pytest.raises(
        LayerError, match=rf'"odd one" \(Python\): runs the Python class odd_layers\.Odd.*{python_layer.VARIABLE}=1'
    ):
        odd("")
    python_layer.allow()
    with pytest.raises(
        LayerError, match=r'"odd one" \(Python\): forward of odd_layers\.Odd failed: KeyError.*'
    ) as caught:
        odd("forward").forward()
    assert "odd_layers.py" in str(caught.value) and 'return {}["missing"]' in str(caught.value)
    net = odd("reshape")
    net.forward()
    net.blobs["x"].reshape(1, 3)
    with pytest.raises(LayerError, match="one is too few"):
        net.forward()
    with pytest.raises(ValueError, match="one is too few"):  # it can be caught as what it was
        net.reshape()
    net = odd("")
    net.forward()
    with pytest.raises(
        LayerError, match=r"backward of odd_layers\.Odd failed: .*(could not broadcast|IndexError|index)"
    ):
        net.backward(y=np.ones((2, 3)))
    with pytest.raises(LayerError, match=r"has no class Od.*did you mean Odd"):
        odd("", "Od")
    with pytest.raises(LayerError, match="not a subclass"):
        odd("", "NoLayer")


@pytest.mark.parametrize(
    "use, kind, message",
    [
        (lambda n: n.forward(start="score", end="conv1"), CaffeError, 'nothing to run, "conv1" comes first'),
        (lambda n: n.backward(start="conv1", end="score"), CaffeError, 'nothing to run, "conv1" comes first'),
        (lambda n: n.forward(blobs="conv1"), CaffeError, "a list of blob names is expected, not 'conv1'"),
        (lambda n: n.backward(diffs="conv1"), CaffeError, "diffs: a list of blob names"),
        (lambda n: n.forward(blobs=5), CaffeError, "a list of blob names"),
        (
            lambda n: n.forward({"data": np.zeros((2, 3, 4, 4))}),
            CaffeError,
            r"arrays are given by name.*forward\(data=array",
        ),
        (lambda n: n.forward(np.zeros((2, 3, 4, 4))), CaffeError, "arrays are given by name"),
        (lambda n: n.forward(data={1, 2}), CaffeError, 'data of "data": numbers expected, not a set'),
        (lambda n: n.forward_all(data=5), CaffeError, "one item per row is expected, not the single number 5"),
        (lambda n: n.forward_all(data={1, 2}), CaffeError, "numbers expected"),
        (lambda n: n.copy_from(None), TypeError, "the path of a caffemodel, not None"),
        (lambda n: n.share_with("net.caffemodel"), TypeError, "another Net, not 'net.caffemodel'"),
        (lambda n: n.before_forward("print"), TypeError, "a callback is a function"),
        (lambda n: n.blobs["data"].reshape({2, 3, 4}), CaffeError, "cannot have shape"),
        (lambda n: caffe.Net(None, "a.caffemodel", caffe.TEST), TypeError, "network_file is None"),
        (lambda n: caffe.Net("net.prototxt", 2), NetError, r"unknown phase 2: it must be 0 \(TRAIN\) or 1 \(TEST\)"),
        (lambda n: caffe.Net("net.prototxt", caffe.TEST, "a.caffemodel"), TypeError, "weights go before the phase"),
        (lambda n: caffe.Net("net.prototxt", caffe.TEST, stages=5), TypeError, "stages is a list of names"),
        (lambda n: caffe.set_random_seed(1.5), CaffeError, r"set_random_seed\(1\.5\): an integer"),
        (lambda n: caffe.set_device("gpu"), CaffeError, r"set_device\('gpu'\): an integer"),
        (lambda n: caffe.set_device(-1), CaffeError, "numbered from 0"),
        (lambda n: caffe.set_solver_count("2"), CaffeError, "an integer"),
        (lambda n: caffe.SGDSolver(None), TypeError, "the path of a solver file, not from None"),
        (lambda n: caffe.get_solver(5), TypeError, r"not from 5 \(int\)"),
    ],
)
def test_arguments_of_the_wrong_kind(
    net: caffe.Net, use: Callable[[Any], Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        use(net)


def test_a_blob_takes_its_shape_from_an_array_of_numbers(net: caffe.Net) -> None:
    net.blobs["data"].reshape(np.array([1, 3, 4, 4]))
    assert net.forward()["score"].shape == (1, 2)

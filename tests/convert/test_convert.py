"""Weights between formats: nothing lost in any pair, errors that name both sides, torchvision's names and scale."""

import itertools
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pycaffe_compat.convert import Model, blob_names, fit_to_net, list_model, read_model, suffix_of, write_model
from pycaffe_compat.convert.torchvision import CAFFE_MEAN, MEAN, STD, fold_scaling, from_torchvision, to_torchvision
from pycaffe_compat.errors import CaffeError, MissingFileError, ParseError, WeightsError
from pycaffe_compat.layers import REGISTRY
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text, write_weights

GOLDENS = Path(__file__).parents[1] / "goldens"
V1 = GOLDENS / "upgrade/v1.caffemodel"
FORMATS = (".caffemodel", ".caffemodel.h5", ".pt", ".safetensors", ".npz")
NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 6 dim: 6 } } }
layer { name: "enc/conv.1" type: "Convolution" bottom: "data" top: "c" convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "bn" type: "BatchNorm" bottom: "c" top: "b" }
layer { name: "scale" type: "Scale" bottom: "b" top: "s" scale_param { bias_term: true } }
layer { name: "prelu" type: "PReLU" bottom: "s" top: "p" }
layer { name: "ip" type: "InnerProduct" bottom: "p" top: "ip" inner_product_param { num_output: 5 bias_term: false } }
"""


@pytest.fixture
def prototxt(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text(NET)
    return path


@pytest.fixture
def model():
    rng = np.random.default_rng(0)
    shapes = {
        "enc/conv.1": [(4, 3, 3, 3), (4,)],
        "bn": [(4,), (4,), (1,)],
        "scale": [(4,), (4,)],
        "prelu": [(4,)],
        "ip": [(5, 64)],
    }
    blobs = {name: [rng.standard_normal(s).astype("f4") for s in each] for name, each in shapes.items()}
    blobs["ip"][0][0, :4] = [np.inf, -np.inf, np.float32(1e-42), -0.0]
    blobs["scale"][1] = blobs["scale"][1].astype("f8") / 3
    types = {"enc/conv.1": "Convolution", "bn": "BatchNorm", "scale": "Scale", "prelu": "PReLU", "ip": "InnerProduct"}
    net = caffe_pb2.NetParameter(name="n", layer=[caffe_pb2.LayerParameter(name=n, type=t) for n, t in types.items()])
    return Model("memory", blobs, skeleton=net)


def assert_same(a, b):
    assert sorted(a.blobs) == sorted(b.blobs)
    for name in a.blobs:
        assert a.names[name] == b.names[name]
        for x, y in zip(a.blobs[name], b.blobs[name], strict=True):
            assert (x.shape, x.dtype) == (y.shape, y.dtype)
            assert x.tobytes() == y.tobytes()


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


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_net_speaks_the_same_names(prototxt, tmp_path, suffix):
    net = Net(prototxt)
    with torch.no_grad():
        for blob in net.state_dict().values():
            blob.normal_()
    net.save(tmp_path / "a.caffemodel")
    write_model(tmp_path / f"b{suffix}", read_model(tmp_path / "a.caffemodel"))
    back, remarks = fit_to_net(read_model(tmp_path / f"b{suffix}"), prototxt)
    assert not remarks
    state = {name: torch.from_numpy(array.copy()) for name, array in back.state_dict().items()}
    fresh = Net(prototxt)
    fresh.load_state_dict(state)
    for name, value in net.state_dict().items():
        assert torch.equal(value, fresh.state_dict()[name])


def test_blob_names_are_those_of_the_layer_classes():
    for layer in (
        'type: "BatchNorm"',
        'type: "Bias"',
        'type: "Scale"',
        'type: "Scale" scale_param { bias_term: true }',
        'type: "PReLU"',
        'type: "Convolution" convolution_param { num_output: 2 kernel_size: 1 }',
        'type: "InnerProduct" inner_product_param { num_output: 2 }',
        'type: "Embed" embed_param { num_output: 2 input_dim: 3 }',
    ):
        made = _build(layer, [(2, 3, 4, 4)])
        assert blob_names(made.type_name, [s.shape for s in made.blob_specs]) == [s.name for s in made.blob_specs]
    for kind, static in itertools.product(("LSTM", "RNN"), (False, True)):
        made = _build(
            f'type: "{kind}" recurrent_param {{ num_output: 2 }}', [(5, 2, 3), (5, 2), *([(2, 4)] if static else [])]
        )
        assert blob_names(kind, [s.shape for s in made.blob_specs]) == [s.name for s in made.blob_specs]


def _build(text, shapes):
    param = parse_text(f'name: "x" {text}', caffe_pb2.LayerParameter)
    return REGISTRY[param.type](param, shapes)


def test_batch_norm_is_known_by_its_blobs_where_no_type_is_stored():
    assert blob_names("", [(4,), (4,), (1,)]) == ["running_mean", "running_var", "scale_factor"]
    assert blob_names("", [(4, 3), (4,), (4, 3)]) == ["weight", "bias", "2"]


def test_a_checkpoint_of_a_wrapped_module_is_read(tmp_path):
    state = {"module.conv.bias": torch.ones(2), "module.conv.weight": torch.zeros(2, 1, 1, 1).half()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "a.pth")
    model = read_model(tmp_path / "a.pth")
    assert [a.shape for a in model.blobs["conv"]] == [(2, 1, 1, 1), (2,)]
    assert model.blobs["conv"][0].dtype == np.float32


def test_fitting_gives_the_nets_shapes_and_says_what_is_on_one_side_only(prototxt, model, tmp_path):
    model.blobs["ip"] = [model.blobs["ip"][0].reshape(1, 1, 5, 64)]
    model.blobs["other"] = model.blobs.pop("prelu")
    model.names["other"] = model.names.pop("prelu")
    write_model(tmp_path / "a.npz", model)
    fitted, remarks = fit_to_net(read_model(tmp_path / "a.npz"), prototxt)
    assert fitted.blobs["ip"][0].shape == (5, 64)
    assert len(remarks) == 2
    assert 'a.npz has no weights for "prelu" of' in remarks[0]
    assert 'has no layers for the weights of "other"' in remarks[1]


def test_a_shape_that_differs_names_both_shapes_and_both_files(prototxt, model, tmp_path):
    model.blobs["ip"] = [np.zeros((5, 63), "f4")]
    write_model(tmp_path / "a.npz", model)
    with pytest.raises(WeightsError) as caught:
        fit_to_net(read_model(tmp_path / "a.npz"), prototxt)
    for part in ('layer "ip", blob 0 (weight)', "5×64", "5×63", "net.prototxt", "a.npz"):
        assert part in str(caught.value)


def test_listing(model):
    text = list_model(model)
    line = next(line for line in text.splitlines() if line.startswith("ip "))
    assert line.split() == [
        "ip",
        "InnerProduct",
        "weight",
        "5×64",
        "float32",
        "-inf",
        "inf",
        "nan",
        "2",
        "not",
        "finite",
    ]
    assert text.endswith("5 layers, 9 blobs, 453 numbers")


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


def test_nothing_is_unpickled_but_tensors(tmp_path, monkeypatch):
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
        ({"weight": torch.zeros(2)}, 'the name "weight" says no layer'),
        (torch.nn.Linear(2, 2), "holds more than tensors (a whole module, say)"),
    ],
)
def test_a_pt_file_of_something_else(tmp_path, content, message):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(CaffeError) as caught:
        read_model(tmp_path / "a.pt")
    assert message in str(caught.value)


def test_other_bad_files(tmp_path):
    with pytest.raises(MissingFileError):
        read_model(tmp_path / "none.pt")
    np.savez(tmp_path / "ints.npz", **{"a.weight": np.arange(3)})
    with pytest.raises(WeightsError, match=r'"a\.weight" holds int64'):
        read_model(tmp_path / "ints.npz")
    header = json.dumps({"__metadata__": {"pycaffe_compat.layers": "3"}}).encode()
    (tmp_path / "meta.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ParseError, match=r"meta\.safetensors"):
        read_model(tmp_path / "meta.safetensors")
    for name in ("a.bin", "a"):
        with pytest.raises(WeightsError, match="the ending says the format"):
            suffix_of(name)


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


# ---- torchvision


def vgg_blobs(stages=(1, 1, 2, 2, 2), widths=(64, 128, 256, 512, 512)):
    blobs, channels = {}, 3
    for number, (count, width) in enumerate(zip(stages, widths, strict=True), 1):
        for k in range(1, count + 1):
            blobs[f"conv{number}_{k}"] = [np.zeros((width, channels, 3, 3), "f4"), np.zeros(width, "f4")]
            channels = width
    for name, shape in (("fc6", (4096, 25088)), ("fc7", (4096, 4096)), ("fc8", (10, 4096))):
        blobs[name] = [np.broadcast_to(np.float32(0), shape), np.zeros(shape[0], "f4")]
    return blobs


def torchvision_vgg(config):
    """The layout that torchvision's vgg.py documents: features, avgpool, classifier."""
    layers, channels = [], 3
    for width in config:
        if width == "M":
            layers.append(torch.nn.MaxPool2d(2, 2))
        else:
            layers += [torch.nn.Conv2d(channels, width, 3, padding=1), torch.nn.ReLU(True)]
            channels = width
    nn = torch.nn
    head = [
        nn.Linear(25088, 4096),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(4096, 10),
    ]
    return nn.ModuleDict({"features": nn.Sequential(*layers), "classifier": nn.Sequential(*head)})


@pytest.mark.parametrize(
    ("stages", "config"),
    [
        ((1, 1, 2, 2, 2), [64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"]),
        (
            (2, 2, 3, 3, 3),
            [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"],
        ),
    ],
)
def test_names_and_shapes_are_torchvisions(stages, config):
    with torch.device("meta"):
        theirs = {name: tuple(tensor.shape) for name, tensor in torchvision_vgg(config).state_dict().items()}
    converted, _ = to_torchvision(Model("m", vgg_blobs(stages)))
    assert {name: array.shape for name, array in converted.state_dict().items()} == theirs
    back, _ = from_torchvision(converted)
    assert list(back.blobs) == list(vgg_blobs(stages))


def test_colours_are_turned_around_and_back():
    blobs = vgg_blobs()
    blobs["conv1_1"][0] = np.random.default_rng(0).standard_normal((64, 3, 3, 3)).astype("f4")
    converted, _ = to_torchvision(Model("m", blobs))
    np.testing.assert_array_equal(converted.blobs["features.0"][0], blobs["conv1_1"][0][:, ::-1])
    back, _ = from_torchvision(converted)
    np.testing.assert_array_equal(back.blobs["conv1_1"][0], blobs["conv1_1"][0])


def test_old_4d_shapes_and_decoders_are_taken():
    blobs = vgg_blobs()
    blobs["conv1_1"][1] = blobs["conv1_1"][1].reshape(1, 1, 1, 64)
    blobs["fc6"][0] = blobs["fc6"][0].reshape(1, 1, 4096, 25088)
    blobs["dec:conv1_1"] = [np.zeros((64, 3, 3, 3), "f4"), np.zeros(3, "f4")]
    converted, remarks = to_torchvision(Model("m", blobs))
    assert converted.blobs["classifier.0"][0].shape == (4096, 25088)
    assert converted.blobs["features.0"][1].shape == (64,)
    assert "dec:conv1_1" in remarks[0]


def test_folded_scaling_gives_the_same_activations_inside_the_border():
    rng = np.random.default_rng(0)
    weight, bias = rng.standard_normal((4, 3, 3, 3)), rng.standard_normal(4)
    pixels = rng.integers(0, 256, (2, 3, 8, 8)).astype("f8")
    caffe = pixels - CAFFE_MEAN.reshape(1, 3, 1, 1)
    theirs = (pixels / 255 - MEAN.reshape(1, 3, 1, 1)) / STD.reshape(1, 3, 1, 1)
    expected = F.conv2d(*map(torch.from_numpy, (caffe, weight, bias)))
    folded = F.conv2d(*map(torch.from_numpy, (theirs, *fold_scaling(weight, bias))))
    torch.testing.assert_close(folded, expected, rtol=1e-9, atol=1e-9)


def test_folding_there_and_back_is_nearly_nothing():
    blobs = vgg_blobs()
    rng = np.random.default_rng(0)
    blobs["conv1_1"] = [rng.standard_normal((64, 3, 3, 3)).astype("f4"), rng.standard_normal(64).astype("f4")]
    back, _ = from_torchvision(to_torchvision(Model("m", blobs), fold=True)[0], fold=True)
    for a, b in zip(back.blobs["conv1_1"], blobs["conv1_1"], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def alexnet_blobs(widths, group):
    kernels = ((11, 1), (5, group), (3, 1), (3, group), (3, group))
    blobs, channels = {}, 3
    for number, (width, (kernel, groups)) in enumerate(zip(widths, kernels, strict=True), 1):
        blobs[f"conv{number}"] = [np.zeros((width, channels // groups, kernel, kernel), "f4"), np.zeros(width, "f4")]
        channels = width
    for name, shape in (("fc6", (4096, 9216)), ("fc7", (4096, 4096)), ("fc8", (1000, 4096))):
        blobs[name] = [np.broadcast_to(np.float32(0), shape), np.zeros(shape[0], "f4")]
    return blobs


def test_caffes_alexnet_is_refused_with_the_reason():
    with pytest.raises(WeightsError) as caught:
        to_torchvision(Model("alex.caffemodel", alexnet_blobs((96, 256, 384, 384, 256), 2)))
    for part in ('alex.caffemodel: layer "conv1" has weights 96×3×11×11', "features.0 has 64×3×11×11", "LRN"):
        assert part in str(caught.value)


def test_an_alexnet_of_torchvisions_shapes_is_translated():
    converted, _ = to_torchvision(Model("m", alexnet_blobs((64, 192, 384, 256, 256), 1)))
    assert list(converted.blobs) == [f"features.{i}" for i in (0, 3, 6, 8, 10)] + [f"classifier.{i}" for i in (1, 4, 6)]
    back, remarks = from_torchvision(converted)
    assert list(back.blobs) == ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]
    assert any("no groups and no LRN" in remark for remark in remarks)


def test_what_torchvision_does_not_have():
    with pytest.raises(WeightsError, match="neither VGG"):
        to_torchvision(Model("m", {"ip1": [np.zeros((2, 2), "f4")]}))
    with pytest.raises(WeightsError, match="stages of"):
        to_torchvision(Model("m", vgg_blobs((1, 1, 1, 1, 1))))
    with pytest.raises(WeightsError, match="batch normalisation"):
        from_torchvision(Model("m", {"features.1": [np.zeros(2, "f4")]}))


def test_a_converted_caffemodel_is_what_the_writer_of_nets_writes(prototxt, tmp_path):
    net = Net(prototxt)
    net.save(tmp_path / "a.caffemodel")
    arrays = {name: [b.numpy() for b in blobs] for name, blobs in net.weights().items()}
    write_weights(tmp_path / "b.caffemodel", net.param, arrays)
    write_model(tmp_path / "c.caffemodel", read_model(tmp_path / "a.caffemodel"))
    assert (tmp_path / "c.caffemodel").read_bytes() == (tmp_path / "b.caffemodel").read_bytes()

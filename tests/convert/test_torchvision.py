"""torchvision's names, shapes, colours and scale."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pycaffe_compat.convert import Model
from pycaffe_compat.convert.torchvision import CAFFE_MEAN, MEAN, STD, fold_scaling, from_torchvision, to_torchvision
from pycaffe_compat.errors import WeightsError


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


def test_nets_that_torchvision_lacks_are_refused():
    with pytest.raises(WeightsError, match="neither VGG"):
        to_torchvision(Model("m", {"ip1": [np.zeros((2, 2), "f4")]}))
    with pytest.raises(WeightsError, match="stages of"):
        to_torchvision(Model("m", vgg_blobs((1, 1, 1, 1, 1))))
    with pytest.raises(WeightsError, match="batch normalisation"):
        from_torchvision(Model("m", {"features.1": [np.zeros(2, "f4")]}))

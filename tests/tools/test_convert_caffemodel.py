"""tools/convert_caffemodel.py as a command."""

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from fork_model import fork_model

ROOT = Path(__file__).parents[2]
V1 = ROOT / "tests/goldens/upgrade/v1.caffemodel"


@pytest.fixture
def run(checked):
    return functools.partial(checked, "convert_caffemodel")


def test_converting_there_and_back(run, tmp_path):
    out = run(V1, tmp_path / "a.pt")
    assert "2 layers, 4 blobs, 307 numbers" in out
    state = torch.load(tmp_path / "a.pt", weights_only=True)
    assert list(state) == ["conv1.weight", "conv1.bias", "fc.weight", "fc.bias"]
    run(tmp_path / "a.pt", tmp_path / "b.caffemodel.h5")
    run(tmp_path / "b.caffemodel.h5", tmp_path / "c.npz")
    with np.load(tmp_path / "c.npz") as arrays:
        for name in arrays:
            np.testing.assert_array_equal(arrays[name], state[name].numpy())


def test_listing(run):
    out = run(V1, "--list")
    assert out.splitlines()[0].split() == ["layer", "type", "blob", "shape", "numbers", "min", "max", "mean"]
    assert "4×3×3×3" in out


def test_checking_against_a_net(run, tmp_path):
    net = tmp_path / "net.prototxt"
    text = """
    layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: 1 dim: 3 dim: 4 dim: 4 }} }} }}
    layer {{ name: "conv1" type: "Convolution" bottom: "data" top: "c" convolution_param {{ num_output: {} kernel_size: 3 }} }}
    """
    net.write_text(text.format(4))
    assert "fits" in run(V1, "--prototxt", net)
    run(V1, tmp_path / "a.pt", "--prototxt", net)
    assert torch.load(tmp_path / "a.pt", weights_only=True)["conv1.bias"].shape == (4,)
    net.write_text(text.format(4).replace("conv1", "conv"))
    error = run(V1, "--prototxt", net, ok=False)
    assert f"{V1} has no weights for any layer of {net} (did you mean conv1?)" in error
    net.write_text(text.format(5))
    error = run(V1, "--prototxt", net, ok=False)
    for part in ('layer "conv1", blob 0 (weight)', "5×3×3×3", "4×3×3×3", str(net), str(V1)):
        assert part in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.pt", "x.npz"], "weights not found: nowhere.pt"),
        (["nowhere.pt", V1], "weights not found: nowhere.pt"),
        ([V1, "x.pt", "--to", "torchvision", "--from", "torchvision"], "not both"),
        ([V1, "--prototxt", ROOT / "prototxt/demo/vgg_deploy.prototxt"], "has no weights for any layer of"),
        ([V1, "x.onnx"], "the file name's ending must be one of"),
        ([V1], "nothing to do"),
        ([V1, "x.pt", "--to", "torchvision"], "neither VGG"),
        ([V1, "x.pt", "--fold-scaling"], "--fold-scaling goes with"),
        ([V1, V1], "is the input file"),
        ([V1, "/nowhere/x.pt"], "cannot write /nowhere/x.pt"),
    ],
)
def test_errors_are_one_line(run, arguments, message):
    error = run(*arguments, ok=False)
    assert message in error


def test_help_teaches(run):
    text = run("--help")
    for word in (".safetensors", "--to torchvision", "--fold-scaling", "bit for bit", "examples"):
        assert word in text


def test_the_weights_of_a_fork(run, tmp_path, caplog):
    source = tmp_path / "fork.caffemodel"
    source.write_bytes(fork_model())
    assert "2 layers, 2 blobs, 3 numbers" in run(source, "--list")
    run(source, tmp_path / "a.npz")
    run(source, tmp_path / "a.caffemodel.h5")
    assert not caplog.messages
    with np.load(tmp_path / "a.npz") as arrays:
        assert arrays["conv.weight"].tolist() == [1, 2] and arrays["ip.weight"].dtype == np.float64
    run(source, tmp_path / "b.caffemodel")
    assert "field 148 is not the clip_param" in caplog.messages[0] and len(caplog.messages) == 2
    run(tmp_path / "b.caffemodel", tmp_path / "b.npz")

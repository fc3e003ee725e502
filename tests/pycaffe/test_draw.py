"""Graphs of nets: the text for Graphviz, and pictures by a program called dot."""

import os
import re
from pathlib import Path

import pytest
from golden_files import ROOT as GOLDENS
from google.protobuf import text_format

from pycaffe_compat.errors import CaffeError
from pycaffe_compat.proto import caffe_pb2, parse_text, read_net
from pycaffe_compat.pycaffe import draw

NET = r"""
name: "a \"net\""
layer { name: "data" type: "Data" top: "data" top: "label" data_param { batch_size: 7 } include { phase: TRAIN } }
layer { name: "conv\\1" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 1 } param { lr_mult: 2 }
  convolution_param { num_output: 12 kernel_h: 3 kernel_w: 5 stride: 2 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { pool: AVE kernel_size: 2 stride: 2 } }
layer { name: "ip" type: "InnerProduct" bottom: "pool" top: "ip" inner_product_param { num_output: 10 } }
layer { name: "acc" type: "Accuracy" bottom: "ip" bottom: "label" top: "acc" include { phase: TEST } }
"""


@pytest.fixture
def net():
    return parse_text(NET, caffe_pb2.NetParameter)


def labels(text: str) -> list[str]:
    """The labels of the layers."""
    return re.findall(r'\[label="((?:[^"\\]|\\.)*)", shape="box"', text)


def test_layers_blobs_and_edges(net) -> None:
    text = draw.dot_text(net)
    assert text.startswith('digraph "a \\"net\\"" {\nrankdir=LR;\n')
    assert labels(text) == [
        r"data\n(Data)",
        r"conv\\1\n(Convolution)\nkernel size: 3x5\nstride: 2\npad: 0",
        r"relu\n(ReLU)",
        r"pool\n(AVE Pooling)\nkernel size: 2\nstride: 2\npad: 0",
        r"ip\n(InnerProduct)",
        r"acc\n(Accuracy)",
    ]
    nodes = [
        "data_Data_0",
        r"conv\\1_Convolution_1",
        "relu_ReLU_2",
        "pool_Pooling_3",
        "ip_InnerProduct_4",
        "acc_Accuracy_5",
    ]
    into = [("data", 1), ("conv", 2), ("conv", 3), ("pool", 4), ("ip", 5), ("label", 5)]
    for blob, layer in into:
        assert f'"{blob}_blob" -> "{nodes[layer]}";' in text
    out = [
        (0, "data", "Batch 7"),
        (0, "label", "Batch 7"),
        (1, "conv", "12"),
        (2, "conv", ""),
        (3, "pool", ""),
        (4, "ip", "10"),
        (5, "acc", ""),
    ]
    for layer, blob, label in out:
        edge = f'"{nodes[layer]}" -> "{blob}_blob" '
        assert re.search(re.escape(edge) + rf'\[label="?{label}"?\];', text), edge
    assert text.count(" -> ") == len(into) + len(out)
    assert sorted(re.findall(r'"(\w+)_blob" \[label="\1", shape="octagon"', text)) == [
        *("acc", "conv", "data", "ip", "label", "pool")
    ]


def test_options(net) -> None:
    assert len(labels(draw.dot_text(net, phase=caffe_pb2.TRAIN))) == 5
    assert [label.split(r"\n")[0] for label in labels(draw.dot_text(net, phase=caffe_pb2.TEST))][-1] == "acc"
    assert '[label="12"]' not in draw.dot_text(net, label_edges=False)
    text = draw.dot_text(net, "TB", display_lrm=True)
    assert r"conv\\1 (Convolution) kernel size: 3x5 stride: 2 pad: 0 lr mult: 1, 2" in labels(text)
    assert draw.get_layer_lr_mult(net.layer[1]) == [1, 2]
    with pytest.raises(CaffeError, match='rankdir: "up" is not a direction'):
        draw.dot_text(net, "up")


@pytest.mark.parametrize("name", ["v0", "v1"])
def test_old_nets(name: str) -> None:
    net = read_net(GOLDENS / "upgrade" / f"{name}.prototxt")
    assert len(labels(draw.dot_text(net))) == len(net.layer) > 3


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """``program(script)`` is the only thing called dot on the path from then on; without it there is none."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def make(script: str) -> None:
        (folder / "dot").write_text(f"#!/bin/sh\n{script}\n")
        os.chmod(folder / "dot", 0o755)

    return make


def test_pictures_come_from_dot(net, program, tmp_path: Path) -> None:
    assert draw.draw_net(net, "LR", "dot").decode() == draw.dot_text(net, "LR")
    with pytest.raises(CaffeError, match=r"Graphviz's program dot was not found .*\.dot or \.gv"):
        draw.draw_net(net, "LR")
    program('echo "$@"; exec /bin/cat')
    made = draw.draw_net(net, "BT", "svg", phase=caffe_pb2.TEST, display_lrm=True).decode()
    assert made == "-Tsvg\n" + draw.dot_text(net, "BT", phase=caffe_pb2.TEST, display_lrm=True)
    draw.draw_net_to_file(net, tmp_path / "net.pdf", "TB")
    assert (tmp_path / "net.pdf").read_text() == "-Tpdf\n" + draw.dot_text(net, "TB")
    program("echo 'Format: \"xyz\" not recognized' >&2; exit 1")
    with pytest.raises(CaffeError, match=r'could not draw the net as xyz: Format: "xyz" not recognized'):
        draw.draw_net_to_file(net, tmp_path / "net.xyz")
    assert not (tmp_path / "net.xyz").exists()


OLD = """
input: "data" input_dim: 1 input_dim: 1 input_dim: 4 input_dim: 4
layers { %s bottom: "data" top: "conv" }
layers { %s bottom: "conv" top: "conv" }
"""
V1 = OLD % (
    'name: "c" type: CONVOLUTION convolution_param { num_output: 2 kernel_size: 3 } blobs_lr: 1',
    'name: "r" type: RELU',
)
V0 = OLD % (
    'layer { name: "c" type: "conv" num_output: 2 kernelsize: 3 blobs_lr: 1 }',
    'layer { name: "r" type: "relu" }',
)


@pytest.mark.parametrize("text", [V0, V1])
def test_old_nets_that_were_only_parsed_are_drawn_upgraded(text: str, tmp_path: Path) -> None:
    net = text_format.Parse(text, caffe_pb2.NetParameter())
    before = net.SerializeToString()
    draw.draw_net_to_file(net, tmp_path / "net.dot", display_lrm=True)
    made = (tmp_path / "net.dot").read_text()
    assert labels(made) == [
        r"input\n(Input)",
        r"c\n(Convolution)\nkernel size: 3\nstride: 1\npad: 0\nlr mult: 1",
        r"r\n(ReLU)",
    ]
    assert '"data_blob" -> "c_Convolution_1";' in made and 'c_Convolution_1" -> "conv_blob" [label="2"]' in made
    assert net.SerializeToString() == before


@pytest.mark.parametrize("net", ["net.prototxt", Path("net.prototxt"), None, caffe_pb2.LayerParameter()])
def test_only_nets_can_be_drawn(net: object) -> None:
    with pytest.raises(CaffeError, match=f"NetParameter can be drawn, not a {type(net).__name__}"):
        draw.draw_net(net, "LR", "dot")

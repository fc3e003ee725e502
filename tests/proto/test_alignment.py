"""Crop layers of FCN's Caffe: where they begin, by the arithmetic of nets whose offsets are known."""

import logging

import pytest
import torch

from pycaffe_compat.errors import NetError
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text, read_net, upgrade_net

STAGES = {1: 2, 2: 2, 3: 3, 4: 3, 5: 3}  # convolutions of VGG-16


def conv(name: str, bottom: str, options: str, kind: str = "Convolution") -> str:
    return (
        f'layer {{ name: "{name}" type: "{kind}" bottom: "{bottom}" top: "{name}" convolution_param {{ num_output: 1 '
        f"{options} }} }}"
    )


def vgg(pad: int, side: int, stages: int = 5) -> str:
    text = (
        f'layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: [1, 1, {side}, {side}] }} }} }}'
    )
    blob = "data"
    for stage in range(1, stages + 1):
        for number in range(STAGES[stage]):
            name = f"conv{stage}_{number + 1}"
            text += conv(name, blob, f"kernel_size: 3 pad: {pad if name == 'conv1_1' else 1}")
            text += f'layer {{ name: "relu_{name}" type: "ReLU" bottom: "{name}" top: "{name}" }}'
            blob = name
        text += (
            f'layer {{ name: "pool{stage}" type: "Pooling" bottom: "{blob}" top: "pool{stage}" pooling_param {{ kernel_size: 2 '
            "stride: 2 } }"
        )
        blob = f"pool{stage}"
    return text


def crop(name: str, first: str, second: str, options: str = "") -> str:
    return f'layer {{ name: "{name}" type: "Crop" bottom: "{first}" bottom: "{second}" top: "{name}" {options} }}'


def offsets(net) -> dict[str, list[int]]:
    return {layer.name: list(layer.crop_param.offset) for layer in net.layer if layer.type == "Crop"}


def v1(text: str) -> str:
    """The old form of a net that uses these types."""
    for new, old in (
        ("Convolution", "CONVOLUTION"), ("Deconvolution", "DECONVOLUTION"), ("ReLU", "RELU"), ("Pooling", "POOLING"),
        ("Crop", "CROP"), ("Eltwise", "ELTWISE"),
    ):  # fmt: skip
        text = text.replace(f'type: "{new}"', f"type: {old}")
    rest = text.partition("} } }")[2]
    return 'input: "data" input_dim: 1 input_dim: 1 input_dim: 32 input_dim: 32 ' + rest.replace("layer {", "layers {")


def fcn8s() -> str:
    up = conv("score2", "score", "kernel_size: 4 stride: 2", "Deconvolution")
    return (
        vgg(100, 32)
        + conv("fc6", "pool5", "kernel_size: 7")
        + conv("score", "fc6", "kernel_size: 1")
        + up
        + conv("score_pool4", "pool4", "kernel_size: 1")
        + crop("crop4", "score_pool4", "score2")
        + 'layer { name: "fuse4" type: "Eltwise" bottom: "crop4" bottom: "score2" top: "fuse4" }'
        + conv("score4", "fuse4", "kernel_size: 4 stride: 2", "Deconvolution")
        + conv("score_pool3", "pool3", "kernel_size: 1")
        + crop("crop3", "score_pool3", "score4")
        + 'layer { name: "fuse3" type: "Eltwise" bottom: "crop3" bottom: "score4" top: "fuse3" }'
        + conv("bigscore", "fuse3", "kernel_size: 16 stride: 8", "Deconvolution")
        + crop("upscore", "bigscore", "data")
    )


def test_the_old_form_has_the_published_offsets_of_fcn_8s() -> None:
    net = read_net(v1(fcn8s()))
    assert offsets(net) == {"crop4": [5, 5], "crop3": [9, 9], "upscore": [31, 31]}
    built = Net(net, "TEST")
    assert built.blob_shapes["upscore"] == (1, 1, 32, 32)


def hed(more: str = "") -> str:
    text = vgg(35, 40, 3)
    for stage, factor in ((1, 1), (2, 2), (3, 4)):
        text += conv(f"s{stage}", f"conv{stage}_{STAGES[stage]}", "kernel_size: 1")
        if factor > 1:
            options = f"kernel_size: {2 * factor} stride: {factor}"
            text += conv(f"u{stage}", f"s{stage}", options, "Deconvolution")
        text += crop(f"crop{stage}", f"u{stage}" if factor > 1 else f"s{stage}", "data", more)
    return text


def test_a_net_of_hed_is_aligned_as_hed_is() -> None:
    net = Net(parse_text(hed(), caffe_pb2.NetParameter(fork="hed")), "TEST")
    assert offsets(net.param) == {"crop1": [34, 34], "crop2": [35, 35], "crop3": [36, 36]}
    blobs, _ = net.run(data=torch.randn(1, 1, 40, 40))
    assert torch.equal(blobs["crop1"], blobs["s1"][:, :, 34:74, 34:74])


def test_other_nets_keep_bvlcs_crop_and_a_warning_tells(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        net = Net(parse_text(hed(), caffe_pb2.NetParameter), "TEST", file="net.prototxt")
    assert offsets(net.param) == {"crop1": [], "crop2": [], "crop3": []}
    assert (
        "layer \"crop1\" (Crop): begins at 0, as in BVLC's Caffe; in FCN's and HED's Caffe it would begin at row 34"
        in caplog.text
    )
    caplog.clear()
    for text, fork in (
        (hed("crop_param { axis: 2 }"), ""),
        (hed(), "bvlc"),
        (hed(), "osvos"),
        (hed("crop_param { axis: 2 }"), "hed"),
    ):
        Net(parse_text(text, caffe_pb2.NetParameter(fork=fork)), "TEST")
    assert not caplog.text


def test_height_and_width_differ_and_dilation_counts() -> None:
    text = (
        'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: [1, 1, 30, 30] } } }'
        + conv("a", "data", "kernel_h: 3 kernel_w: 1 pad_h: 9 pad_w: 4")
        + conv("b", "a", "kernel_size: 3 dilation: 2 pad: 3")
        + crop("c", "b", "data")
        + crop("d", "c", "data")
    )
    net = Net(parse_text(text, caffe_pb2.NetParameter(fork="hed")), "TEST")
    assert offsets(net.param) == {"c": [9, 5], "d": [0, 0]}  # 9 - 1 + 3 - 2 rows and 4 - 0 + 3 - 2 columns


def test_strides_of_height_and_width_differ() -> None:
    text = (
        'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: [1, 1, 40, 40] } } }'
        + conv("a", "data", "kernel_h: 5 kernel_w: 7 stride_h: 2 stride_w: 1 pad: 20")
        + conv("u", "a", "kernel_size: [3, 1] stride: [2, 1]", "Deconvolution")
        + crop("c", "u", "data")
    )
    net = Net(parse_text(text, caffe_pb2.NetParameter(fork="hed")), "TEST")
    assert offsets(net.param) == {"c": [19, 17]}  # 20 - 2 + 1 rows and 20 - 3 columns


@pytest.mark.parametrize(
    ("between", "words"),
    [
        (conv("a", "data", "kernel_size: 2"), r"pixel x of \"a\" is pixel 1 · x \+ 0.5 of \"data\""),
        (conv("a", "data", "kernel_size: 3 stride: 2 pad: 9"), r"pixel x of \"a\" is pixel 2 · x \+ -8 of"),
        (conv("a", "data", "kernel_size: 3"), r"pixel 1 · x \+ 1 of"),
        ('layer { name: "a" type: "Flatten" bottom: "data" top: "a" }', r'layer "a" \(Flatten\) is between'),
        (
            'layer { name: "a" type: "Input" top: "a" input_param { shape { dim: [1, 1, 30, 30] } } }',
            "have no common source blob",
        ),
    ],
)
def test_what_cannot_be_aligned_is_an_error_in_such_a_fork(between: str, words: str) -> None:
    text = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: [1, 1, 20, 20] } } }'
    net = parse_text(text + between + crop("c", "a", "data"), caffe_pb2.NetParameter(fork="hed"))
    with pytest.raises(NetError, match=f"net.prototxt: .*{words}"):
        Net(net, "TEST", file="net.prototxt")


def test_an_old_net_that_cannot_be_aligned_is_upgraded_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    text = 'layers { name: "c" type: CROP bottom: "a" bottom: "b" top: "c" }'
    net = parse_text(text, caffe_pb2.NetParameter)
    with caplog.at_level(logging.WARNING):
        assert upgrade_net(net) == ["1 layers from the V1 form, Crop layers aligned: c at 0, 0"]
    assert "have no common source blob, so they cannot be aligned; it begins at 0" in caplog.text


def test_autocrop_is_aligned_in_any_net() -> None:
    """auto_crop_layer.cpp of yun-liu/rcf: the layer of the old form under another name."""
    net = Net(read_net(fcn8s().replace('type: "Crop"', 'type: "AutoCrop"')), "TEST")
    assert offsets(net.param) == {"crop4": [5, 5], "crop3": [9, 9], "upscore": [31, 31]}
    assert net.blob_shapes["upscore"] == (1, 1, 32, 32)
    apart = 'layer { name: "x" type: "Input" top: "x" } layer { name: "y" type: "Input" top: "y" } '
    with pytest.raises(NetError, match=r'"c".*cannot be aligned'):
        Net(read_net(apart + 'layer { name: "c" type: "AutoCrop" bottom: "x" bottom: "y" top: "c" }'), "TEST")

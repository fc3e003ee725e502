"""The summary of a net: shapes, counts of parameters, memory and arithmetic known from elsewhere; no database, no memory."""

import paper_nets
import pytest

from pycaffe_compat.errors import CaffeError, NetError, UnknownNameError
from pycaffe_compat.proto import caffe_pb2, parse_text
from pycaffe_compat.summary import build_shapes, describe, summarize
from pycaffe_compat.swwae import Decoder, augment, reconstruction_net, vgg
from pycaffe_compat.swwae.nets import imagenet_inputs

DATA = """
layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TRAIN }
        data_param { source: "nowhere" batch_size: 4 backend: LMDB } %s }
layer { name: "c" type: "Convolution" bottom: "data" top: "c" convolution_param { num_output: 2 kernel_size: 3 } }
"""


def rows_by_name(net, *args):
    return {row.name: row for row in describe(net, *args)}


def test_vgg16_has_the_numbers_that_are_known_of_it():
    rows = describe(vgg())
    assert sum(row.parameters for row in rows) == 138_357_544
    macs = sum(row.flops or 0 for row in rows) // 2
    assert macs == 15_470_264_320  # 15.3 G in the convolutions and 0.12 G in the fully connected layers
    by_name = {row.name: row for row in rows}
    assert by_name["conv1_1"].flops == 2 * 224 * 224 * 64 * 27
    assert by_name["conv5_3"].shapes == ((1, 512, 14, 14),)
    assert by_name["fc6"].flops == 2 * 25088 * 4096


def test_a_decoder_costs_what_the_encoder_costs():
    rows = describe(augment(vgg()))
    convolutions, deconvolutions = (
        sum(r.flops or 0 for r in rows if r.type == t) for t in ("Convolution", "Deconvolution")
    )
    assert convolutions == deconvolutions


@pytest.mark.parametrize(
    "options, operations",
    [
        ("num_output: 6 kernel_size: 4 stride: 2 pad: 1", 5 * 7 * 4 * 6 * 4 * 4),
        ("num_output: 6 kernel_size: 4 stride: 2 pad: 1 bias_term: false", 5 * 7 * 4 * 6 * 4 * 4),
        ("num_output: 6 kernel_h: 1 kernel_w: 3 stride: 3 group: 2", 5 * 7 * 4 * 6 * 3 // 2),
    ],
)
def test_each_number_that_a_deconvolution_reads_goes_through_its_filters(options, operations):
    text = (
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 3 dim: 4 dim: 5 dim: 7 } } }'
        f'layer {{ name: "d" type: "Deconvolution" bottom: "x" top: "d" convolution_param {{ {options} }} }}'
    )
    assert rows_by_name(parse_text(text, caffe_pb2.NetParameter))["d"].flops == 2 * 3 * operations


def test_in_place_layers_need_no_memory_of_their_own():
    row = rows_by_name(vgg())["conv1_1/relu"]
    assert (row.activations, row.flops, row.parameters) == (0, None, 0)


def test_what_is_fixed_is_said():
    rows = rows_by_name(reconstruction_net(vgg(), Decoder("sae", "first"), "conv1_2"))
    assert (rows["conv1_1"].fixed, rows["dec:conv1_1"].fixed) == (True, False)
    assert "of them fixed" in summarize(list(rows.values()))


def test_no_database_is_opened_where_the_options_say_the_shape():
    rows = rows_by_name(vgg(inputs=imagenet_inputs((7, 3))), "TRAIN")
    assert rows["data"].type == "Data"
    assert rows["data"].shapes == ((7, 3, 224, 224), (7,))
    assert rows_by_name(vgg(inputs=imagenet_inputs((7, 3))), "TEST")["fc8"].shapes == ((3, 1000),)


def test_a_shape_stands_in_for_a_database_that_is_not_here():
    net = parse_text(DATA % "", caffe_pb2.NetParameter)
    with pytest.raises(CaffeError, match="nowhere"):
        describe(net, "TRAIN")
    shapes = {"data": (5, 1, 8, 8), "label": (5,)}
    assert rows_by_name(net, "TRAIN", shapes)["c"].shapes == ((5, 2, 6, 6),)
    with pytest.raises(CaffeError, match=r"nowhere.*; ask the owner$"):
        describe(net, "TRAIN", advice="ask the owner")
    with pytest.raises(UnknownNameError, match=r'"dat" is not an input of the net \(did you mean data\?\)'):
        describe(net, "TRAIN", {"dat": (1,)})


def test_an_input_takes_another_shape():
    net = reconstruction_net(vgg(), Decoder("sae", "first"))
    row = rows_by_name(net, "TEST", {"data": (2, 3, 448, 448)})["conv5_3/pool"]
    assert row.shapes == ((2, 512, 14, 14),)


def test_recurrent_layers_count_each_step():
    text = """
    layer { name: "x" type: "Input" top: "x" top: "cont" input_param { shape { dim: 5 dim: 2 dim: 3 } shape { dim: 5 dim: 2 } } }
    layer { name: "l" type: "LSTM" bottom: "x" bottom: "cont" top: "l" recurrent_param { num_output: 4 } }
    """
    row = rows_by_name(parse_text(text, caffe_pb2.NetParameter))["l"]
    assert row.flops == 2 * 5 * 2 * (16 * 3 + 16 * 4)


def test_no_parameter_gets_memory():
    net = build_shapes(vgg())
    assert all(parameter.device.type == "meta" for parameter in net.parameters())


def test_every_form_of_the_papers_nets_can_be_built():
    """With the layers that dump blobs, which stand beside all that the nets to deploy have."""
    dumping = {path: net for path, net in paper_nets.nets().items() if path.endswith("_dump.prototxt")}
    deepest = {path: net for path, net in dumping.items() if "layer5" in path or "layer8" in path}
    assert len(deepest) == 22
    for path, net in dumping.items():
        deploying = paper_nets.nets()[path.replace("_dump.", "_deploy.")]
        assert {each.name for each in deploying.layer} <= {each.name for each in net.layer}, path
    for path, net in deepest.items():
        size = 227 if path.startswith("alexnet") else 224
        last = "dec:conv1-post" if path.startswith("alexnet") else "dec:conv1_1"
        assert rows_by_name(net)[last].shapes == ((1, 3, size, size),), path


def test_the_table():
    text = summarize(describe(vgg()))
    lines = text.splitlines()
    assert lines[0].split() == ["layer", "type", "bottoms", "→", "tops", "shape", "parameters", "memory", "FLOPs"]
    assert len({line.index("conv") for line in lines if line.startswith("conv")}) == 1
    assert "parameters   138,357,544 (553.43 MB in float32)" in text
    assert "30.94 GFLOP a forward pass" in text


def test_a_length_that_no_file_can_hold_is_an_error():
    with pytest.raises(NetError, match=f'the shape of "x", 1×{2**64}, is too large'):
        describe(
            parse_text('layer { name: "x" type: "Input" top: "x" }', caffe_pb2.NetParameter), shapes={"x": (1, 2**64)}
        )

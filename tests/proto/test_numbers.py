"""Nets in binary: the numbers of one fork, never of two."""

from pathlib import Path

import numpy as np
import pytest

from pycaffe_compat.errors import ParseError
from pycaffe_compat.forks import NAMES
from pycaffe_compat.proto import caffe_pb2, parse_text, read_net, read_weights, write_weights
from pycaffe_compat.proto.numbers import classes
from pycaffe_compat.proto.upgrade_files import upgrade_net_binary

NET = caffe_pb2.NetParameter
# What each fork writes, by its own numbers; each of these numbers means something else in another fork.
NETS = {
    "ssd": """layer { name: "n" type: "Normalize" norm_param { across_spatial: false scale_filler { value: 20 } } }
              layer { name: "p" type: "PriorBox" prior_box_param { min_size: 30 aspect_ratio: 2 variance: 0.1 } }
              layer { name: "o" type: "DetectionOutput" detection_output_param { num_classes: 21 code_type: CENTER_SIZE } }""",
    "segnet": """layer { name: "b" type: "BN" bn_param { scale_filler { value: 1 } bn_mode: INFERENCE } }
                 layer { name: "u" type: "Upsample" upsample_param { scale: 2 upsample_w: 60 } }
                 layer { name: "d" type: "DenseImageData" dense_image_data_param { source: "list.txt" batch_size: 4 } }""",
    "pspnet": """layer { name: "b" type: "BN" bn_param { slope_filler { value: 1 } frozen: true } }
                 layer { name: "i" type: "Interp" interp_param { height: 713 width: 713 } }
                 layer { name: "s" type: "BatchNorm" batch_norm_param { update_global_stats: true } }""",
    "yolo": """layer { name: "r" type: "Reorg" reorg_param { stride: 2 } }
               layer { name: "u" type: "Upsample" upsample_param { scale: 2 } }
               layer { name: "x" type: "ReLU6" relu6_param { negative_slope: 0.5 } }""",
    "happynear": """layer { name: "b" type: "BN" bn_param { slope_filler { value: 1 } } }
                    layer { name: "n" type: "Normalize" normalize_param { normalize_type: "L1" } }""",
    "fast_rcnn": """layer { name: "r" type: "ROIPooling" roi_pooling_param { pooled_h: 7 spatial_scale: 0.0625 } }""",
    "nvidia": """default_forward_type: FLOAT16 layer { name: "c" type: "Convolution" forward_type: FLOAT }
                 layer { name: "b" type: "BatchNorm" batch_norm_param { scale_bias: true } }""",
}


def binary(text: str, fork: str) -> bytes:
    """What the Caffe of ``fork`` would write for a net: by its own classes, which know nothing of other forks."""
    net = parse_text(text, classes(fork)["NetParameter"])
    return net.SerializeToString()


@pytest.mark.parametrize("fork", NETS)
def test_a_net_is_read_by_its_forks_numbers(fork: str, tmp_path: Path) -> None:
    (tmp_path / "net.caffemodel").write_bytes(binary(NETS[fork], fork))
    net = read_net(tmp_path / "net.caffemodel")
    assert net == parse_text(NETS[fork], NET)


@pytest.mark.parametrize("fork", NETS)
def test_a_caffemodel_has_its_forks_numbers(fork: str, tmp_path: Path) -> None:
    net = parse_text(NETS[fork], NET)
    net.fork = fork
    name = net.layer[0].name
    write_weights(tmp_path / "net.caffemodel", net, {name: [np.ones((2, 3), np.float32)]})
    theirs = classes(fork)["NetParameter"].FromString((tmp_path / "net.caffemodel").read_bytes())
    assert theirs.layer[0].blobs[0].data[:] == [1] * 6
    for layer in theirs.layer:
        layer.ClearField("blobs")
    assert list(theirs.layer) == list(parse_text(NETS[fork], classes(fork)["NetParameter"]).layer)
    weights = read_weights(tmp_path / "net.caffemodel")
    assert list(weights.skeleton().layer) == list(net.layer) and weights[name][0].sum() == 6
    again = read_net(tmp_path / "net.caffemodel")
    assert again.fork == fork and again.layer[0].blobs[0].data[:] == [1] * 6


def test_what_no_one_fork_has_is_written_so_that_no_caffe_misreads_it(tmp_path: Path) -> None:
    text = """layer { name: "r" type: "Reorg" reorg_param { stride: 2 } }
              layer { name: "s" type: "ShuffleChannel" shuffle_channel_param { group: 3 } }
              layer { name: "i" type: "Interp" interp_param { zoom_factor: 2 } }"""
    net = parse_text(text, NET)
    write_weights(tmp_path / "net.caffemodel", net, {})
    data = (tmp_path / "net.caffemodel").read_bytes()
    for fork in NAMES:
        theirs = classes(fork)["NetParameter"].FromString(data)
        layers = getattr(theirs, "layer", None)  # the oldest forks know only "layers"
        assert layers is None or [{f.name for f, _ in layer.ListFields()} for layer in layers] == [{"name", "type"}] * 3
    assert read_net(tmp_path / "net.caffemodel").layer == net.layer


def test_a_number_with_two_meanings_asks_for_the_fork(tmp_path: Path) -> None:
    path = tmp_path / "pool.caffemodel"
    path.write_bytes(binary('layer { name: "p" type: "Pooling" pooling_param { ceil_mode: false } }', "densenet"))
    with pytest.raises(ParseError, match="could be those of several forks of Caffe") as caught:
        read_net(path)
    message = str(caught.value)
    assert "--fork" in message and "BVLC's Caffe" in message and "round_mode: CEIL" in message
    assert "DenseNet and other backbones (densenet)" in message and "ceil_mode: false" in message
    assert read_net(path, "densenet").layer[0].pooling_param.ceil_mode is False
    assert read_net(path, "bvlc").layer[0].pooling_param.round_mode == caffe_pb2.PoolingParameter.CEIL


def test_round_mode_of_bvlc_is_never_taken_for_ceil_mode(tmp_path: Path) -> None:
    net = parse_text('layer { name: "p" type: "Pooling" pooling_param { round_mode: FLOOR } }', NET)
    write_weights(tmp_path / "net.caffemodel", net, {})
    assert read_net(tmp_path / "net.caffemodel").layer[0] == net.layer[0]


def test_a_fork_that_lacks_the_fields_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "net.caffemodel").write_bytes(binary(NETS["ssd"], "ssd"))
    with pytest.raises(
        ParseError, match=r'DenseNet .*has no field 206 of layer "n", field 203 of layer "p", field 204'
    ):
        read_net(tmp_path / "net.caffemodel", "densenet")


def test_numbers_that_no_fork_has_are_named_with_the_closest_fork(tmp_path: Path) -> None:
    layers = binary(NETS["segnet"], "segnet")
    strange = caffe_pb2.LayerParameter(name="z", type="Strange").SerializeToString() + b"\xf8\x7d\x01"  # 2015: 1
    (tmp_path / "net.caffemodel").write_bytes(layers + b"\xa2\x06" + bytes([len(strange)]) + strange)
    with pytest.raises(ParseError, match=r'SegNet \(segnet\), has no field 2015 of layer "z"') as caught:
        read_net(tmp_path / "net.caffemodel")
    assert "caffe-convert-caffemodel" in str(caught.value)


def test_the_old_form_has_its_forks_types(tmp_path: Path) -> None:
    text = 'layers { name: "b" type: BN bn_param { scale_filler { value: 1 } } } layers { name: "u" type: UNPOOLING }'
    (tmp_path / "net.caffemodel").write_bytes(binary(text, "deconvnet"))
    net = read_net(tmp_path / "net.caffemodel", "deconvnet")
    assert [layer.type for layer in net.layer] == ["BN", "Unpooling"] and net.layer[0].bn_param.scale_filler.value == 1


def test_upgrading_a_binary_net_keeps_the_forks_numbers(tmp_path: Path) -> None:
    (tmp_path / "old.caffemodel").write_bytes(binary(NETS["ssd"] + ' input: "x" input_dim: [1, 3, 8, 8]', "ssd"))
    upgrade_net_binary(tmp_path / "old.caffemodel", tmp_path / "new.caffemodel")
    theirs = classes("ssd")["NetParameter"].FromString((tmp_path / "new.caffemodel").read_bytes())
    assert [layer.type for layer in theirs.layer] == ["Input", "Normalize", "PriorBox", "DetectionOutput"]
    assert theirs.layer[1].norm_param.scale_filler.value == 20


def test_what_the_fork_lacks_is_not_written_with_its_numbers(tmp_path: Path) -> None:
    """PSPNet's Caffe is older than Input layers; its interp_param has the number of input_param."""
    (tmp_path / "old.caffemodel").write_bytes(binary(NETS["pspnet"] + ' input: "x" input_dim: [1, 3, 8, 8]', "pspnet"))
    upgrade_net_binary(tmp_path / "old.caffemodel", tmp_path / "new.caffemodel")
    net = read_net(tmp_path / "new.caffemodel")
    assert list(net.layer[0].input_param.shape[0].dim) == [1, 3, 8, 8] and net.layer[2].interp_param.height == 713


@pytest.mark.parametrize("fork", ["", "segnet", "enet"])
def test_a_net_that_was_saved_here_is_read_whatever_fork_is_named(fork: str, tmp_path: Path) -> None:
    """SegNet's Caffe is older than Input layers, so its numbers cannot hold such a net; ENet's can."""
    text = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 } } }' + NETS["segnet"]
    net = parse_text(text, NET)
    net.fork = fork
    write_weights(tmp_path / "net.caffemodel", net, {"b": [np.ones(3, np.float32)]})
    assert read_weights(tmp_path / "net.caffemodel").skeleton().layer == net.layer
    for named in ("", "segnet"):
        again = read_net(tmp_path / "net.caffemodel", named)
        assert again.layer[1].blobs[0].data[:] == [1] * 3 and again.fork == (named or fork or again.fork)
        del again.layer[1].blobs[:]
        assert again.layer == net.layer

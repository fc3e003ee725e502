"""Nets written in Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pycaffe_compat.errors import CaffeError
from pycaffe_compat.net import Net
from pycaffe_compat.pycaffe import layers as L
from pycaffe_compat.pycaffe import params as P
from pycaffe_compat.pycaffe.coord_map import CropError, UndefinedMapException, coord_map_from_to, crop
from pycaffe_compat.pycaffe.net_spec import NetSpec, to_proto


def lenet() -> NetSpec:
    n = NetSpec()
    n.data, n.label = L.DummyData(shape=[{"dim": [8, 1, 28, 28]}, {"dim": [8]}], ntop=2)
    n.conv1 = L.Convolution(
        n.data, kernel_size=5, num_output=20, weight_filler={"type": "xavier"}, param=[{"lr_mult": 1}, {"lr_mult": 2}]
    )
    n.pool1 = L.Pooling(n.conv1, kernel_size=2, stride=2, pool=P.Pooling.AVE)
    n.ip1 = L.InnerProduct(n.pool1, num_output=10)
    n.relu1 = L.ReLU(n.ip1, in_place=True)
    n.loss = L.SoftmaxWithLoss(n.relu1, n.label)
    return n


def test_a_spec_becomes_a_net_that_runs() -> None:
    proto = lenet().to_proto()
    assert [layer.name for layer in proto.layer] == ["data", "conv1", "pool1", "ip1", "relu1", "loss"]
    assert list(proto.layer[0].top) == ["data", "label"]
    assert proto.layer[1].convolution_param.kernel_size == [5] and proto.layer[1].param[1].lr_mult == 2
    assert proto.layer[2].pooling_param.pool == P.Pooling.AVE
    assert list(proto.layer[4].top) == ["ip1"] == list(proto.layer[4].bottom)
    assert Net(proto, "TRAIN")()["loss"].isfinite()


def test_layers_without_names_get_some_and_tops_without_a_spec_work() -> None:
    data = L.Input(shape={"dim": [1, 3]})
    proto = to_proto(L.InnerProduct(data, num_output=2, inner_product_param={"axis": 1}))
    assert [layer.name for layer in proto.layer] == ["Input1", "InnerProduct1"]
    assert proto.layer[1].inner_product_param.axis == 1
    n = NetSpec()
    n.data, n.more = L.DummyData(shape={"dim": [2, 2]}, ntop=2)
    n.silence = L.Silence(n.data, n.more, ntop=0)
    assert [layer.type for layer in n.to_proto().layer] == ["DummyData", "Silence"]


def test_tops_that_are_written_together_share_their_layers() -> None:
    data, label = L.DummyData(shape=[{"dim": [2, 3]}, {"dim": [2]}], ntop=2)
    score = L.InnerProduct(L.ReLU(L.InnerProduct(data, num_output=4), in_place=True), num_output=3)
    proto = to_proto(L.SoftmaxWithLoss(score, label), L.Accuracy(score, label), L.Dropout(score, in_place=True))
    assert [layer.name for layer in proto.layer] == [
        *("DummyData1", "InnerProduct1", "ReLU1", "InnerProduct2", "SoftmaxWithLoss1", "Accuracy1", "Dropout1")
    ]
    assert [list(layer.bottom) for layer in proto.layer[4:]] == [
        *[["InnerProduct2", "DummyData2"]] * 2,
        ["InnerProduct2"],
    ]
    assert set(Net(proto, "TEST")()) == {"SoftmaxWithLoss1", "Accuracy1", "InnerProduct2"}


def test_a_layer_of_several_forks_gets_the_options_of_the_fork_that_has_them() -> None:
    data = L.Input(shape={"dim": [1, 4, 3, 3]})
    ssds = L.Normalize(data, scale_filler={"type": "constant", "value": 20}, across_spatial=False, channel_shared=False)
    for top, field in ((ssds, "norm_param"), (L.Normalize(data, normalize_type="L2"), "normalize_param")):
        assert [f.name for f, _ in to_proto(top).layer[1].ListFields()] == ["name", "type", "bottom", "top", field]
        Net(to_proto(top), "TEST")
    assert not to_proto(L.Normalize(data)).layer[1].HasField("norm_param")


def test_an_option_that_is_called_as_a_field_of_layers_is_the_option() -> None:
    data = L.Input(shape={"dim": [1, 4, 3, 3]})
    found = to_proto(L.DetectionOutput(data, num_classes=3, nms_param={"nms_threshold": 0.5, "top_k": 9})).layer[1]
    assert found.detection_output_param.nms_param.top_k == 9 and not found.HasField("nms_param")
    resized = to_proto(L.Resample(data, type=P.Resample.NEAREST, loss_weight=2)).layer[1]
    assert (resized.type, resized.resample_param.type) == ("Resample", P.Resample.NEAREST)
    assert list(resized.loss_weight) == [2]


def test_ssds_additions_list_the_tops_and_set_options_afterwards() -> None:
    n = lenet()
    assert n.keys() == ["data", "label", "conv1", "pool1", "ip1", "relu1", "loss"]
    assert n.vals()[2] is n.conv1
    n.update("conv1", {"num_output": 3, "param": [{"name": "w"}]})
    n.off = L.Silence(n.label, ntop=0)
    n.update("off", {"include": {"phase": 1}})
    conv, silence = n.to_proto().layer[1], n.to_proto().layer[-1]
    assert conv.convolution_param.num_output == 3 and [each.name for each in conv.param] == ["w"]
    assert silence.type == "Silence" and silence.include[0].phase == 1
    with pytest.raises(AttributeError, match='no top "conv2"'):
        n.update("conv2", {})


def test_anything_but_a_top_or_a_field_is_an_error() -> None:
    pair = L.DummyData(ntop=2)
    with pytest.raises(TypeError, match=r"Silence input 0 is not a Top \(type is <class 'tuple'>\)"):
        L.Silence(pair, ntop=0)
    with pytest.raises(TypeError, match=r"to_proto takes tops, .* not a tuple"):
        to_proto(pair)
    with pytest.raises(TypeError, match="ReLU: in_place=True needs a bottom for top 0; there are 0"):
        to_proto(L.ReLU(in_place=True))
    with pytest.raises(CaffeError, match="did you mean num_output"):
        to_proto(L.InnerProduct(L.Input(), num_outputs=2))
    with pytest.raises(AttributeError, match="did you mean conv1"):
        lenet().conv2  # noqa: B018


def coordinates(n: NetSpec, a: str, b: str) -> tuple[float, float]:
    _, scale, shift = coord_map_from_to(n[a], n[b])
    return float(np.ravel(scale)[0]), float(np.ravel(shift)[0])


def test_coordinate_maps_of_strides_pads_and_their_inverse() -> None:
    n = NetSpec()
    n.data = L.Input(shape={"dim": [1, 3, 100, 100]})
    n.conv = L.Convolution(n.data, kernel_size=3, pad=1, num_output=1)
    n.pool = L.Pooling(n.conv, kernel_size=2, stride=2)
    n.relu = L.ReLU(n.pool)
    n.up = L.Deconvolution(n.relu, kernel_size=4, stride=2, pad=1, num_output=1)
    n.wide = L.Deconvolution(n.relu, kernel_size=4, stride=2, num_output=1)
    assert coordinates(n, "data", "data") == (1, 0)
    assert coordinates(n, "data", "pool") == (0.5, -0.25)
    assert coordinates(n, "pool", "data") == (2, 0.5)
    assert coordinates(n, "up", "data") == (1, 0)
    assert coordinates(n, "wide", "data") == (1, -1)
    with pytest.raises(CropError, match="negative offset"):
        crop(n.data, n.wide)
    n.crop = crop(n.wide, n.data)
    assert n.to_proto().layer[-1].crop_param.offset == [1]
    with pytest.raises(CropError, match="scale mismatch"):
        crop(n.pool, n.data)
    n.ip = L.InnerProduct(n.relu, num_output=1)
    with pytest.raises((UndefinedMapException, RuntimeError)):
        coord_map_from_to(n.ip, n.data)


def test_the_crop_of_a_fully_convolutional_net_is_at_19() -> None:
    """FCN-32s: pad 100, five poolings by 2, a 7×7 fc6, a 64×64 upsampling by 32: its authors' nets crop at 19."""
    n = NetSpec()
    n.data = L.Input(shape={"dim": [1, 3, 500, 500]})
    n.conv1 = L.Convolution(n.data, kernel_size=3, pad=100, num_output=1)
    top = n.conv1
    for i in range(5):
        top = L.Pooling(
            L.ReLU(L.Convolution(top, kernel_size=3, pad=1, num_output=1), in_place=True), kernel_size=2, stride=2
        )
        n[f"pool{i + 1}"] = top
    n.fc6 = L.Convolution(top, kernel_size=7, num_output=1)
    n.score = L.Convolution(L.Dropout(n.fc6), kernel_size=1, num_output=1)
    n.up = L.Deconvolution(
        n.score, convolution_param={"num_output": 1, "kernel_size": 64, "stride": 32, "bias_term": False}
    )
    n.out = crop(n.up, n.data)
    proto = n.to_proto()
    assert (proto.layer[-1].crop_param.axis, list(proto.layer[-1].crop_param.offset)) == (2, [19])
    assert Net(proto, "TEST").blob_shapes["out"] == (1, 1, 500, 500)


def test_maps_of_rectangular_windows_three_axes_and_crops_of_crops() -> None:
    def deconv(kernel: int | list[int], stride: int | list[int], pad: int | list[int]) -> tuple[Any, Any, Any]:
        n = NetSpec()
        n.data = L.Input(shape={"dim": [1, 1, 90, 90]})
        n.conv = L.Convolution(n.data, num_output=1, kernel_size=kernel, stride=stride, pad=pad)
        n.up = L.Deconvolution(n.conv, num_output=1, kernel_size=4, stride=2)
        n.cut = L.Crop(n.up, n.data, axis=2, offset=3)
        scale, shift = coordinates(n, "up", "data")
        assert coordinates(n, "cut", "data") == (scale, shift + 3 * scale)
        return coord_map_from_to(n.up, n.data)

    one, other, both = deconv(3, 1, 0), deconv(5, 2, 10), deconv([3, 5], [1, 2], [0, 10])
    assert one[0] == other[0] == both[0] == 1
    assert [one[1], other[1]] == list(both[1]) and [one[2], other[2]] == list(both[2])
    solid = NetSpec()
    solid.data = L.Input(shape={"dim": [1, 1, 9, 9, 9]})
    solid.conv = L.Convolution(solid.data, num_output=1, kernel_size=3, pad=[0, 1, 2])
    assert list(coord_map_from_to(solid.data, solid.conv)[2]) == [-1, 0, 1]


def test_a_walk_through_many_shortcuts_ends() -> None:
    n = NetSpec()
    n.data = top = L.Input(shape={"dim": [1, 1, 9, 9]})
    for _ in range(60):
        top = L.Eltwise(L.ReLU(top), top)
    assert coord_map_from_to(top, n.data)[1:] == (1, 0)


REASONS = [
    (lambda x: L.Convolution(x, kernel_h=5, kernel_w=3), r"Convolution with kernel_h, kernel_w: coordinate maps take"),
    (lambda x: L.Convolution(x, kernel_size=5, pad_h=3), "Convolution with pad_h: coordinate maps take"),
    (lambda x: L.Pooling(x, pooling_param={"kernel_size": 2, "stride_w": 2}), "Pooling with stride_w: coordinate maps"),
    (lambda x: L.Pooling(x, global_pooling=True), "Pooling with global_pooling: it keeps no coordinates"),
    (lambda x: L.Deconvolution(x, num_output=2), "Deconvolution without kernel_size"),
    (lambda x: L.Concat(L.ReLU(x), x), "Concat layers have no coordinate map"),
    (lambda x: L.ReLU(L.Softmax(L.InnerProduct(x, num_output=1))), "InnerProduct layers have no coordinate map"),
    (lambda x: L.Eltwise(L.Flatten(x), L.Reshape(x)), "Flatten layers .*; Reshape layers"),
]


@pytest.mark.parametrize("make, reason", REASONS)
def test_a_crop_that_cannot_be_says_which_layer_is_in_the_way(make: Any, reason: str) -> None:
    data = L.Input(shape={"dim": [1, 1, 40, 40]})
    for tops in ((data, make(data)), (make(data), data)):
        with pytest.raises(
            RuntimeError, match=rf"no coordinate map leads from one blob to the other: {reason}"
        ) as caught:
            crop(*tops)
        assert isinstance(caught.value, CaffeError)


def test_blobs_of_different_inputs_have_no_map_and_a_way_around_a_layer_without_one_is_found() -> None:
    data, other = L.Input(shape={"dim": [1, 1, 9, 9]}), L.Input(shape={"dim": [1, 1, 9, 9]})
    with pytest.raises(CaffeError, match="no ancestor in common"):
        crop(L.ReLU(data), other)
    cut = crop(data, L.Eltwise(L.Softmax(L.Flatten(data)), L.ReLU(data)))
    assert cut.fn.params["crop_param"] == {"axis": 2, "offset": [0]}
    with pytest.raises(TypeError, match="not from or to 'data'"):
        crop("data", data)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_output": "a"}, r"ConvolutionParameter\.num_output: 'a' \(str\) does not fit .*integer"),
        ({"num_output": 2.5}, r"num_output: 2\.5 \(float\) does not"),
        ({"num_output": 4 / 2}, r"num_output: 2\.0 \(float\), which / gives .* \(// gives 2\), does not fit"),
        ({"num_output": -1}, "num_output: -1"),
        ({"num_output": None}, "num_output: None"),
        ({"kernel_size": {3, 5}}, r"kernel_size: \{3, 5\} \(set\)"),
        ({"weight_filler": "xavier"}, r"weight_filler: 'xavier' \(str\) does not fit this field \(FillerParameter\)"),
        ({"weight_filler": {"std": "1"}}, r"FillerParameter\.std: '1' \(str\)"),
        ({"engine": "FAST"}, "engine: 'FAST'"),
        ({"param": {"lr": 1}}, 'ParamSpec has no field "lr"'),
    ],
)
def test_a_value_that_a_field_cannot_hold_is_an_error_with_its_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(CaffeError, match=message):
        to_proto(L.Convolution(L.Input(), **options))


def test_only_tops_have_names_and_enums_their_values() -> None:
    n = NetSpec()
    with pytest.raises(TypeError, match=r"not a tuple; assign each of them: n\.data, n\.label"):
        n.data = L.Data(ntop=2)
    with pytest.raises(TypeError, match=r'"data" names a top, .* not a int'):
        n["data"] = 5
    with pytest.raises(AttributeError, match=r"PoolingParameter has no value MAXX \(did you mean MAX"):
        _ = P.Pooling.MAXX

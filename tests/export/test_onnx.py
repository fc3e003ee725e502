"""Nets as ONNX models: every layer that has a golden, in onnxruntime, beside the net."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from exported_nets import (
    ALIGNED,
    CASCADES,
    CLASSIFIER,
    CONVNET,
    FLOWS,
    MORE_LAYERS,
    TEXT_DETECTIONS,
    answering,
    build_net,
    golden_net,
    layer_net,
    types,
)
from ssd_net import NET as SSD

from pycaffe_compat.errors import CaffeError, NetError
from pycaffe_compat.export import Preprocessing, compare_onnx, run_alone, to_onnx, to_source
from pycaffe_compat.export.onnx import model as onnx_model
from pycaffe_compat.export.verify import Difference, differences, in_order, random_batches, with_rounding
from pycaffe_compat.net import Net

UNSAID = {"detout_eta"}  # goldens that ONNX has no operators for: NonMaxSuppression's threshold stays


def worst(net: Net, path: Path, **options: object) -> float:
    """The largest difference between a net and its model, as a part of an output's range."""
    found = to_onnx(net, path, **options)
    onnx.checker.check_model(str(path), full_check=True)
    return max(each.relative for each in compare_onnx(net, found, path))


@pytest.mark.parametrize(
    ("folder", "name"), [(folder, name) for folder in ("layers", "forks") for name in answering(folder)]
)
def test_layers_compute_what_the_net_computes(folder, name, tmp_path):
    net, batch = golden_net(folder, name)
    path = tmp_path / "net.onnx"
    if name in UNSAID:
        with pytest.raises(NetError, match="cannot be written as ONNX"):
            to_onnx(net, path)
        assert not path.exists()
        return
    found = to_onnx(net, path)
    own = {blob: batch[blob] for blob in found.inputs}
    compared = compare_onnx(net, found, path, [own])
    if "DetectionOutput" not in types(folder, name):  # random priors are no boxes
        compared += compare_onnx(net, found, path)
    for each in compared:
        assert each.relative <= 1e-4, each
    model = onnx.load(path)
    assert {entry.domain for entry in model.opset_import} == {""}
    read = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= read


def test_detections_of_ssd(tmp_path):
    net, path = build_net(SSD), tmp_path / "net.onnx"
    assert worst(net, path) <= 1e-5
    (output,) = onnx.load(path).graph.output
    assert [axis.dim_param or axis.dim_value for axis in output.type.tensor_type.shape.dim] == [
        1,
        1,
        "detection_out_2",
        7,
    ]
    with pytest.raises(NetError, match=r'layer "conv4n_prior" \(PriorBox\): axis 2 of its bottom conv4n may change'):
        to_onnx(net, path, dynamic={"data": (2,)})


def test_detections_of_refinedet(tmp_path):
    shapes = {"loc": (2, 80), "conf": (2, 60), "prior": (1, 2, 80), "objects": (2, 40), "moves": (2, 80)}
    inputs = "".join(
        f'input: "{name}" input_shape {{ {" ".join(f"dim: {n}" for n in shape)} }} ' for name, shape in shapes.items()
    )
    bottoms = " ".join(f'bottom: "{name}"' for name in shapes)
    net = build_net(
        f'{inputs} layer {{ name: "y" type: "DetectionOutput" {bottoms} top: "y" detection_output_param {{ num_classes: 3 '
        "code_type: CENTER_SIZE objectness_score: 0.4 confidence_threshold: 0.2 keep_top_k: 12 nms_param { top_k: 15 } } }"
    )
    found = to_onnx(net, tmp_path / "net.onnx")
    random = np.random.default_rng(0)
    batch = {name: random.random(shape).astype("f4") for name, shape in shapes.items()}
    batch["prior"][:, 0] = np.sort(random.random((20, 2, 2)), 1).reshape(1, 80)
    (each,) = compare_onnx(net, found, tmp_path / "net.onnx", [batch])
    assert each.relative <= 1e-5


@pytest.mark.parametrize("threshold", [0, 9])
def test_detections_of_textboxes(threshold, tmp_path):
    net = build_net(TEXT_DETECTIONS % threshold)
    found = to_onnx(net, tmp_path / "net.onnx")
    random = np.random.default_rng(0)
    batch = {name: random.random(net.blob_shapes[name]).astype("f4") for name in net.inputs}
    (each,) = compare_onnx(net, found, tmp_path / "net.onnx", [batch])
    assert each.relative <= 1e-5
    rows = net(**{name: torch.from_numpy(value) for name, value in batch.items()})["y"]
    assert (rows.shape == (1, 1, 1, 7)) == (threshold == 9)


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        *("scale_bias: true", "use_weight_bias: true relu: true", "bias_term: false"),
        *("disable_variance: true", "disable_mean: true", "update_global_stats: true use_global_stats: true"),
    ],
)
def test_batch_norms_of_forks(options, fold, tmp_path):
    prototxt = CLASSIFIER.replace(
        'bottom: "conv" top: "conv" }', f'bottom: "conv" top: "conv" batch_norm_param {{ {options} }} }}', 1
    )
    net, path = build_net(prototxt), tmp_path / "net.onnx"
    assert options in prototxt and worst(net, path, fold=fold) <= 1e-5


@pytest.mark.parametrize(
    ("shape", "layer"),
    [
        (
            (2, 3, 4, 6, 5),
            'type: "Convolution3D" convolution3d_param { num_output: 2 kernel_size: 3 kernel_depth: 2 pad: 1 }',
        ),
        (
            (2, 3, 4, 6, 5),
            'type: "Deconvolution3D" convolution3d_param { num_output: 2 kernel_size: 3 kernel_depth: 2 }',
        ),
        ((2, 3, 4, 6, 5), 'type: "Pooling3D" pooling3d_param { pool: MAX kernel_size: 3 kernel_depth: 2 stride: 2 }'),
        ((2, 3, 4, 6, 5), 'type: "Pooling3D" pooling3d_param { pool: AVE kernel_size: 3 kernel_depth: 1 pad: 1 }'),
        ((2, 3, 6, 5), 'type: "L2Normalize"'),
        ((2, 3, 6, 5), 'type: "Padding" padding_param { pad_beg: 1 pad_end: 2 }'),
        ((2, 3, 6, 5), 'type: "Padding" padding_param { pad_beg: -1 pad_end: -2 }'),
        (
            (2, 3, 6, 5),
            'type: "Convolution" convolution_param { num_output: 2 kernel_size: 3 relu: true negative_slope: 0.1 }',
        ),
        ((2, 6), 'type: "InnerProduct" inner_product_param { num_output: 3 relu: true }'),
        ((2, 6), 'type: "InnerProduct" inner_product_param { num_output: 3 normalize: true }'),
        ((2, 6), 'type: "InnerDistance" inner_distance_param { num_output: 3 normalize: true }'),
        ((2, 6), 'type: "InnerDistance" inner_distance_param { num_output: 3 distance_type: "L1" }'),
        ((2, 3, 6, 5), 'type: "Normalize" normalize_param { normalize_type: "L1" } top: "norm"'),
        ((2, 3, 6, 5), 'type: "Normalize" normalize_param { normalize_type: "L2" }'),
        ((2, 3, 6, 5), 'type: "Flip" flip_param { flip_width: true flip_height: true }'),
        ((2, 3, 6), 'type: "Reverse" reverse_param { axis: 1 }'),
        ((2, 3, 6, 5), 'type: "Transpose" transpose_param { dim: 2 dim: 0 dim: 3 dim: 1 }'),
        ((2, 6), 'type: "Truncation" truncation_param { lower_bound: -0.5 upper_bound: 0.5 }'),
        ((2, 6), 'type: "SoftTruncation" soft_truncation_param { c: 2 }'),
        ((2, 6), 'type: "Insanity" insanity_param { lb: 3 ub: 8 }'),
        ((2, 6), 'type: "Cosine"'),
    ],
)
def test_layers_of_forks_without_goldens(shape, layer, tmp_path):
    axes = " ".join(f"dim: {n}" for n in shape)
    net = build_net(
        f'layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ {axes} }} }} }}'
        f'layer {{ name: "y" bottom: "data" top: "y" {layer} }}'
    )
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_()
    assert worst(net, tmp_path / "net.onnx") <= 1e-4


@pytest.mark.parametrize(("shapes", "layer"), MORE_LAYERS)
def test_regions_sequences_and_planes(shapes, layer, tmp_path):
    net, batch = layer_net(shapes, layer)
    path = tmp_path / "net.onnx"
    assert worst(net, path) <= 1e-5
    assert all(each.relative <= 1e-5 for each in compare_onnx(net, to_onnx(net, path), path, [batch]))


@pytest.mark.parametrize(("shapes", "layer"), CASCADES + ALIGNED + FLOWS)
def test_cascades_aligned_regions_peaks_and_flows(shapes, layer, tmp_path):
    assert worst(layer_net(shapes, layer)[0], tmp_path / "net.onnx") <= 1e-5


def test_what_suppression_cannot_say(tmp_path):
    (shapes, layer), (more, grouped) = CASCADES[3], CASCADES[5]
    with pytest.raises(NetError, match="nms_type: IOMU is not what"):
        to_onnx(layer_net(shapes, layer.replace("min_size", 'nms_type: "IOMU" min_size'))[0], tmp_path / "net.onnx")
    with pytest.raises(NetError, match="less than a pixel apart"):
        to_onnx(layer_net(more, grouped.replace("min_size: 12", "min_size: 2"))[0], tmp_path / "net.onnx")


def test_folding_stops_at_a_relu_of_the_layer_itself(tmp_path):
    prototxt = CLASSIFIER.replace("kernel_size: 3 weight_filler", "kernel_size: 3 relu: true weight_filler", 1)
    assert "relu: true" in prototxt and worst(build_net(prototxt), tmp_path / "net.onnx", fold=True) <= 1e-5


@pytest.mark.parametrize("mode", ["MAX", "AVE", "SUM"])
@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((2, 3, 5, 6, 7), "kernel_size: 3 stride: 2"),
        (
            (2, 3, 5, 6, 7),
            "kernel_size_3d: 2 kernel_size_3d: 3 kernel_size_3d: 1 stride_3d: 2 pad_3d: 1 pad_3d: 2 pad_3d: 0",
        ),
        ((2, 3, 9), "kernel_size: 3 pad: 1 stride: 2 avg_include_pad: false"),
        ((2, 3, 9, 8), "kernel_size: 3 dilation: 2 pad: 2"),
        ((4, 9, 8), "axis: 0 kernel_size: 3 stride: 2 dilation: 2"),
        ((2, 3, 5, 6, 7), "global_pooling: true"),
    ],
)
def test_volumes(mode, shape, options, tmp_path):
    dims = " ".join(f"dim: {n}" for n in shape)
    mask = 'top: "mask"' if mode == "MAX" else ""
    net = build_net(
        f'layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ {dims} }} }} }}'
        f'layer {{ name: "pool" type: "Pooling" bottom: "data" top: "pool" {mask} '
        f"pooling_param {{ pool: {mode} {options} }} }}"
    )
    assert worst(net, tmp_path / "net.onnx") <= 1e-5


@pytest.mark.parametrize("mode", ["MAX", "AVE"])
def test_deconvnets_unpooling(mode, tmp_path):
    mask = 'bottom: "mask"' if mode == "MAX" else ""
    net = build_net(
        'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 8 dim: 8 } } }'
        'layer { name: "pool" type: "Pooling" bottom: "data" top: "pool" top: "mask" pooling_param { kernel_size: 2 stride: 2 } }'
        f'layer {{ name: "u" type: "Unpooling" bottom: "pool" {mask} top: "u" unpooling_param {{ unpool: {mode} '
        "kernel_size: 2 stride: 2 unpool_size: 8 } }"
    )
    if mask:
        assert worst(net, tmp_path / "net.onnx") <= 1e-5
        return
    with pytest.raises(NetError, match=r'layer "u" \(Unpooling\): it unpools without a mask'):
        to_onnx(net, tmp_path / "net.onnx")


def test_choices_among_equal_values_are_compared_as_choices(tmp_path):
    """A value that differs in the last bit from its neighbour: which of them a file chooses is chance, what follows is not."""
    net = build_net(
        'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 1 dim: 4 dim: 4 } } }'
        'layer { name: "pool" type: "Pooling" bottom: "data" top: "pool" top: "mask" pooling_param { kernel_size: 2 stride: 2 } }'
        'layer { name: "un" type: "Depooling" bottom: "pool" bottom: "mask" top: "un" '
        "pooling_param { pool: SWITCH kernel_size: 2 stride: 2 } }"
    )
    found = to_onnx(net, tmp_path / "net.onnx")
    one = np.float32(1)
    own, other = (
        {"data": np.tile(np.array([[a, b], [0, 0]], "f4"), (2, 2))[None, None]}
        for a, b in ((np.nextafter(one, one * 2), one), (one, np.nextafter(one, one * 2)))
    )
    (each,) = compare_onnx(net, found, tmp_path / "net.onnx", [own], [other])
    assert each.relative <= 1e-6 and each.chosen == 4
    wrong = np.zeros((1, 1, 4, 4), "f4")
    wrong[..., 1::2, 1::2] = 1
    (each,) = compare_onnx(net, found, tmp_path / "net.onnx", [own], [{"data": wrong}])
    assert each.relative > 0.01
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.onnx"]


def test_a_model_keeps_names_and_takes_any_batch(classifier, tmp_path):
    net, path = classifier, tmp_path / "net.onnx"
    assert worst(net, path) <= 1e-5
    model = onnx.load(path)
    made = {name for node in model.graph.node for name in node.output}
    assert {"conv/conv", "conv/bn", "conv/scale", "conv", "pool", "fc", "prob"} <= made
    assert {each.name for each in model.graph.initializer} >= {"conv.weight", "conv.bias", "fc.weight", "fc.bias"}
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert [entry.version for entry in model.opset_import] == [18]


def test_folding_leaves_only_convolutions(classifier, tmp_path):
    net, path = classifier, tmp_path / "net.onnx"
    assert worst(net, path, fold=True) <= 1e-5
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert kinds[:3] == ["Conv", "Relu", "MaxPool"] and "BatchNormalization" not in kinds and "Mul" not in kinds


def test_height_and_width_of_a_convolutional_net_may_change(convnet, classifier, tmp_path):
    net, path = convnet, tmp_path / "net.onnx"
    found = to_onnx(net, path, dynamic={"data": (2, 3)})
    data = np.random.default_rng(0).standard_normal((2, 3, 40, 23)).astype("f4")
    assert max(each.relative for each in compare_onnx(net, found, path, [{"data": data}])) <= 1e-5
    with pytest.raises(NetError, match=r'axes 2, 3 of data cannot change: layer "fc"'):
        to_onnx(classifier, tmp_path / "fc.onnx", dynamic={"data": (2, 3)})
    with pytest.raises(NetError, match='no input "image"; the inputs are data'):
        to_onnx(net, tmp_path / "no.onnx", dynamic={"image": (2,)})


@pytest.mark.parametrize(
    "layer",
    [
        'type: "Flatten" flatten_param { axis: 1 end_axis: -2 }',
        'type: "Reshape" reshape_param { shape { dim: 0 dim: 1 dim: -1 } axis: 1 num_axes: 1 }',
        'type: "Reshape" reshape_param { shape { dim: 2 dim: 2 } axis: 1 num_axes: 1 }',
        'type: "ShuffleChannel" shuffle_channel_param { group: 2 }',
        'type: "Interp" interp_param { zoom_factor: 3 pad_beg: -1 }',
        'type: "Interp" interp_param { shrink_factor: 2 pad_end: -1 }',
        'type: "Interp" interp_param { height: 30 width: 7 }',
        'type: "LRN" lrn_param { local_size: 5 norm_region: WITHIN_CHANNEL }',
    ],
)
def test_height_and_width_behind_axes_that_are_reshaped(layer, tmp_path):
    net = build_net(CONVNET + f'layer {{ name: "y" bottom: "conv" top: "y" {layer} }}')
    assert worst(net, tmp_path / "net.onnx", dynamic={"data": (2, 3)}) <= 1e-5


@pytest.mark.parametrize("opset", [18, onnx.defs.onnx_opset_version() - 1])
def test_opsets(classifier, opset, tmp_path):
    assert worst(classifier, tmp_path / "net.onnx", opset=opset) <= 1e-5


@pytest.mark.parametrize("opset", [17, 1000])
def test_an_opset_that_nobody_knows(convnet, opset, tmp_path):
    with pytest.raises(CaffeError, match=rf"opset {opset}: .* know 18 to \d+"):
        to_onnx(convnet, tmp_path / "net.onnx", opset=opset)
    assert not list(tmp_path.iterdir())


def test_preprocessing_is_baked_in(convnet, tmp_path):
    net, path = convnet, tmp_path / "net.onnx"
    how = Preprocessing(mean=(104, 117, 123), scale=0.017)
    found = to_onnx(net, path, preprocessing=how, bake=True)
    assert {each.key: each.value for each in onnx.load(path).metadata_props} == {
        "mean": "104,117,123",
        "scale": "0.017",
        "channel_order": "BGR",
        "preprocessed": "model",
    }
    picture = np.random.default_rng(0).integers(0, 256, (2, 3, 19, 17)).astype("f4")  # RGB
    prepared = ((picture[:, ::-1] - np.array([104, 117, 123], "f4").reshape(3, 1, 1)) * np.float32(0.017)).astype("f4")
    tried = compare_onnx(net, found, path, [{"data": prepared}], [{"data": picture}])
    assert max(each.relative for each in tried) <= 1e-5


def test_weights_beyond_the_limit_of_one_file_lie_beside_it(classifier, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_model, "ONE_FILE", 1000)
    path = tmp_path / "net.onnx"
    assert worst(classifier, path) <= 1e-5
    assert (tmp_path / "net.onnx.data").stat().st_size > 1000 and not any(
        each.raw_data for each in onnx.load(path, load_external_data=False).graph.initializer if each.data_location == 1
    )


@pytest.mark.parametrize("named", [True, False])
def test_weights_beside_an_older_model_go_with_it(named, classifier, tmp_path, monkeypatch):
    path, beside = tmp_path / "net.onnx", tmp_path / "net.onnx.data"
    with monkeypatch.context() as patch:
        patch.setattr(onnx_model, "ONE_FILE", 1000 if named else 1 << 30)
        to_onnx(classifier, path)
    if not named:
        beside.write_bytes(b"of something else")
    to_onnx(classifier, path)
    assert beside.exists() != named


def test_training_layers_are_left_out_and_named(tmp_path):
    net = build_net(
        CLASSIFIER
        + 'layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 1 } } }'
        + 'layer { name: "acc" type: "Accuracy" bottom: "fc" bottom: "label" top: "acc" }'
        + 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }'
    )
    found = to_onnx(net, tmp_path / "net.onnx")
    assert list(found.inputs) == ["data"] and list(found.outputs) == ["prob"]
    assert found.notes == ["left out, for they only train, score or write: acc, loss"]


def test_a_path_that_cannot_be_written(convnet, tmp_path):
    with pytest.raises(CaffeError, match="nowhere"):
        to_onnx(convnet, tmp_path / "nowhere" / "net.onnx")


def test_opencv_reads_it(classifier, tmp_path):
    net, path = classifier, tmp_path / "net.onnx"
    to_onnx(net, path, fold=True)
    data = np.random.default_rng(0).standard_normal((1, 3, 19, 17)).astype("f4")
    reader = cv2.dnn.readNetFromONNX(str(path))
    reader.setInput(data, "data")
    want = net.run({"data": torch.from_numpy(data)})[0]["prob"]
    np.testing.assert_allclose(reader.forward("prob"), want.detach().numpy(), rtol=1e-4, atol=1e-6)


def test_opencv_reads_a_padded_convolution_of_single_places(tmp_path):
    """As in SqueezeNet 1.0, whose planes OpenCV 5.0 reads past where the Conv itself pads them."""
    net = build_net(
        CONVNET
        + 'layer { name: "end" type: "Convolution" bottom: "pool" top: "end" convolution_param { num_output: 16 kernel_size: 1 '
        'pad: 1 weight_filler { type: "xavier" } } }'
    )
    found = to_onnx(net, tmp_path / "net.onnx")
    (batch, *_) = random_batches(found)
    read = cv2.dnn.readNetFromONNX(str(tmp_path / "net.onnx"))
    read.setInput(batch["data"], "data")
    assert max(each.relative for each in compare_onnx(net, found, tmp_path / "net.onnx")) <= 1e-5
    assert max(each.relative for each in differences(net, found, batch, [read.forward("end")])) <= 1e-5


def test_an_input_that_layers_change_in_place_keeps_its_name(tmp_path):
    net = build_net(
        'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 } } }'
        'layer { name: "half" type: "Power" bottom: "data" top: "data" power_param { scale: 0.5 } }'
        'layer { name: "act" type: "ReLU" bottom: "data" top: "data" }'
    )
    found = to_onnx(net, tmp_path / "net.onnx")
    graph = onnx.load(tmp_path / "net.onnx").graph
    assert [each.name for each in (*graph.input, *graph.output)] == ["data", "data/act"]
    assert found.notes == ["the output data is called data/act, as data is an input"]
    assert all(each.largest == 0 for each in compare_onnx(net, found, tmp_path / "net.onnx"))


MIRRORED = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 5 dim: 6 } } }
layer { name: "flip" type: "Flip" bottom: "data" top: "flip" flip_param { flip_width: true } }
layer { name: "both" type: "Concat" bottom: "data" bottom: "flip" top: "both" concat_param { axis: 0 } }
layer { name: "conv" type: "Convolution" bottom: "both" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "cut" type: "Slice" bottom: "conv" top: "a" top: "b" slice_param { axis: 0 } }
layer { name: "most" type: "Eltwise" bottom: "a" bottom: "b" top: "most" eltwise_param { operation: MAX } }
"""


def test_a_batch_that_is_cut_in_halves(tmp_path):
    """As for faces that are looked at from both sides."""
    net = build_net(MIRRORED)
    found = to_onnx(net, tmp_path / "net.onnx")
    assert found.inputs["data"].moving == {0}
    assert max(each.relative for each in compare_onnx(net, found, tmp_path / "net.onnx")) <= 1e-6
    found = to_source(net, tmp_path / "net.py")
    batches = random_batches(found)
    for batch, results in zip(batches, run_alone(tmp_path / "net.py", batches), strict=True):
        assert max(each.relative for each in differences(net, found, batch, results)) <= 1e-6


@pytest.mark.parametrize("options", ["", "across_channels: true", "normalize_variance: false"])
def test_mvn_of_volumes(options, tmp_path):
    net = build_net(
        'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 4 dim: 5 dim: 2 } } }'
        f'layer {{ name: "mvn" type: "MVN" bottom: "data" top: "y" mvn_param {{ {options} }} }}'
    )
    assert worst(net, tmp_path / "net.onnx") <= 1e-5


@pytest.mark.parametrize("name", ["proposal_happynear", "yolov3_detections", "yolo_detections_two"])
def test_opencv_chooses_the_same_boxes(name, tmp_path):
    net, batch = golden_net("forks", name)
    found = to_onnx(net, tmp_path / "net.onnx")
    read = cv2.dnn.readNetFromONNX(str(tmp_path / "net.onnx"))
    own = {blob: np.ascontiguousarray(batch[blob], "f4") for blob in found.inputs}
    for blob, array in own.items():
        read.setInput(array, blob)
    results = [
        each.reshape(net.run({k: torch.from_numpy(v) for k, v in own.items()})[0][blob].shape)
        for blob, each in zip(found.outputs, read.forward(list(found.outputs)), strict=True)
    ]
    assert max(each.relative for each in differences(net, found, own, results)) <= 1e-5


def test_what_rounding_does_to_the_net_too_is_no_difference(tmp_path):
    """Digits that a net loses in float32 another order of sums loses otherwise; a real difference is larger."""
    net = build_net(
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 4 dim: 9 } } }'
        'layer { name: "up" type: "Power" bottom: "x" top: "up" power_param { shift: 30000 } }'
        'layer { name: "down" type: "Power" bottom: "up" top: "down" power_param { shift: -30000 } }'
    )
    found = to_onnx(net, tmp_path / "net.onnx")
    batches = random_batches(found)
    exact = [d for b in batches for d in differences(net, found, b, [b["x"]])]
    assert not any(each.right for each in exact)
    explained = with_rounding(net, found, batches, exact)
    assert all(each.right for each in explained) and net.dtype == torch.float32
    wrong = [d for b in batches for d in differences(net, found, b, [b["x"] * np.float32(1.01)])]
    assert not any(each.right for each in with_rounding(net, found, batches, wrong))
    assert not Difference("down", 1, 0.1, 1.0, rounding=0.05).right, "rounding beyond measure explains nothing"


def test_detections_of_equal_score_may_change_places():
    rows = np.array([[0, 1, 0.9, 1, 2, 3, 4], [0, 1, 0.89999, 5, 6, 7, 8], [0, 1, 0.5, 0, 0, 1, 1]], "f4")[None, None]
    swapped = rows[:, :, [1, 0, 2]]
    assert np.allclose(in_order(swapped, rows), rows, atol=1e-4)
    wrong = rows[:, :, [0, 2, 1]]
    assert np.array_equal(in_order(wrong, rows), wrong), "scores that are apart have one order"
    other = swapped.copy()
    other[..., 0, 3] = 9
    assert not np.allclose(in_order(other, rows), rows, atol=1)


def test_what_follows_a_choice_of_items_takes_any_number(tmp_path):
    """A net of one batch size: the number that Filter lets through still differs from pass to pass."""
    net = build_net(
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 32 } } }'
        'layer { name: "s" type: "Input" top: "s" input_param { shape { dim: 4 } } }'
        'layer { name: "four" type: "Reshape" bottom: "x" top: "y" reshape_param { shape { dim: 4 dim: 2 dim: 4 } } }'
        'layer { name: "chosen" type: "Filter" bottom: "y" bottom: "s" top: "f" }'
        'layer { name: "flat" type: "Reshape" bottom: "f" top: "r" reshape_param { shape { dim: -1 dim: 8 } } }'
    )
    found = to_onnx(net, tmp_path / "net.onnx")
    batch = {"x": np.arange(32, dtype="f4"), "s": np.array([1, 0, 1, 0], "f4")}
    (each,) = compare_onnx(net, found, tmp_path / "net.onnx", [batch])
    assert each.largest == 0 and found.outputs["r"].moving == {0}


@pytest.mark.parametrize("per_place", ["true", "false"])
def test_a_mean_that_was_followed_is_subtracted_once_it_stays(per_place, tmp_path):
    net = build_net(
        'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 9 dim: 8 } } }'
        'layer { name: "half" type: "Eltwise" bottom: "data" top: "half" eltwise_param { coeff: 0.5 } }'
        'layer { name: "cut" type: "DataAugmentation" bottom: "half" top: "cut" augmentation_param { recompute_mean: 2 '
        f"crop_width: 4 crop_height: 5 mean_per_pixel: {per_place} }} }}"
    )
    layer = net.layers["cut"]
    with pytest.raises(NetError, match="its mean still changes with every pass"):
        to_onnx(net, tmp_path / "net.onnx")
    with torch.no_grad():
        for _ in range(2):
            net(torch.randn(2, 3, 9, 8) + 5)
    assert layer.settled and layer.subtracted().abs().min() > 1
    assert worst(net, tmp_path / "net.onnx") <= 1e-5
    found = to_source(net, tmp_path / "net.py")
    batches = random_batches(found)
    for batch, results in zip(batches, run_alone(tmp_path / "net.py", batches), strict=True):
        assert max(each.relative for each in differences(net, found, batch, results)) <= 1e-5


@pytest.mark.parametrize("fork", ["liteflownet", "pwcnet"])
def test_what_other_nets_of_optical_flow_call_warp(fork, tmp_path):
    inputs = "".join(
        f'input: "{name}" input_shape {{ dim: 1 dim: {n} dim: 5 dim: 6 }} ' for name, n in (("image", 3), ("flow", 2))
    )
    (tmp_path / "net.prototxt").write_text(
        inputs + 'layer { name: "w" type: "Warp" bottom: "image" bottom: "flow" top: "w" }'
    )
    net = Net(str(tmp_path / "net.prototxt"), "TEST", fork=fork)
    random = np.random.default_rng(0)
    far = random.uniform(-3, 8, (2, 2, 5, 6)).astype("f4")
    far[0] = far[0].round()  # on places, and outside
    batch = {"image": random.standard_normal((2, 3, 5, 6)).astype("f4"), "flow": far}
    found = to_onnx(net, tmp_path / "net.onnx")
    (each,) = compare_onnx(net, found, tmp_path / "net.onnx", [batch])
    assert each.relative <= 1e-6
    found = to_source(net, tmp_path / "net.py")
    (results,) = run_alone(tmp_path / "net.py", [batch])
    assert max(each.relative for each in differences(net, found, batch, results)) <= 1e-6

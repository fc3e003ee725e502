"""Nets with weights for the ways out: the goldens of single layers, and a small classifier."""

from __future__ import annotations

import functools

import numpy as np
import torch
from golden_files import golden, names, prototxt
from google.protobuf import text_format

from pycaffe_compat.layers import layer_class
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text

SCORING = {  # besides losses: left out of what is exported
    "Accuracy",
    "BboxAccuracy",
    "DetectionAccuracy",
    "DetectionEvaluate",
    "DetectionGroupAccuracy",
    "HardMining",
    "ProposalTarget",
}
CONVNET = """
name: "small" layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 19 dim: 17 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }
layer { name: "scale" type: "Scale" bottom: "conv" top: "conv" scale_param { bias_term: true } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { kernel_size: 3 stride: 2 } }
"""
CLASSIFIER = (
    CONVNET
    + """
layer { name: "fc" type: "InnerProduct" bottom: "pool" top: "fc"
  inner_product_param { num_output: 5 weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }
"""
)


def types(folder: str, name: str) -> set[str]:
    """The types of layers in a golden."""
    param = text_format.Parse(prototxt(folder, name), caffe_pb2.NetParameter())
    return {layer.type for layer in param.layer} - {"Input"}


def scores(folder: str, name: str) -> bool:
    """Whether a golden has layers that only train or score."""
    param = text_format.Parse(prototxt(folder, name), caffe_pb2.NetParameter())
    return any(layer.type in SCORING or layer_class(layer).loss for layer in param.layer)


@functools.cache
def answering(folder: str) -> list[str]:
    """The goldens of a folder that do more than score."""
    return [name for name in names(folder) if not scores(folder, name)]


def golden_net(folder: str, name: str) -> tuple[Net, dict[str, np.ndarray]]:
    """The net of a golden with its blobs, and its inputs."""
    found = golden(folder, name)
    net = Net(text_format.Parse(found.meta["prototxt"], caffe_pb2.NetParameter()), "TEST")
    for key, value in found.group("param").items():
        layer, _, index = key.rpartition("/")
        with torch.no_grad():
            net.layers[layer].blob(int(index)).copy_(torch.from_numpy(value))
    return net, found.group("in")


def build_net(prototxt: str) -> Net:
    """A net in the TEST phase; what its BatchNorm and Scale hold is random."""
    torch.manual_seed(1)
    net = Net(parse_text(prototxt, caffe_pb2.NetParameter()), "TEST")
    with torch.no_grad():
        for layer in net.layers.values():
            if layer.type_name in ("BatchNorm", "Scale"):
                for index in range(len(layer.blob_specs)):
                    layer.blob(index).uniform_(0.5, 2)
    return net


SIDES = "pad_l: 1 pad_r: 0 pad_t: 0 pad_b: 2"
MORE_LAYERS = [
    (
        [(2, 3, 7, 9)],
        f'type: "Convolution" convolution_param {{ num_output: 2 kernel_size: 3 stride: 2 dilation: 2 {SIDES} '
        f'weight_filler {{ type: "gaussian" }} }}',
    ),
    ([(2, 3, 7, 9)], 'type: "Convolution" convolution_param { num_output: 2 kernel_size: 4 pad_type: 1 stride: 2 }'),
    ([(2, 3, 7, 9)], 'type: "Convolution" convolution_param { num_output: 2 kernel_size: 1 pad_l: 1 }'),
    ([(2, 3, 7, 9)], f'type: "Pooling" pooling_param {{ pool: MAX kernel_size: 3 stride: 2 {SIDES} }}'),
    (
        [(2, 3, 7, 9)],
        f'type: "Pooling" pooling_param {{ pool: AVE kernel_size: 3 stride: 2 {SIDES} ceil_mode: false }}',
    ),
    ([(2, 3, 7, 9)], f'type: "Pooling" pooling_param {{ pool: AVE_EXC_PAD kernel_size: 2 stride: 3 {SIDES} }}'),
    ([(2, 3, 7, 9)], 'type: "Pooling" pooling_param { pool: AVE_TF kernel_size: 3 stride: 2 pad_type: 1 }'),
    ([(2, 8, 3, 4)], 'type: "Reshape" reshape_param { pixelshuffler: 2 }'),
    ([(2, 3, 4), (2, 1, 4)], 'type: "Add"'),
    ([(2, 3, 4), (3, 1)], 'type: "Mul"'),
    ([(2, 3, 4)], 'type: "Mul" mul_param { mul_shape: [3, 1] }'),
    ([(2, 3, 7, 9)], 'type: "DeephiResize" deephi_resize_param { scale_h: 2 scale_w: 3 }'),
    ([(2, 3, 7, 9)], 'type: "DeephiResize" deephi_resize_param { new_height: 4 new_width: 13 }'),
    ([(2, 3, 7, 9)], 'type: "DeephiResize" deephi_resize_param { scale_h: 2 scale_w: 2 resize_type: BILINEAR }'),
    ([(2, 3, 7, 9)], 'type: "DeephiResize" deephi_resize_param { scale_h: 1.5 scale_w: 0.7 resize_type: BILINEAR }'),
    ([(2, 3, 4, 6)], 'type: "GSTiling" gs_tiling_param { stride: 2 }'),
    ([(2, 12, 4, 6)], 'type: "GSTiling" gs_tiling_param { stride: 2 reverse: true }'),
    ([(2, 12, 4, 6)], 'type: "Tiling" tiling_param { tile_dim: 2 }'),
    ([(2, 3, 4, 6)], 'type: "FixedNeuron" fixed_param { bit_width: 2 }'),
    ([(2, 3, 4, 6)], 'type: "FixedNeuron" fixed_param { follow_data_layer: true }'),
    ([(2, 4, 9, 8), (5, 5)], 'type: "ROIPooling" roi_pooling_param { pooled_h: 3 pooled_w: 2 spatial_scale: 0.25 }'),
    (
        [(2, 4, 9, 8), (5, 5)],
        'type: "ROIPooling" roi_pooling_param { pooled_h: 3 pooled_w: 2 spatial_scale: 0.25 pad_ratio: 0.2 }',
    ),
    ([(2, 4, 9, 8), (5, 5)], 'type: "ROIPooling" roi_pooling_param { pooled_size: 3 spatial_scale: 0.25 }'),
    (
        [(2, 27, 9, 8), (5, 5)],
        'type: "PSROIPooling" psroi_pooling_param { output_dim: 3 group_size: 3 spatial_scale: 0.25 }',
    ),
    ([(5, 2, 3)], 'type: "Lstm" lstm_param { num_output: 4 }'),
    ([(5, 2, 3, 2)], 'type: "Lstm" lstm_param { num_output: 4 }'),
    ([(6, 3)], 'type: "Lstm" lstm_param { num_output: 4 batch_size: 2 }'),
    ([(5, 2, 3), (5, 2)], 'type: "Lstm" lstm_param { num_output: 4 }'),
    ([(6, 3), (6,)], 'type: "Lstm" lstm_param { num_output: 4 batch_size: 2 }'),
    ([(3, 4)], 'type: "ArgMax" argmax_param { axis: 0 out_max_val: true top_k: 2 }'),
    ([(3, 4)], 'type: "ArgMax" argmax_param { axis: -2 }'),
    (
        [(1, 18, 5, 6), (1, 36, 5, 6), (1, 3)],
        'type: "Python" top: "s" python_param { module: "rpn.proposal_layer" layer: "ProposalLayer" '
        """param_str: "'feat_stride': 16" }""",
    ),
    ([(2, 3, 4, 5)], 'type: "Mish"'),
    ([(2, 3, 4, 5)], 'type: "HardSwish"'),
    ([(2, 3, 4, 5)], 'type: "Gram"'),
    ([(2, 3, 4, 5)], 'type: "Slope"'),
    ([(2, 3, 4, 5), (2, 1, 4, 5)], 'type: "SpatialProduct"'),
    ([(2, 3, 4, 5)], 'type: "DropoutChannel"'),
    ([(2, 3, 4, 5)], 'type: "Dropout" dropout_param { dropout_ratio: 0.3 scale_train: false }'),
    ([(2, 3, 4, 5)], 'type: "Dropout" dropout_param { sqrt_scale: true }'),
    ([(2, 3, 4, 5)], 'type: "ReLU" top: "mask" relu_param { negative_slope: 0.1 }'),
    (
        [(2, 3, 4, 5), (2, 3, 4, 5), (2, 2, 3)],
        'type: "Eltwise" eltwise_param { coeff_blob: true coeff: 0.5 coeff: -1 }',
    ),
    ([(2, 3, 4, 5), (2, 3, 9, 8)], 'type: "MergeCrop" mergecrop_param { operation: ADD forward: true forward: false }'),
    ([(2, 3, 4, 5), (2, 3, 9, 8)], 'type: "MergeCrop"'),
    ([(2, 3, 4, 5), (2, 2, 9, 8)], 'type: "MergeCrop"'),
    ([(2, 3), (2, 3, 4)], 'type: "Gather" top: "z"'),
    ([(2, 3), (2,)], 'type: "LabelSpecificAdd" top: "bias" label_specific_add_param { bias: 3 }'),
    ([(2, 3, 4, 5), (2, 20)], 'type: "ChannelScale"'),
    ([(2, 3, 4, 5), (2, 1, 4, 5)], 'type: "ChannelScale" top: "factor" channel_scale_param { global_scale: true }'),
    ([(2, 3, 4, 5)], 'type: "Scale" scale_param { min_value: -0.2 max_value: 0.5 bias_term: true }'),
    ([(2, 3, 4, 5), (2, 3)], 'type: "Scale" scale_param { min_value: -0.2 axis: 0 }'),
    (
        [(2, 3, 6, 7, 8)],
        'type: "NdConvolution" convolution_param { num_output: 4 kernel_shape { dim: 3 dim: 2 dim: 1 } '
        "stride_shape { dim: 1 dim: 2 dim: 1 } pad_shape { dim: 1 dim: 0 dim: 0 } }",
    ),
    (
        [(2, 3, 6, 7, 8)],
        'type: "NdPooling" pooling_param { pool: MAX kernel_shape { dim: 3 dim: 2 dim: 2 } '
        "stride_shape { dim: 1 dim: 2 dim: 2 } }",
    ),
    ([(2, 3, 1, 1, 1), (2, 3, 4, 5), (2, 3, 4, 5)], 'type: "Axpy"'),
    ([(2, 6)], 'type: "InnerProduct" inner_product_param { num_output: 3 normalize: true }'),
    ([(1, 3)], 'type: "BatchNorm" batch_norm_param { use_global_stats: false }'),
]

_REG = "bbox_reg_param { bbox_mean: 0 bbox_mean: 0.1 bbox_mean: 0 bbox_mean: 0.05 " + "bbox_std: 0.2 " * 4 + "%s }"
_OUTPUT = "fg_thr: -0.3 iou_thr: 0.4 min_size: 12 max_nms_num: 30 max_post_nms_num: 9"
CASCADES = [  # of MS-CNN and Cascade R-CNN, for random input
    ([(12, 8, 1, 1), (12, 5, 1, 1)], f'type: "DecodeBBox" {_REG % ""}'),
    ([(12, 5), (12, 3, 2)], 'type: "ScaleRoute" top: "z" scale_route_param { low_scale: 6 high_scale: 12 }'),
    ([(12, 5)], 'type: "ScaleRoute" scale_route_param { low_scale: 600 high_scale: 1200 }'),
    (
        [(2, 7, 4, 6), (2, 7, 2, 3)],
        f'type: "BoxOutput" top: "z" {_REG % ""} box_output_param {{ field_w: 40 field_h: 30 downsample_rate: 8 '
        f"field_w: 70 field_h: 60 downsample_rate: 16 {_OUTPUT} }}",
    ),
    (
        [(2, 7, 4, 6)],
        'type: "BoxOutput" top: "z" box_output_param { field_w: 4 field_h: 3 downsample_rate: 8 fg_thr: 50 }',
    ),
    (
        [(4, 3, 3, 4), (4, 4, 3, 4)],
        f'type: "BoxGroupOutput" top: "z" {_REG % ""} box_group_output_param {{ box_group_param {{ field_w: 30 field_h: 20 '
        f"field_w: 20 field_h: 30 stride: 8 }} {_OUTPUT} field_xyr: 4 field_whr: 3 }}",
    ),
    (
        [(12, 3), (12, 8), (12, 5), (1, 2)],
        f'type: "FrcnnOutput" {_REG % "cls_aware: false"} frcnn_output_param {{ conf_thr: 0.1 iou_thr: 0.3 max_det_num: 5 }}',
    ),
    ([(12, 3), (12, 12), (12, 6), (1, 2)], 'type: "FrcnnOutput" frcnn_output_param { conf_thr: 0.1 iou_thr: 0.3 }'),
]

ALIGNED = [  # regions between places, heat maps, labels: for random input
    (
        [(2, 3, 9, 8), (5, 5)],
        'type: "ROIAlign" roi_pooling_param { pooled_h: 3 pooled_w: 2 spatial_scale: 0.125 pad_ratio: 0.1 }',
    ),
    (
        [(2, 18, 9, 8), (5, 5)],
        'type: "PSROIAlign" psroi_align_param { spatial_scale: 0.25 output_dim: 2 group_size: 3 sample_num: 2 }',
    ),
    ([(3, 2, 6, 8)], 'type: "ImResize" imresize_param { factor: 2.3 scale_gap: 0.2 }'),
    (
        [(3, 2, 6, 8)],
        'type: "ImResize" imresize_param { target_spatial_height: 13 target_spatial_width: 5 scale_gap: 0 }',
    ),
    ([(2, 3, 20, 14)], 'type: "Nms" nms_param { threshold: 0.3 num_parts: 2 max_peaks: 4 }'),
    ([(2, 3, 6, 14)], 'type: "Nms" nms_param { threshold: 0.3 num_parts: 3 max_peaks: 60 }'),
    ([(7, 2, 5)], 'type: "CTCGreedyDecoder"'),
    (
        [(7, 2, 5, 1), (7, 2)],
        'type: "CTCGreedyDecoder" top: "z" ctc_decoder_param { blank_index: 2 ctc_merge_repeated: false }',
    ),
    (
        [(2, 4, 5, 6), (2, 3, 1, 1)],
        'type: "BiasChannel" bias_channel_param { bg_bias: 1 fg_bias: 3 ignore_label: 2 }',
    ),
    (
        [(2, 4, 5, 6), (2, 1, 5, 6)],
        'type: "BiasChannel" bias_channel_param { label_type: PIXEL fg_bias: 3 bg_bias: 1 background_label: 1 }',
    ),
]

AUGMENTED = 'type: "DataAugmentation" augmentation_param { max_multiplier: 1'
FLOWS = [  # of FlowNet 2, vectors, masks and places
    ([(2, 3, 9, 8), (2, 1, 9, 8)], 'type: "MaskPooling"'),
    ([(2, 3, 9, 8)], 'type: "MaskResize" mask_resize_param { output_height: 13 output_width: 5 }'),
    ([(2, 3, 9, 8)], 'type: "Local" local_param { num_output: 4 kernel_size: 3 stride: 2 pad: 1 }'),
    ([(2, 3, 4, 5)], 'type: "NegReLU"'),
    ([(2, 3, 4, 5)], 'type: "Grid"'),
    ([(2, 3, 4, 5)], 'type: "NegSquare"'),
    ([(2, 3, 4, 5)], 'type: "ExpMax" expmax_param { scale: 0.7 shift: 0.3 base: 2 }'),
    ([(2, 3, 9, 8)], f"{AUGMENTED} crop_width: 5 crop_height: 7 mean: 1 mean: -2 mean: 3 }}"),
    ([(2, 3, 9, 8)], f'{AUGMENTED} crop_width: 8 crop_height: 9 }} top: "alike"'),
    ([(2, 2, 9, 8)], f"{AUGMENTED} mean_per_pixel: false }}"),
    ([(2, 3, 4, 5)], 'type: "NegReLU" relu_param { negative_slope: 0.1 }'),
    ([(2, 3, 4, 5)], 'type: "ChannelNorm"'),
    (
        [(2, 6, 4, 5)],
        'type: "Mean" mean_param { value: 1 value: 2 value: 3 operation: SUBTRACT input_scale: 0.5 output_scale: 2 }',
    ),
    ([(2, 6, 4, 5), (2, 3, 4, 5)], 'type: "Mean" top: "z" mean_param { value: 1 value: 2 value: 3 operation: ADD }'),
    ([(2, 3), (2, 4)], 'type: "OuterProduct"'),
    ([(2, 3), (2, 4)], 'type: "GradientScaler" top: "z"'),
    ([(2, 3, 9, 8), (2, 2, 9, 8)], 'type: "FlowWarp"'),
    ([(2, 3, 9, 8), (2, 2, 9, 8)], 'type: "FlowWarp" flow_warp_param { fill_value: NOT_A_NUMBER }'),
    ([(2, 3, 9, 8)], 'type: "Resample" resample_param { height: 13 width: 21 type: LINEAR }'),
    ([(2, 3, 9, 8)], 'type: "Resample" resample_param { height: 4 width: 5 type: CUBIC antialias: true }'),
    ([(2, 3, 9, 8), (2, 1, 7, 19)], 'type: "Resample" resample_param { type: CUBIC antialias: false }'),
    ([(2, 3, 9, 8)], 'type: "Downsample" downsample_param { top_height: 4 top_width: 3 }'),
    ([(2, 3, 9, 8)], 'type: "Downsample" downsample_param { top_height: 9 top_width: 8 }'),
    ([(2, 3, 9, 8), (2, 1, 3, 4)], 'type: "Accum"'),
    ([(2, 3, 9, 8), (2, 1, 3, 4)], 'type: "Accum" accum_param { have_reference: true }'),
    ([(2, 3, 9, 8), (2, 1, 3, 4)], 'type: "Accum" accum_param { size_divisible_by: 7 }'),
    (
        [(2, 3, 9, 8), (2, 3, 9, 8)],
        'type: "Correlation" correlation_param { kernel_size: 1 max_displacement: 4 pad: 4 stride_1: 1 stride_2: 2 }',
    ),
    (
        [(2, 3, 9, 8), (2, 3, 9, 8)],
        'type: "Correlation" correlation_param { kernel_size: 3 max_displacement: 2 pad: 3 '
        "stride_1: 2 stride_2: 1 correlation_type: SUBTRACT }",
    ),
    (
        [(2, 3, 9, 8), (2, 3, 9, 8)],
        'type: "Correlation1D" correlation_param { kernel_size: 1 max_displacement: 4 pad: 4 single_direction: -1 }',
    ),
    (
        [(2, 3, 9, 8), (2, 3, 9, 8)],
        'type: "Correlation1D" correlation_param { kernel_size: 1 max_displacement: 3 pad: 4 '
        "single_direction: 1 stride_1: 2 stride_2: 2 }",
    ),
]


def layer_net(shapes: list[tuple[int, ...]], layer: str) -> tuple[Net, dict[str, np.ndarray]]:
    """A net of one layer with these bottoms, and a batch for it: regions lie across cells, cont is 0 here and there."""
    random = np.random.default_rng(1)
    names = ["data", "more", "third", "fourth"][: len(shapes)]
    inputs, batch = "", {}
    for name, shape in zip(names, shapes, strict=True):
        axes = " ".join(f"dim: {n}" for n in shape)
        inputs += f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ {axes} }} }} }}'
        batch[name] = random.standard_normal(shape).astype("f4")
    if "ROI" in layer:
        corners = np.sort(random.uniform(-5, 40, (5, 2, 2)), axis=1).reshape(5, 4)
        batch["more"] = np.concatenate((random.integers(0, 2, (5, 1)), corners), 1).astype("f4")
    elif "ProposalLayer" in layer:
        batch["third"] = np.array([[75, 90, 1.25]], "f4")
    elif "Lstm" in layer and len(shapes) > 1:
        batch["more"] = random.integers(0, 2, shapes[1]).astype("f4")
    bottoms = " ".join(f'bottom: "{name}"' for name in names)
    net = Net(
        parse_text(f'{inputs} layer {{ name: "y" {bottoms} top: "y" {layer} }}', caffe_pb2.NetParameter()), "TEST"
    )
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.from_numpy(random.standard_normal(parameter.shape)))
    return net, batch


TEXT_DETECTIONS = """fork: "textboxes"
layer { name: "data" type: "Input" top: "loc" top: "conf" top: "map" top: "picture" input_param {
  shape { dim: 2 dim: 32 } shape { dim: 2 dim: 16 } shape { dim: 1 dim: 1 dim: 2 dim: 2 }
  shape { dim: 1 dim: 3 dim: 20 dim: 20 } } }
layer { name: "priors" type: "PriorBox" bottom: "map" bottom: "picture" top: "priors" prior_box_param { min_size: 8 } }
layer { name: "y" type: "DetectionOutput" bottom: "loc" bottom: "conf" bottom: "priors" top: "y"
  detection_output_param { num_classes: 2 confidence_threshold: %s keep_top_k: 5 } }"""

"""The names of blobs."""

import itertools

from pycaffe_compat.convert import (
    blob_names,
)
from pycaffe_compat.layers import REGISTRY
from pycaffe_compat.proto import caffe_pb2, parse_text


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


def test_batch_norm_is_recognised_by_its_blobs_without_a_type():
    assert blob_names("", [(4,), (4,), (1,)]) == ["running_mean", "running_var", "scale_factor"]
    assert blob_names("", [(4, 3), (4,), (4, 3)]) == ["weight", "bias", "2"]

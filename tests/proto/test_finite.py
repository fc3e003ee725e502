"""Options that are no numbers."""

import pytest

from pycaffe_compat.errors import LayerError, SolverError
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text, read_net
from pycaffe_compat.proto.finite import not_numbers
from pycaffe_compat.solver import Solver


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("roi_pooling_param { spatial_scale: nan }", ["roi_pooling_param.spatial_scale: nan must be a finite number"]),
        ("param { lr_mult: 1 } param { lr_mult: -inf }", ["param[1].lr_mult: -inf must be a finite number"]),
        ("loss_weight: 1 loss_weight: 1e50", ["loss_weight[1]: inf must be a finite number"]),
        (
            "convolution_param { weight_filler { std: nan } }",
            ["convolution_param.weight_filler.std: nan must be a finite number"],
        ),
        ("clip_param { min: -inf max: nan }", ["clip_param.max: nan must be a finite number"]),
        ("dummy_data_param { data_filler { value: -inf } } blobs { data: nan }", []),
    ],
)
def test_the_fields_are_named(options: str, said: list[str]) -> None:
    assert list(not_numbers(parse_text(options, caffe_pb2.LayerParameter))) == said


def test_nets_and_solvers_are_refused() -> None:
    net = """layer { name: "x" type: "Input" top: "x" input_param { shape { dim: [1, 3, 8, 8] } } }
             layer { name: "r" type: "Input" top: "r" input_param { shape { dim: [1, 5] } } }
             layer { name: "p" type: "ROIPooling" bottom: "x" bottom: "r" top: "p"
                     roi_pooling_param { pooled_h: 2 pooled_w: 2 spatial_scale: nan } }"""
    with pytest.raises(
        LayerError, match=r'layer "p" in a file: roi_pooling_param.spatial_scale: nan must be a finite number'
    ):
        Net(read_net(net), file="a file")
    with pytest.raises(SolverError, match=r"a file: gamma: nan must be a finite number"):
        Solver(parse_text("base_lr: 0.1 gamma: nan", caffe_pb2.SolverParameter), file="a file")

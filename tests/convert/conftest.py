"""A net, and weights of its layers; this folder on the path, for the helper beside it."""

import sys
from pathlib import Path

import numpy as np
import pytest

from pycaffe_compat.convert import (
    Model,
)
from pycaffe_compat.proto import caffe_pb2

sys.path.insert(0, str(Path(__file__).parent))
NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 6 dim: 6 } } }
layer { name: "enc/conv.1" type: "Convolution" bottom: "data" top: "c" convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "bn" type: "BatchNorm" bottom: "c" top: "b" }
layer { name: "scale" type: "Scale" bottom: "b" top: "s" scale_param { bias_term: true } }
layer { name: "prelu" type: "PReLU" bottom: "s" top: "p" }
layer { name: "ip" type: "InnerProduct" bottom: "p" top: "ip" inner_product_param { num_output: 5 bias_term: false } }
"""


@pytest.fixture
def prototxt(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text(NET)
    return path


@pytest.fixture
def model():
    rng = np.random.default_rng(0)
    shapes = {
        "enc/conv.1": [(4, 3, 3, 3), (4,)],
        "bn": [(4,), (4,), (1,)],
        "scale": [(4,), (4,)],
        "prelu": [(4,)],
        "ip": [(5, 64)],
    }
    blobs = {name: [rng.standard_normal(s).astype("f4") for s in each] for name, each in shapes.items()}
    blobs["ip"][0][0, :4] = [np.inf, -np.inf, np.float32(1e-42), -0.0]
    blobs["scale"][1] = blobs["scale"][1].astype("f8") / 3
    types = {"enc/conv.1": "Convolution", "bn": "BatchNorm", "scale": "Scale", "prelu": "PReLU", "ip": "InnerProduct"}
    net = caffe_pb2.NetParameter(name="n", layer=[caffe_pb2.LayerParameter(name=n, type=t) for n, t in types.items()])
    return Model("memory", blobs, skeleton=net)

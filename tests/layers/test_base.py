"""What layer classes say of themselves: true of every layer in the goldens, and of the schema."""

import json

import golden_layer as gl
import numpy as np
import pytest
import torch
from google.protobuf import text_format

from pycaffe_compat.layers import REGISTRY, Layer
from pycaffe_compat.layers.base import untraced
from pycaffe_compat.net import CaffeModule
from pycaffe_compat.proto import caffe_pb2


def golden_net(name: str) -> CaffeModule:
    with np.load(gl.GOLDENS / f"{name}.npz") as file:
        meta = json.loads(str(file["meta"]))
    return CaffeModule(text_format.Parse(meta["prototxt"], caffe_pb2.NetParameter()), meta["phase"])


@pytest.mark.parametrize("name", gl.names(""))
def test_blobs_have_the_declared_names(name):
    for layer in golden_net(name).layers.values():
        names = tuple(spec.name for spec in layer.blob_specs)
        if len(names) != 1 or "bias" not in names:  # a Scale with a second bottom has a bias alone
            assert names == type(layer).blob_names(len(names))


@pytest.mark.parametrize("type_name", sorted(REGISTRY))
def test_options_are_fields_of_the_schema(type_name):
    cls = REGISTRY[type_name]
    layer = caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name
    fields = {name for option in cls.option_fields() for name in layer[option].message_type.fields_by_name}
    assert cls.inert_options <= fields
    assert cls.blobs_optional <= set(cls.blobs_declared)


def test_names_of_other_numbers_of_blobs():
    assert REGISTRY["LSTM"].blob_names(3) == ("W_xc", "b_c", "W_hc")
    assert REGISTRY["Convolution"].blob_names(1) == ("weight",)
    assert REGISTRY["ReLU"].blob_names(4) == ("weight", "bias", "2", "3")
    assert REGISTRY["Python"].blob_names(2) == ("blob0", "blob1")


def test_an_untraced_method_is_left_to_python():
    seen = []

    class Odd(Layer):
        @untraced
        def forward(self, x):
            seen.append(torch.compiler.is_compiling())
            return x

    class Odder(Odd):
        pass

    for cls in (Odd, Odder):
        layer = cls(caffe_pb2.LayerParameter(name="odd", bottom=["x"], top=["y"]), [(1,)])
        torch.compile(layer, backend="eager")(torch.ones(1))
    assert seen == [False, False]

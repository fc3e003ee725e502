"""Nets that are valid messages and nonsense: built, run and run backwards they give a result or an error of the family."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, note
from strategies import FUZZ, net, randomly

from pycaffe_compat.errors import CaffeError
from pycaffe_compat.memory import limits
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text
from pycaffe_compat.pycaffe import Net as Face

INPUT = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } } '


@pytest.fixture(scope="module", autouse=True)
def _little_memory(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """64 MB of memory for what the package allocates, and a folder of its own for what layers write."""
    patch = pytest.MonkeyPatch()
    patch.setattr(limits, "SMALL", 1 << 20)
    patch.setattr(limits, "available", lambda: 1 << 26)
    patch.chdir(tmp_path_factory.mktemp("fuzz"))
    patch.delenv("PYCAFFE_COMPAT_PYTHON_LAYERS", raising=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    patch.undo()


CHANGING = {
    "DummyData",
    "Data",
    "ImageData",
    "HDF5Data",
    "WindowData",
    "MemoryData",
    "RNN",
    "LSTM",
}  # another batch each time


def same_as_module(face: Face) -> None:
    """The module, with its fused layers, makes what the pycaffe interface makes layer by layer."""
    random = np.random.default_rng(0)
    given = {name: random.standard_normal(face.blobs[name].shape, np.float32) for name in face.inputs}
    for name, values in given.items():
        face.blobs[name].data[...] = values
    made = face.forward()
    with torch.no_grad():
        outputs = face.module({name: torch.from_numpy(values) for name, values in given.items()})
    for name, array in made.items():
        np.testing.assert_allclose(outputs[name].detach().numpy(), array, rtol=1e-4, atol=1e-5, err_msg=name)


def run(param: Any, phase: str) -> str:
    """What became of a net: an error of the family, or a pass there and back."""
    try:
        face = Face.of(Net(param, phase))
    except CaffeError as error:
        return str(error)
    try:
        face.forward()
        face.backward(start=face._layer_names[-1] if face.layers else None)
        for blob in face.blobs.values():
            assert blob.data.shape == blob.shape
        if all(layer.module.phase == caffe_pb2.TEST and layer.type not in CHANGING for layer in face.layers):
            same_as_module(face)
    except CaffeError as error:
        return str(error)
    finally:
        face.close()
    return "ran"


@FUZZ
@given(randomly(net))
def test_any_net(param: Any) -> None:
    note(str(param))
    for phase in ("TRAIN", "TEST"):
        assert run(param, phase)


@pytest.mark.parametrize(
    "layer, message",
    [
        (
            'type: "Convolution" convolution_param { num_output: 2147483647 kernel_size: 3 }',
            "parameters of the net need",
        ),
        (
            'type: "Convolution" convolution_param { num_output: 2 kernel_size: 3 pad: 4294967295 }',
            "does not fit|tops need",
        ),
        ('type: "Convolution" convolution_param { num_output: 2 kernel_size: 0 }', "kernel_size is 0"),
        ('type: "Convolution" convolution_param { num_output: 2 kernel_size: 3 group: 0 }', "group: 0"),
        ('type: "Convolution" convolution_param { num_output: 2 kernel_size: 3 axis: 99 }', "axis: 99"),
        ('type: "InnerProduct" inner_product_param { num_output: 4294967295 }', "parameters of the net need"),
        ('type: "Embed" embed_param { num_output: 9 input_dim: 4294967295 }', "parameters of the net need"),
        ('type: "Tile" tile_param { tiles: 2147483647 }', "tops need"),
        ('type: "ArgMax" argmax_param { top_k: 4294967295 }', "top_k"),
        ('type: "Pooling" pooling_param { kernel_size: 4294967295 }', "larger than|does not fit|window|kernel"),
        ('type: "SPP" spp_param { pyramid_height: 4294967295 }', "level"),
        ('type: "LRN" lrn_param { local_size: 4294967295 }', "local_size|ran"),
        ('type: "Im2col" convolution_param { kernel_size: 3 pad: 2147483647 }', "does not fit|tops need|too large"),
    ],
)
def test_sizes_beyond_memory_are_refused_with_the_layers_name(layer: str, message: str) -> None:
    text = f'{INPUT} layer {{ name: "absurd" bottom: "x" top: "y" {layer} }}'
    said = run(parse_text(text, caffe_pb2.NetParameter), "TRAIN")
    assert said == "ran" or '"absurd' in said
    assert any(part in said for part in message.split("|")), said


def test_inputs_and_made_up_data_beyond_memory_are_refused() -> None:
    before = set(os.listdir(Path.cwd()))  # layers of other tests here write files
    for dims in ("dim: 1000000000000", "dim: 9223372036854775807 dim: 9223372036854775807"):
        for filler in ("", 'data_filler { type: "gaussian" }'):
            text = (
                f'layer {{ name: "d" type: "DummyData" top: "d" dummy_data_param {{ shape {{ {dims} }} {filler} }} }}'
            )
            assert '"d"' in run(parse_text(text, caffe_pb2.NetParameter), "TRAIN")
        text = f'layer {{ name: "i" type: "Input" top: "i" input_param {{ shape {{ {dims} }} }} }}'
        assert '"i"' in run(parse_text(text, caffe_pb2.NetParameter), "TRAIN")
        text = f'layer {{ name: "p" type: "Parameter" top: "p" parameter_param {{ shape {{ {dims} }} }} }}'
        assert '"p"' in run(parse_text(text, caffe_pb2.NetParameter), "TRAIN")
    assert set(os.listdir(Path.cwd())) == before

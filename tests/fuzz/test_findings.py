"""What fuzzing has found, each as the smallest case that shows it."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from test_nets import run

from pycaffe_compat.data.hdf5 import Hdf5Reader
from pycaffe_compat.errors import DataError, NetError, ParseError, SolverError
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text, read_message, read_weights
from pycaffe_compat.pycaffe import Net as Face
from pycaffe_compat.solver import snapshot

NO_TEXT = b"\xb0\xff"


def net(text: str) -> caffe_pb2.NetParameter:
    return parse_text(text, caffe_pb2.NetParameter)


def with_input(dims: str, layers: str) -> caffe_pb2.NetParameter:
    return net(f'layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ {dims} }} }} }} {layers}')


def test_a_layer_whose_tops_have_no_names() -> None:
    said = run(with_input("dim: 2", 'layer { name: "a" type: "AbsVal" bottom: "x" }'), "TEST")
    assert said == 'layer "a" (AbsVal): has 0 top blobs, but takes exactly 1'
    said = run(with_input("dim: 2 dim: 0", 'layer { name: "s" type: "Slice" bottom: "x" }'), "TEST")
    assert said == 'layer "s" (Slice): has 0 top blobs, but takes at least 1'


def test_more_elements_than_can_be_counted() -> None:
    huge = "dim: 1000000000000 dim: 1000000000000"
    said = run(with_input(huge, 'layer { name: "a" type: "AbsVal" bottom: "x" top: "y" }'), "TEST")
    assert '"a"' in said and "1000000000000×1000000000000" in said


def test_a_window_larger_than_any_number_in_a_prototxt() -> None:
    layer = 'layer { name: "s" type: "SPP" bottom: "x" top: "y" spp_param { pyramid_height: 2 } }'
    said = run(with_input("dim: 1 dim: 1 dim: 1000000000000 dim: 1", layer), "TEST")
    assert said.startswith('layer "s" (SPP): cannot be built: ') and "1000000000000" in said


def test_no_elements_but_dimensions_that_numpy_cannot_hold() -> None:
    face = Face.of(Net(with_input("dim: 1000000000000 dim: 0 dim: 1000000000000", ""), "TEST"))
    with pytest.raises(NetError, match=r'blob "x" of shape .* cannot be an array'):
        face.blobs["x"].data  # noqa: B018


@pytest.mark.parametrize("field", ["filename_padding", "print_iter"])
def test_a_file_name_of_four_billion_digits(field: str) -> None:
    layer = f'layer {{ name: "o" type: "ImageOutput" bottom: "x" image_output_param {{ {field}: 4294967295 }} }}'
    assert f"{field}: 4294967295 digits" in run(with_input("dim: 1 dim: 1 dim: 2 dim: 2", layer), "TEST")


@pytest.mark.parametrize("at", ["name", "input", "layer.name", "layers.bottom", "layer.data_param.source"])
def test_strings_of_a_binary_message_that_are_no_text(at: str, tmp_path: Path) -> None:
    marker = "MARK"
    message = caffe_pb2.NetParameter()
    part = message
    *path, last = at.split(".")
    for name in path:
        part = getattr(part, name)
        part = part.add() if hasattr(part, "add") else part
    if hasattr(getattr(part, last), "append"):
        getattr(part, last).append(marker)
    else:
        setattr(part, last, marker)
    message.layer.add(name="ip").blobs.add(data=[1.0]).shape.dim.append(1)
    file = tmp_path / "x.caffemodel"
    file.write_bytes(message.SerializeToString().replace(marker.encode(), NO_TEXT * 2))
    with pytest.raises(ParseError, match=r"UTF-8|utf-8"):
        read_message(file, caffe_pb2.NetParameter)
    with pytest.raises(ParseError, match=r"UTF-8|utf-8"):
        read_weights(file).skeleton()


def test_names_in_hdf5_files_that_are_no_text(tmp_path: Path) -> None:
    file = tmp_path / "x.caffemodel.h5"
    with h5py.File(file, "w") as h5:
        h5.create_group("data").create_group(NO_TEXT)
        h5.create_group(NO_TEXT)
    with pytest.raises(ParseError, match="not text"):
        read_weights(file)
    with h5py.File(file, "w") as h5:
        h5.create_group(NO_TEXT)
    with pytest.raises(ParseError, match='no group "data"'):
        read_weights(file)
    with pytest.raises(SolverError, match='has no "iter"'), snapshot.open_state(file):
        pass
    (tmp_path / "list.txt").write_text(str(file))
    with pytest.raises(DataError, match='no dataset "data"'):
        Hdf5Reader(str(tmp_path / "list.txt"), ["data"], 1)


def test_hdf5_states_that_claim_more_than_they_store_or_hold_groups(tmp_path: Path) -> None:
    file = tmp_path / "x.solverstate.h5"
    for name in ("iter", "learned_net"):
        with h5py.File(file, "w") as h5:
            for needed in {"iter", "learned_net", "current_step"} - {name}:
                h5[needed] = np.zeros(1, np.int32)
            h5.create_dataset(name, (10**12,), np.int32)
            h5.create_group("history")
        with pytest.raises(SolverError, match=f'"{name}" claims 4000000000000 bytes'), snapshot.open_state(file):
            pass
        with h5py.File(file, "a") as h5:
            del h5[name]
            h5.create_group(name)
        with pytest.raises(SolverError, match=f'"{name}" is not a dataset'), snapshot.open_state(file):
            pass


def test_hdf5_data_with_a_broken_address(tmp_path: Path) -> None:
    file = tmp_path / "x.h5"
    with h5py.File(file, "w") as h5:
        h5["data"] = np.zeros((3, 2), np.float32)
    (tmp_path / "list.txt").write_text(str(file))
    whole = file.read_bytes()
    at = whole.index(b"SNOD") + 8 + 8  # the address of the dataset's header
    file.write_bytes(whole[:at] + b"\x10" * 6 + whole[at + 6 :])
    with pytest.raises(DataError, match="damaged"):
        Hdf5Reader(str(tmp_path / "list.txt"), ["data"], 1)

"""What a file is, and the errors of readers that were given another kind of file than theirs."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from golden_files import ROOT as GOLDENS

import pycaffe_compat
from pycaffe_compat.commands.images import read_array
from pycaffe_compat.data.database import Database
from pycaffe_compat.data.hdf5 import Hdf5Reader
from pycaffe_compat.data.image_list import read_list
from pycaffe_compat.data.mean import read_mean
from pycaffe_compat.data.window_file import read_windows
from pycaffe_compat.errors import CaffeError
from pycaffe_compat.net import Net
from pycaffe_compat.proto import read_message, read_net, read_solver, read_weights
from pycaffe_compat.proto.caffe_pb2 import NetParameter
from pycaffe_compat.proto.kinds import kind_of
from pycaffe_compat.proto.upgrade_files import upgrade_net_text, upgrade_solver_text
from pycaffe_compat.solver import Solver
from pycaffe_compat.solver.snapshot import open_state

NET = """
# base_lr: 1
layer { name: "data" type: "DummyData" top: "x" top: "y" dummy_data_param { shape { dim: 2 dim: 3 } shape { dim: 2 dim: 1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 1 } }
layer { name: "l" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "l" }
"""
WHAT = {
    "net.prototxt": "a text file, the prototxt of a net: pass it as the net (--model)",
    "solver.prototxt": "a text file, the prototxt of a solver: pass it as the solver (--solver)",
    "s_iter_1.caffemodel": "a caffemodel, which holds the weights of a net: pass it as weights (--weights)",
    "s_iter_1.caffemodel.h5": "a caffemodel in HDF5, which holds the weights of a net: pass it as weights (--weights)",
    "nameless.caffemodel": "a caffemodel, which holds the weights of a net: pass it as weights (--weights)",
    "s_iter_1.solverstate": "a solver state: pass it as the snapshot to go on from (--snapshot)",
    "s_iter_1.solverstate.h5": "a solver state in HDF5: pass it as the snapshot to go on from (--snapshot)",
    "mean.binaryproto": "a BlobProto, such as a mean image: name it as mean_file",
    "lmdb": "an LMDB: name its folder as source of a Data layer",
    "folder": "a folder",
    "data.h5": "HDF5 data: list its path in the text file",
    "state.pt": "a PyTorch file: caffe-convert-caffemodel converts",
    "w.npz": "a NumPy archive (.npz): caffe-convert-caffemodel converts",
    "w.npy": "a NumPy array (.npy)",
    "w.safetensors": "a safetensors file: caffe-convert-caffemodel converts",
    "w.zip": "a zip archive: unpack it first",
    "w.tar.gz": "a compressed archive: unpack it first",
    "a.png": "an image",
    "lfs": "a pointer of Git LFS instead of the file: fetch the file with: git lfs pull",
    "page.html": "a web page: the download got a page instead of the file",
    "labels.prototxt": "a text file, a label map: pass it as --labels",
    "m.mat": "a MATLAB file (.mat): give the caffemodel",
    "m.onnx": "an ONNX model: run it in onnxruntime",
    "m.pb": "a net of Caffe2, which no Caffe reads: give the prototxt",
    "m.cfg": "a .cfg of Darknet: give the prototxt",
    "m.param": "a .param of ncnn: give the prototxt",
    "notes.txt": "a text file",
    "empty": "empty",
    "blank": "empty",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kinds")
    (folder / "net.prototxt").write_text(NET)
    text = (
        f'net: "{folder}/net.prototxt" base_lr: 0.1 lr_policy: "fixed" solver_mode: CPU snapshot_prefix: "{folder}/s" '
    )
    (folder / "solver.prototxt").write_text(text)
    for layout in ("BINARYPROTO", "HDF5"):
        (folder / "any.prototxt").write_text(f"{text} snapshot_format: {layout}")
        solver = Solver(folder / "any.prototxt", device="cpu")
        solver.step(1)
        solver.snapshot()
    model: Any = read_message(folder / "s_iter_1.caffemodel", NetParameter)
    model.ClearField("name")
    (folder / "nameless.caffemodel").write_bytes(model.SerializeToString())
    (folder / "mean.binaryproto").write_bytes((GOLDENS / "data" / "mean.binaryproto").read_bytes())
    (folder / "lmdb").symlink_to(GOLDENS / "data" / "raw_lmdb")
    (folder / "folder").mkdir()
    with h5py.File(folder / "data.h5", "w") as file:
        file["data"], file["label"] = np.zeros((2, 3)), np.zeros(2)
    torch.save({"ip.weight": torch.zeros(1, 3)}, folder / "state.pt")
    np.savez(folder / "w.npz", a=np.zeros(3))
    np.save(folder / "w.npy", np.zeros(3))
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    (folder / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with zipfile.ZipFile(folder / "w.zip", "w") as archive:
        archive.write(folder / "s_iter_1.caffemodel", "s.caffemodel")
    (folder / "w.tar.gz").write_bytes(b"\x1f\x8b\x08\x00" + bytes(20))
    (folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20))
    (folder / "lfs").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n")
    (folder / "page.html").write_text("<!DOCTYPE html>\n<html><body>404</body></html>")
    (folder / "labels.prototxt").write_text('item {\n  name: "dog"\n  label: 12\n}\nitem { name: "cat" label: 8 }\n')
    (folder / "m.mat").write_bytes(b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + bytes(90) + b"\x00\x01IM")
    (folder / "m.onnx").write_bytes(b"\x08\x0a\x12\x07pytorch\x3a\x02\x0a\x00\x42\x02\x10\x12")
    (folder / "m.pb").write_bytes(b"\x0a\x01n\x12\x0a\x0a\x01x\x12\x01y\x22\x02FC\x3a\x01x\x42\x01y")
    (folder / "m.cfg").write_text("[net]\nbatch=64\n\n[convolutional]\nfilters=32\n")
    (folder / "m.param").write_text("7767517\n2 2\nInput data 0 1 data 0=3\nReLU r 1 1 data r\n")
    (folder / "notes.txt").write_text("the net of the paper, and its solver: see there\n")
    (folder / "empty").write_bytes(b"")
    (folder / "blank").write_text(" \n")
    return folder


@pytest.mark.parametrize("name", WHAT)
def test_a_file_is_recognised_by_its_content(name: str, files: Path) -> None:
    assert str(kind_of(files / name)).startswith(WHAT[name])


def state_of(path: Path) -> None:
    with open_state(path):
        pass


def weights_of_a_net(path: Path) -> None:
    net = Net(path.parent / "net.prototxt")
    net.load_weights(path)


def hdf5_data(path: Path) -> None:
    (path.parent / "files.txt").write_text(str(path))
    Hdf5Reader(str(path.parent / "files.txt"), ["data", "label"], 1)


READERS: dict[str, tuple[Callable[[Path], Any], set[str]]] = {
    "net": (pycaffe_compat.load, {"net", "caffemodel", "nameless"}),
    "read_net": (read_net, {"net", "caffemodel", "nameless"}),
    "solver": (lambda path: Solver(path, device="cpu"), {"solver"}),
    "read_solver": (read_solver, {"solver"}),
    "weights": (weights_of_a_net, {"caffemodel", "caffemodel.h5", "nameless"}),
    "read_weights": (read_weights, {"caffemodel", "caffemodel.h5", "nameless"}),
    "state": (state_of, {"solverstate", "solverstate.h5"}),
    "message": (lambda path: read_message(path, NetParameter), {"caffemodel", "nameless"}),
    "mean": (read_mean, {"mean"}),
    "upgrade_net": (lambda path: upgrade_net_text(path, path.parent / "out"), {"net"}),
    "upgrade_solver": (lambda path: upgrade_solver_text(path, path.parent / "out"), {"solver"}),
    "database": (Database, {"lmdb"}),
    "image_list": (read_list, set()),
    "window_file": (lambda path: read_windows(path, 0.5, 0.5), set()),
    "hdf5_list": (lambda path: Hdf5Reader(str(path), ["data", "label"], 1), set()),
    "hdf5_data": (hdf5_data, {"data"}),
    "array": (lambda path: read_array(str(path), "mean file"), {"w.npy"}),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", WHAT)
def test_a_reader_names_the_kind_of_file_it_was_given(name: str, reader: str, files: Path) -> None:
    read, takes = READERS[reader]
    own = name.removeprefix("s_iter_1.") if name.startswith("s_iter") else name.split(".")[0]
    if own in takes or name in takes:
        read(files / name)
        return
    with pytest.raises(CaffeError) as caught:
        read(files / name)
    said = str(caught.value)
    assert str(files / name) in said
    text_in_text = name == "notes.txt" and reader in (
        "net",
        "read_net",
        "solver",
        "read_solver",
        "upgrade_net",
        "upgrade_solver",
    )
    if name == "notes.txt" and reader in ("image_list", "window_file"):
        assert f"{files / name}:1: " in said
    elif name == "notes.txt" and reader == "hdf5_list":
        assert f"HDF5 file not found: the; looked in {os.getcwd()}, for {files / name}" in said
    elif text_in_text:
        assert f"{files / name}:1:" in said  # a prototxt with mistakes, for all that can be told
    elif reader != "database":
        assert WHAT[name] in said, said
    elif (files / name).is_file():
        assert f"({WHAT[name].split(':')[0]})" in said, said


def test_a_net_with_a_mistake_is_no_other_file(files: Path) -> None:
    path = files / "wrong.prototxt"
    path.write_text(NET.replace("num_output", "num_outputs"))
    with pytest.raises(CaffeError, match=r"wrong\.prototxt:4:.*num_outputs"):
        read_net(path)
    path.write_text(NET + "}")
    with pytest.raises(CaffeError, match="closes nothing"):
        read_net(path)


def test_a_damaged_caffemodel_is_no_other_file(files: Path) -> None:
    data = (files / "s_iter_1.caffemodel").read_bytes()
    path = files / "cut.caffemodel"
    path.write_bytes(data[:-3])
    with pytest.raises(CaffeError, match=r"^[^ ]*cut\.caffemodel: not a valid caffemodel"):
        read_weights(path)

"""What a file is, for the errors of readers that were given another kind of file than theirs."""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import h5py

from ..errors import CaffeError, DataError
from . import caffe_pb2, wire
from .text import looks_binary


@dataclass(frozen=True)
class Kind:
    """A kind of file: what it is, and what to do with it."""

    what: str
    use: str = ""

    def __str__(self) -> str:
        return f"{self.what}: {self.use}" if self.use else self.what


NET = Kind(
    "a text file, the prototxt of a net", "pass it as the net (--model), or name it in the net field of a solver"
)
SOLVER = Kind("a text file, the prototxt of a solver", "pass it as the solver (--solver)")
LABEL_MAP = Kind("a text file, a label map", "pass it as --labels, or name it as label_map_file of a layer")
WEIGHTS = Kind("a caffemodel, which holds the weights of a net", "pass it as weights (--weights)")
HDF5_WEIGHTS = Kind("a caffemodel in HDF5, which holds the weights of a net", "pass it as weights (--weights)")
STATE = Kind("a solver state", "pass it as the snapshot to go on from (--snapshot)")
HDF5_STATE = Kind("a solver state in HDF5", "pass it as the snapshot to go on from (--snapshot)")
BLOB = Kind("a BlobProto, such as a mean image", "name it as mean_file of a data layer, or pass it with --mean_file")
HDF5_DATA = Kind("HDF5 data", "list its path in the text file that an HDF5Data layer names as source")
LMDB = Kind("an LMDB", "name its folder as source of a Data layer")
LEVELDB = Kind("a LevelDB", "this package reads only LMDBs")
FOLDER = Kind("a folder")
TORCH = Kind("a PyTorch file", "caffe-convert-caffemodel converts one that holds a state_dict")
NUMPY_ARCHIVE = Kind("a NumPy archive (.npz)", "caffe-convert-caffemodel converts one that holds weights")
NUMPY_ARRAY = Kind("a NumPy array (.npy)")
MATLAB = Kind("a MATLAB file (.mat)", "give the caffemodel")
ONNX = Kind("an ONNX model", "run it in onnxruntime, or give caffe-from-torch the PyTorch module that it was made from")
CAFFE2 = Kind("a net of Caffe2, which no Caffe reads", "give the prototxt or caffemodel that it was made from")
DARKNET = Kind("a .cfg of Darknet", "give the prototxt that a converter has made of it")
NCNN = Kind("a .param of ncnn", "give the prototxt that it was made from")
SAFETENSORS = Kind("a safetensors file", "caffe-convert-caffemodel converts it")
ZIP = Kind("a zip archive", "unpack it first")
ARCHIVE = Kind("a compressed archive", "unpack it first")
IMAGE = Kind("an image")
POINTER = Kind("a pointer of Git LFS instead of the file", "fetch the file with: git lfs pull")
PAGE = Kind("a web page", "the download got a page instead of the file")
TEXT = Kind("a text file")
BINARY = Kind("a binary file")
EMPTY = Kind("empty")

# What each reader takes. A net is read from a binary NetParameter too.
NETS = (NET, WEIGHTS)
SOLVERS = (SOLVER,)
MODELS = (WEIGHTS, HDF5_WEIGHTS)
STATES = (STATE, HDF5_STATE)
BLOBS = (BLOB,)
LISTS = (TEXT,)
DATASETS = (HDF5_DATA,)
ARRAYS = (NUMPY_ARRAY,)
MESSAGES = {"NetParameter": (WEIGHTS,), "SolverState": (STATE,), "BlobProto": BLOBS}

_BEGINNINGS = (
    (b"\x93NUMPY", NUMPY_ARRAY),
    (b"\x80\x02", TORCH),
    (b"\x1f\x8b", ARCHIVE),
    (b"BZh", ARCHIVE),
    (b"\xfd7zXZ", ARCHIVE),
    (b"7z\xbc\xaf", ARCHIVE),
    (b"\x89PNG", IMAGE),
    (b"\xff\xd8\xff", IMAGE),
    (b"GIF8", IMAGE),
    (b"version https://git-lfs", POINTER),
    (b"MATLAB 5", MATLAB),
    (b"[net]", DARKNET),
    (b"7767517", NCNN),
)
_PAGE = re.compile(rb"\s*<(!doctype|html|\?xml)", re.IGNORECASE)
_HEAD = 1 << 20  # bytes of a text file that are looked at
_FIELDS = 1000  # of a binary message that are looked at
_WORD = re.compile(
    r"""\#[^\n]*|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|([A-Za-z_]\w*)[ \t\r\n]*(?=[:{<])|([{<])|([}>])"""
)
# Of each message: the fields one of which a file of it has.
_MARKS = (
    (WEIGHTS, "NetParameter", {2, 100}),
    (STATE, "SolverState", {2, 3}),
    (BLOB, "BlobProto", {5, 6, 8, 9}),
)
# Messages of others, by fields that no message of Caffe has together: ir_version, graph and opset_import; op and external_input.
_FOREIGN = (
    (ONNX, {(1, wire.VARINT), (7, wire.BYTES), (8, wire.BYTES)}),
    (CAFFE2, {(1, wire.BYTES), (2, wire.BYTES), (7, wire.BYTES)}),
)


def kind_of(path: str | os.PathLike[str]) -> Kind | None:
    """Return what the file or folder at ``path`` is, by its content; None where that cannot be told."""
    name = os.fspath(path)
    try:
        if os.path.isdir(name):
            return _folder(name)
        with open(name, "rb") as file:
            head = file.read(_HEAD)
        if not head.strip():
            return EMPTY
        if h5py.is_hdf5(name):
            return _hdf5(name)
        if head.startswith(b"PK"):
            return _zip(name)
        if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < os.path.getsize(name):
            return SAFETENSORS
        if _PAGE.match(head):
            return PAGE
        for beginning, kind in _BEGINNINGS:
            if head.startswith(beginning):
                return kind
        return _binary(name) if looks_binary(head) else _text(head)
    except OSError:
        return None


def mixed_up(path: str | os.PathLike[str], wanted: tuple[Kind, ...], expected: str, error: object = "") -> str:
    """Return the words of an error for a file of another kind than those ``wanted``; ``""`` where it may be one of them.

    Args:
        path: a file or folder that a reader has failed to read.
        wanted: the kinds that the reader takes.
        expected: the same in words.
        error: what the reader says.
    """
    kind = kind_of(path)
    if kind is None and wanted == LISTS and _is_binary(path):
        kind = BINARY
    if kind is None or kind in wanted or (kind is TEXT and wanted[0] in (NET, SOLVER)):
        return ""
    name = os.fspath(path)
    place = "path" if os.path.isdir(path) else "file"
    reason = str(error).removeprefix(f"{name}: ")
    return f"{name}: the {place} is {kind}. Expected {expected}{f' ({reason})' if reason else ''}"


@contextlib.contextmanager
def told_apart(path: str | os.PathLike[str], wanted: tuple[Kind, ...], expected: str) -> Iterator[None]:
    """Say of a file or folder that the block fails to read what it is, where it is of another kind than those ``wanted``.

    Arguments are those of :func:`mixed_up`. Other errors pass.

    Raises:
        DataError: it is of another kind.
    """
    try:
        yield
    except (CaffeError, OSError, ValueError) as error:
        if words := mixed_up(path, wanted, expected):
            raise DataError(words) from error
        raise


def is_empty_handed(message: Any) -> bool:
    """Whether ``message``, parsed from a file, has none of the fields that each file of its type has: a wrong file's."""
    marks = next(marks for _, name, marks in _MARKS if message.DESCRIPTOR.name == name)
    return not any(field.number in marks for field, _ in message.ListFields())


def _is_binary(path: str | os.PathLike[str]) -> bool:
    try:
        with open(path, "rb") as file:
            return looks_binary(file.read(_HEAD))
    except OSError:
        return False


def _folder(name: str) -> Kind:
    held = os.listdir(name)
    if "data.mdb" in held:
        return LMDB
    return LEVELDB if "CURRENT" in held else FOLDER


def _zip(name: str) -> Kind:
    try:
        with zipfile.ZipFile(name) as archive:
            held = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError):
        return ZIP
    if any(each.endswith("data.pkl") for each in held):
        return TORCH
    return NUMPY_ARCHIVE if held and all(each.endswith(".npy") for each in held) else ZIP


def _hdf5(name: str) -> Kind | None:
    try:
        with h5py.File(name, "r") as file:
            if "learned_net" in file or ("iter" in file and "history" in file):
                return HDF5_STATE
            if isinstance(file.get("data"), h5py.Group):
                return HDF5_WEIGHTS
            return HDF5_DATA if any(isinstance(file.get(key), h5py.Dataset) for key in file) else None
    except (OSError, RuntimeError, KeyError, TypeError, ValueError):
        return None


def _binary(name: str) -> Kind | None:
    with open(name, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        seen: set[tuple[int, int]] = set()
        try:
            for count, item in enumerate(wire.fields(data, 0, len(data))):
                seen.add((item.number, item.wire))
                if count == _FIELDS:
                    break
        except wire.CorruptError as error:
            if not error.offset:
                return None
    for foreign, fields in _FOREIGN:
        if fields <= seen:
            return foreign
    fits = [kind for kind, cls, marks in _MARKS if _could_be(seen, getattr(caffe_pb2, cls).DESCRIPTOR, marks)]
    return fits[0] if len(fits) == 1 else None


def _could_be(seen: set[tuple[int, int]], descriptor: Any, marks: set[int]) -> bool:
    """Whether fields of these numbers and wire types are those of a message; forks may have fields of their own."""
    for number, got in seen:
        field = descriptor.fields_by_number.get(number)
        if field is None:
            continue
        if field.message_type is not None or field.cpp_type == field.CPPTYPE_STRING:
            right = got == wire.BYTES
        elif field.cpp_type == field.CPPTYPE_FLOAT:
            right = got in (wire.FIXED32, wire.BYTES)
        elif field.cpp_type == field.CPPTYPE_DOUBLE:
            right = got in (wire.FIXED64, wire.BYTES)
        else:
            right = got == wire.VARINT or (got == wire.BYTES and field.name == "input_dim")
        if not right:
            return False
    return any(number in marks for number, _ in seen)


def _text(head: bytes) -> Kind:
    """A net or a solver, whichever has more of the fields that are outside all braces; a label map, or some text."""
    words, depth = [], 0
    for match in _WORD.finditer(head.decode("utf-8", "replace")):
        word, opens, closes = match.groups()
        if word and not depth:
            words.append(word)
        depth = max(depth + bool(opens) - bool(closes), 0)
    if words and set(words) == {"item"}:
        return LABEL_MAP
    net, solver = (set(cls.DESCRIPTOR.fields_by_name) for cls in (caffe_pb2.NetParameter, caffe_pb2.SolverParameter))
    nets, solvers = (sum(word in own for word in words) for own in (net - solver, solver - net))
    if 2 * max(nets, solvers) <= len(words) or nets == solvers:
        return TEXT
    return NET if nets > solvers else SOLVER

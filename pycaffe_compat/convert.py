"""Trained weights from one kind of file to another, without loss: Caffe's two, PyTorch's, safetensors and numpy's.

PyTorch's, safetensors' and numpy's files hold a flat ``state_dict``: ``conv1_1.weight``, ``conv1_1.bias``, named as
:class:`~pycaffe_compat.net.Net` names them. Nothing is unpickled but tensors.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from .errors import CaffeError, ParseError, WeightsError, nearest, require_file
from .files import atomic_path, sink
from .layers import REGISTRY, Layer
from .layers.base import Shape
from .proto import caffe_pb2, read_net, read_weights, write_weights
from .summary import build_shapes
from .tables import dims, format_table

PathLike = str | os.PathLike[str]
Progress = Callable[[int], object]

CAFFE = (".caffemodel", ".caffemodel.h5", ".h5")
SUFFIXES = (*CAFFE, ".pt", ".pth", ".safetensors", ".npz")

_LAYERS_KEY = "pycaffe_compat.layers"


@dataclass
class Model:
    """Trained weights, whatever file they are from.

    Attributes:
        file: where they came from, for messages.
        blobs: layer name to its arrays in Caffe's order; layers without blobs are not there.
        names: layer name to the names of its blobs (``weight``, ``bias``).
        skeleton: a ``NetParameter`` with a layer for each of them: with types and options where the file has them.
    """

    file: str
    blobs: dict[str, list[np.ndarray]]
    names: dict[str, list[str]] = field(default_factory=dict)
    skeleton: Any = None

    def __post_init__(self) -> None:
        if self.skeleton is None:
            self.skeleton = caffe_pb2.NetParameter()
        have = {layer.name: layer.type for layer in self.skeleton.layer}
        for name, arrays in self.blobs.items():
            if name not in have:
                self.skeleton.layer.add(name=name)
            self.names.setdefault(name, blob_names(have.get(name, ""), [array.shape for array in arrays]))

    def state_dict(self) -> dict[str, np.ndarray]:
        """The arrays by ``LAYER.BLOB``, in order."""
        return {
            f"{layer}.{name}": array
            for layer, arrays in self.blobs.items()
            for name, array in zip(self.names[layer], arrays, strict=True)
        }

    @property
    def numbers(self) -> int:
        """How many numbers all blobs hold together."""
        return sum(array.size for arrays in self.blobs.values() for array in arrays)


def blob_names(type_name: str, shapes: Sequence[Shape]) -> list[str]:
    """Return the names that a layer of ``type_name`` (``""`` if unknown) gives its blobs, as in ``state_dict``."""
    if not type_name and len(shapes) == 3 and math.prod(shapes[2]) == 1 and shapes[0] == shapes[1]:
        type_name = "BatchNorm"
    return list(REGISTRY.get(type_name, Layer).blob_names(len(shapes)))


def _rank(name: str) -> float:
    """The place of a blob called ``name`` among the blobs of its layer, for files that store no order."""
    places = [cls.blobs_declared.index(name) for cls in REGISTRY.values() if name in cls.blobs_declared]
    digits = name.removeprefix("blob")
    return int(digits) if digits.isdecimal() else max(places, default=math.inf)


def suffix_of(path: PathLike) -> str:
    """Return the ending of ``path`` that says what kind of weights are written there.

    Raises:
        WeightsError: it is none of those known.
    """
    text = os.fspath(path).lower()
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if text.endswith(suffix):
            return suffix
    raise WeightsError(f"{os.fspath(path)}: the ending says the format; it must be one of {', '.join(SUFFIXES)}")


# ---- reading


def read_model(path: PathLike, options: bool = True) -> Model:
    """Read the weights in ``path``; the kind of file is told by its content.

    Args:
        path: the file.
        options: read the layers' options too, where the file has them. Only a ``.caffemodel`` stores them again; without
            them nothing is read of a caffemodel but names, types and blobs, whatever fork wrote the rest.

    Raises:
        MissingFileError: there is no such file.
        ParseError: it is truncated, corrupt, or holds something other than named tensors.
        WeightsError: a tensor is not of numbers that Caffe has, or its name says no layer.
    """
    file = require_file(path, "weights")
    kind = _kind(file)
    if kind == "caffe":
        weights = read_weights(file)
        blobs = {name: weights[name] for name in weights if weights.shapes(name)}
        types = weights.layer_types
        bare = [caffe_pb2.LayerParameter(name=name, type=types.get(name, "")) for name in weights]
        net = weights.skeleton() if options else caffe_pb2.NetParameter(name=weights.net_name, layer=bare)
        return Model(file, blobs, skeleton=net)
    if kind == "safetensors":
        return _read_safetensors(file)
    return _from_state(file, _read_npz(file) if kind == "npz" else _read_torch(file))


def _kind(file: str) -> str:
    """Which reader a file needs: ``npz``, ``torch``, ``safetensors`` or ``caffe``."""
    try:
        with open(file, "rb") as opened:
            head = opened.read(9)
    except OSError as error:
        raise ParseError(f"{file}: cannot be read: {error.strerror}") from error
    if head.startswith(b"PK"):
        try:
            with zipfile.ZipFile(file) as archive:
                return "torch" if any(name.endswith("data.pkl") for name in archive.namelist()) else "npz"
        except (zipfile.BadZipFile, OSError) as error:
            raise ParseError(f"{file}: a zip archive (.pt or .npz) that is truncated or corrupt: {error}") from None
    if len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") < os.path.getsize(file):
        return "safetensors"
    return "torch" if head.startswith(b"\x80\x02") or file.endswith((".pt", ".pth")) else "caffe"


def _read_torch(file: str) -> dict[str, np.ndarray]:
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ParseError(
            f"{file}: holds more than tensors (a whole module, say), and nothing else is unpickled; or it is damaged. Save "
            "the state_dict alone: torch.save(model.state_dict(), PATH)"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError, OSError) as error:
        raise ParseError(
            f"{file}: not a file of torch.save: {str(error).splitlines()[0] if str(error) else error!r}"
        ) from None
    if isinstance(loaded, Mapping):
        inner = next(
            (
                loaded[key]
                for key in ("state_dict", "model_state_dict", "model")
                if isinstance(loaded.get(key), Mapping)
            ),
            loaded,
        )
    else:
        raise ParseError(f"{file}: holds a {type(loaded).__name__}; a state_dict (names to tensors) is expected")
    for name, tensor in inner.items():
        if not isinstance(tensor, torch.Tensor):
            raise ParseError(
                f'{file}: "{name}" is a {type(tensor).__name__}; a state_dict (names to tensors) is expected'
            )
    prefix = "module." if all(str(name).startswith("module.") for name in inner) else ""
    return {str(name).removeprefix(prefix): _numbers(file, str(name), tensor) for name, tensor in inner.items()}


def _numbers(file: str, name: str, tensor: torch.Tensor) -> np.ndarray:
    if tensor.layout != torch.strided or not tensor.dtype.is_floating_point:
        what = tensor.dtype if tensor.layout == torch.strided else tensor.layout
        raise WeightsError(f'{file}: "{name}" holds {what}; Caffe\'s blobs hold float32 or float64')
    if tensor.dtype not in (torch.float32, torch.float64):
        tensor = tensor.float()
    return tensor.detach().contiguous().numpy()


def _read_npz(file: str) -> dict[str, np.ndarray]:
    arrays = {}
    try:
        with np.load(file, allow_pickle=False) as stored:
            for name in stored.files:
                arrays[name] = stored[name]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise ParseError(f"{file}: not a valid .npz file of numbers: {error}") from None
    for name, array in arrays.items():
        if array.dtype.kind != "f":
            raise WeightsError(f'{file}: "{name}" holds {array.dtype}; Caffe\'s blobs hold float32 or float64')
    return {name: array if array.dtype in ("f4", "f8") else array.astype("f4") for name, array in arrays.items()}


def _safetensors() -> Any:
    try:
        import safetensors
        import safetensors.torch
    except ImportError as error:
        raise CaffeError(
            "reading and writing .safetensors needs the package safetensors: pip install safetensors"
        ) from error
    return safetensors


def _read_safetensors(file: str) -> Model:
    library = _safetensors()
    try:
        with library.safe_open(file, framework="pt") as stored:
            metadata = stored.metadata() or {}
            state = {name: _numbers(file, name, stored.get_tensor(name)) for name in stored.keys()}  # noqa: SIM118
    except library.SafetensorError as error:
        raise ParseError(f"{file}: not a valid safetensors file: {error}") from None
    model = _from_state(file, state)
    try:
        layers = json.loads(metadata.get(_LAYERS_KEY, "[]"))
        order = {name: number for number, (name, _) in enumerate(layers)}
        types = {name: kind for name, kind in layers if isinstance(kind, str)}
    except (ValueError, TypeError) as error:
        raise ParseError(
            f"{file}: its metadata {_LAYERS_KEY} is not the list of layers that it should be: {error}"
        ) from None
    blobs = dict(sorted(model.blobs.items(), key=lambda pair: order.get(pair[0], len(order))))
    skeleton = caffe_pb2.NetParameter(layer=[caffe_pb2.LayerParameter(name=n, type=types.get(n, "")) for n in blobs])
    return Model(file, blobs, model.names, skeleton)


def _from_state(file: str, state: Mapping[str, np.ndarray]) -> Model:
    """Sort the tensors of a ``state_dict`` into layers, each layer's in Caffe's order."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for key, array in state.items():
        layer, dot, name = key.rpartition(".")
        if not dot:
            raise WeightsError(f'{file}: the name "{key}" says no layer; names are LAYER.BLOB, as in conv1.weight')
        found.setdefault(layer, {})[name] = array
    blobs, names = {}, {}
    for layer, arrays in found.items():
        ordered = sorted(arrays, key=_rank)
        names[layer], blobs[layer] = ordered, [arrays[name] for name in ordered]
    return Model(file, blobs, names)


# ---- writing


class _Reported(Mapping[str, "list[np.ndarray]"]):
    """Blobs that say how many bytes they have when they are asked for."""

    def __init__(self, blobs: Mapping[str, list[np.ndarray]], progress: Progress) -> None:
        self.blobs, self.progress = blobs, progress

    def __getitem__(self, name: str) -> list[np.ndarray]:
        arrays = self.blobs[name]
        self.progress(sum(array.nbytes for array in arrays))
        return arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self.blobs)

    def __len__(self) -> int:
        return len(self.blobs)


def write_model(path: PathLike, model: Model, progress: Progress = lambda _: None) -> None:
    """Write ``model`` to ``path``, in the format that the ending of ``path`` says; all of it or nothing.

    ``progress`` is called with the number of bytes of each array, or of each layer's, as it is taken up.

    Raises:
        WeightsError: the ending is not known, or there is nothing to write.
        CaffeError: the file cannot be written.
    """
    suffix = suffix_of(path)
    if not model.skeleton.layer:
        raise WeightsError(f"{model.file} holds no layers, so there is nothing to write to {os.fspath(path)}")
    if suffix in CAFFE:
        write_weights(path, model.skeleton, _Reported(model.blobs, progress), hdf5=suffix.endswith(".h5"))
        return
    state = {}
    for name, array in model.state_dict().items():
        state[name] = _owned(array)
        progress(array.nbytes)
    with atomic_path(path) as temporary:
        if suffix == ".npz":
            with open(temporary, "wb") as file:
                np.savez(file, **state)  # type: ignore[arg-type]
            return
        tensors = {name: torch.from_numpy(array) for name, array in state.items()}
        if suffix == ".safetensors":
            types = {layer.name: layer.type for layer in model.skeleton.layer}
            layers = [(name, types.get(name, "")) for name in model.blobs]
            metadata = {"format": "pt", _LAYERS_KEY: json.dumps(layers)}
            library = _safetensors()
            try:
                library.torch.save_file(tensors, temporary, metadata)
            except library.SafetensorError as error:
                raise OSError(0, str(error)) from error
        else:
            with sink(temporary) as file:
                torch.save(tensors, file)  # type: ignore[arg-type]


def _owned(array: np.ndarray) -> np.ndarray:
    """An array that torch takes: aligned, writable, in C order; a copy only where it is not so already."""
    return np.require(array, requirements=["C", "A", "W"])


# ---- checking against a net


def fit_to_net(model: Model, prototxt: PathLike) -> tuple[Model, list[str]]:
    """Return ``model`` with names, types and blob shapes of the net in ``prototxt``, and remarks on what only one has.

    Shapes may differ in leading axes of length 1, as in old caffemodels. Layers that the net does not have stay as they
    are.

    Raises:
        WeightsError: a layer has another number of blobs, or a blob another shape, than in the net, or they have no layer
            in common; both files are named.
    """
    net_file = os.fspath(prototxt)
    net = build_shapes(read_net(prototxt), "TEST", file=net_file)
    net.close()
    fitted = Model(model.file, dict(model.blobs), dict(model.names), caffe_pb2.NetParameter())
    fitted.skeleton.CopyFrom(model.skeleton)
    have = {layer.name: layer for layer in fitted.skeleton.layer}
    missing = []
    for name, layer in net.layers.items():
        if not layer.blob_specs:
            continue
        if name not in model.blobs:
            missing.append(name)
            continue
        arrays, specs = model.blobs[name], layer.blob_specs
        if len(arrays) != len(specs):
            raise WeightsError(
                f'layer "{name}" has {len(specs)} blobs in {net_file}, but {len(arrays)} in {model.file}'
            )
        for index, (array, spec) in enumerate(zip(arrays, specs, strict=True)):
            if not _same_but_leading_ones(array.shape, spec.shape):
                raise WeightsError(
                    f'layer "{name}", blob {index} ({spec.name}): shape {dims(spec.shape)} in {net_file}, '
                    f"but {dims(array.shape)} in {model.file}"
                )
        fitted.blobs[name] = [array.reshape(spec.shape) for array, spec in zip(arrays, specs, strict=True)]
        fitted.names[name] = [spec.name for spec in specs]
        have[name].type = layer.type_name
    extra = [name for name in model.blobs if name not in net.layers]
    if missing and len(missing) == sum(bool(layer.blob_specs) for layer in net.layers.values()):
        raise WeightsError(
            f"{model.file} has no weights for any layer of {net_file}{_hint(missing, extra)}; it has {_listed(extra) or 'none'}"
        )
    remarks = []
    if missing:
        remarks.append(f"{model.file} has no weights for {_listed(missing)} of {net_file}{_hint(missing, extra)}")
    if extra:
        remarks.append(f"{net_file} has no layers for the weights of {_listed(extra)}")
    return fitted, remarks


def _same_but_leading_ones(a: Shape, b: Shape) -> bool:
    width = max(len(a), len(b))
    return (1,) * (width - len(a)) + tuple(a) == (1,) * (width - len(b)) + tuple(b)


def _listed(names: Sequence[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(f'"{name}"' for name in names[:most]) + more


def _hint(names: Iterable[str], choices: Sequence[str]) -> str:
    for name in names:
        if near := nearest(name, choices, 1):
            return near
    return ""


# ---- showing


def list_model(model: Model) -> str:
    """Return a table of every blob: its layer, type, name, shape, kind of number, and range."""
    types = {layer.name: layer.type for layer in model.skeleton.layer}
    rows = []
    for layer, arrays in model.blobs.items():
        for name, array in zip(model.names[layer], arrays, strict=True):
            if array.size:
                with np.errstate(invalid="ignore"):
                    numbers = [f"{value:.5g}" for value in (array.min(), array.max(), array.mean(dtype=np.float64))]
                bad = array.size - int(np.isfinite(array).sum())
            else:
                numbers, bad = ["", "", ""], 0
            note = f"{bad} not finite" if bad else ""
            rows.append((layer, types.get(layer, ""), name, dims(array.shape), str(array.dtype), *numbers, note))
    head = ("layer", "type", "blob", "shape", "numbers", "min", "max", "mean", "")
    blobs = sum(map(len, model.blobs.values()))
    total = f"{len(model.blobs)} layers, {blobs} blobs, {model.numbers:,} numbers"
    return f"{format_table(head, rows, right=(5, 6, 7))}\n\n{total}"

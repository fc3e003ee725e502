"""Reads and writes trained weights: Caffe's two formats, PyTorch's, safetensors' and numpy's.

PyTorch's, safetensors' and numpy's files hold a flat ``state_dict``: ``conv1_1.weight``, ``conv1_1.bias``, named as
:class:`~pycaffe_compat.net.Net` names them. Only tensors are unpickled.
"""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from ..errors import ParseError, WeightsError, require_file
from ..files import atomic_path, sink
from ..layers.base import count
from ..packages import require_package
from ..proto import caffe_pb2, read_weights, write_weights
from .fit import shapes_of
from .model import CAFFE, Model, PathLike, Progress, in_order, suffix_of

_LAYERS_KEY = "pycaffe_compat.layers"


def read_model(path: PathLike, options: bool = True, prototxt: PathLike | None = None) -> Model:
    """Read the weights in ``path``; the format is recognised by its content.

    Args:
        path: the file.
        options: read the layers' options too, where the file has them. Only a ``.caffemodel`` stores them again. Without
            them, only names, types and blobs are read of a caffemodel, so that the options of a fork do no harm.
        prototxt: the net of the weights. It is needed where the file leaves out blobs that layers share, as Caffe's HDF5
            files do: only the net says with which layer.

    Raises:
        MissingFileError: there is no such file.
        ParseError: it is truncated, corrupt, or holds something other than named tensors.
        WeightsError: a tensor is of a dtype that Caffe does not have, its name has no layer, or the file leaves out a
            shared blob and no net is given.
    """
    file = require_file(path, "weights")
    kind = _kind(file)
    if kind == "caffe":
        weights = read_weights(file)
        blobs = {name: weights[name] for name in weights if weights.shapes(name)}
        if weights.partial:
            blobs = _complete(file, blobs, prototxt)
        types = weights.layer_types
        bare = [caffe_pb2.LayerParameter(name=name, type=types.get(name, "")) for name in weights]
        net = weights.skeleton() if options else caffe_pb2.NetParameter(name=weights.net_name, layer=bare)
        return Model(file, blobs, skeleton=net)
    if kind == "safetensors":
        return _read_safetensors(file)
    return _from_state(file, _read_npz(file) if kind == "npz" else _read_torch(file))


def _complete(file: str, blobs: dict[str, list[Any]], prototxt: PathLike | None) -> dict[str, list[np.ndarray]]:
    """Put the arrays of their owners where the file leaves out shared blobs; shapes are checked later."""
    net = shapes_of(prototxt, blobs) if prototxt is not None else None
    owners = net.blob_owners() if net is not None else {}
    layers = net.layers if net is not None else {}
    for name, keys in owners.items():
        arrays = blobs.get(name, [])
        arrays += [None] * (len(keys) - len(arrays))
        for index, (owner, place) in enumerate(keys):
            if arrays[index] is None and place < len(blobs.get(owner, [])):
                shape, array = layers[name].blob_specs[index].shape, blobs[owner][place]
                arrays[index] = array.reshape(shape) if array is not None and array.size == count(shape) else array
        if any(array is not None for array in arrays):
            blobs[name] = arrays
    for name, arrays in blobs.items():
        for index, array in enumerate(arrays):
            if array is None:
                raise WeightsError(
                    f'{file}: layer "{name}" has no blob {index}, '
                    + (
                        f"and shares it with no layer of {prototxt} that is stored"
                        if net is not None
                        else "which it must share with another layer; give the net, which says with which (--prototxt)"
                    )
                )
    return blobs


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
            f"{file}: holds more than tensors (a whole module, say), and only tensors are unpickled; or the file is damaged. "
            "Save only the state_dict: torch.save(model.state_dict(), PATH)"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError, OSError) as error:
        raise ParseError(
            f"{file}: not a torch.save file: {str(error).splitlines()[0] if str(error) else error!r}"
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
        if name.endswith(".num_batches_tracked"):
            raise WeightsError(
                f'{file}: "{name}" belongs to a PyTorch BatchNorm, which is two layers in Caffe; '
                "caffe-from-torch converts the module with these weights to a Caffe net"
            )
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


def safetensors_library() -> Any:
    """The package safetensors, with its part for torch.

    Raises:
        CaffeError: it is not installed.
    """
    need = "reading and writing .safetensors needs the package safetensors"
    require_package("safetensors.torch", need, "safetensors")
    return require_package("safetensors", need, "safetensors")


def _read_safetensors(file: str) -> Model:
    library = safetensors_library()
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
        raise ParseError(f"{file}: its metadata {_LAYERS_KEY} is not a list of layers: {error}") from None
    blobs = dict(sorted(model.blobs.items(), key=lambda pair: order.get(pair[0], len(order))))
    skeleton = caffe_pb2.NetParameter(layer=[caffe_pb2.LayerParameter(name=n, type=types.get(n, "")) for n in blobs])
    return Model(file, blobs, model.names, skeleton)


def _from_state(file: str, state: Mapping[str, np.ndarray]) -> Model:
    """Sort the tensors of a ``state_dict`` into layers, each layer's in Caffe's order."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for key, array in state.items():
        layer, dot, name = key.rpartition(".")
        if not dot:
            raise WeightsError(f'{file}: the name "{key}" names no layer; names must be LAYER.BLOB, as in conv1.weight')
        found.setdefault(layer, {})[name] = array
    blobs, names = {}, {}
    for layer, arrays in found.items():
        ordered = in_order(arrays)
        names[layer], blobs[layer] = ordered, [arrays[name] for name in ordered]
    return Model(file, blobs, names)


class _Reported(Mapping[str, "list[np.ndarray]"]):
    """Blobs that report their size in bytes when they are looked up."""

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
    """Write ``model`` to ``path`` in the format of its ending. If that fails, ``path`` is untouched.

    ``progress`` is called with the number of bytes of each array, or of each layer, before it is written.

    Raises:
        WeightsError: the ending is unknown, or there is nothing to write.
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
            save_safetensors(tensors, temporary, metadata)
        else:
            with sink(temporary) as file:
                torch.save(tensors, file)  # type: ignore[arg-type]


def save_safetensors(tensors: Mapping[str, torch.Tensor], path: PathLike, metadata: Mapping[str, str]) -> None:
    """Write tensors, each with memory of its own, to a ``.safetensors`` file.

    Raises:
        OSError: it cannot be written: the disk is full, say.
    """
    library = safetensors_library()
    try:
        library.torch.save_file(dict(tensors), path, dict(metadata))
    except library.SafetensorError as error:
        raise OSError(0, str(error)) from error


def _owned(array: np.ndarray) -> np.ndarray:
    """The array as torch needs it: aligned, writable, in C order; copied only if it is not."""
    return np.require(array, requirements=["C", "A", "W"])

"""Trained weights into the layers of a net, by Caffe's rules, and a report of what each file gave."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from .errors import WeightsError
from .layers import Layer
from .layers.base import Shape
from .layers.registry import VARIANTS
from .proto import Weights, blob_to_array, read_weights
from .proto.additions import titles
from .proto.text import is_binary
from .tables import dims, some

log = logging.getLogger(__name__)
STATISTICS = 3  # blobs that a BatchNorm has without a scale and a bias
BlobKey = tuple[str, int]  # a layer's name and the index of one of its blobs


class Stored(Protocol):
    """The names of the layers in a file of weights, and the shapes of their blobs: see :class:`~.proto.Weights`."""

    file: str

    @property
    def partial(self) -> bool: ...

    def __iter__(self) -> Iterator[str]: ...

    def shapes(self, name: str) -> list[Shape | None]: ...


class Readable(Stored, Protocol):
    """The same, with the numbers."""

    def readinto(self, name: str, index: int, out: np.ndarray) -> None: ...


@dataclass(frozen=True)
class Reshaped:
    """A blob that a file stores in another shape than the net's, such as ``1×1×4096×25088`` for ``4096×25088``."""

    layer: str
    index: int
    stored: Shape
    shape: Shape


@dataclass
class FileReport:
    """What one file of weights gave a net.

    Attributes:
        file: its path.
        loaded: the layers whose blobs were copied from it, in the file's order.
        missing: the net's layers with blobs that the file does not hold, in the net's order. A layer that shares its
            blobs with one that was loaded is not missing.
        ignored: the layers of the file that the net does not have, in the file's order, including those without blobs.
        reshaped: the blobs stored in another shape, as in old files.
        unused: those of the ignored layers that have blobs.
    """

    file: str
    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    reshaped: list[Reshaped] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)


@dataclass
class LoadReport:
    """What the files of one call gave a net.

    Attributes:
        files: a report for each, in order; where two hold the same layer, the later one counts.
        missing: the net's layers with a blob that no file holds. They keep their values.
    """

    files: list[FileReport] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @property
    def loaded(self) -> list[str]:
        """The layers that received blobs from any file, each once."""
        return list(dict.fromkeys(name for report in self.files for name in report.loaded))

    @property
    def ignored(self) -> list[str]:
        """The layers of any file that the net does not have, each once."""
        return list(dict.fromkeys(name for report in self.files for name in report.ignored))

    @property
    def reshaped(self) -> list[Reshaped]:
        """The blobs that any file stores in another shape."""
        return [blob for report in self.files for blob in report.reshaped]

    def gaps(self) -> str:
        """Say which layers no file holds, and which weights were left over: ``""`` without such layers or files."""
        if not self.missing or not self.files:
            return ""
        files = ", ".join(report.file for report in self.files)
        unused = list(dict.fromkeys(name for report in self.files for name in report.unused))
        rest = f"; left over are those of {some(unused)}, which the net does not have" if unused else ""
        return f"no weights for {some(self.missing, 20)} in {files}: they keep what their fillers made{rest}"


def open_weights(weights: Any) -> list[Weights]:
    """Return what ``weights`` names as open :class:`~pycaffe_compat.proto.Weights`.

    Args:
        weights: None, a path, a ``Weights``, or a list of paths and ``Weights``.

    Raises:
        MissingFileError, ParseError: as :func:`~pycaffe_compat.proto.read_weights`.
    """
    if weights is None:
        return []
    if isinstance(weights, (str, os.PathLike, Weights)):
        weights = [weights]
    return [w if isinstance(w, Weights) else read_weights(w) for w in weights]


class Held:
    """The weights that the layers of a ``NetParameter`` hold themselves, as :class:`~.proto.Weights` gives those of a file.

    The blobs are taken out of the layers. Later layers come first, so that of layers that share a blob its owner's counts.
    """

    partial = False

    def __init__(self, net: Any, file: str) -> None:
        self.file = f"the blobs within {file or 'the net'}"
        self._blobs: dict[str, list[np.ndarray]] = {}
        for layer in reversed(net.layer):
            if layer.blobs:
                what = f'{file or "the net"}: layer "{layer.name}", blob '
                self._blobs[layer.name] = [blob_to_array(blob, what=f"{what}{i}") for i, blob in enumerate(layer.blobs)]
                layer.ClearField("blobs")

    def __iter__(self) -> Iterator[str]:
        return iter(self._blobs)

    def shapes(self, name: str) -> list[Shape | None]:
        return [blob.shape for blob in self._blobs[name]]

    def readinto(self, name: str, index: int, out: np.ndarray) -> None:
        out[...] = self._blobs[name][index].reshape(out.shape)


def held_weights(net: Any, file: str) -> list[Readable]:
    """Return the weights stored in a net itself: the blobs of a ``NetParameter``'s layers, or of the binary one that ``file`` is.

    Caffe's layers begin with the blobs that their ``LayerParameter`` has, and fill only what none has.
    """
    held = Held(net, file)
    if list(held):
        return [held]
    return [_Bringing(read_weights(file))] if is_binary(file) else []


class _Bringing:
    """The layers of a file that have blobs: of a net, the others are filled, where weights must have all of a layer's."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.file = weights.file
        self.partial = weights.partial

    def __iter__(self) -> Iterator[str]:
        return (name for name in self.weights if self.weights.shapes(name))

    def shapes(self, name: str) -> list[Shape | None]:
        return self.weights.shapes(name)

    def readinto(self, name: str, index: int, out: np.ndarray) -> None:
        self.weights.readinto(name, index, out)


@torch.no_grad()
def copy_weights(
    sources: Iterable[Readable],
    layers: Mapping[str, Layer],
    owners: Mapping[str, Sequence[BlobKey]],
    net_file: str,
    only: Collection[BlobKey] | None = None,
) -> tuple[LoadReport, set[BlobKey]]:
    """Copy each source in turn into the layers of the same names.

    Args:
        sources: the open files.
        layers: the net's layers by name.
        owners: for each layer the owner of each of its blobs: the blob itself unless it is shared.
        net_file: the net's file, for messages.
        only: the blobs to write, by owner; None for all. The report leaves out layers that have none of them.

    Returns:
        The report, and the blobs that were written, by owner.

    Raises:
        WeightsError: a layer has a different number of blobs, or a blob a different shape; both shapes and files are named.
    """
    if only is None:
        targets, only = dict(owners), {key for keys in owners.values() for key in keys}
    else:
        targets = {name: keys for name, keys in owners.items() if not set(only).isdisjoint(keys)}
    report = LoadReport()
    written: set[BlobKey] = set()
    for source in sources:
        weights = split_scales(source, layers)
        part, found = match_blobs(weights, layers, targets, net_file, only)
        for name, index in found:
            _copy_blob(weights, layers[name], index)
            written.add(targets[name][index])
        report.files.append(part)
    report.missing = _missing(targets, only, written)
    return report, written


def match_blobs(
    stored: Stored,
    layers: Mapping[str, Layer],
    owners: Mapping[str, Sequence[BlobKey]],
    net_file: str,
    only: Collection[BlobKey],
) -> tuple[FileReport, list[BlobKey]]:
    """Compare what a file stores with the layers of a net, by name, by Caffe's rules; nothing is copied.

    Args:
        stored: the file.
        layers: the net's layers by name.
        owners: for each layer that counts, the owner of each of its blobs.
        net_file: the net's file, for messages.
        only: the blobs that count, by owner.

    Returns:
        The report, and the blobs to take, as layer and index, in the file's order.

    Raises:
        WeightsError: a layer has a different number of blobs, or a blob a different shape; both shapes and files are named.
    """
    report = FileReport(stored.file, ignored=[name for name in stored if name not in layers])
    report.unused = [name for name in report.ignored if stored.shapes(name)]
    found: list[BlobKey] = []
    for name in stored:
        if name not in owners:
            continue
        layer, keys = layers[name], owners[name]
        for index, (shape, key) in enumerate(zip(_stored_shapes(stored, layer, keys, net_file), keys, strict=True)):
            if shape is None or key not in only:
                continue
            found.append((name, index))
            mine = tuple(layer.blob(index).shape)
            if shape != mine:
                report.reshaped.append(Reshaped(name, index, shape, mine))
        if keys:
            report.loaded.append(name)
    report.missing = _missing(owners, only, {owners[name][index] for name, index in found})
    return report, found


def _missing(
    owners: Mapping[str, Sequence[BlobKey]], only: Collection[BlobKey], written: Collection[BlobKey]
) -> list[str]:
    return [name for name, keys in owners.items() if any(key in only and key not in written for key in keys)]


def _stored_shapes(weights: Stored, layer: Layer, keys: Sequence[BlobKey], net_file: str) -> list[Shape | None]:
    """The shapes that ``weights`` has for the blobs of ``layer``, all of which fit; None for one that it leaves out."""
    name, net = layer.name, net_file or "the net"
    shapes = weights.shapes(name)
    if weights.partial:
        shapes += [None] * (len(keys) - len(shapes))
    if len(shapes) != len(keys):
        raise WeightsError(
            f'layer "{name}" has {len(keys)} blobs in {net}, but {len(shapes)} in {weights.file}{_whose(layer, len(shapes))}'
        )
    shapes = [shapes[i] for i in layer.stored_order(shapes)]
    for index, stored in enumerate(shapes):
        shape = tuple(layer.blob(index).shape)
        if stored is None:
            if keys[index] == (name, index):
                raise WeightsError(
                    f'layer "{name}", blob {index} is not in {weights.file}, which omits blobs that layers share; '
                    "in this net it is not shared"
                )
        elif not same_shape(stored, shape) and not layer.takes_shape(index, stored):
            raise WeightsError(
                f'layer "{name}", blob {index} ({layer.blob_specs[index].name}): shape {dims(shape)} in {net}, but '
                f"{dims(stored)} in {weights.file}. To train it from scratch, give the layer another name"
            )
    return shapes


def _whose(layer: Layer, number: int) -> str:
    """Say which forks' layers of the type have that many blobs; ``""`` if none has."""
    others = [cls for cls in VARIANTS.get(layer.type_name, ()) if cls.forks and type(layer) is not cls]
    found = [
        cls for cls in others if number in (len(cls.blobs_declared), len(cls.blobs_declared) - len(cls.blobs_optional))
    ]
    if not found:
        return ""
    names = titles(list(dict.fromkeys(name for cls in found for name in cls.forks)))
    blobs = ", ".join(found[0].blob_names(number))
    return f". A {layer.type_name} of {names} has {number} ({blobs}): is the net of another fork than its weights?"


class _Split:
    """Weights whose BatchNorm layers have blobs of the Scale layers behind them, seen as if those layers had them.

    Args:
        weights: the file.
        scales: the BatchNorm layers, each to its Scale layer.
    """

    def __init__(self, weights: Readable, scales: Mapping[str, str]) -> None:
        self._weights, self._scales = weights, scales
        self._norms = {scale: norm for norm, scale in scales.items()}
        self.file, self.partial = weights.file, weights.partial

    def __iter__(self) -> Iterator[str]:
        for name in self._weights:
            yield name
            if name in self._scales:
                yield self._scales[name]

    def shapes(self, name: str) -> list[Shape | None]:
        if name in self._norms:
            return self._weights.shapes(self._norms[name])[STATISTICS:]
        shapes = self._weights.shapes(name)
        return shapes[:STATISTICS] if name in self._scales else shapes

    def readinto(self, name: str, index: int, out: np.ndarray) -> None:
        if name in self._norms:
            self._weights.readinto(self._norms[name], index + STATISTICS, out)
        else:
            self._weights.readinto(name, index, out)


def split_scales(weights: Readable, layers: Mapping[str, Layer]) -> Readable:
    """Return ``weights`` as files of BVLC's Caffe hold them, where scale and bias are in a BatchNorm layer with five blobs.

    Intel's Caffe makes one layer of BatchNorm and Scale, also in what it saves; NVIDIA's has one anyway. This is for nets with
    both layers, whose Scale layer the file does not have.
    """
    stored, scales = set(weights), dict[str, str]()
    order = list(layers.values())
    for index, norm in enumerate(order):
        if norm.type_name != "BatchNorm" or norm.name not in stored or len(norm.blob_specs) != STATISTICS:
            continue
        reader = next((each for each in order[index + 1 :] if norm.param.top[0] in each.param.bottom), None)
        if reader is None or reader.type_name != "Scale" or reader.name in stored:
            continue
        if len(weights.shapes(norm.name)) == STATISTICS + len(reader.blob_specs):
            scales[norm.name] = reader.name
            log.info("the scale and bias of layer %s come from layer %s of %s", reader.name, norm.name, weights.file)
    return _Split(weights, scales) if scales else weights


def _copy_blob(weights: Readable, layer: Layer, index: int) -> None:
    """Copy one blob to where it lives."""
    blob = layer.blob(index)
    shapes = weights.shapes(layer.name)
    stored = layer.stored_order(shapes)[index]
    shape = shapes[stored]
    if shape is not None and math.prod(shape) != blob.numel():
        values = torch.empty(shape)
        weights.readinto(layer.name, stored, values.numpy())
        blob.detach().copy_(layer.adapted(index, values))
    elif blob.device.type == "cpu" and blob.is_contiguous():
        weights.readinto(layer.name, stored, blob.detach().numpy())
    else:
        host = torch.empty(blob.shape, dtype=blob.dtype)
        weights.readinto(layer.name, stored, host.numpy())
        blob.detach().copy_(host)


def same_shape(stored: Sequence[int], shape: Sequence[int]) -> bool:
    """Whether two blob shapes hold the same numbers in Caffe's eyes.

    With up to four axes, leading axes of length 1 do not count: old files store every blob as
    ``num×channels×height×width``, and C3D 1.0 matrices and vectors with five axes. Other shapes with more axes must be equal.
    """
    stored, shape = tuple(stored), tuple(shape)
    if len(stored) == 5 and len(shape) <= 2:
        return stored == (1,) * (5 - len(shape)) + shape
    most = max(len(stored), len(shape))
    if most > 4:
        return stored == shape
    return (1,) * (most - len(stored)) + stored == (1,) * (most - len(shape)) + shape

"""What the blobs of a net's layers are: who owns which, how they are shared, where their memory and values come from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from . import memory
from .errors import CaffeError, LayerError, WeightsError
from .layers import Layer
from .layers.base import Shape, count
from .layers.fillers import fill
from .proto import Weights, caffe_pb2, read_weights

RATES = ("lr_mult", "decay_mult")


@dataclass
class Learnable:
    """A blob that a solver sees, once however many layers share it.

    ``tensor`` is a Parameter, or a buffer for what is stored but not trained (BatchNorm's statistics).
    """

    layer: Layer
    index: int
    tensor: Tensor
    lr_mult: float
    decay_mult: float
    name: str


@dataclass(eq=False)
class Sharing:
    """A blob that another layer owns, seen with this layer's shape (``share_mode: PERMISSIVE``)."""

    layer: Layer
    index: int
    owner: Layer
    owner_index: int
    shape: Shape

    def refresh(self) -> None:
        """Make the view anew."""
        name = self.layer.blob_specs[self.index].name
        self.layer._parameters.pop(name, None)
        object.__setattr__(self.layer, name, self.owner.blob(self.owner_index).view(self.shape))


class BlobTable:
    """The blobs of all layers of a net: each learnable one once, whoever shares it.

    Args:
        file: the net's file, for error messages.
        force_backward: every trainable blob gets a gradient, those with ``lr_mult`` 0 too.

    Attributes:
        layers: by name, in order.
        learnable: the blobs that a solver updates, in order.
        views: blobs seen with another shape than their owner's; to be refreshed before each pass.
        ignored_layers: names of layers in the loaded weights that the net does not have.
    """

    def __init__(self, file: str, force_backward: bool) -> None:
        self.file = file
        self.layers: dict[str, Layer] = {}
        self.learnable: list[Learnable] = []
        self.views: list[Sharing] = []
        self.ignored_layers: list[str] = []
        self._force_backward = force_backward
        self._sharing: list[Sharing] = []
        self._taken: set[tuple[str, int]] = set()  # layer and index of blobs that belong to another net
        self._named: dict[str, tuple[Learnable, set[str]]] = {}  # and which of its rates have been given so far

    def enter(self, param: Any, layer: Layer) -> list[bool]:
        """Enter the blobs of the next layer; return for each whether it learns, as its ``lr_mult`` says.

        That says so of BatchNorm's statistics too where it is not given, so that Caffe's backward pass comes that far.

        Raises:
            LayerError: more ``param`` blocks than blobs, or a shared one whose shape or rates differ.
        """
        self.layers[param.name] = layer
        if len(param.param) > len(layer.blob_specs):
            raise layer.error(f"has {len(param.param)} param blocks, but only {len(layer.blob_specs)} blobs")
        learns = []
        for index, spec in enumerate(layer.blob_specs):
            given = param.param[index] if index < len(param.param) else caffe_pb2.ParamSpec()
            if given.name and given.name in self._named:
                self._share(layer, index, given, *self._named[given.name])
            else:
                learnable = Learnable(
                    layer,
                    index,
                    layer.blob(index),
                    given.lr_mult,
                    given.decay_mult,
                    given.name or f"{param.name}.{spec.name}",
                )
                self.learnable.append(learnable)
                if given.name:
                    self._named[given.name] = learnable, {field for field in RATES if given.HasField(field)}
            learns.append(given.lr_mult != 0)
        return learns

    def _share(self, layer: Layer, index: int, given: Any, owner: Learnable, rates: set[str]) -> None:
        """Let a blob be that of ``owner``, whose rates are the first that are given, by whichever of its layers."""
        spec, source = layer.blob_specs[index], owner.layer.blob_specs[owner.index]
        permissive = given.share_mode == caffe_pb2.ParamSpec.PERMISSIVE
        same = count(spec.shape) == count(source.shape) if permissive else spec.shape == source.shape
        if not same:
            raise layer.error(
                f'blob {index} shares param "{given.name}" with layer "{owner.layer.name}", but has shape '
                f"{dims(spec.shape)} where the owner has {dims(source.shape)}"
                + ("" if permissive else "; share_mode: PERMISSIVE compares the counts only")
            )
        for field in RATES:
            if not given.HasField(field):
                continue
            mine, theirs = getattr(given, field), getattr(owner, field)
            if field not in rates:
                rates.add(field)
                setattr(owner, field, mine)
            elif mine != theirs:
                raise layer.error(
                    f'shared param "{given.name}" has {field} {mine:g} here and {theirs:g} where it was given before '
                    f'(its owner is layer "{owner.layer.name}")'
                )
        sharing = Sharing(layer, index, owner.layer, owner.index, spec.shape)
        self._sharing.append(sharing)
        if spec.shape != source.shape:
            self.views.append(sharing)

    def allocate(self, weights: Any, share: BlobTable | None, device: torch.device) -> None:
        """Give every blob memory: that of ``share`` for its layers, else from the weights, else from its filler."""
        if share is not None:
            self.share_layers(share)
        own = [learnable for learnable in self.learnable if learnable.tensor.is_meta]
        self._check_memory(own, device)
        for learnable in own:
            spec = learnable.layer.blob_specs[learnable.index]
            try:
                value = torch.empty(spec.shape, device=device)
            except RuntimeError as error:
                reason = str(error).splitlines()[0]
                raise learnable.layer.error(f"no memory for {spec.name}, {dims(spec.shape)}: {reason}") from error
            if spec.trainable:
                trains = learnable.lr_mult != 0 or self._force_backward
                value = nn.Parameter(value, requires_grad=trains)
            learnable.layer.set_blob(learnable.index, value)
        self.follow()
        loaded: set[int] = set()
        for source in _as_list(weights):
            loaded |= self._copy(source, None if share is None else {entry.layer.name for entry in own})
        for learnable in own:
            if id(learnable.tensor) not in loaded:
                try:
                    fill(learnable.tensor, learnable.layer.blob_specs[learnable.index].filler)
                except LayerError as error:
                    spec = learnable.layer.blob_specs[learnable.index]
                    raise in_file(learnable.layer.error(f"{spec.name}: {error}"), self.file) from error

    def _check_memory(self, learnables: Sequence[Learnable], device: torch.device) -> None:
        """Refuse parameters that do not fit into memory, before any of it is taken."""
        if device.type != "cpu" or not learnables:
            return
        sizes = [4 * count(entry.layer.blob_specs[entry.index].shape) for entry in learnables]
        lacking = memory.lacking(sum(sizes))
        if lacking:
            most = learnables[sizes.index(max(sizes))]
            spec = most.layer.blob_specs[most.index]
            largest = f"the largest is {spec.name}, {dims(spec.shape)}"
            raise in_file(most.layer.error(f"the parameters of the net need {lacking}; {largest}"), self.file)

    def share_layers(self, source: BlobTable) -> list[str]:
        """Use the blobs of ``source`` for the layers of the same names: the same tensors from now on.

        As Caffe's ``ShareTrainedLayersWith``, this goes by layer name, blob by blob. A blob taken from ``source`` no longer
        follows the layer of this net that it shares a parameter name with. A blob not taken still follows its owner.

        Returns:
            The names of the layers that have blobs of their own still.

        Raises:
            LayerError: a layer has another number of blobs there, or blobs of other shapes.
        """
        own = []
        for name, layer in self.layers.items():
            other = source.layers.get(name)
            if other is None:
                own += [name] if layer.blob_specs else []
                continue
            mine, given = [tuple(b.shape) for b in layer.blobs], [tuple(b.shape) for b in other.blobs]
            if mine != given:
                raise in_file(
                    layer.error(f"cannot share the blobs of the other net: shapes {mine} here, {given} there"),
                    self.file,
                )
            for index, spec in enumerate(layer.blob_specs):
                layer.__dict__.pop(spec.name, None)  # a view of the owner in this net would hide the blob
                layer.set_blob(index, other.blob(index))
                self._taken.add((name, index))
        self.views = [view for view in self.views if (view.layer.name, view.index) not in self._taken]
        self.follow()
        return own

    def follow(self) -> None:
        """Let what points at blobs point at those that the layers have now."""
        self._reconnect()
        for learnable in self.learnable:
            learnable.tensor = learnable.layer.blob(learnable.index)

    def _reconnect(self) -> None:
        """Let every sharer of a blob see its owner's tensor: the same Parameter, or a view made anew for each pass."""
        for sharing in self._sharing:
            if (sharing.layer.name, sharing.index) in self._taken:
                continue
            if sharing in self.views:
                sharing.refresh()
            else:
                sharing.layer.set_blob(sharing.index, sharing.owner.blob(sharing.owner_index))

    def load(self, weights: Any) -> None:
        """Copy weights into the layers of the same names, by Caffe's rules.

        Raises:
            WeightsError: a layer with another number of blobs, or a blob of another shape; both shapes and files are named.
        """
        for source in _as_list(weights):
            self._copy(source)

    @torch.no_grad()
    def _copy(self, weights: Weights, only: set[str] | None = None) -> set[int]:
        """Copy into the layers (those in ``only``); return the ids of the tensors that were written."""
        loaded: set[int] = set()
        layers = self.layers
        shared = {(sharing.layer.name, sharing.index) for sharing in self._sharing}
        self.ignored_layers = [name for name in weights if name not in layers]
        for name in weights:
            layer = layers.get(name)
            if layer is None or (only is not None and name not in only):
                continue
            shapes = weights.shapes(name)
            if weights.partial:
                shapes += [None] * (len(layer.blob_specs) - len(shapes))
            if len(shapes) != len(layer.blob_specs):
                raise WeightsError(
                    f'layer "{name}" has {len(layer.blob_specs)} blobs in {self.file or "the net"}, '
                    f"but {len(shapes)} in {weights.file}"
                )
            for index, stored in enumerate(shapes):
                blob = layer.blob(index)
                if stored is None:
                    if (name, index) not in shared:
                        raise WeightsError(
                            f'layer "{name}", blob {index} is not in {weights.file}, which leaves out blobs that '
                            "layers share; here it is not shared"
                        )
                    continue
                if not _same_shape(tuple(stored), tuple(blob.shape)):
                    raise WeightsError(
                        f'layer "{name}", blob {index}: shape {dims(blob.shape)} in {self.file or "the net"}, '
                        f"but {dims(stored)} in {weights.file}. To train it anew, give the layer another name"
                    )
            for index, stored in enumerate(shapes):
                if stored is None:
                    continue
                blob = layer.blob(index)
                if blob.device.type == "cpu" and blob.is_contiguous():
                    weights.readinto(name, index, blob.detach().numpy())
                else:
                    host = torch.empty(blob.shape, dtype=blob.dtype)
                    weights.readinto(name, index, host.numpy())
                    blob.detach().copy_(host)
                loaded.add(id(blob))
        return loaded


def dims(shape: Sequence[int]) -> str:
    """A shape as people write it: ``64×3×3×3``."""
    return "×".join(str(n) for n in shape) or "scalar"


def in_file(error: CaffeError, file: str) -> CaffeError:
    """The error of a layer, beginning with the net's file."""
    return type(error)(f"{file}: {error}") if file and isinstance(error, LayerError) else error


def _as_list(weights: Any) -> list[Weights]:
    if weights is None:
        return []
    if isinstance(weights, (str, os.PathLike, Weights)):
        weights = [weights]
    return [w if isinstance(w, Weights) else read_weights(w) for w in weights]


def _same_shape(theirs: Shape, mine: Shape) -> bool:
    """Whether two blob shapes are one: leading axes of length 1 do not count, as in Caffe's 4-d legacy shapes."""
    if theirs == mine:
        return True
    most = max(len(theirs), len(mine))
    return most <= 4 and (1,) * (most - len(theirs)) + theirs == (1,) * (most - len(mine)) + mine

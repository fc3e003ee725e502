"""The blobs of a net's layers: which layer owns each, how they are shared, and where memory and values come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from . import memory
from .errors import LayerError, in_file
from .layers import Layer
from .layers.base import Shape, count
from .layers.fillers import fill
from .loading import BlobKey, LoadReport, Readable, copy_weights, open_weights
from .proto import caffe_pb2
from .tables import dims

RATES = ("lr_mult", "decay_mult")


@dataclass
class Learnable:
    """A blob that a solver sees. One that several layers share is seen once.

    ``tensor`` is a Parameter, or a buffer if it is stored but not trained (BatchNorm's statistics).
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
        """Renew the view."""
        name = self.layer.blob_specs[self.index].name
        self.layer._parameters.pop(name, None)
        object.__setattr__(self.layer, name, self.owner.blob(self.owner_index).view(self.shape))


class BlobTable:
    """The blobs of all layers of a net; a learnable blob that layers share is there once.

    Args:
        file: the net's file, for error messages.
        force_backward: every trainable blob gets a gradient, even with ``lr_mult`` 0.

    Attributes:
        layers: by name, in order.
        learnable: the blobs that a solver updates, in order.
        views: blobs seen with another shape than their owner's; to be refreshed before each pass.
        report: the report of the newest load.
    """

    def __init__(self, file: str, force_backward: bool) -> None:
        self.file = file
        self.layers: dict[str, Layer] = {}
        self.learnable: list[Learnable] = []
        self.views: list[Sharing] = []
        self.report = LoadReport()
        self._force_backward = force_backward
        self._sharing: list[Sharing] = []
        self._taken: set[tuple[str, int]] = set()  # layer and index of blobs that belong to another net
        self._named: dict[str, tuple[Learnable, set[str]]] = {}  # and which of its rates have been given so far

    def enter(self, param: Any, layer: Layer) -> list[bool]:
        """Enter the blobs of the next layer; return for each whether its ``lr_mult`` is not 0.

        BatchNorm's statistics count as learning unless their ``lr_mult`` is given as 0: Caffe's backward pass reaches
        such a layer.

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
        """Share the blob of ``owner``. The first layer that gives a rate decides it."""
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
                    f'shared param "{given.name}" has {field} {mine:g} here and {theirs:g} in an earlier layer '
                    f'(its owner is layer "{owner.layer.name}")'
                )
        sharing = Sharing(layer, index, owner.layer, owner.index, spec.shape)
        self._sharing.append(sharing)
        if spec.shape != source.shape:
            self.views.append(sharing)

    def allocate(
        self, weights: Any, share: BlobTable | None, device: torch.device, held: Sequence[Readable] = ()
    ) -> None:
        """Allocate every blob. Layers of ``share`` give theirs; others are loaded from the weights or filled.

        What the weights lack comes from ``held``, the weights stored in the net itself.

        Raises:
            CaffeError: the weights do not fit, or there is no memory for a blob. The message names file, layer and blob.
        """
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
        written = self._copy(weights, {(entry.layer.name, entry.index) for entry in own})
        rest = {(entry.layer.name, entry.index) for entry in own} - written
        written |= copy_weights(held, self.layers, self.owners(), self.file, rest)[1]
        for learnable in own:
            if (learnable.layer.name, learnable.index) not in written:
                try:
                    fill(learnable.tensor, learnable.layer.blob_specs[learnable.index].filler)
                except LayerError as error:
                    spec = learnable.layer.blob_specs[learnable.index]
                    raise in_file(learnable.layer.error(f"{spec.name}: {error}"), self.file) from error

    def _check_memory(self, learnables: Sequence[Learnable], device: torch.device) -> None:
        """Refuse parameters that do not fit into memory, before allocating any."""
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
        """Share the blobs of ``source`` with the layers of the same names.

        Like Caffe's ``ShareTrainedLayersWith``, this goes by layer name, blob by blob. A blob taken from ``source`` no longer
        follows the owner of its parameter name in this net. A blob not taken still does.

        Returns:
            The names of the layers that keep blobs of their own.

        Raises:
            LayerError: a layer has a different number of blobs there, or different shapes.
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
        """Update all references to blobs after layers were given others."""
        self._reconnect()
        for learnable in self.learnable:
            learnable.tensor = learnable.layer.blob(learnable.index)

    def _reconnect(self) -> None:
        """Give every layer that shares a blob its owner's tensor: the same Parameter, or a view renewed before each pass."""
        for sharing in self._sharing:
            if (sharing.layer.name, sharing.index) in self._taken:
                continue
            if sharing in self.views:
                sharing.refresh()
            else:
                sharing.layer.set_blob(sharing.index, sharing.owner.blob(sharing.owner_index))

    def load(self, weights: Any) -> LoadReport:
        """Copy weights into the layers of the same names, by Caffe's rules; see :func:`~pycaffe_compat.loading.copy_weights`."""
        self._copy(weights)
        return self.report

    def _copy(self, weights: Any, only: set[BlobKey] | None = None) -> set[BlobKey]:
        """Copy weights into the layers, or only into the blobs ``only``; return the blobs written."""
        self.report, written = copy_weights(open_weights(weights), self.layers, self.owners(), self.file, only)
        return written

    def owners(self) -> dict[str, list[BlobKey]]:
        """For each layer, the owner (layer and index) of each of its blobs: the blob itself unless it is shared."""
        owners = {
            name: [(name, index) for index in range(len(layer.blob_specs))] for name, layer in self.layers.items()
        }
        for sharing in self._sharing:
            if (sharing.layer.name, sharing.index) not in self._taken:
                owners[sharing.layer.name][sharing.index] = sharing.owner.name, sharing.owner_index
        return owners

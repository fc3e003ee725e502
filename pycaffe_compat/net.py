"""A Caffe net as an ``nn.Module``."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from . import memory
from .errors import CaffeError, DivergedError, LayerError, NetError, UnknownNameError, WeightsError, nearest
from .layers import Layer, Source, layer_class
from .layers.base import Shape, count
from .layers.fillers import fill
from .plan import Call, plan
from .proto import Weights, caffe_pb2, filter_net, read_net, read_weights, upgrade_net, write_weights
from .wiring import Step, Wiring

log = logging.getLogger(__name__)
PathLike = str | os.PathLike[str]
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
class _Sharing:
    """A blob that another layer owns, seen with this layer's shape (``share_mode: PERMISSIVE``)."""

    layer: Layer
    index: int
    owner: Layer
    owner_index: int
    shape: Shape

    def refresh(self) -> None:
        name = self.layer.blob_specs[self.index].name
        self.layer._parameters.pop(name, None)
        object.__setattr__(self.layer, name, self.owner.blob(self.owner_index).view(self.shape))


def as_phase(phase: int | str) -> int:
    """Return Caffe's phase number for ``"TRAIN"``, ``"TEST"`` or the number itself."""
    if isinstance(phase, str):
        if phase.upper() not in ("TRAIN", "TEST"):
            raise NetError(f'unknown phase "{phase}": it is TRAIN or TEST')
        return caffe_pb2.Phase.Value(phase.upper())
    return int(phase)


class Net(nn.Module):
    """The net that a ``NetParameter`` describes, for one phase, level and set of stages.

    Every layer is a submodule under its own name, so ``state_dict`` speaks of ``conv1_1.weight``. In-place layers and
    shared blobs are ordinary values here: each write makes a new tensor and a name stands for its newest one.

    Args:
        param: the net, or the path of its prototxt.
        phase: ``TRAIN`` or ``TEST``; None takes it from the net's own ``state`` (``TEST`` if it has none).
        level, stages: added to the net's ``state``, for ``include`` and ``exclude`` rules.
        weights: a caffemodel (path or :class:`~pycaffe_compat.proto.Weights`), or several; blobs that they hold are
            not filled first.
        file: where ``param`` came from, for error messages.
        device: where the parameters live.
        share: a net whose blobs are used, the very same memory, for the layers of the same names (a test net's train net).
        fuse: run ReLU inside of poolings, hand switches over as bytes, and the like (:mod:`pycaffe_compat.plan`), with
            unchanged results.

    Attributes:
        inputs, outputs: the tops of ``Input`` layers; the blobs that no layer consumes, in alphabetical order.
        steps: the layers in order, with the names they read and write.
        learnable: the blobs that a solver updates, each once, in order.
        ignored_layers: names of layers in the loaded weights that the net does not have.
    """

    def __init__(
        self,
        param: Any,
        phase: int | str | None = None,
        *,
        level: int | None = None,
        stages: Sequence[str] = (),
        weights: Any = None,
        file: str = "",
        device: torch.device | str | None = None,
        share: Net | None = None,
        fuse: bool = True,
    ) -> None:
        super().__init__()
        if isinstance(param, (str, os.PathLike)):
            file = file or os.fspath(param)
            param = read_net(param)
        full = caffe_pb2.NetParameter()
        full.CopyFrom(param)
        upgrade_net(full)
        if phase is not None:
            full.state.phase = as_phase(phase)
        elif not full.state.HasField("phase"):
            full.state.phase = caffe_pb2.TEST
        if level is not None:
            full.state.level = level
        full.state.stage.extend(s for s in stages if s not in full.state.stage)
        self.file = file
        self.fuse = fuse
        self.param = filter_net(full, full.state)
        self.caffe_name: str = self.param.name
        self.phase: int = full.state.phase
        self.ignored_layers: list[str] = []
        self.register_buffer("_place", torch.empty(0, device=device), persistent=False)
        self._wiring = Wiring(file)
        self._sharing: list[_Sharing] = []
        self._views: list[_Sharing] = []
        self.learnable: list[Learnable] = []
        self._sources: dict[str, Source] = {}
        try:
            self._build()
            self._allocate(weights, share)
        except BaseException:
            self.close()
            raise
        self.training = self.phase == caffe_pb2.TRAIN

    # ---- building

    def _build(self) -> None:
        wiring = self._wiring
        owners: dict[str, tuple[Learnable, set[str]]] = {}
        learns: dict[str, list[bool]] = {}
        for param in self.param.layer:
            if not param.HasField("phase"):
                param.phase = self.phase
            self._make_unique(param, learns)
            shapes = wiring.bottom_shapes(param)
            layer = layer_class(param, self.file)(param, shapes)
            tops = wiring.top_names(param, layer)
            layer.n_tops = len(tops)
            if isinstance(layer, Source):
                if layer.type_name != "Input":
                    self._sources[param.name] = layer
                top_shapes: list[Shape] = [tuple(s) for s in layer.top_shapes()]
            else:
                top_shapes = _infer(layer, shapes, self.file)
            self._add_layer(param.name, layer)
            wiring.connect(param, layer, tops, top_shapes)
            learns[param.name] = self._learnables(param, layer, owners)
        wiring.finish(learns, self.param.force_backward)
        self.steps = wiring.steps
        self.inputs = wiring.inputs
        self.outputs = wiring.outputs
        self._source_values = {
            t: v for s in self.steps if s.is_source for t, v in zip(s.tops, s.top_values, strict=True)
        }
        self._output_values = {name: wiring.newest[name] for name in self.outputs}
        self._plan()

    def _plan(self) -> None:
        self._plain = plan(self._wiring, fuse=False, propagate_all=self.param.force_backward)
        self._fused = (
            plan(self._wiring, fuse=True, propagate_all=self.param.force_backward) if self.fuse else self._plain
        )
        self._covered = [layer for call in self._fused for layer in call.covers]

    @property
    def _calls(self) -> list[Call]:
        """The calls of a pass: the fused ones, unless somebody has hooked into a layer that they would not call."""
        if not torch.compiler.is_compiling():
            for layer in self._covered:
                if (
                    layer._forward_hooks
                    or layer._forward_pre_hooks
                    or layer._backward_hooks
                    or layer._backward_pre_hooks
                ):
                    return self._plain
        return self._fused

    def _add_layer(self, name: str, layer: Layer) -> None:
        # dots in a layer's name make nested modules, so that every key of state_dict is the layer's name and the blob's;
        # add_module would refuse the names of Module's own attributes, which layer names may well be
        *path, last = name.split(".")
        parent: nn.Module = self
        for part in path:
            parent = parent._modules.setdefault(part, nn.Module())  # type: ignore[assignment]
        parent._modules[last] = layer

    def _make_unique(self, param: Any, taken: Collection[str]) -> None:
        """Number a layer whose name another has already: Caffe lets layers share one, its own examples among them."""
        name, number = param.name, 1
        while param.name in taken:
            number += 1
            param.name = f"{name} ({number})"
        if number > 1:
            log.warning(
                '%s: several layers are named "%s"; this one is called "%s"', self.file or "net", name, param.name
            )

    def _learnables(self, param: Any, layer: Layer, owners: dict[str, tuple[Learnable, set[str]]]) -> list[bool]:
        """Enter the layer's blobs among the learnable ones; return for each whether it learns.

        ``owners`` holds the named ones, and which of their rates have been given so far.
        """
        if len(param.param) > len(layer.blob_specs):
            raise layer.error(f"has {len(param.param)} param blocks, but only {len(layer.blob_specs)} blobs")
        learns = []
        for index, spec in enumerate(layer.blob_specs):
            given = param.param[index] if index < len(param.param) else caffe_pb2.ParamSpec()
            if given.name and given.name in owners:
                self._share(layer, index, given, *owners[given.name])
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
                    owners[given.name] = learnable, {field for field in RATES if given.HasField(field)}
            learns.append(given.lr_mult != 0 and spec.trainable)
        return learns

    def _share(self, layer: Layer, index: int, given: Any, owner: Learnable, rates: set[str]) -> None:
        """Let a blob be that of ``owner``, whose rates are the first that are given, by whichever of its layers."""
        spec, source = layer.blob_specs[index], owner.layer.blob_specs[owner.index]
        permissive = given.share_mode == caffe_pb2.ParamSpec.PERMISSIVE
        same = count(spec.shape) == count(source.shape) if permissive else spec.shape == source.shape
        if not same:
            raise layer.error(
                f'blob {index} shares param "{given.name}" with layer "{owner.layer.name}", but has shape '
                f"{_dims(spec.shape)} where the owner has {_dims(source.shape)}"
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
        sharing = _Sharing(layer, index, owner.layer, owner.index, spec.shape)
        self._sharing.append(sharing)
        if spec.shape != source.shape:
            self._views.append(sharing)

    def _allocate(self, weights: Any, share: Net | None) -> None:
        """Give every blob memory: that of ``share`` for its layers, else from the weights, else from its filler."""
        if share is not None:
            self.share_layers(share)
        own = [learnable for learnable in self.learnable if learnable.tensor.is_meta]
        self._check_memory(own)
        for learnable in own:
            spec = learnable.layer.blob_specs[learnable.index]
            try:
                value = torch.empty(spec.shape, device=self.device)
            except RuntimeError as error:
                reason = str(error).splitlines()[0]
                raise learnable.layer.error(f"no memory for {spec.name}, {_dims(spec.shape)}: {reason}") from error
            if spec.trainable:
                trains = learnable.lr_mult != 0 or self.param.force_backward
                value = nn.Parameter(value, requires_grad=trains)
            learnable.layer.set_blob(learnable.index, value)
        self._follow()
        loaded: set[int] = set()
        for source in _as_weight_list(weights):
            loaded |= self._copy_weights(source, None if share is None else {entry.layer.name for entry in own})
        for learnable in own:
            if id(learnable.tensor) not in loaded:
                try:
                    fill(learnable.tensor, learnable.layer.blob_specs[learnable.index].filler)
                except LayerError as error:
                    spec = learnable.layer.blob_specs[learnable.index]
                    raise _in_file(learnable.layer.error(f"{spec.name}: {error}"), self.file) from error

    def _check_memory(self, learnables: Sequence[Learnable]) -> None:
        """Refuse parameters that do not fit into memory, before any of it is taken."""
        if self.device.type != "cpu" or not learnables:
            return
        sizes = [4 * count(entry.layer.blob_specs[entry.index].shape) for entry in learnables]
        lacking = memory.lacking(sum(sizes))
        if lacking:
            most = learnables[sizes.index(max(sizes))]
            spec = most.layer.blob_specs[most.index]
            largest = f"the largest is {spec.name}, {_dims(spec.shape)}"
            raise _in_file(most.layer.error(f"the parameters of the net need {lacking}; {largest}"), self.file)

    def share_layers(self, source: Net) -> list[str]:
        """Use the blobs of ``source`` for the layers of the same names: the very same tensors from now on.

        Returns:
            The names of the layers that have blobs of their own still.

        Raises:
            LayerError: a layer has another number of blobs there, or blobs of other shapes.
        """
        own = []
        theirs = source.layers
        for name, layer in self.layers.items():
            other = theirs.get(name)
            if other is None or not other.blob_specs:
                own += [name] if layer.blob_specs else []
                continue
            mine, given = [tuple(b.shape) for b in layer.blobs], [tuple(b.shape) for b in other.blobs]
            if mine != given:
                raise layer.error(f"cannot share the blobs of the other net: shapes {mine} here, {given} there")
            for index in range(len(mine)):
                layer.set_blob(index, other.blob(index))
        self._follow()
        return own

    def _follow(self) -> None:
        """Let what points at blobs point at those that the layers have now."""
        self._reconnect()
        for learnable in self.learnable:
            learnable.tensor = learnable.layer.blob(learnable.index)

    def _reconnect(self) -> None:
        """Let every sharer of a blob see its owner's tensor: the same Parameter, or a view made anew for each pass."""
        for sharing in self._sharing:
            if sharing in self._views:
                sharing.refresh()
            else:
                sharing.layer.set_blob(sharing.index, sharing.owner.blob(sharing.owner_index))

    def _apply(self, fn: Any, recurse: bool = True) -> Net:
        # .to() and .double() may replace parameter objects; what points at them follows
        super()._apply(fn, recurse)
        self._follow()
        return self

    # ---- what it is made of

    @property
    def layers(self) -> dict[str, Layer]:
        """Every layer by its name, in order."""
        return {step.name: step.layer for step in self.steps}

    @property
    def sources(self) -> dict[str, Source]:
        """The data layers by name: what makes batches by itself."""
        return dict(self._sources)

    @property
    def blob_names(self) -> list[str]:
        """The name of every blob, in the order of creation."""
        return self._wiring.blob_names

    @property
    def blob_shapes(self) -> dict[str, Shape]:
        """The shape of every blob as built (or last reshaped); a forward pass takes any batch size."""
        return self._wiring.blob_shapes

    @property
    def loss_weights(self) -> dict[str, float]:
        """The blobs that are part of the objective, and their weights."""
        return {t: w for s in self.steps for t, w in zip(s.tops, s.loss_weights, strict=True) if w}

    @property
    def device(self) -> torch.device:
        """Where the net lives: batches are brought there."""
        return self._buffer().device

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of the net."""
        return self._buffer().dtype

    def _buffer(self) -> Tensor:
        place = self._buffers["_place"]
        assert place is not None
        return place

    def get_submodule(self, target: str) -> nn.Module:
        """As ``nn.Module.get_submodule``, also for layers that are named like an attribute of modules."""
        module: nn.Module | None = self
        for part in target.split(".") if target else ():
            module = module._modules.get(part) if module is not None else None
        return super().get_submodule(target) if module is None else module

    # ---- running

    def draw(self, given: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Take the next batch of every data layer, as tensors on the net's device.

        A data layer whose tops are all in ``given`` is left alone.
        """
        batch: dict[str, Tensor] = {}
        for step in self.steps:
            if step.name in self._sources and not (given and all(t in given for t in step.tops)):
                made = step.layer()
                for top, value in zip(step.tops, made if isinstance(made, tuple) else (made,), strict=True):
                    batch[top] = value.to(self.device, self.dtype, non_blocking=True)
        return batch

    def forward(self, *args: Any, **blobs: Tensor) -> dict[str, Tensor]:
        """Run the net and return its outputs by name.

        The inputs are given by name (``net(data=x)``), as one dict (``net({"data": x})``: names such as ``data/scaled``
        are no Python names), or as tensors in the order of ``inputs``. Data layers that are not given are drawn from.

        Raises:
            UnknownNameError: an input that the net does not have, or one that is missing.
        """
        return self._outputs(self._execute(self._gather(args, blobs), self._calls)[0])

    def objective(self, *args: Any, **blobs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Run the net and return the sum of its weighted losses (a scalar) and its outputs by name."""
        values, objective = self._execute(self._gather(args, blobs), self._calls)
        return objective, self._outputs(values)

    def run(self, *args: Any, **blobs: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Run the net, every layer as it is, and return the newest value of every blob, and the objective."""
        calls = [replace(call, frees=()) for call in self._plain]
        values, objective = self._execute(self._gather(args, blobs), calls)
        return {name: values[self._wiring.newest[name]] for name in self.blob_names}, objective

    def _outputs(self, values: dict[int, Tensor]) -> dict[str, Tensor]:
        return {name: values[value] for name, value in self._output_values.items()}

    def _gather(self, args: tuple[Any, ...], blobs: dict[str, Tensor]) -> dict[str, Tensor]:
        if len(args) == 1 and isinstance(args[0], Mapping):
            blobs = {**args[0], **blobs}
        elif args:
            if len(args) > len(self.inputs):
                raise UnknownNameError(
                    f"{len(args)} inputs given; the net has {len(self.inputs)}: {', '.join(self.inputs)}"
                )
            blobs = {**dict(zip(self.inputs, args, strict=False)), **blobs}
        if self._sources:
            blobs = {**self.draw(blobs), **blobs}
        for name in self.inputs:
            if name not in blobs:
                raise UnknownNameError(f'input "{name}" is missing; the net takes {", ".join(self.inputs)}')
        for name in blobs:
            if name not in self._source_values:
                raise self._no_input(name)
        return blobs

    def _no_input(self, name: str) -> UnknownNameError:
        inputs = ", ".join(self._source_values) or "none"
        return UnknownNameError(
            f'"{name}" is no input of the net{nearest(name, self._source_values)}; it takes {inputs}'
        )

    def _execute(self, given: dict[str, Tensor], calls: list[Call]) -> tuple[dict[int, Tensor], Tensor]:
        values = {self._source_values[name]: value for name, value in given.items()}
        objective: Tensor | None = None
        for sharing in self._views:
            sharing.refresh()
        for call in calls:
            made = _run(call, [values[v] for v in call.reads])
            for value, weight, top in zip(call.writes, call.loss_weights, made, strict=True):
                values[value] = top
                if weight:
                    part = top.sum() if weight == 1 else top.sum() * weight
                    objective = part if objective is None else objective + part
            for value in call.frees:
                del values[value]
        if objective is None:
            objective = torch.zeros((), device=self.device, dtype=self.dtype)
        return values, objective

    def trace(self, batch: Mapping[str, Tensor]) -> Iterator[tuple[Step, dict[str, Tensor]]]:
        """Run the net layer by layer; after each, yield its step and the blobs as they are then. For looking inside.

        ``batch`` holds the inputs and the tops of the data layers.
        """
        values = dict(batch)
        calls = iter(self._plain)
        for step in self.steps:
            if not step.is_source:
                made = _run(next(calls), [values[name] for name in step.bottoms])
                values.update(zip(step.tops, made, strict=True))
            yield step, values

    @torch.no_grad()
    def first_nonfinite(self, batch: Mapping[str, Tensor]) -> str | None:
        """Say which layer first holds a number that is not finite (in a parameter, else in a top), or None.

        ``batch`` holds the inputs and the tops of the data layers. The layers are run again, so dropout draws anew.
        """
        for step, values in self.trace(batch):
            for index, blob in enumerate(step.layer.blobs):
                if not bool(torch.isfinite(blob).all()):
                    return f'layer "{step.name}" ({step.layer.type_name}), parameter {index} ({_bad(blob)})'
            for top in step.tops:
                if not bool(torch.isfinite(values[top]).all()):
                    return f'layer "{step.name}" ({step.layer.type_name}), top "{top}" ({_bad(values[top])})'
        return None

    # ---- changing it

    def reshape(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Give inputs new shapes and work out the shapes of all blobs again, as Caffe's ``Net::Reshape``.

        Raises:
            UnknownNameError: a name that is not an input.
            LayerError: a layer that cannot take its new bottom; the shapes are as they were then.
        """
        for name in shapes:
            if name not in self.inputs:
                raise self._no_input(name)
        new = list(self._wiring.shapes)
        for step in self.steps:
            if step.layer.type_name == "Input":
                tops: list[Shape] = [
                    tuple(shapes.get(t, new[v])) for t, v in zip(step.tops, step.top_values, strict=True)
                ]
            elif isinstance(step.layer, Source):
                tops = [tuple(s) for s in step.layer.top_shapes()]
            else:
                tops = _infer(step.layer, [new[v] for v in step.bottom_values], self.file)
            for value, shape in zip(step.top_values, tops, strict=True):
                new[value] = shape
        self._wiring.shapes = new
        self._plan()

    def load_weights(self, weights: Any) -> None:
        """Copy weights into the layers of the same names, by Caffe's rules.

        Layers that the weights do not hold keep their values; layers that only the weights hold are listed in
        ``ignored_layers``. ``weights`` is a path, a :class:`~pycaffe_compat.proto.Weights`, or a list of them.

        Raises:
            WeightsError: a layer with another number of blobs, or a blob of another shape; both shapes and files are named.
        """
        for source in _as_weight_list(weights):
            self._copy_weights(source)

    @torch.no_grad()
    def _copy_weights(self, weights: Weights, only: set[str] | None = None) -> set[int]:
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
                        f'layer "{name}", blob {index}: shape {_dims(blob.shape)} in {self.file or "the net"}, '
                        f"but {_dims(stored)} in {weights.file}. To train it anew, give the layer another name"
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

    def weights(self) -> dict[str, list[Tensor]]:
        """The blobs of every layer that has any, by layer name."""
        return {step.name: [b.detach() for b in step.layer.blobs] for step in self.steps if step.layer.blob_specs}

    def save(self, path: PathLike, diffs: bool = False, hdf5: bool | None = None) -> None:
        """Write the weights as a ``.caffemodel``, or in Caffe's HDF5 form; ``diffs`` writes the gradients too.

        ``hdf5`` None goes by the ending: ``.h5`` is HDF5.
        """
        blobs = {name: [b.cpu().numpy() for b in tensors] for name, tensors in self.weights().items()}
        grads = None
        if diffs:
            grads = {
                step.name: [
                    (torch.zeros_like(b) if b.grad is None else b.grad).detach().cpu().numpy() for b in step.layer.blobs
                ]
                for step in self.steps
                if step.layer.blob_specs
            }
        write_weights(path, self.param, blobs, diffs=grads, hdf5=hdf5)

    def close(self) -> None:
        """Stop the data layers' background work and close their files."""
        for source in self._sources.values():
            source.close()

    def extra_repr(self) -> str:
        """The net's own name, its phase, inputs and outputs, for ``print(net)``."""
        phase = caffe_pb2.Phase.Name(self.phase)
        return f"name={self.caffe_name!r}, phase={phase}, inputs={self.inputs}, outputs={self.outputs}"


def load(prototxt: PathLike, weights: Any = None, phase: int | str = "TEST", **options: Any) -> Net:
    """Read a net for PyTorch: the ``nn.Module`` that ``prototxt`` describes, with ``weights`` in it.

    Args:
        prototxt: path of the net, in any format Caffe ever had.
        weights: path of a ``.caffemodel`` or ``.caffemodel.h5``, or a list of paths; None leaves Caffe's fillers.
        phase: ``"TEST"`` (the module comes in eval mode) or ``"TRAIN"``.
        options: ``level``, ``stages``, ``device`` of :class:`Net`.

    Returns:
        The module: called with tensors by input name, it returns a dict of the outputs by name.
    """
    return Net(prototxt, phase, weights=weights, **options)


def _run(call: Call, bottoms: list[Tensor]) -> tuple[Tensor, ...]:
    if call.detach:
        bottoms = [b.detach() if cut else b for b, cut in zip(bottoms, call.detach, strict=True)]
    made = call.run(*bottoms)
    if isinstance(made, tuple):
        return made
    return (made,) if call.writes else ()


@torch.no_grad()
def _infer(layer: Layer, bottom_shapes: Sequence[Shape], file: str) -> list[Shape]:
    """The shapes of a layer's tops, by running it on the meta device."""
    state = {n: p.to("meta") for n, p in (*layer.named_parameters(), *layer.named_buffers())}
    try:
        bottoms = tuple(torch.empty(shape, device="meta") for shape in bottom_shapes)
        made = torch.func.functional_call(layer, state, bottoms)
    except CaffeError as error:
        raise _in_file(error, file) from error
    except (RuntimeError, ValueError, IndexError) as error:
        shapes = ", ".join(_dims(s) for s in bottom_shapes) or "none"
        raise _in_file(layer.error(f"does not fit its bottoms (shapes: {shapes}): {error}"), file) from error
    if not isinstance(made, tuple):
        made = (made,) if isinstance(made, Tensor) else ()
    return [tuple(t.shape) for t in made]


def _in_file(error: CaffeError, file: str) -> CaffeError:
    return type(error)(f"{file}: {error}") if file and isinstance(error, LayerError) else error


def _as_weight_list(weights: Any) -> list[Weights]:
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


def _dims(shape: Sequence[int]) -> str:
    return "×".join(str(n) for n in shape) or "scalar"


def _bad(value: Tensor) -> str:
    flat = value.detach().float()
    return f"{int(torch.isnan(flat).sum())} NaN and {int(torch.isinf(flat).sum())} infinite of {flat.numel()} values"


__all__ = ["DivergedError", "Learnable", "Net", "as_phase", "load"]

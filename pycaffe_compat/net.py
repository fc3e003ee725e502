"""A Caffe net as an ``nn.Module``."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .errors import CaffeError, NetError, ParseError, UnknownNameError, in_file, nearest
from .forks import all_forks, fork_named
from .layers import Layer, Source
from .layers.base import Shape
from .layers.data_layers import BatchSource
from .layers.making import MISFITS, infer_shapes, make_layer
from .layers.neuron import Overwritten
from .layers.registry import check_layers, missing_types
from .loading import BlobKey, LoadReport, held_weights
from .memory.exhaustion import is_exhausted
from .ops.functions import is_exporting
from .parameters import BlobTable, Learnable
from .plan import Call, plan
from .proto import as_phase, caffe_pb2, current, filter_net, read_net, upgrade_net, use_proto, write_weights
from .proto.additions import unsupported
from .proto.alignment import align_crops
from .proto.recognise import forks_of, mixture
from .tables import dims
from .wiring import Step, Wiring

log = logging.getLogger(__name__)
PathLike = str | os.PathLike[str]


def _full_param(param: Any, fork: str) -> Any:
    """The upgraded ``NetParameter`` of a net, with the layers of all phases.

    Args:
        param: the path of a prototxt, or a ``NetParameter``, which stays as it is.
        fork: the fork that the net is of; empty where it is not known.

    Raises:
        MissingFileError, ParseError, NetError: the file is missing or cannot be parsed, or ``param`` is something else.
    """
    if isinstance(param, (str, os.PathLike)):
        try:
            param = read_net(param, fork)
        except ParseError as error:
            raise type(error)(f"{error}{missing_types(error.layer_types)}") from None
    if not hasattr(param, "DESCRIPTOR") or param.DESCRIPTOR.name != "NetParameter":
        raise NetError(
            f"a net must be the path of a prototxt or a NetParameter, not {param!r} ({type(param).__name__})"
        )
    full = caffe_pb2.NetParameter()
    full.CopyFrom(current(param))
    upgrade_net(full)
    if fork:
        full.fork = fork_named(fork).name
    return full


class CaffeModule(nn.Module):
    """The net that a ``NetParameter`` describes, for one phase, level and set of stages.

    Every layer is a submodule under its own name, so ``state_dict`` has ``conv1_1.weight``. In-place layers and
    shared blobs are ordinary values: each write makes a new tensor, and a name refers to the newest one.

    Args:
        param: the net, or the path of its prototxt.
        phase: ``TRAIN`` or ``TEST``; None takes it from the net's own ``state`` (``TEST`` if it has none).
        level, stages: added to the net's ``state``, for ``include`` and ``exclude`` rules.
        weights: a caffemodel (path or :class:`~pycaffe_compat.proto.Weights`), or several; blobs that they hold are
            not filled first.
        file: where ``param`` came from, for error messages.
        device: where the parameters live.
        share: a net whose blobs (the same memory) are used by layers of the same names, such as a test net's train net.
        fuse: run ReLU inside poolings, pass switches on as bytes, and so on (:mod:`pycaffe_compat.plan`), with
            unchanged results.
        fork: the fork of Caffe that the net is for, such as ``"segnet"``, if several are possible.
        proto: the user's own ``caffe.proto``, used to read the net (:func:`pycaffe_compat.proto.use_proto`).

    Attributes:
        inputs, outputs: the tops of ``Input`` layers; the blobs that no layer consumes, in alphabetical order.
        steps: the layers in order, with the names they read and write.
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
        share: CaffeModule | None = None,
        fuse: bool = True,
        fork: str = "",
        proto: PathLike = "",
    ) -> None:
        super().__init__()
        if proto:
            name = use_proto(proto)
            fork = fork or name
        if isinstance(param, (str, os.PathLike)):
            file = file or os.fspath(param)
        full = _full_param(param, fork)
        if phase is not None:
            full.state.phase = as_phase(phase)
        elif not full.state.HasField("phase"):
            full.state.phase = caffe_pb2.TEST
        if level is not None:
            full.state.level = level
        full.state.stage.extend(s for s in stages if s not in full.state.stage)
        self.file = file
        self.fuse = fuse
        try:
            self.param = filter_net(full, full.state)
        except NetError as error:
            raise in_file(error, file) from error
        for each in all_forks():
            if each.prepare is not None:
                each.prepare(self.param)
        align_crops(self.param, forks_of(self.param), file)
        self.caffe_name: str = self.param.name
        self.phase: int = full.state.phase
        self.register_buffer("_place", _empty_on(device), persistent=False)
        self._wiring = Wiring(file, full)
        self._table = BlobTable(file, self.param.force_backward)
        self._sources: dict[str, Source] = {}
        try:
            self._build()
            held = held_weights(self.param, file)
            self._table.allocate(weights, share._table if share is not None else None, self.device, held)
            self._prepare()
        except BaseException:
            self.close()
            raise
        self.training = self.phase == caffe_pb2.TRAIN

    # ---- building

    def _build(self) -> None:
        wiring = self._wiring
        learns: dict[str, list[bool]] = {}
        likely = forks_of(self.param)
        self._check_fork_fields()
        check_layers(self.param, self.file, likely)
        if not self.param.fork and (mixed := mixture(self.param)):
            log.info("%s: %s", self.file or "the net", mixed)
        for param in self.param.layer:
            try:
                self._build_layer(param, learns, likely)
            except CaffeError as error:
                raise in_file(error, self.file) from error
        wiring.finish(learns, self.param.force_backward)
        self.steps = wiring.steps
        self.inputs = wiring.inputs
        self.outputs = wiring.outputs
        self._source_values = {
            t: v for s in self.steps if s.is_source for t, v in zip(s.tops, s.top_values, strict=True)
        }
        self._output_values = {name: wiring.newest[name] for name in self.outputs}
        self._checks_makers = any(step.layer.checks_makers for step in self.steps)
        self._checked_sizes = {tuple(wiring.shapes[value][1:] for value in self._source_values.values())}
        self._find_rewritten()
        self._plan()

    def _build_layer(self, param: Any, learns: dict[str, list[bool]], likely: Sequence[str]) -> None:
        """Make the layer ``param``, and connect it; note in ``learns`` which of its blobs learn."""
        wiring = self._wiring
        if not param.HasField("phase"):
            param.phase = self.phase
        self._make_unique(param, learns)
        shapes = wiring.bottom_shapes(param)
        layer = make_layer(param, shapes, self.file, self.param.fork, likely)
        tops = wiring.top_names(param, layer)
        layer.n_tops = len(tops)
        if isinstance(layer, Source):
            if not layer.is_input:
                self._sources[param.name] = layer
            top_shapes: list[Shape] = [tuple(s) for s in layer.top_shapes()]
        else:
            top_shapes = self._infer(layer, [wiring.newest[bottom] for bottom in param.bottom], wiring.shapes)
        self._add_layer(param.name, layer)
        wiring.connect(param, layer, tops, top_shapes)
        learns[param.name] = self._table.enter(param, layer)

    def _check_fork_fields(self) -> None:
        if refused := unsupported(self.param, {"fork"}, set()):
            raise NetError(f"{self.file or 'the net'}: not supported: {'; '.join(refused)}")

    def shapes_for(self, given: Mapping[str, Shape]) -> list[Shape]:
        """The shapes of all values if the tops of sources have the shapes ``given``; the others keep theirs."""
        new = list(self._wiring.shapes)
        for step in self.steps:
            if step.is_source:
                tops = [given.get(top, new[value]) for top, value in zip(step.tops, step.top_values, strict=True)]
            else:
                tops = self._infer(step.layer, step.bottom_values, new)
            for value, shape in zip(step.top_values, tops, strict=True):
                new[value] = shape
        return new

    def _infer(self, layer: Layer, values: Sequence[int], shapes: Sequence[Shape]) -> list[Shape]:
        """The shapes of a layer's tops; its bottoms are ``values``, and all values have ``shapes``."""
        self._check_makers(layer, values, shapes)
        return infer_shapes(layer, [shapes[value] for value in values], self.file)

    def _check_makers(self, layer: Layer, values: Sequence[int], shapes: Sequence[Shape]) -> None:
        if layer.checks_makers:
            try:
                layer.check_makers(self._wiring.makers(values, shapes), [shapes[value] for value in values])
            except CaffeError as error:
                raise in_file(error, self.file) from error

    def _prepare(self) -> None:
        """Let the layers make what they carry from pass to pass, in the shapes of their bottoms."""
        for step in self.steps:
            step.layer.prepare([self._wiring.shapes[v] for v in step.bottom_values], self.device)
        # the name that DistributedDataParallel looks for: it copies all other buffers from rank 0
        self._ddp_params_and_buffers_to_ignore = [
            f"{step.name}.{name}" for step in self.steps for name in step.layer.per_process
        ]

    def _find_rewritten(self) -> None:
        """Tell the layers whose derivative Caffe reads from memory that later layers, in place, write to."""
        self._rewritten: dict[int, list[Overwritten]] = {}  # the value that is there in the end -> who reads it
        for index, step in enumerate(self.steps):
            layer = step.layer
            if not isinstance(layer, Overwritten) or not (layer.in_place or layer.reads_top):
                continue
            later = [s for s in self.steps[index + 1 :] if step.tops[0] in s.tops]
            if not all(layer.withstands(s.layer) for s in later):
                layer.rewritten = True
                self._rewritten.setdefault(self._wiring.newest[step.tops[0]], []).append(layer)

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

    def __setattr__(self, name: str, value: Any) -> None:
        # a layer may be called as an attribute of the net: "inputs", "training"
        if name in self.__dict__.get("_modules", ()) and not isinstance(value, nn.Module):
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._table.follow()

    def _apply(self, fn: Any, recurse: bool = True) -> CaffeModule:
        # .to() and .double() may replace parameter objects; what points at them follows
        super()._apply(fn, recurse)
        self._table.follow()
        return self

    # ---- what it is made of

    @property
    def layers(self) -> dict[str, Layer]:
        """Every layer by its name, in order."""
        return dict(self._table.layers)

    @property
    def learnable(self) -> list[Learnable]:
        """The blobs that a solver updates, each once, in order."""
        return self._table.learnable

    @property
    def load_report(self) -> LoadReport:
        """What the weights loaded last gave, by file: which layers were loaded, missing, ignored, reshaped."""
        return self._table.report

    @property
    def ignored_layers(self) -> list[str]:
        """Names of layers in the weights loaded last, in any of their files, that the net does not have."""
        return self.load_report.ignored

    @property
    def sources(self) -> dict[str, Source]:
        """The data layers by name: what makes batches by itself."""
        return dict(self._sources)

    @property
    def wiring(self) -> Wiring:
        """Which layer makes and reads which value; the net's own, not to be changed."""
        return self._wiring

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
        """Like ``nn.Module.get_submodule``, but also finds layers named like an attribute of modules."""
        module: nn.Module | None = self
        for part in target.split(".") if target else ():
            module = module._modules.get(part) if module is not None else None
        return super().get_submodule(target) if module is None else module

    # ---- running

    def draw(
        self, given: Mapping[str, Tensor] | None = None, *, device_transform: bool | None = None
    ) -> dict[str, Tensor]:
        """Take the next batch of every data layer, as tensors on the net's device.

        A data layer whose tops are all in ``given`` is skipped. ``device_transform`` is set for all layers that can
        (:meth:`transform_on_device`); None leaves them as they are.
        """
        if device_transform is not None:
            self.transform_on_device(device_transform)
        batch: dict[str, Tensor] = {}
        for step in self.steps:
            source = self._sources.get(step.name)
            if source is not None and not (given and all(t in given for t in step.tops)):
                source.device = self.device
                made = source()
                for top, value in zip(step.tops, made if isinstance(made, tuple) else (made,), strict=True):
                    batch[top] = value.to(self.device, self.dtype, non_blocking=True)
        return batch

    def transform_on_device(self, on: bool = True) -> list[str]:
        """Let data layers make batches of bytes that the net's device turns into floats (mean, scale, mirror), or not.

        The numbers are the same. A layer goes on at its next batch. Returns the names of the layers that can.
        """
        able = []
        for name, source in self._sources.items():
            if isinstance(source, BatchSource) and source.transforms_bytes:
                source.device_transform = on
                able.append(name)
        return able

    def forward(self, *args: Any, **blobs: Tensor) -> dict[str, Tensor]:
        """Run the net and return its outputs by name.

        The inputs are given by name (``net(data=x)``), as one dict (``net({"data": x})``: names such as ``data/scaled``
        are not Python names), or as tensors in the order of ``inputs``. Data layers that are not given draw a batch.
        NumPy arrays become tensors of the net's dtype on its device.

        Raises:
            TypeError: an input is neither a tensor nor an array.
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

    def run_part(self, steps: Collection[Step], blobs: Mapping[str, Tensor]) -> dict[int, Tensor]:
        """Run some of the net's steps alone, every layer as it is; return the values by their numbers in the steps.

        ``blobs`` holds the tops of those sources that the steps need.
        """
        names = {step.name for step in steps}
        layers = (step for step in self.steps if not step.is_source)
        calls = [replace(call, frees=()) for step, call in zip(layers, self._plain, strict=True) if step.name in names]
        return self._execute(dict(blobs), calls)[0]

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
        for name in blobs:
            if name not in self._source_values:
                raise self._no_input(name)
        for name in self.inputs:
            if name not in blobs:
                raise UnknownNameError(f'input "{name}" is missing; the net takes {", ".join(self.inputs)}')
        if not all(isinstance(value, Tensor) for value in blobs.values()):
            blobs = {name: self._tensor(name, value) for name, value in blobs.items()}
        if self._checks_makers and not (torch.compiler.is_compiling() or torch.jit.is_tracing()):
            self._check_sizes({name: tuple(value.shape) for name, value in blobs.items()})
        return blobs

    def _check_sizes(self, shapes: dict[str, Shape]) -> None:
        """Let the layers check a batch of other sizes than the net was built for."""
        sizes = tuple(shapes[name][1:] for name in self._source_values)
        if sizes not in self._checked_sizes:
            self.shapes_for(shapes)
            self._checked_sizes.add(sizes)

    def _tensor(self, name: str, given: Any) -> Tensor:
        if isinstance(given, np.ndarray):
            return torch.as_tensor(np.ascontiguousarray(given), device=self.device).to(self.dtype)
        if not isinstance(given, Tensor):
            raise TypeError(f'input "{name}" must be a tensor or a NumPy array, not a {type(given).__name__}')
        return given

    def _no_input(self, name: str) -> UnknownNameError:
        inputs = ", ".join(self._source_values) or "none"
        return UnknownNameError(
            f'"{name}" is not an input of the net{nearest(name, self._source_values)}; it takes {inputs}'
        )

    def _execute(self, given: dict[str, Tensor], calls: list[Call]) -> tuple[dict[int, Tensor], Tensor]:
        if torch.jit.is_tracing() or is_exporting():
            self._refuse_untraceable()
        if torch.compiler.is_compiling():
            return self._compute(given, calls)
        try:
            return self._compute(given, calls)
        except MISFITS as error:
            if not isinstance(error, CaffeError) and not is_exhausted(error):
                self._check_shapes({name: tuple(value.shape) for name, value in given.items()}, error)
            raise

    def _refuse_untraceable(self) -> None:
        """Raise if a layer visits what values say, of which a trace would keep those of one input, and say nothing."""
        for layer in self.layers.values():
            if not layer.traceable:
                raise layer.error(
                    "a trace would repeat what it does for one input; pycaffe_compat.export writes ONNX and source without that "
                    "limit, or remove the layer before tracing"
                )

    def _check_shapes(self, given: dict[str, Shape], error: Exception) -> None:
        """Raise if a pass failed for inputs of other shapes than the net was built for, or without values."""
        built = {name: self._wiring.shapes[self._source_values[name]] for name in given}
        self.shapes_for(given)  # names the layer that does not fit
        batches = {(built[name][:1], given[name][:1]) for name in given}
        consistent = len({before for before, _ in batches}) == len(batches)
        if consistent and all(all(shape) and shape[1:] == built[name][1:] for name, shape in given.items()):
            return
        shapes = ", ".join(f"{name} {dims(shape)}" for name, shape in given.items())
        raise NetError(
            f"{self.file or 'the net'}: cannot run with inputs of these shapes ({shapes}): {error}"
        ) from error

    def _compute(self, given: dict[str, Tensor], calls: list[Call]) -> tuple[dict[int, Tensor], Tensor]:
        values = {self._source_values[name]: value for name, value in given.items()}
        rewritten = {} if torch.compiler.is_compiling() else self._rewritten
        objective: Tensor | None = None
        for sharing in self._table.views:
            sharing.refresh()
        for call in calls:
            made = _run(call, [values[v] for v in call.reads])
            for value, weight, top in zip(call.writes, call.loss_weights, made, strict=True):
                values[value] = top
                for layer in rewritten.get(value, ()):
                    layer.memory.value = top.detach()
                if weight:
                    total = (top.detach() if call.muted else top).sum()
                    part = total if weight == 1 else total * weight
                    objective = part if objective is None else objective + part
            for value in call.frees:
                del values[value]
        if objective is None:
            objective = torch.zeros((), device=self.device, dtype=self.dtype)
        return values, objective

    def trace(self, batch: Mapping[str, Tensor]) -> Iterator[tuple[Step, dict[str, Tensor]]]:
        """Run the net layer by layer; after each, yield its step and the blobs at that point. For inspection.

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

        ``batch`` holds the inputs and the tops of the data layers. The layers are run again, so dropout draws again.
        """
        for step, values in self.trace(batch):
            for index, blob in enumerate(step.layer.blobs):
                if not bool(torch.isfinite(blob).all()):
                    return f'layer "{step.name}" ({step.layer.type_name}), parameter {index} ({_bad(blob)})'
            for top in step.tops:
                if not bool(torch.isfinite(values[top]).all()):
                    return f'layer "{step.name}" ({step.layer.type_name}), top "{top}" ({_bad(values[top])})'
        return None

    def check_step(self, step: Step, shape_of: Callable[[str], Shape]) -> None:
        """Let a layer check its bottoms against the layers that made them, for whoever runs layers one by one.

        Args:
            step: the layer in its place.
            shape_of: the present shape of a blob.

        Raises:
            LayerError: the layer would misread a bottom.
        """
        if step.layer.checks_makers:
            self._check_makers(step.layer, step.bottom_values, [shape_of(name) for name in self._wiring.names])

    # ---- changing it

    def reshape(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Give inputs new shapes and recompute the shapes of all blobs, like Caffe's ``Net::Reshape``.

        Raises:
            UnknownNameError: a name that is not an input.
            LayerError: a layer cannot take its new bottom; all shapes stay as they were.
        """
        for name in shapes:
            if name not in self.inputs:
                raise self._no_input(name)
        given = {name: tuple(shape) for name, shape in shapes.items()}
        for step in self.steps:
            if step.name in self._sources:
                given.update(zip(step.tops, map(tuple, self._sources[step.name].top_shapes()), strict=True))
        self._wiring.shapes = self.shapes_for(given)
        self._plan()
        self._prepare()

    def load_weights(self, weights: Any) -> LoadReport:
        """Copy weights into the layers of the same names, by Caffe's rules.

        ``weights`` is a path, a :class:`~pycaffe_compat.proto.Weights`, or a list of them: each is copied in turn.
        Layers without stored weights keep their values.

        Returns:
            For each file the layers that were loaded from it, those it does not hold, those that only it holds, and the
            blobs that it stores in another shape. :attr:`load_report` is the newest of these.

        Raises:
            WeightsError: a layer has a different number of blobs, or a blob a different shape; both shapes and files are named.
        """
        return self._table.load(weights)

    def share_layers(self, source: CaffeModule) -> list[str]:
        """Use the blobs of ``source`` for the layers of the same names: from now on they are the same tensors.

        Returns:
            The names of the layers that still have their own blobs.

        Raises:
            LayerError: a layer has a different number of blobs there, or different shapes.
        """
        return self._table.share_layers(source._table)

    def blob_owners(self) -> dict[str, list[BlobKey]]:
        """For each layer, the owner (layer and index) of each of its blobs: the blob itself unless it is shared."""
        return self._table.owners()

    def weights(self) -> dict[str, list[Tensor]]:
        """The blobs of every layer that has any, by layer name."""
        return {step.name: [b.detach() for b in step.layer.blobs] for step in self.steps if step.layer.blob_specs}

    def save(self, path: PathLike, diffs: bool = False, hdf5: bool | None = None) -> None:
        """Write the weights as a ``.caffemodel``, or in Caffe's HDF5 form; ``diffs`` writes the gradients too.

        With ``hdf5`` None the ending decides: ``.h5`` is HDF5.
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


def load(prototxt: PathLike, weights: Any = None, phase: int | str = "TEST", **options: Any) -> CaffeModule:
    """Read a net for PyTorch: the ``nn.Module`` that ``prototxt`` describes, with ``weights`` in it.

    Args:
        prototxt: path of the net, in any format that Caffe ever used.
        weights: path of a ``.caffemodel`` or ``.caffemodel.h5``, or a list of paths; None leaves Caffe's fillers.
        phase: ``"TEST"`` (the module comes in eval mode) or ``"TRAIN"``.
        options: ``level``, ``stages``, ``device``, ``fork``, ``proto``, as for :class:`CaffeModule`.

    Returns:
        The module. Called with tensors by input name, it returns a dict of the outputs by name. Its ``load_report`` says
        what each file of weights gave; layers that no file has weights for are also logged as a warning.
    """
    net = CaffeModule(prototxt, phase, weights=weights, **options)
    if gaps := net.load_report.gaps():
        log.warning("%s: %s", os.fspath(prototxt), gaps)
    return net


def _run(call: Call, bottoms: list[Tensor]) -> tuple[Tensor, ...]:
    if call.detach:
        bottoms = [b.detach() if cut else b for b, cut in zip(bottoms, call.detach, strict=True)]
    made = call.run(*bottoms)
    if isinstance(made, tuple):
        return made
    return (made,) if call.writes else ()


def _empty_on(device: torch.device | str | None) -> Tensor:
    try:
        return torch.empty(0, device=device)
    except (AssertionError, RuntimeError) as error:  # a PyTorch without CUDA asserts
        if is_exhausted(error):
            raise
        raise CaffeError(f"device {device}: {str(error).splitlines()[0]}") from error


def _bad(value: Tensor) -> str:
    flat = value.detach().float()
    return f"{int(torch.isnan(flat).sum())} NaN and {int(torch.isinf(flat).sum())} infinite of {flat.numel()} values"


Net = CaffeModule  # its short name within the package, and its name in pickles of version 0.1

__all__ = ["CaffeModule", "Learnable", "Net", "as_phase", "load"]

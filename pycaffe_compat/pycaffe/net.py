"""Caffe's ``Net`` for numpy: blobs and parameters as live arrays, layers run one by one."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import net as torch_net
from ..errors import CaffeError, LayerError, UnknownNameError, nearest
from ..layers import Layer, Source
from ..layers.base import BlobSpec
from ..net import Learnable
from ..wiring import Step
from .blob import Blob, ParameterArray
from .mode import current_device

PathLike = str | os.PathLike[str]
Callback = Callable[[int], Any]


class NetLayer:
    """A layer as the numpy face shows it: its Caffe ``type``, its parameter ``blobs``, and the ``module`` behind it."""

    def __init__(self, module: Layer, blobs: list[Blob]) -> None:
        self.module = module
        self.blobs = blobs

    @property
    def name(self) -> str:
        return self.module.name

    @property
    def type(self) -> str:
        return self.module.type_name

    def __repr__(self) -> str:
        return f"<{self.type} layer {self.name!r}>"


class _Names(OrderedDict[str, Any]):
    """A dict by name whose missing keys are answered with the names that are spelt alike."""

    def __init__(self, what: str, items: Iterable[tuple[str, Any]] = ()) -> None:
        super().__init__(items)
        self._what = what

    def __missing__(self, name: str) -> Any:
        raise UnknownNameError(f'the net has no {self._what} "{name}"{nearest(str(name), self)}')


class Net:
    """A Caffe net to run, look into and operate on with numpy, as in pycaffe.

    ``Net(network_file, phase)``, ``Net(network_file, weights_file, phase)`` and the keywords ``level``, ``stages`` and
    ``weights`` work as there. ``module`` is the :class:`pycaffe_compat.net.Net` behind it, with the same parameters.

    Attributes:
        blobs: name → :class:`Blob`, in order.
        params: layer name → its parameter blobs.
        inputs, outputs: names.
        layers: the layers in order; ``layer_dict`` by name.
        top_names, bottom_names: layer name → blob names.
    """

    def __init__(
        self,
        network_file: PathLike,
        *args: Any,
        phase: int | str | None = None,
        level: int = 0,
        stages: Sequence[str] | None = None,
        weights: PathLike | None = None,
    ) -> None:
        positional = list(args)
        if positional and isinstance(positional[0], (str, os.PathLike)) and str(positional[0]).upper() not in ("TRAIN", "TEST"):
            weights = positional.pop(0)
        if positional:
            phase = positional.pop(0)
        if positional or phase is None:
            raise TypeError("Net takes (network_file, phase) or (network_file, weights_file, phase), and the keywords level, stages, weights")
        self._bind(
            torch_net.Net(network_file, phase, level=level, stages=stages or (), weights=weights, device=current_device())
        )

    @classmethod
    def of(cls, module: torch_net.Net) -> Net:
        """The numpy face of a module, sharing its parameters."""
        face = cls.__new__(cls)
        face._bind(module)
        return face

    def _bind(self, module: torch_net.Net) -> None:
        self.module = module
        self._steps: list[Step] = module.steps
        self._index = {step.name: i for i, step in enumerate(self._steps)}
        self._graph: list[tuple[list[Tensor], tuple[Tensor, ...]] | None] = [None] * len(self._steps)
        self._before_forward: list[Callback] = []
        self._after_forward: list[Callback] = []
        self._before_backward: list[Callback] = []
        self._after_backward: list[Callback] = []
        weights = module.loss_weights
        shapes = module.blob_shapes
        self.blobs: OrderedDict[str, Blob] = _Names(
            "blob", ((n, Blob.empty(shapes[n], module.device, weights.get(n, 0.0))) for n in module.blob_names)
        )
        made: dict[int, Blob] = {}
        self._learnable_blobs: list[tuple[Learnable, Blob]] = []
        for learnable in module.learnable:
            blob = _parameter_blob(learnable)
            made[id(learnable.tensor)] = blob
            self._learnable_blobs.append((learnable, blob))
        self.layers = [NetLayer(s.layer, [self._layer_blob(s.layer, i, made) for i in range(len(s.layer.blob_specs))]) for s in self._steps]
        self.params: OrderedDict[str, list[Blob]] = _Names(
            "layer with parameters", ((la.name, la.blobs) for la in self.layers if la.blobs)
        )
        self._consumers: dict[int, list[int]] = {}
        for i, step in enumerate(self._steps):
            for value in step.bottom_values:
                self._consumers.setdefault(value, []).append(i)

    @staticmethod
    def _layer_blob(layer: Layer, index: int, made: dict[int, Blob]) -> Blob:
        tensor = layer.blob(index)
        if id(tensor) in made:
            return made[id(tensor)]
        # a view of another layer's blob (share_mode: PERMISSIVE): same memory, this layer's shape
        owner = next(blob for blob in made.values() if blob.synced_data.tensor().data_ptr() == tensor.data_ptr())
        shape = tuple(tensor.shape)
        return Blob(
            ParameterArray(lambda: owner.synced_data.tensor().view(shape)),
            ParameterArray(lambda: owner.synced_diff.tensor().view(shape)),
        )

    # ---- names

    @property
    def inputs(self) -> list[str]:
        """The blobs that the caller fills."""
        return list(self.module.inputs)

    @property
    def outputs(self) -> list[str]:
        """The blobs that no layer consumes."""
        return list(self.module.outputs)

    @property
    def name(self) -> str:
        return self.module.caffe_name

    @property
    def layer_dict(self) -> OrderedDict[str, NetLayer]:
        """The layers by name."""
        return _Names("layer", ((layer.name, layer) for layer in self.layers))

    @property
    def top_names(self) -> OrderedDict[str, list[str]]:
        """Layer name → the names of its tops."""
        return _Names("layer", ((s.name, list(s.tops)) for s in self._steps))

    @property
    def bottom_names(self) -> OrderedDict[str, list[str]]:
        """Layer name → the names of its bottoms."""
        return _Names("layer", ((s.name, list(s.bottoms)) for s in self._steps))

    @property
    def blob_loss_weights(self) -> OrderedDict[str, float]:
        """Blob name → its weight in the objective."""
        weights = self.module.loss_weights
        return OrderedDict((name, weights.get(name, 0.0)) for name in self.blobs)

    @property
    def _layer_names(self) -> list[str]:
        return [step.name for step in self._steps]

    @property
    def _blob_names(self) -> list[str]:
        return list(self.blobs)

    def _layer_index(self, name: str) -> int:
        if name not in self._index:
            raise UnknownNameError(f'the net has no layer "{name}"{nearest(name, self._index)}')
        return self._index[name]

    # ---- forward

    def _forward(self, start: int, end: int) -> float:
        """Run the layers ``start`` to ``end`` (both included); return the sum of their weighted losses."""
        self.sync_params()
        losses = []
        self._graph[start : end + 1] = [None] * (end + 1 - start)
        for index in range(start, end + 1):
            for callback in self._before_forward:
                callback(index)
            losses += self._forward_step(index)
            for callback in self._after_forward:
                callback(index)
        return float(torch.stack(losses).sum()) if losses else 0.0

    def _forward_step(self, index: int) -> list[Tensor]:
        step = self._steps[index]
        layer = step.layer
        if isinstance(layer, Source):
            if layer.type_name != "Input":
                made = layer()
                for top, value in zip(step.tops, made if isinstance(made, tuple) else (made,), strict=True):
                    self.blobs[top].synced_data.set(value.to(self.module.device))
            return []
        bottoms = [self.blobs[name].synced_data.tensor() for name in step.bottoms]
        try:
            if step.needs_backward:
                bottoms = [b.detach().requires_grad_(needs) for b, needs in zip(bottoms, step.bottom_needs, strict=True)]
                with torch.enable_grad():
                    made = layer(*bottoms)
            else:
                with torch.no_grad():
                    made = layer(*bottoms)
        except CaffeError:
            raise
        except (RuntimeError, ValueError, IndexError) as error:
            shapes = ", ".join(str(tuple(b.shape)) for b in bottoms)
            raise layer.error(f"cannot run on bottoms of shape {shapes}: {error}") from error
        tops = made if isinstance(made, tuple) else ((made,) if step.tops else ())
        self._graph[index] = (bottoms, tops) if step.needs_backward else None
        losses = []
        for top, weight, value in zip(step.tops, step.loss_weights, tops, strict=True):
            blob = self.blobs[top]
            blob.synced_data.set(value)
            if blob.synced_diff.shape != blob.synced_data.shape:
                blob.synced_diff.resize(blob.synced_data.shape)
            if weight:
                losses.append(value.detach().sum() * weight)
        return losses

    def forward(
        self, blobs: Sequence[str] | None = None, start: str | None = None, end: str | None = None, **kwargs: Any
    ) -> dict[str, np.ndarray]:
        """Run the net, or the layers from ``start`` to ``end`` by name, and return output arrays by blob name.

        ``kwargs`` are arrays for the inputs; all inputs or none. ``blobs`` names blobs to return besides the outputs.

        Raises:
            UnknownNameError: a name that the net does not have.
            CaffeError: an input of another batch size or shape than its blob.
        """
        extra = list(blobs or [])
        first = self._layer_index(start) if start is not None else 0
        last = self._layer_index(end) if end is not None else len(self._steps) - 1
        outputs = list(self._steps[last].tops) if end is not None else self.outputs
        if kwargs:
            self._check_names(kwargs, self.inputs, "input")
            for name, value in kwargs.items():
                self._fill(name, "data", np.asarray(value))
        self._forward(first, last)
        return {name: self.blobs[name].data for name in dict.fromkeys([*outputs, *extra])}

    # ---- backward

    def _backward(self, start: int, end: int) -> None:
        """Run the layers ``start`` down to ``end`` backwards, from the ``diff`` of the tops to that of the bottoms."""
        begun: set[str] = set()
        for index in range(start, end - 1, -1):
            for callback in self._before_backward:
                callback(index)
            if self._steps[index].needs_backward:
                self._backward_step(index, start, begun)
            for callback in self._after_backward:
                callback(index)

    def _backward_step(self, index: int, start: int, begun: set[str]) -> None:
        step = self._steps[index]
        if isinstance(step.layer, Source):
            return
        record = self._graph[index]
        if record is None:
            raise step.layer.error("backward before forward: run forward() first")
        bottoms, tops = record
        outer = [self._top_diff(step, i, top, start, begun) for i, top in enumerate(tops)]
        begun.difference_update(step.tops)
        params = [
            (i, step.layer.blob(i)) for i, needs in enumerate(step.param_needs) if needs and step.layer.blob(i).requires_grad
        ]
        wanted = [b for b in bottoms if b.requires_grad] + [p for _, p in params]
        pairs = [(t, g) for t, g in zip(tops, outer, strict=True) if t.requires_grad]
        if pairs and wanted:
            grads: tuple[Tensor | None, ...] = torch.autograd.grad(
                [t for t, _ in pairs], wanted, [g for _, g in pairs], retain_graph=True, allow_unused=True
            )
        else:
            grads = (None,) * len(wanted)
        found = iter(grads)
        for name, bottom in zip(step.bottoms, bottoms, strict=True):
            if bottom.requires_grad:
                grad = next(found)
                grad = torch.zeros_like(bottom) if grad is None else grad
                blob = self.blobs[name]
                blob.synced_diff.set(blob.synced_diff.tensor() + grad if name in begun else grad)
                begun.add(name)
        for i, _ in params:
            grad = next(found)
            if grad is not None:
                self._add_param_diff(step.layer, i, grad)

    def _add_param_diff(self, layer: Layer, index: int, grad: Tensor) -> None:
        self.layers[self._index[layer.name]].blobs[index].synced_diff.tensor().add_(grad)

    def _top_diff(self, step: Step, i: int, top: Tensor, start: int, begun: set[str]) -> Tensor:
        name, weight = step.tops[i], step.loss_weights[i]
        diff = self.blobs[name].synced_diff
        consumers = self._consumers.get(step.top_values[i], [])
        if name in begun:
            total = diff.tensor()
        elif any(c <= start for c in consumers):
            total = torch.zeros_like(top)
        else:
            given = diff.tensor()
            return given if given.shape == top.shape else given.reshape(top.shape)
        if weight:
            total = total + weight
            diff.set(total)
        return total

    def backward(
        self, diffs: Sequence[str] | None = None, start: str | None = None, end: str | None = None, **kwargs: Any
    ) -> dict[str, np.ndarray]:
        """Run the net backwards, or the layers from ``start`` down to ``end``, and return ``diff`` arrays by blob name.

        ``kwargs`` are arrays for the ``diff`` of the outputs (all or none). Parameter diffs add up until
        :meth:`clear_param_diffs`. Layers above every loss have no backward pass unless ``force_backward: true``.

        Raises:
            LayerError: a layer that has not run forward yet.
        """
        extra = list(diffs or [])
        first = self._layer_index(start) if start is not None else len(self._steps) - 1
        last = self._layer_index(end) if end is not None else 0
        outputs = list(self._steps[last].bottoms) if end is not None else self.inputs
        if kwargs:
            self._check_names(kwargs, self.outputs if start is None else list(self._steps[first].tops), "top diff")
            for name, value in kwargs.items():
                self._fill(name, "diff", np.asarray(value))
        self._backward(first, last)
        return {name: self.blobs[name].diff for name in dict.fromkeys([*outputs, *extra])}

    def _check_names(self, given: dict[str, Any], wanted: list[str], what: str) -> None:
        if set(given) != set(wanted):
            unknown = sorted(set(given) - set(wanted))
            hint = nearest(unknown[0], wanted) if unknown else ""
            raise UnknownNameError(f"{what} arguments {sorted(given)} do not match the net's {sorted(wanted)}{hint}")

    def _fill(self, name: str, side: str, value: np.ndarray) -> None:
        array: np.ndarray = getattr(self.blobs[name], side)
        if value.shape[:1] != array.shape[:1]:
            raise CaffeError(f'{side} of "{name}": the batch has {value.shape[:1]} where the blob has {array.shape[:1]}; reshape the blob first')
        if value.size != array.size:
            raise CaffeError(f'{side} of "{name}": shape {value.shape} given, the blob has {array.shape}')
        array[...] = value.reshape(array.shape)

    # ---- batches

    def forward_all(self, blobs: Sequence[str] | None = None, **kwargs: Any) -> dict[str, np.ndarray]:
        """Run ``forward`` over data of any length, batch by batch (the last one padded), and return arrays of that length."""
        parts: dict[str, list[np.ndarray]] = {}
        for batch in self._batches(kwargs):
            for name, value in self.forward(blobs=blobs, **batch).items():
                parts.setdefault(name, []).extend(np.array(value) if value.ndim else np.array(value)[None])
        length = len(next(iter(kwargs.values())))
        return {name: np.asarray(values)[:length] for name, values in parts.items()}

    def forward_backward_all(
        self, blobs: Sequence[str] | None = None, diffs: Sequence[str] | None = None, **kwargs: Any
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """As :meth:`forward_all`, with a backward pass after each batch; ``kwargs`` holds inputs and top diffs.

        Returns:
            The values and the diffs, each by blob name.
        """
        tops = {k: v for k, v in kwargs.items() if k in self.outputs}
        data = {k: v for k, v in kwargs.items() if k in self.inputs}
        all_values: dict[str, list[np.ndarray]] = {}
        all_diffs: dict[str, list[np.ndarray]] = {}
        top_batches = self._batches(tops) if tops else iter(lambda: {}, None)
        for batch, top_batch in zip(self._batches(data), top_batches, strict=False):
            for name, value in self.forward(blobs=blobs, **batch).items():
                all_values.setdefault(name, []).extend(np.array(value) if value.ndim else np.array(value)[None])
            for name, value in self.backward(diffs=diffs, **top_batch).items():
                all_diffs.setdefault(name, []).extend(np.array(value))
        length = len(next(iter(data.values())))
        return (
            {name: np.asarray(v)[:length] for name, v in all_values.items()},
            {name: np.asarray(v)[:length] for name, v in all_diffs.items()},
        )

    def _batches(self, arrays: dict[str, Any]) -> Iterable[dict[str, np.ndarray]]:
        lengths = {len(v) for v in arrays.values()}
        if len(lengths) != 1:
            raise CaffeError(f"arrays of different lengths: { {k: len(v) for k, v in arrays.items()} }")
        length = lengths.pop()
        size = self.blobs[next(iter(arrays))].shape[0]
        for begin in range(0, length, size):
            batch = {k: np.asarray(v[begin : begin + size]) for k, v in arrays.items()}
            short = size - min(size, length - begin)
            if short:
                batch = {k: np.concatenate([v, np.zeros((short, *v.shape[1:]), v.dtype)]) for k, v in batch.items()}
            yield batch

    # ---- changing it

    def reshape(self) -> None:
        """Pass the inputs' shapes on through all layers, so that every blob has its new shape before a forward pass."""
        self.module.reshape({name: self.blobs[name].shape for name in self.module.inputs})
        for name, shape in self.module.blob_shapes.items():
            self.blobs[name].reshape(*shape)

    def clear_param_diffs(self) -> None:
        """Set the gradients of all parameters to zero."""
        for _, blob in self._learnable_blobs:
            blob.synced_diff.tensor().zero_()

    def share_with(self, other: Net) -> None:
        """Use the parameters of ``other`` for the layers of the same names: the very same memory from now on.

        Raises:
            LayerError: a layer whose blobs have other shapes there.
        """
        self.module.share_layers(other.module)

    def copy_from(self, trained_file: PathLike) -> None:
        """Copy weights from a ``.caffemodel`` or ``.caffemodel.h5`` into the layers of the same names."""
        self.module.load_weights(trained_file)

    def save(self, path: PathLike, write_diff: bool = False) -> None:
        """Write the weights (and diffs) as a ``.caffemodel``."""
        self.sync_params()
        self.module.save(path, diffs=write_diff)

    def save_hdf5(self, path: PathLike, write_diff: bool = False) -> None:
        """Write the weights (and diffs) as HDF5, whatever the name ends in."""
        self.sync_params()
        self.module.save(path, diffs=write_diff, hdf5=True)

    def load_hdf5(self, path: PathLike) -> None:
        """Copy weights from Caffe's HDF5 form."""
        self.module.load_weights(path)

    def sync_params(self) -> None:
        """Bring what was written into parameter arrays to the device. On the CPU they are the same memory."""
        for _, blob in self._learnable_blobs:
            blob.synced_data.tensor()
            blob.synced_diff.tensor()

    # ---- callbacks and data

    def before_forward(self, callback: Callback) -> None:
        """Call ``callback(layer_index)`` before each layer runs forward."""
        self._before_forward.append(callback)

    def after_forward(self, callback: Callback) -> None:
        """Call ``callback(layer_index)`` after each layer ran forward."""
        self._after_forward.append(callback)

    def before_backward(self, callback: Callback) -> None:
        """Call ``callback(layer_index)`` before each layer runs backward."""
        self._before_backward.append(callback)

    def after_backward(self, callback: Callback) -> None:
        """Call ``callback(layer_index)`` after each layer ran backward."""
        self._after_backward.append(callback)

    def set_input_arrays(self, data: np.ndarray, labels: np.ndarray | None = None) -> None:
        """Give the first layer, a ``MemoryData``, its data (N×C×H×W float32) and labels."""
        layer = self._steps[0].layer
        if layer.type_name != "MemoryData":
            raise LayerError(f'set_input_arrays is for a net whose first layer is MemoryData; layer "{layer.name}" is {layer.type_name}')
        if labels is None:
            labels = np.zeros(len(data), np.float32)
        layer.reset(data, labels)  # type: ignore[operator]

    def close(self) -> None:
        """Stop the data layers' background work."""
        self.module.close()

    def __repr__(self) -> str:
        return f"Net({self.name!r}, inputs={self.inputs}, outputs={self.outputs}, {len(self.layers)} layers)"


def _parameter_blob(learnable: Learnable) -> Blob:
    spec: BlobSpec = learnable.layer.blob_specs[learnable.index]
    without_gradient: list[Tensor] = []

    def value() -> Tensor:
        return learnable.layer.blob(learnable.index).detach()

    def gradient() -> Tensor:
        tensor = learnable.layer.blob(learnable.index)
        if spec.trainable and tensor.requires_grad:
            if tensor.grad is None:
                tensor.grad = torch.zeros_like(tensor)
            return tensor.grad
        if not without_gradient or without_gradient[0].device != tensor.device:
            without_gradient[:] = [torch.zeros_like(tensor, requires_grad=False)]
        return without_gradient[0]

    return Blob(ParameterArray(value), ParameterArray(gradient))

"""Caffe's ``Net`` for numpy: blobs and parameters as live arrays, layers run one by one."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from ..errors import CaffeError, LayerError, UnknownNameError, nearest
from ..files import text_path
from ..layers import Layer
from ..net import CaffeModule, Learnable
from ..solver.debug import log_backward, log_forward
from ..wiring import Step
from .blob import Blob, ParameterArray, numbers
from .containers import BlobVec, FixedNames, Names
from .fork import keep_forks_alive
from .former import OF_NETS, lacking
from .mode import current_device
from .net_layer import NetLayer, parameter_blob
from .passes import Passes

PathLike = str | bytes | os.PathLike[str]
Callback = Callable[[int], Any]


class Net:
    """A Caffe net to run, inspect and edit with numpy, as in pycaffe.

    ``Net(network_file, phase, level, stages, weights)``, by position or by keyword, and the older
    ``Net(network_file, weights_file, phase)``. ``fork`` names the fork of Caffe that the net is of, where what it uses could
    mean several, and ``proto`` the user's own ``caffe.proto``. ``module`` is the :class:`pycaffe_compat.CaffeModule` behind
    it, with the same parameters; it lives on the device of the mode (:func:`set_mode_cpu`, :func:`set_mode_gpu`).

    Attributes:
        blobs: name → :class:`Blob`, in order. Blobs that Caffe splits for several consumers are one blob here.
        params: layer name → its parameter blobs.
        inputs, outputs: names.
        layers: the layers in order; ``layer_dict`` by name.
        top_names, bottom_names: layer name → blob names.
    """

    _name: str | None = None

    def __init__(
        self,
        network_file: PathLike | Any,
        *args: Any,
        phase: int | str | None = None,
        level: int | None = None,
        stages: Sequence[str] | None = None,
        weights: PathLike | None = None,
        fork: str = "",
        proto: PathLike = "",
    ) -> None:
        given: dict[str, Any] = {"phase": phase, "level": level, "stages": stages, "weights": weights}
        order = list(given)
        if network_file is None:
            raise TypeError("Net: network_file is None; a path is wanted")
        if args and isinstance(args[0], (str, bytes, os.PathLike)) and str(args[0]).upper() not in ("TRAIN", "TEST"):
            order = ["weights", "phase"]
        elif len(args) == 2 and args[0] is None:
            raise TypeError("Net: weights_file is None; leave it out for a net that begins with its fillers")
        for name, value in zip_longest(order[: len(args)], args):
            if name is None or given[name] is not None:
                raise TypeError(
                    "Net takes (network_file, phase, level, stages, weights) or (network_file, weights_file, phase), "
                    f"each once; {'too many are given' if name is None else f'{name} is given twice'}"
                )
            given[name] = value
        if given["phase"] is None:
            raise TypeError("Net needs a phase: Net(network_file, caffe.TEST) or caffe.TRAIN")
        if not isinstance(given["level"] or 0, (int, np.integer)):
            raise TypeError(
                f"Net: level must be an integer, not {given['level']!r}; weights go before the phase, or are given as weights="
            )
        if not isinstance(given["stages"] or "", (str, list, tuple, set, frozenset)):
            raise TypeError(f"Net: stages is a list of names, not {given['stages']!r}")
        self._bind(
            CaffeModule(
                text_path(network_file),
                given["phase"],
                level=given["level"] or 0,
                stages=[given["stages"]] if isinstance(given["stages"], str) else given["stages"] or (),
                weights=text_path(given["weights"]),
                device=current_device(),
                fork=fork,
                proto=text_path(proto),
            )
        )

        if self.module.param.debug_info:
            self.after_forward(self._log_forward)
            self.after_backward(self._log_backward)

    def _log_forward(self, index: int) -> None:
        step = self._steps[index]
        log_forward(step, [self.blobs[name].synced_data.tensor() for name in step.tops])

    def _log_backward(self, index: int) -> None:
        step = self._steps[index]
        if step.needs_backward:
            bottoms = [self.blobs[name].synced_diff.tensor() for name in step.bottoms]
            blobs = [
                blob.synced_diff.tensor() if needs else None
                for blob, needs in zip(self.layers[index].blobs, step.param_needs, strict=True)
            ]
            log_backward(step, bottoms, blobs)

    @classmethod
    def of(cls, module: CaffeModule) -> Net:
        """The pycaffe interface to a module, sharing its parameters."""
        face = cls.__new__(cls)
        face._bind(module)
        return face

    def __reduce__(self) -> Any:
        made = set(vars(Net.of(self.module)))  # what belongs to the module or is made from it
        own = {name: value for name, value in vars(self).items() if name not in made}
        return type(self).of, (self.module,), (dict(self.blobs), own)

    def __getattr__(self, name: str) -> Any:  # for what nothing else finds
        raise lacking(f"{type(self).__name__!r} object", name, OF_NETS)

    def __setstate__(self, state: tuple[dict[str, Blob], dict[str, Any]]) -> None:
        blobs, own = state
        vars(self).update(own)
        for name, blob in blobs.items():
            mine = self.blobs[name]
            mine.reshape(*blob.shape)
            if blob.synced_data.used:
                mine.synced_data.set(blob.synced_data.tensor().clone())
            if blob.has_diff:
                mine.synced_diff.set(blob.synced_diff.tensor().clone())

    def _bind(self, module: CaffeModule) -> None:
        keep_forks_alive()
        self.module = module
        self._steps: list[Step] = module.steps
        self._index = {step.name: i for i, step in enumerate(self._steps)}
        weights, shapes = module.loss_weights, module.blob_shapes
        self._blob_dict = FixedNames(
            ((n, Blob.empty(shapes[n], module.device, weights.get(n, 0.0), n)) for n in module.blob_names), "blob"
        )
        made: dict[int, Blob] = {}
        self._learnable_blobs: list[tuple[Learnable, Blob]] = []
        for learnable in module.learnable:
            made[id(learnable.tensor)] = blob = parameter_blob(learnable.layer, learnable.index)
            self._learnable_blobs.append((learnable, blob))
        self.layers = [
            NetLayer(
                s.layer,
                BlobVec((self._layer_blob(s.layer, i, made) for i in range(len(s.layer.blob_specs))), s.name),
            )
            for s in self._steps
        ]
        self._param_dict = FixedNames(((la.name, la.blobs) for la in self.layers if la.blobs), "layer with parameters")
        self._passes = Passes(module, self.blobs, self.params)

    @staticmethod
    def _layer_blob(layer: Layer, index: int, made: dict[int, Blob]) -> Blob:
        tensor = layer.blob(index)
        if id(tensor) in made:
            return made[id(tensor)]
        # a view of another layer's blob (share_mode: PERMISSIVE): same memory, this layer's shape
        memory = tensor.data_ptr()
        owner = next((blob for blob in made.values() if blob.synced_data.tensor().data_ptr() == memory), None)
        if owner is None:  # the blob of another net
            return parameter_blob(layer, index)
        shape = tuple(tensor.shape)
        return Blob(
            ParameterArray(lambda: owner.synced_data.tensor().view(shape)),
            ParameterArray(lambda: owner.synced_diff.tensor().view(shape)),
        )

    # ---- names

    @property
    def blobs(self) -> OrderedDict[str, Blob]:
        """The blobs by name."""
        return self._blob_dict

    @property
    def params(self) -> OrderedDict[str, BlobVec]:
        """Layer name → its parameter blobs."""
        return self._param_dict

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
        """The net's name; another one, which scripts for Faster R-CNN give it, stays with this object."""
        return self.module.caffe_name if self._name is None else self._name

    @name.setter
    def name(self, name: str) -> None:
        self._name = name

    @property
    def layer_dict(self) -> OrderedDict[str, NetLayer]:
        """The layers by name."""
        return Names(((layer.name, layer) for layer in self.layers), "layer")

    @property
    def top_names(self) -> OrderedDict[str, list[str]]:
        """Layer name → the names of its tops."""
        return Names(((s.name, list(s.tops)) for s in self._steps), "layer")

    @property
    def bottom_names(self) -> OrderedDict[str, list[str]]:
        """Layer name → the names of its bottoms."""
        return Names(((s.name, list(s.bottoms)) for s in self._steps), "layer")

    @property
    def blob_loss_weights(self) -> OrderedDict[str, float]:
        """Blob name → its weight in the objective."""
        return OrderedDict(zip(self.blobs, self._blob_loss_weights, strict=True))

    # private in name, but pycaffe's own scripts and many others use them

    @property
    def _layer_names(self) -> list[str]:
        return [step.name for step in self._steps]

    @property
    def _blob_names(self) -> list[str]:
        return list(self.blobs)

    @property
    def _blob_names_index(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.blobs)}

    @property
    def _blobs(self) -> BlobVec:
        return BlobVec(self.blobs.values())

    @property
    def _blob_loss_weights(self) -> list[float]:
        weights = self.module.loss_weights
        return [weights.get(name, 0.0) for name in self.blobs]

    @property
    def _input_list(self) -> list[str]:
        return self.inputs

    @property
    def _output_list(self) -> list[str]:
        return self.outputs

    @property
    def _inputs(self) -> list[int]:
        return self._blob_ids(self.inputs)

    @property
    def _outputs(self) -> list[int]:
        return self._blob_ids(self.outputs)

    def _top_ids(self, layer: int) -> list[int]:
        return self._blob_ids(self._steps[layer].tops)

    def _bottom_ids(self, layer: int) -> list[int]:
        return self._blob_ids(self._steps[layer].bottoms)

    def _blob_ids(self, names: Iterable[str]) -> list[int]:
        ids = self._blob_names_index
        return [ids[name] for name in names]

    def _layer_index(self, name: str) -> int:
        if name not in self._index:
            raise UnknownNameError(f'the net has no layer "{name}"{nearest(str(name), self._index)}')
        return self._index[name]

    # ---- running

    def forward(
        self, blobs: Sequence[str] | None = None, start: str | None = None, end: str | None = None, **kwargs: Any
    ) -> dict[str, np.ndarray]:
        """Run the net, or the layers from ``start`` to ``end`` by name, and return output arrays by blob name.

        The arrays are the blobs' own, and the next pass writes into them: copy what you want to keep.

        Args:
            blobs: names of blobs to return besides the outputs (of the net, or of ``end``).
            start, end: names of the first and the last layer to run.
            kwargs: arrays for the inputs by name; all inputs or none.

        Raises:
            UnknownNameError: a name that the net does not have.
            CaffeError: an input of another batch size or shape than its blob.
            LayerError: a layer that cannot run on what is in its bottoms.
        """
        first = self._layer_index(start) if start is not None else 0
        last = self._layer_index(end) if end is not None else len(self._steps) - 1
        outputs = list(self._steps[last].tops) if end is not None else self.outputs
        if first > last and start is not None and end is not None:
            raise CaffeError(f'forward from "{start}" to "{end}": there is nothing to run, "{end}" comes first')
        wanted = {name: self.blobs[name] for name in [*outputs, *_names(blobs, "blobs")]}
        if kwargs:
            self._check_names(kwargs, self.inputs, "input")
            for name, value in kwargs.items():
                self._fill(name, "data", value)
        self._forward(first, last)
        return {name: blob.data for name, blob in wanted.items()}

    def _forward(self, start: int, end: int) -> float:
        """Run the layers numbered ``start`` to ``end`` (both included); return the sum of their weighted losses."""
        self.sync_params()
        return self._passes.forward(start, end)

    def forward_simple(self) -> None:
        """Run all layers and return nothing, as in the Caffe for deep generators and Intel's."""
        self._forward(0, len(self._steps) - 1)

    def backward(
        self, diffs: Sequence[str] | None = None, start: str | None = None, end: str | None = None, **kwargs: Any
    ) -> dict[str, np.ndarray]:
        """Run the net backwards, or the layers from ``start`` down to ``end``, and return ``diff`` arrays by blob name.

        Parameter diffs add up until :meth:`clear_param_diffs`. Layers above every loss have no backward pass unless the net
        has ``force_backward: true``. With a ``start``, or a ``diff`` that was given or read, layers that have not run forward
        use the current values of their bottoms, as in Caffe.

        Args:
            diffs: names of blobs whose diffs to return besides those of the inputs (or of the bottoms of ``end``).
            start, end: names of the first and the last layer to run, in this order: from the top down.
            kwargs: arrays for the ``diff`` of the outputs, or of the tops of ``start``, by name; all or none.

        Raises:
            UnknownNameError: a name that the net does not have.
            CaffeError: a diff of another batch size or shape than its blob.
            LayerError: nothing has run forward, and no gradient was given.
        """
        first = self._layer_index(start) if start is not None else len(self._steps) - 1
        last = self._layer_index(end) if end is not None else 0
        outputs = list(self._steps[last].bottoms) if end is not None else self.inputs
        if first < last and start is not None and end is not None:
            raise CaffeError(f'backward from "{start}" down to "{end}": there is nothing to run, "{start}" comes first')
        wanted = {name: self.blobs[name] for name in [*outputs, *_names(diffs, "diffs")]}
        if kwargs:
            tops = list(self._steps[first].tops)
            self._check_names(
                kwargs, tops if start is not None and set(kwargs) == set(tops) else self.outputs, "top diff"
            )
            for name, value in kwargs.items():
                self._fill(name, "diff", value)
        elif start is None and not self._passes.has_run and not any(self.blobs[n].has_diff for n in self.outputs):
            waiting = [step.layer for step in self._steps if step.needs_backward]
            if waiting:
                raise waiting[-1].error("backward before forward: there are no values yet; run forward() first")
        self._backward(first, last)
        return {name: blob.diff for name, blob in wanted.items()}

    def _backward(self, start: int, end: int) -> None:
        """Run the layers numbered ``start`` down to ``end`` (both included) backwards."""
        self._passes.backward(start, end)

    def backward_simple(self) -> None:
        """Run all layers backwards, from the diffs as they are, and return nothing: what goes with ``forward_simple``."""
        self._backward(len(self._steps) - 1, 0)

    def deconv(
        self, diffs: Sequence[str] | None = None, start: str | None = None, **kwargs: Any
    ) -> dict[str, np.ndarray]:
        """Run :meth:`backward` as a deconvolutional net: a ReLU passes back what is above 0 of its top's diff.

        This and the two methods below are of the Caffe of Yosinski's deep visualization toolbox.
        """
        self._passes.deconvolves = True
        try:
            return self.backward(diffs, start, **kwargs)
        finally:
            self._passes.deconvolves = False

    def backward_from_layer(
        self, start_name: str, start_diff: np.ndarray, diffs: Sequence[str] | None = None, zero_higher: bool = False
    ) -> dict[str, np.ndarray]:
        """Write ``start_diff`` into the diff of a layer's blob of the same name, and run backwards from there.

        Args:
            start_name: the layer, and its blob.
            start_diff: of the blob's shape.
            diffs: names of blobs whose diffs to return besides those of the inputs.
            zero_higher: whether the diffs of later blobs become 0.

        Raises:
            UnknownNameError, CaffeError: there is no such layer or blob; ``start_diff`` has another shape.
        """
        self._begin_at(start_name, start_diff, zero_higher)
        return self.backward(diffs, start=start_name)

    def deconv_from_layer(
        self, start_name: str, start_diff: np.ndarray, diffs: Sequence[str] | None = None, zero_higher: bool = False
    ) -> dict[str, np.ndarray]:
        """Do as :meth:`backward_from_layer`, with :meth:`deconv`."""
        self._begin_at(start_name, start_diff, zero_higher)
        return self.deconv(diffs, start=start_name)

    def _begin_at(self, name: str, diff: Any, zero_higher: bool) -> None:
        if np.shape(diff) != self.blobs[name].shape:
            raise CaffeError(f'diff of "{name}": shape {np.shape(diff)} given, the blob has {self.blobs[name].shape}')
        self._fill(name, "diff", diff)
        names = list(self.blobs)
        for higher in names[names.index(name) + 1 :] if zero_higher else ():
            self.blobs[higher].diff[...] = 0

    def _check_names(self, given: dict[str, Any], wanted: Sequence[str], what: str) -> None:
        if set(given) != set(wanted):
            unknown = sorted(set(given) - set(wanted))
            hint = nearest(unknown[0], wanted) if unknown else ""
            raise UnknownNameError(f"{what} arguments {sorted(given)} do not match the net's {sorted(wanted)}{hint}")

    def _fill(self, name: str, side: str, given: Any) -> None:
        array: np.ndarray = getattr(self.blobs[name], side)
        value = numbers(given, f'{side} of "{name}"')
        if value.shape[:1] != array.shape[:1]:
            raise CaffeError(
                f'{side} of "{name}": the batch has {value.shape[:1]} where the blob has {array.shape[:1]}; '
                "reshape the blob first"
            )
        try:
            fitting = np.broadcast_to(value, array.shape)
        except ValueError as error:
            raise CaffeError(f'{side} of "{name}": shape {value.shape} given, the blob has {array.shape}') from error
        array[...] = fitting

    # ---- batches

    def forward_all(self, blobs: Sequence[str] | None = None, **kwargs: Any) -> dict[str, np.ndarray]:
        """Run ``forward`` over data of any length, batch by batch (the last one padded with zeros).

        Args:
            blobs: names of blobs to return besides the outputs.
            kwargs: arrays for the inputs, all of the same length.

        Returns:
            Arrays of that length by blob name; of an output without a batch, one value a batch.

        Raises:
            CaffeError: the arrays are not those of all inputs.
        """
        if not kwargs:
            raise CaffeError(
                f"forward_all takes arrays for the inputs, {', '.join(self.inputs) or 'of which the net has none'}"
            )
        found: dict[str, list[np.ndarray]] = {}
        for batch in self._batch(kwargs):
            _extend(found, self.forward(blobs, **batch))
        return _joined(found, len(next(iter(kwargs.values()))))

    def forward_backward_all(
        self, blobs: Sequence[str] | None = None, diffs: Sequence[str] | None = None, **kwargs: Any
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """As :meth:`forward_all`, with a backward pass after each batch; ``kwargs`` holds inputs and top diffs.

        Returns:
            The values and the diffs, each by blob name.

        Raises:
            CaffeError: the net has no inputs, or the arrays are not those of all of them.
        """
        data = {name: kwargs.pop(name) for name in self.inputs if name in kwargs}
        tops = {name: kwargs.pop(name) for name in self.outputs if name in kwargs}
        if kwargs or not data:
            self._check_names({**kwargs, **data}, self.inputs, "input")
            raise CaffeError("forward_backward_all takes arrays for the inputs, of which the net has none")
        values: dict[str, list[np.ndarray]] = {}
        gradients: dict[str, list[np.ndarray]] = {}
        top_batches = self._batch(tops) if tops else iter(())
        for batch, top_batch in zip_longest(self._batch(data), top_batches):
            _extend(values, self.forward(blobs, **(batch or {})))
            _extend(gradients, self.backward(diffs, **(top_batch or {})))
        length = len(next(iter(data.values())))
        return _joined(values, length), _joined(gradients, length)

    def _batch(self, arrays: dict[str, Any]) -> Iterator[dict[str, Any]]:
        arrays = {name: numbers(value, f'data of "{name}"') for name, value in arrays.items()}
        single = next((name for name, value in arrays.items() if not value.ndim), None)
        if single is not None:
            raise CaffeError(
                f'data of "{single}": an array with one item per row is expected, not the single number {arrays[single]}'
            )
        lengths = {name: len(v) for name, v in arrays.items()}
        if len(set(lengths.values())) != 1:
            raise CaffeError(f"arrays of different lengths: {lengths}")
        length = next(iter(lengths.values()))
        shape = self.blobs[next(iter(arrays))].shape
        if not shape or not shape[0]:
            raise CaffeError(f'"{next(iter(arrays))}" has shape {shape}: there are no batches; reshape it first')
        for begin in range(0, length, shape[0]):
            batch = {k: v[begin : begin + shape[0]] for k, v in arrays.items()}
            short = shape[0] - min(shape[0], length - begin)
            if short:
                batch = {k: np.concatenate([v, np.zeros((short, *v.shape[1:]), v.dtype)]) for k, v in batch.items()}
            yield batch

    # ---- changing it

    def reshape(self) -> None:
        """Pass the inputs' shapes on through all layers, so that every blob has its new shape before a forward pass.

        Raises:
            LayerError: a layer no longer fits its bottoms.
        """
        self.module.reshape({name: self.blobs[name].shape for name in self.module.inputs})
        shapes = self.module.blob_shapes
        if any(self.blobs[name].shape != shape for name, shape in shapes.items()):
            for name, shape in shapes.items():
                self.blobs[name].reshape(*shape)
            self._passes.forget()

    def clear_param_diffs(self) -> None:
        """Set the gradients of all parameters to zero."""
        for _, blob in self._learnable_blobs:
            if blob.has_diff:
                blob.synced_diff.tensor().zero_()

    def share_with(self, other: Net) -> None:
        """Share the parameters of ``other``'s layers of the same names: one memory from now on.

        Raises:
            LayerError: a layer whose blobs have other shapes there.
        """
        if not isinstance(other, Net):
            raise TypeError(f"share_with takes another Net, not {other!r} ({type(other).__name__})")
        self.sync_params()
        self.module.share_layers(other.module)
        for layer in self.layers:
            for index in range(len(layer.module.blob_specs)):
                memory = layer.module.blob(index).data_ptr()
                if layer.blobs[index].synced_data.tensor().data_ptr() != memory:  # no longer the blob of its owner here
                    layer.blobs.rebind(index, parameter_blob(layer.module, index))

    def copy_from(self, trained_file: PathLike) -> None:
        """Copy weights from a ``.caffemodel`` or ``.caffemodel.h5`` into the layers of the same names.

        Raises:
            TypeError: ``trained_file`` is no path. WeightsError, ParseError: the weights do not fit, or cannot be read.
        """
        if not isinstance(trained_file, (str, bytes, os.PathLike)):
            raise TypeError(
                f"copy_from takes the path of a caffemodel, not {trained_file!r} ({type(trained_file).__name__})"
            )
        self.sync_params()
        self.module.load_weights(text_path(trained_file))

    def save(self, path: PathLike, write_diff: bool = False) -> None:
        """Write the weights (and diffs) as a ``.caffemodel``, whatever the name ends in."""
        self.sync_params()
        self.module.save(text_path(path), diffs=write_diff, hdf5=False)

    def save_hdf5(self, path: PathLike, write_diff: bool = False) -> None:
        """Write the weights (and diffs) as HDF5, whatever the name ends in."""
        self.sync_params()
        self.module.save(text_path(path), diffs=write_diff, hdf5=True)

    def load_hdf5(self, path: PathLike) -> None:
        """Copy weights from Caffe's HDF5 form."""
        self.copy_from(path)

    def sync_params(self) -> None:
        """Bring what was written into parameter arrays to the device. On the CPU they are the same memory."""
        ParameterArray.upload_all()

    # ---- callbacks and data

    def before_forward(self, callback: Callback) -> None:
        """Call ``callback(layer_index)`` before each layer runs forward."""
        self._passes.before_forward.append(_callable(callback))

    def after_forward(self, callback: Callback) -> None:
        """Call ``callback(layer_index)`` after each layer ran forward."""
        self._passes.after_forward.append(_callable(callback))

    def before_backward(self, callback: Callback) -> None:
        """Call ``callback(layer_index)`` before each layer runs backward."""
        self._passes.before_backward.append(_callable(callback))

    def after_backward(self, callback: Callback) -> None:
        """Call ``callback(layer_index)`` after each layer ran backward."""
        self._passes.after_backward.append(_callable(callback))

    def set_input_arrays(self, data: np.ndarray, labels: np.ndarray | None = None) -> None:
        """Give the first layer, which must be a ``MemoryData``, its data (N×C×H×W) and labels (N, default 0).

        Raises:
            LayerError: the first layer is none, or the arrays do not fit it.
        """
        layer = self._steps[0].layer if self._steps else None
        if layer is None or layer.type_name != "MemoryData":
            found = f'layer "{layer.name}" is {layer.type_name}' if layer is not None else "there is no layer"
            raise LayerError(f"set_input_arrays is for a net whose first layer is MemoryData; {found}")
        images = numbers(data, "set_input_arrays: data")
        if images.ndim == 0:
            raise LayerError(f"set_input_arrays: data of shape N×C×H×W expected, not the single number {images}")
        given = np.zeros(len(images)) if labels is None else numbers(labels, "set_input_arrays: labels")
        layer.reset(images, given)  # type: ignore[operator]

    _set_input_arrays = set_input_arrays

    def close(self) -> None:
        """Stop the data layers' background work."""
        self.module.close()

    def __repr__(self) -> str:
        return f"Net({self.name!r}, inputs={self.inputs}, outputs={self.outputs}, {len(self.layers)} layers)"


def _callable(callback: Callback) -> Callback:
    if not callable(callback):
        raise TypeError(f"a callback is a function of the layer's index, not {callback!r}")
    return callback


def _names(given: Sequence[str] | None, what: str) -> list[str]:
    if given is None:
        return []
    text = isinstance(given, (str, bytes))
    if text or isinstance(given, Mapping) or not all(isinstance(name, str) for name in np.ravel(given)):  # type: ignore[call-overload]
        raise CaffeError(
            f"{what}: a list of blob names is expected, not {given!r}; arrays are given by name, as in forward(data=array)"
        )
    return list(given)


def _extend(found: dict[str, list[np.ndarray]], made: dict[str, np.ndarray]) -> None:
    """Add the rows of the arrays (a single number is a row) to those found so far."""
    for name, value in made.items():
        found.setdefault(name, []).extend(np.array(value) if value.ndim else np.array(value)[None])


def _joined(found: dict[str, list[np.ndarray]], length: int) -> dict[str, np.ndarray]:
    return {name: np.asarray(rows)[:length] for name, rows in found.items()}

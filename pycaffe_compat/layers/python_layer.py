"""Layers written in Python, as pycaffe runs them: a class with ``setup``, ``reshape``, ``forward`` and ``backward``.

A net that names such a class runs its code, so this is done only for those who allowed it: with
``PYCAFFE_COMPAT_PYTHON_LAYERS=1`` in the environment, or :func:`allow`.
"""

from __future__ import annotations

import enum
import importlib
import importlib.util
import math
import os
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import LayerError, nearest
from ..tables import dims
from . import base, registry

VARIABLE = "PYCAFFE_COMPAT_PYTHON_LAYERS"
STAND_INS: dict[tuple[str, str], int] = {}  # classes in whose place a layer of this package can run: their bottoms
_allowed = False
_OF_PYTHON_2 = {"xrange": "range", "unicode": "str", "long": "int", "raw_input": "input", "basestring": "str"}


def allow(yes: bool = True) -> None:
    """Let nets run the Python layers that they name, in this process, from now on (or, with False, no longer)."""
    global _allowed
    _allowed = yes


def allowed() -> bool:
    """Whether Python layers may run: by :func:`allow` or the environment."""
    return _allowed or os.environ.get(VARIABLE, "").lower() in ("1", "true", "yes", "on")


def stands_in(param: Any, layer: str = "") -> bool:
    """Whether a layer of this package runs in place of the Python class: one that it knows, and that may or can not run.

    Args:
        param: the ``LayerParameter``.
        layer: the name of the class, if only that is asked for.
    """
    options = param.python_param
    known = STAND_INS.get((options.module, options.layer)) == len(param.bottom) and layer in ("", options.layer)
    return known and not (allowed() and _is_there(options.module))


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its package
        return False
    except Exception:  # its package is there, and broken: importing it says how
        return True


class Blob:
    """What a Python layer sees of a bottom, top or parameter: numpy arrays ``data`` and ``diff``, and the shape."""

    def __init__(self, shape: Sequence[int] = (), dtype: type = np.float32) -> None:
        self.shape = tuple(shape)
        self.dtype = dtype
        self._arrays: dict[str, np.ndarray] = {}

    def _array(self, which: str) -> np.ndarray:
        if which not in self._arrays:
            self._arrays[which] = np.zeros(self.shape, self.dtype)
        return self._arrays[which]

    @property
    def data(self) -> np.ndarray:
        """The values, to be written in place."""
        return self._array("data")

    @property
    def diff(self) -> np.ndarray:
        """The gradients, to be written in place."""
        return self._array("diff")

    @property
    def count(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def num(self) -> int:
        """The length of axis 0, or 1."""
        return self._axis(0)

    @property
    def channels(self) -> int:
        """The length of axis 1, or 1."""
        return self._axis(1)

    @property
    def height(self) -> int:
        """The length of axis 2, or 1."""
        return self._axis(2)

    @property
    def width(self) -> int:
        """The length of axis 3, or 1."""
        return self._axis(3)

    def _axis(self, axis: int) -> int:
        return self.shape[axis] if axis < len(self.shape) else 1

    def reshape(self, *shape: int) -> None:
        """Give the blob another shape; its values are kept where their number is the same, and zeros otherwise.

        Raises:
            ValueError: there is no such shape.
        """
        size = tuple(int(n) for n in shape)
        if min(size, default=0) < 0:
            raise ValueError(f"a blob cannot have shape {dims(size)}")
        if size != self.shape:
            same = math.prod(size) == self.count
            self._arrays = {which: array.reshape(size) for which, array in self._arrays.items()} if same else {}
            self.shape = size

    @property
    def written_diff(self) -> np.ndarray | None:
        """A copy of the gradients if anyone has looked at them since the blob took its values, else None."""
        return self._arrays["diff"].copy() if "diff" in self._arrays else None

    def hold(self, data: np.ndarray, diff: np.ndarray | None = None) -> None:
        """Take these arrays (zeros for no ``diff``) as they are, without copying."""
        self.shape, self.dtype = data.shape, data.dtype.type
        self._arrays = {"data": data} if diff is None else {"data": data, "diff": diff}

    def forget(self, shape: Sequence[int]) -> None:
        """Have this shape, and zeros."""
        self.shape, self._arrays = tuple(shape), {}


class FixedBlobs(list[Blob]):
    """The bottoms or tops of a Python layer. Its blobs are written to, and never replaced, as in pycaffe."""

    def __setitem__(self, index: Any, value: Any) -> None:
        raise TypeError(f"[{index}] = … would replace the blob; write its values with [{index}].data[...] = …")


class Blobs(FixedBlobs):
    """The parameters of a Python layer; ``setup`` makes them with :meth:`add_blob`."""

    def add_blob(self, *shape: int) -> None:
        """Append a parameter of this shape, zeros until it is written to."""
        self.append(Blob(shape))


class Phase(enum.IntEnum):
    """A phase as both generations of pycaffe have it: the number of BVLC's, and the word that ``str`` gives in Faster R-CNN's."""

    TRAIN = 0
    TEST = 1

    def __str__(self) -> str:
        return self.name


class Layer:
    """The base class of layers written in Python (``caffe.Layer``).

    ``setup`` is called once, ``reshape`` before every ``forward`` and when the net is reshaped; it gives the tops their
    shapes. ``backward`` writes the ``diff`` of each bottom whose ``propagate_down`` is true, and that of ``blobs``, all
    as ``forward`` left them, 0 if it did not touch them; what earlier passes found is added by the caller.

    Attributes:
        param_str: ``python_param.param_str``.
        phase: ``caffe.TRAIN`` (0) or ``caffe.TEST`` (1); ``str(self.phase)`` is ``"TRAIN"`` or ``"TEST"``.
        blobs: the parameters.
    """

    type = "Python"
    param_str: str
    phase: Phase
    blobs: Blobs

    def __new__(cls, *_: Any, **__: Any) -> Layer:
        layer = super().__new__(cls)
        layer.blobs = Blobs()
        return layer

    def __init__(self, param: Any) -> None:
        self.param_str = param.python_param.param_str
        self.phase = Phase(param.phase)

    @property
    def param_str_(self) -> str:
        """What ``param_str`` was called in pycaffe's first years."""
        return self.param_str

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Read ``param_str``, check the numbers of blobs, make parameters."""

    def reshape(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Check the shapes of the bottoms and reshape the tops. Every layer has its own."""

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Write the ``data`` of the tops. Every layer has its own."""

    def backward(self, top: list[Blob], propagate_down: list[bool], bottom: list[Blob]) -> None:
        """Write the ``diff`` of the bottoms."""
        raise NotImplementedError(f"{self.__class__.__name__} has no backward, but a gradient is needed below it")


def _error_class(kind: type[Exception]) -> type[LayerError]:
    """A LayerError that is caught by who catches ``kind`` too."""
    if issubclass(kind, (StopIteration, StopAsyncIteration)):  # generators would swallow these
        return LayerError
    try:
        return type(kind.__name__, (LayerError, kind), {"__str__": Exception.__str__, "__module__": kind.__module__})
    except TypeError:
        return LayerError


@registry.register("Python")
class PythonLayer(base.Layer):
    """Runs the class ``python_param.layer`` of the module ``python_param.module``, which derives from :class:`Layer`.

    Its arrays are views of the tensors on the CPU, and copies on a GPU. ``share_in_parallel`` is accepted: every
    process has its own. Source: Caffe's ``PythonLayer``.
    """

    inert_options = frozenset({"share_in_parallel"})
    random = True
    traceable = False
    bottoms = (0, None)
    tops = (0, None)

    @classmethod
    def fits(cls, param: Any) -> bool:
        return not stands_in(param)

    @classmethod
    def blob_names(cls, number: int) -> tuple[str, ...]:
        return tuple(f"blob{i}" for i in range(number))

    def __init__(self, param: Any, bottom_shapes: Sequence[base.Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.python_param
        self.code = f"{options.module}.{options.layer}"
        if not allowed():
            raise self.error(
                f"runs the Python class {self.code}, which came with the net. If you trust it, set {VARIABLE}=1 in the "
                f"environment or call {__name__}.allow() first"
            )
        self.place: Tensor
        self.register_buffer("place", torch.empty(0), persistent=False)
        self.bottom_blobs = FixedBlobs(Blob(shape) for shape in bottom_shapes)
        names = list(param.bottom)
        self.in_place = [i < len(names) and names[i] == top for i, top in enumerate(param.top)]
        self.top_blobs = FixedBlobs(self.bottom_blobs[i] if same else Blob() for i, same in enumerate(self.in_place))
        self.python = self._make(options.module, options.layer)
        self.call("setup", self.bottom_blobs, self.top_blobs)
        lacking = [
            method for method in ("reshape", "forward") if getattr(type(self.python), method) is getattr(Layer, method)
        ]
        if lacking:
            raise self.error(
                f"python_param.layer: the class {self.code} has no method {' and no '.join(lacking)}; a Python layer "
                "needs reshape(bottom, top) and forward(bottom, top)"
            )
        for i, blob in enumerate(self.python.blobs):
            self.add_blob(f"blob{i}", blob.shape, torch.from_numpy(blob.data.copy()))

    def _make(self, module: str, name: str) -> Layer:
        if not module or not name:
            raise self.error("needs python_param { module: … layer: … }")
        if module.endswith(".py") or "/" in module:
            raise self.error(
                f'python_param.module: {module} is a path; give only its name, module: "{Path(module).stem}", and put its '
                "folder on PYTHONPATH"
            )
        known = STAND_INS.get((module, name)) == len(self.param.bottom)
        instead = "; where Python layers are not allowed, a layer of this package runs in its place" if known else ""
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise self.error(f"python_param.module: {_why_not_found(module, error)}{instead}") from error
        except SyntaxError as error:
            raise self._failure(f"importing {module} (is it for Python 2?{instead})", error) from error
        except Exception as error:
            raise self._failure(f"importing {module}", error) from error
        cls = getattr(found, name, None)
        if cls is None:
            raise self.error(f"python_param.layer: module {module} has no class {name}{nearest(name, vars(found))}")
        if not (isinstance(cls, type) and issubclass(cls, Layer)):
            raise self.error(f"python_param.layer: {self.code} is not a subclass of pycaffe_compat.Layer (caffe.Layer)")
        try:
            return cls(self.param)
        except Exception as error:
            raise self._failure(f"making a {self.code}", error) from error

    def _failure(self, doing: str, error: Exception) -> LayerError:
        """An error with the traceback of what the layer's own code raised; it can be caught as the original too."""
        frames = traceback.extract_tb(error.__traceback__)
        own = [f for f in frames if f.filename != __file__ and "importlib" not in f.filename]
        where = "".join(traceback.format_list(own))
        last = "".join(traceback.format_exception_only(type(error), error)).rstrip()
        message = str(self.error(f"{doing} failed: {last}{_hint(error)}\n{where}".rstrip()))
        try:
            return _error_class(type(error))(message)
        except Exception:
            return LayerError(message)

    def call(self, method: str, *args: Any) -> None:
        """Call a method of the layer's own code.

        Raises:
            LayerError: it raised something; the message has its traceback.
        """
        try:
            getattr(self.python, method)(*args)
        except Exception as error:
            raise self._failure(f"{method} of {self.code}", error) from error

    @base.untraced
    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Return the tops that the layer's ``forward`` wrote.

        Raises:
            LayerError: the layer's code raised something, or changed the number of its parameters.
        """
        if self.place.is_meta or any(b.is_meta for b in bottoms):
            for blob, bottom in zip(self.bottom_blobs, bottoms, strict=True):
                blob.forget(bottom.shape)
            self.call("reshape", self.bottom_blobs, self.top_blobs)
            return tuple(torch.empty(top.shape, device="meta") for top in self.top_blobs)
        if not self.top_blobs:
            self.run(bottoms)
            return ()
        made = _Run.apply(self, len(bottoms), *bottoms, *self.blobs)
        return made if isinstance(made, tuple) else (made,)

    def run(self, bottoms: Sequence[Tensor]) -> list[Tensor]:
        """Run ``reshape`` and ``forward`` on the values of ``bottoms``; return new tensors of the tops."""
        dtype = self.working_dtype(bottoms)
        for i, (blob, bottom) in enumerate(zip(self.bottom_blobs, bottoms, strict=True)):
            host = bottom.detach().to("cpu", dtype)
            if i < len(self.in_place) and self.in_place[i] and host.data_ptr() == bottom.data_ptr():
                host = host.clone()
            blob.hold(host.numpy())
        empty = torch.empty(0, dtype=dtype).numpy()
        for top, same in zip(self.top_blobs, self.in_place, strict=True):
            if not same and top.dtype != empty.dtype:
                top.hold(np.zeros(top.shape, empty.dtype))
        hosts = self.hold_parameters(dtype)
        self.call("reshape", self.bottom_blobs, self.top_blobs)
        self.call("forward", self.bottom_blobs, self.top_blobs)
        for parameter, host in zip(self.blobs, hosts, strict=True):
            if host.data_ptr() != parameter.data_ptr():
                parameter.detach().copy_(host)
        like = bottoms[0] if bottoms else self.place
        return [torch.from_numpy(top.data.copy()).to(device=like.device, dtype=like.dtype) for top in self.top_blobs]

    def working_dtype(self, tensors: Sequence[Tensor]) -> torch.dtype:
        """The type of the layer's arrays: float32 as in Caffe, or float64 where a bottom or the layer is that."""
        return torch.float64 if any(t.dtype == torch.float64 for t in (*tensors, self.place)) else torch.float32

    def hold_parameters(self, dtype: torch.dtype) -> list[Tensor]:
        """Show the parameters to the layer, with zero gradients; return their values on the host.

        Raises:
            LayerError: the layer has another number of blobs than after its setup.
        """
        hosts = [blob.detach().to("cpu", dtype) for blob in self.blobs]
        if len(hosts) != len(self.python.blobs):
            raise self.error(f"{self.code} has {len(self.python.blobs)} blobs, but had {len(hosts)} after setup")
        for seen, host in zip(self.python.blobs, hosts, strict=True):
            seen.hold(host.numpy())
        return hosts


def _hint(error: Exception) -> str:
    """What to change in a layer's code for libraries and a Python of today; "" where that is not the trouble."""
    if isinstance(error, TypeError) and "argument: 'Loader'" in str(error):
        return " (since PyYAML 6, yaml.load(text) is yaml.safe_load(text))"
    if isinstance(error, NameError) and error.name in _OF_PYTHON_2:
        return f" (in Python 3, {error.name} is {_OF_PYTHON_2[error.name]})"
    return ""


def _why_not_found(module: str, error: ModuleNotFoundError) -> str:
    """Say which module is missing: the one of the layer, or one that it imports."""
    missing = str(error.name)
    if missing == "caffe":
        hint = "run the program with python -m pycaffe_compat, or call pycaffe_compat.install_as_caffe()"
    elif f"{module}.".startswith(f"{missing}."):
        hint = "the folder of the module must be in PYTHONPATH"
    else:
        importer = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        hint = f"{importer} imports it: install it, or add its folder to PYTHONPATH"
        if importer.with_name(f"{missing}.py").exists():
            hint = f"it is in the folder of {importer}, which must import it as .{missing} in Python 3"
    return f"{module}: no module named {missing}; {hint}"


class _Run(torch.autograd.Function):
    """A Python layer's ``forward`` and ``backward``, between tensors."""

    @staticmethod
    def forward(ctx: Any, layer: PythonLayer, n: int, *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.layer, ctx.n, ctx.dtype = layer, n, layer.working_dtype(inputs[:n])
        tops = layer.run(inputs[:n])
        ctx.bottom_data = [blob.data for blob in layer.bottom_blobs]
        # some layers find their gradients in forward already, and have an empty backward
        ctx.found = [blob.written_diff for blob in (*layer.bottom_blobs, *layer.python.blobs)]
        ctx.top_data = [top.to("cpu", ctx.dtype).numpy() for top in tops]
        ctx.like = [(value.device, value.dtype) for value in inputs]
        return tuple(tops)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        layer: PythonLayer = ctx.layer
        needs = list(ctx.needs_input_grad[2:])
        layer.hold_parameters(ctx.dtype)
        seen = [*layer.bottom_blobs, *layer.python.blobs]
        held = [*ctx.bottom_data, *(blob.data for blob in layer.python.blobs)]
        for blob, data, diff in zip(seen, held, ctx.found, strict=True):
            blob.hold(data, None if diff is None else diff.copy())
        for blob, data, grad in zip(layer.top_blobs, ctx.top_data, grads, strict=True):
            blob.hold(data, grad.detach().to("cpu", ctx.dtype, copy=True).contiguous().numpy())
        layer.call("backward", layer.top_blobs, needs[: ctx.n], layer.bottom_blobs)
        found = [
            torch.from_numpy(blob.diff.copy()).to(device, dtype) if need else None
            for blob, need, (device, dtype) in zip(seen, needs, ctx.like, strict=True)
        ]
        return None, None, *found

"""Layers as nodes of an ONNX graph, and the registry of what turns a layer into nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...layers.base import Layer, Shape
from ..outline import Value
from ..registry import Registry

FLOAT, INT64, BOOL, DOUBLE = 1, 7, 9, 11  # TensorProto.DataType, for Cast
Emission = Callable[..., "str | Sequence[str] | None"]
EMITTERS: Registry[Emission] = Registry()
emits = EMITTERS.enter  # f(emitter, layer, *bottoms) -> names of the tops


class Emitter:
    """Collects nodes and constants.

    Args:
        folded: by layer, weights and biases that take over the layers after it.
        taken: names that nothing else may have.
    """

    def __init__(self, folded: Mapping[str, tuple[Tensor, Tensor]] | None = None, taken: Iterable[str] = ()) -> None:
        from onnx import helper

        self._helper = helper
        self._folded = folded or {}
        self.nodes: list[Any] = []
        self.weights: dict[str, Tensor] = {}  # by name, the blobs of layers; not copied
        self.constants: dict[str, np.ndarray] = {}
        self._owners: dict[tuple[int, Shape], str] = {}
        self._step = ""
        self.tops: Sequence[Value] = ()  # of the layer at hand
        self._taken: set[str] = set(taken)
        self._kinds: dict[tuple[str, bytes, Shape], str] = {}

    def begin(self, step: str, tops: Sequence[Value]) -> None:
        """The nodes from now on are of the layer ``step``, which makes ``tops``."""
        self._step, self.tops = step, tops

    def unique(self, name: str) -> str:
        """Return ``name``, with a number if a value or constant has it already."""
        number, candidate = 1, name
        while candidate in self._taken:
            number += 1
            candidate = f"{name}_{number}"
        self._taken.add(candidate)
        return candidate

    def op(self, kind: str, *inputs: object, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node; return the name of its output, or a list of names for several ``outputs``.

        Args:
            kind: ONNX's operator.
            inputs: names or :class:`.Value` s; None leaves out an optional one.
            attributes: as ONNX names them; None leaves out.
        """
        base = self.unique(f"{self._step}/{kind}")
        names = [base if i == 0 else self.unique(f"{base}:{i}") for i in range(outputs)]
        given = {name: value for name, value in attributes.items() if value is not None}
        sources = ["" if each is None else str(each) for each in inputs]
        self.nodes.append(self._helper.make_node(kind, sources, names, name=base, **given))
        return names[0] if outputs == 1 else names

    def constant(self, value: Any, kind: Any = np.float32) -> str:
        """The name of a constant with these values; equal ones are stored once."""
        array = np.asarray(value, dtype=kind)
        key = (array.dtype.str, array.tobytes(), array.shape)
        if key not in self._kinds:
            self._kinds[key] = name = self.unique(f"constant_{len(self._kinds)}")
            self.constants[name] = array
        return self._kinds[key]

    def ints(self, *values: int) -> str:
        """The name of a constant vector of int64."""
        return self.constant(values, np.int64)

    def number(self, value: float) -> str:
        """The name of a constant without axes."""
        return self.constant(value)

    def zeros(self, shape: object) -> str:
        """The name of a value of this shape that is all 0; the 0 is written out, as not every runtime knows the default."""
        value = self._helper.make_tensor("value", FLOAT, [1], [0.0])
        return str(self.op("ConstantOfShape", shape, value=value))

    def blob(self, layer: Layer, index: int) -> str:
        """The name of a layer's blob, as in the net's ``state_dict``; a blob that layers share in one shape is stored once."""
        value = layer.blob(index)
        key = (value.data_ptr(), tuple(value.shape))
        if key not in self._owners or not value.numel():
            self._owners[key] = name = self.unique(f"{layer.name}.{layer.blob_specs[index].name}")
            self.weights[name] = value.detach()
        return self._owners[key]

    def filters(self, layer: Layer) -> list[str]:
        """The names of a layer's weight and, if it has one, its bias."""
        if layer.name in self._folded:
            weight, bias = self._folded[layer.name]
            return [self.array(layer, "weight", weight), self.array(layer, "bias", bias)]
        return [self.blob(layer, i) for i in range(len(layer.blob_specs))]

    def array(self, layer: Layer, name: str, value: Tensor) -> str:
        """The name of a constant that was computed from blobs of ``layer``."""
        found = self.unique(f"{layer.name}.{name}")
        self.weights[found] = value.detach()
        return found

    def reshape(
        self,
        layer: Layer,
        x: object,
        before: Value,
        shape: Sequence[int] | None = None,
        moving: frozenset[int] | None = None,
    ) -> str:
        """Give ``x``, which has the axes of ``before``, the ``shape``, whose axes ``moving`` may have other lengths.

        Both are those of the layer's first top if they are not given.

        Raises:
            LayerError: more axes change than ONNX can infer.
        """
        shape = self.tops[0].shape if shape is None else shape
        moving = self.tops[0].moving if moving is None else moving
        target, inferred = list(shape), False
        for axis in sorted(moving):
            if axis in before.moving and axis < len(before.shape) and before.shape[axis] == shape[axis]:
                target[axis] = 0  # copied from the bottom
            elif not inferred:
                target[axis], inferred = -1, True
            else:
                raise layer.error(f"axes {sorted(moving)} of its top change at once, which ONNX's Reshape cannot infer")
        if any(n == 0 for n in shape):
            raise layer.error("its top is empty")
        return str(self.op("Reshape", x, self.ints(*target)))


def as_float32(value: Tensor) -> np.ndarray:
    """The values on the host, as float32."""
    return value.to(device="cpu", dtype=torch.float32).contiguous().numpy()

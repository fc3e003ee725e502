"""Sources that read no data: the inputs of a net, and DummyData, whose fillers make its batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import memory
from ..errors import LayerError
from ..proto import caffe_pb2
from ..tables import dims
from .base import Layer, Shape, Source, count
from .fillers import fill
from .registry import register

LEGACY = ("num", "channels", "height", "width")


def _one_each(layer: Layer, given: Sequence[Any], field: str) -> list[Any]:
    """Return one of ``given`` for each top; there is one for all tops, or one for each."""
    if len(given) not in (1, layer.n_tops):
        raise layer.error(
            f"{field} is given {len(given)} times for {layer.n_tops} tops; give it once, or once for each top"
        )
    return list(given) * layer.n_tops if len(given) == 1 else list(given)


def _checked(layer: Layer, shapes: Sequence[Shape]) -> list[Shape]:
    for shape in shapes:
        if any(n < 0 for n in shape):
            raise layer.error(f"shape {dims(shape)}: dimensions must not be negative")
    return list(shapes)


@register("Input")
class Input(Source):
    """The net's inputs, named after its tops, with the shapes of ``input_param`` (one for all tops, or one each).

    Without a shape they have no axes until they are reshaped. Source: Caffe 1.0's ``InputLayer``.
    """

    is_input = True

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        given = [tuple(shape.dim) for shape in param.input_param.shape] or [()]
        self.shapes = _checked(self, _one_each(self, given, "input_param { shape }"))

    @classmethod
    def known_shapes(cls, param: Any, channels: int = 0) -> list[Shape]:
        given = [tuple(shape.dim) for shape in param.input_param.shape] or [()]
        return given * len(param.top) if len(given) == 1 else given

    def top_shapes(self) -> list[Shape]:
        """The shapes that the prototxt gives."""
        return list(self.shapes)

    def forward(self) -> Tensor:
        """Always raise a ``LayerError``: the tops are arguments of the net."""
        raise self.error(f"its tops are given to the net: {', '.join(self.param.top)}")


@register("DummyData")
class DummyData(Source):
    """Blobs made by fillers: once for ``constant`` fillers, anew for each batch for all others.

    Shapes come from ``dummy_data_param.shape`` or from the legacy ``num``, ``channels``, ``height``, ``width``. Shapes and
    ``data_filler`` are given once for all tops, or once for each; without a filler everything is 0. Random numbers come
    from torch's generator of the layer's device. Source: Caffe's ``DummyDataLayer``.
    """

    random = True

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.dummy_data_param
        self.shapes = _checked(self, self._read_shapes(options))
        fillers = list(options.data_filler) or [caffe_pb2.FillerParameter(type="constant")]
        self.fillers = _one_each(self, fillers, "dummy_data_param { data_filler }")
        for i, (shape, filler) in enumerate(zip(self.shapes, self.fillers, strict=True)):
            constant = filler.type == "constant"
            value = self._empty(shape, "cpu" if constant else "meta")
            try:
                fill(value, filler)
            except LayerError as error:
                raise self.error(f"data_filler {i}: {error}") from error
            self.register_buffer(f"top{i}", value if constant else torch.empty(0), persistent=False)

    @classmethod
    def known_shapes(cls, param: Any, channels: int = 0) -> list[Shape] | None:
        options = param.dummy_data_param
        columns = [list(getattr(options, field)) for field in LEGACY]
        given = [tuple(shape.dim) for shape in options.shape] or list(zip(*columns, strict=False))
        given *= len(param.top) if len(given) == 1 else 1
        return given if len(given) == len(param.top) else None

    def _read_shapes(self, options: Any) -> list[Shape]:
        legacy = {field: list(getattr(options, field)) for field in LEGACY}
        if not any(legacy.values()):
            if not options.shape:
                raise self.error("needs dummy_data_param { shape { dim: … } }, once for all tops or once for each")
            return _one_each(self, [tuple(shape.dim) for shape in options.shape], "dummy_data_param { shape }")
        if options.shape:
            raise self.error("dummy_data_param has both shape and the legacy num, channels, height, width; give one")
        columns = [_one_each(self, given, f"dummy_data_param {{ {field} }}") for field, given in legacy.items()]
        return list(zip(*columns, strict=True))

    def top_shapes(self) -> list[Shape]:
        """The shapes that the prototxt gives."""
        return list(self.shapes)

    def forward(self) -> tuple[Tensor, ...]:
        """Return one filled tensor for each top."""
        return tuple(self._top(i) for i in range(self.n_tops))

    def _top(self, i: int) -> Tensor:
        constant: Tensor = getattr(self, f"top{i}")
        if self.fillers[i].type == "constant":
            return constant
        value = self._empty(self.shapes[i], constant.device).to(constant.dtype)
        fill(value, self.fillers[i])
        return value

    def _empty(self, shape: Shape, device: torch.device | str) -> Tensor:
        lacking = memory.lacking(4 * count(shape)) if torch.device(device).type == "cpu" else ""
        if lacking:
            raise self.error(f"a top of shape {dims(shape)} needs {lacking}")
        try:
            return torch.empty(shape, device=device)
        except (RuntimeError, TypeError) as error:
            raise self.error(f"a top cannot have shape {dims(shape)}: {str(error).splitlines()[0]}") from error

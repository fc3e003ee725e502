"""Upsample and UpsampleDarknet by nearest neighbours (eric612/MobileNet-YOLO, upsample_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.registry import register
from ...tables import dims


class _Repeated(Layer):
    """Every value repeated over a square of as many rows and columns as the option ``field`` says, 1 unless given."""

    field: ClassVar[str]

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        (option,) = self.option_fields()
        options = getattr(param, option)
        self.factor = getattr(options, self.field)
        if self.factor < 1:
            raise self.error(f"{option}.{self.field}: {self.factor} must be at least 1")
        if len(bottom_shapes[0]) != 4:
            raise self.error(f"needs a bottom (num, channels, height, width), not of shape {dims(bottom_shapes[0])}")

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        s = self.factor
        return x[:, :, :, None, :, None].expand(n, c, h, s, w, s).reshape(n, c, h * s, w * s)


@register("Upsample", fork="yolo")
class NearestUpsample(_Repeated):
    """Repeats every value over a square of ``scale`` x ``scale`` (default 1); one bottom."""

    options = ("upsample_param",)
    field = "scale"

    @classmethod
    def fits(cls, param: Any) -> bool:
        return len(param.bottom) == 1


@register("UpsampleDarknet", fork="synopsys")
class UpsampleDarknet(_Repeated):
    """Repeats every value over a square of ``stride`` x ``stride`` (default 1)."""

    options = ("upsample_darknet_param",)
    field = "stride"

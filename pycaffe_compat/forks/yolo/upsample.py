"""Upsample and UpsampleDarknet by nearest neighbours (eric612/MobileNet-YOLO, upsample_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...layers.base import Layer, Shape, register
from ...tables import dims


class _Repeated(Layer):
    """Every value repeated over a square of ``factor`` x ``factor``."""

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.factor, field = self.given()
        if self.factor < 1:
            raise self.error(f"{field}: {self.factor} must be at least 1")
        if len(bottom_shapes[0]) != 4:
            raise self.error(f"needs a bottom (num, channels, height, width), not of shape {dims(bottom_shapes[0])}")

    def given(self) -> tuple[int, str]:
        """The factor, and the name of its field."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        s = self.factor
        return x[:, :, :, None, :, None].expand(n, c, h, s, w, s).reshape(n, c, h * s, w * s)


@register("Upsample", fork="yolo")
class NearestUpsample(_Repeated):
    """Every value repeated over a square of ``scale`` x ``scale`` (1 unless given), with one bottom."""

    options = ("upsample_param",)

    def given(self) -> tuple[int, str]:
        options = self.param.upsample_param
        return options.scale if options.HasField("scale") else 1, "upsample_param.scale"

    @classmethod
    def fits(cls, param: Any) -> bool:
        return len(param.bottom) == 1


@register("UpsampleDarknet", fork="synopsys")
class UpsampleDarknet(_Repeated):
    """Every value repeated over a square of ``stride`` x ``stride``."""

    options = ("upsample_darknet_param",)

    def given(self) -> tuple[int, str]:
        return self.param.upsample_darknet_param.stride, "upsample_darknet_param.stride"

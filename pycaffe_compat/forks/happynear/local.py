"""Local: a convolution with filters of its own at each place (happynear/caffe-windows, local_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Layer, Shape, count
from ...layers.registry import register
from ...tables import dims


@register("Local", fork="happynear")
class Local(Layer):
    """A convolution with different filters at each place: ``weight`` is (num_output, 1, channels * kernel^2, places).

    ``bias`` is (1, 1, num_output, places). Source of the idea: Taigman and others, DeepFace, 2014.
    """

    blobs_declared = ("weight", "bias")
    blobs_optional = frozenset({"bias"})
    weight: Tensor

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.local_param
        shape = bottom_shapes[0]
        if len(shape) != 4:
            raise self.error(f"takes planes (N, C, H, W), not {dims(shape)}")
        self.kernel, self.stride, self.pad = options.kernel_size, options.stride, options.pad
        for field in ("num_output", "kernel_size", "stride"):
            if getattr(options, field) < 1:
                raise self.error(f"local_param.{field}: {getattr(options, field)} must be at least 1")
        if min(shape[2:]) < self.kernel:
            raise self.error(f"local_param.kernel_size: {self.kernel} is more than the planes have: {dims(shape[2:])}")
        self.outputs = options.num_output
        self.places = tuple((n + 2 * self.pad - self.kernel) // self.stride + 1 for n in shape[2:])
        places = count(self.places)
        self.add_blob("weight", (self.outputs, 1, shape[1] * self.kernel**2, places), options.weight_filler)
        if options.bias_term:
            self.add_blob("bias", (1, 1, self.outputs, places), options.bias_filler)

    def flops(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        return 2 * bottoms[0][0] * count(self.blob_specs[0].shape)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4 or x.shape[1] * self.kernel**2 != self.weight.shape[2]:
            raise self.error(f"its filters are not for planes {dims(x.shape)}")
        windows = F.unfold(x, self.kernel, padding=self.pad, stride=self.stride)
        if windows.shape[2] != self.weight.shape[3]:
            raise self.error(f"has filters for {dims(self.places)} places, not for planes {dims(x.shape)}")
        y = torch.einsum("nkp,mkp->nmp", windows, self.weight[:, 0])
        if len(self.blob_specs) > 1:
            y = y + self.blob(1)[0]
        return y.reshape(x.shape[0], self.outputs, *self.places)

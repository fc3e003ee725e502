"""Mean, as FlowNet2's Caffe has it (lmb-freiburg/flownet2, mean_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...data.mean import read_mean
from ...layers.base import Layer, Shape
from ...layers.registry import register
from ...proto import caffe_pb2
from ...tables import dims


@register("Mean", fork=("flownet2", "liteflownet", "pwcnet"))
class Mean(Layer):
    """``output_scale * (input_scale * x ± mean_scale * mean)`` of each bottom (N, C, H, W), by ``operation``.

    The mean is that of ``file``, or a ``value`` for each channel; they repeat over the channels. It has no gradient in the
    fork.
    """

    bottoms: ClassVar[tuple[int, int | None]] = (1, None)
    tops: ClassVar[tuple[int, int | None]] = (1, None)
    differentiable = (False,)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.mean_param
        if len(param.top) != len(bottom_shapes):
            raise self.error(f"needs as many tops as bottoms, {len(bottom_shapes)}, not {len(param.top)}")
        if not options.HasField("file") and not options.value:
            raise self.error("needs mean_param.file or value")
        mean = torch.tensor(list(options.value))[:, None, None]
        if options.HasField("file"):
            mean = torch.from_numpy(read_mean(options.file))
        for shape in bottom_shapes:
            if (
                len(shape) != 4
                or shape[1] % mean.shape[0]
                or (options.HasField("file") and shape[2:] != mean.shape[1:])
            ):
                raise self.error(f"its mean has shape {dims(mean.shape)}, which does not fit a bottom of {dims(shape)}")
        sign = -1 if options.operation == caffe_pb2.MeanParameter.SUBTRACT else 1
        self.input_scale, self.output_scale = options.input_scale, options.output_scale
        self.mean = sign * options.mean_scale * mean

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Return a tensor of the same shape for each bottom."""
        tops = []
        for x in bottoms:
            mean = self.mean.to(device=x.device, dtype=x.dtype).repeat(x.shape[1] // self.mean.shape[0], 1, 1)
            tops.append(self.output_scale * (self.input_scale * x.detach() + mean))
        return tuple(tops)

"""BatchNorm as synopsys-caffe has it (batch_norm_layer.cpp), with the arithmetic of Darknet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Shape
from ...layers.normalization import BatchNorm
from ...layers.registry import register


@register("BatchNorm", fork="synopsys")
class DarknetBatchNorm(BatchNorm):
    """BVLC's; with ``add_eps_before_sqrt: false`` divided by ``sqrt(variance) + eps``, only with running statistics."""

    @classmethod
    def fits(cls, param: Any) -> bool:
        options = param.batch_norm_param
        return options.HasField("add_eps_before_sqrt") or options.HasField("icnet")

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.batch_norm_param
        self.inside = options.add_eps_before_sqrt or not options.HasField("add_eps_before_sqrt")
        if options.icnet:
            raise self.error("batch_norm_param.icnet: true is not done here: it leaves out a copy that training needs")
        if options.HasField("update_global_stats") and not options.update_global_stats:
            raise self.error("batch_norm_param.update_global_stats: false is not done beside add_eps_before_sqrt")
        if not self.inside and not self.uses_running_statistics:
            raise self.error(
                "batch_norm_param.add_eps_before_sqrt: false works only with running statistics, in phase TEST or with "
                "use_global_stats: true"
            )

    def forward(self, x: Tensor) -> Tensor:
        if self.inside or x.dim() == 1:
            return super().forward(x)
        factor = torch.where(self.scale_factor == 0, self.scale_factor, 1 / self.scale_factor)
        shape = (1, -1, *(1,) * (x.dim() - 2))
        deviation = (self.running_var * factor).sqrt() + self.eps
        return (x - (self.running_mean * factor).view(shape)) / deviation.view(shape)

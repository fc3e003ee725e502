"""BatchNorm as PSPNet's Caffe has it (hszhao/PSPNet, batch_norm_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...layers.base import Shape
from ...layers.normalization import BatchNorm
from ...layers.registry import register


@register("BatchNorm", fork="pspnet")
class UpdatedBatchNorm(BatchNorm):
    """BVLC's BatchNorm. ``update_global_stats`` changes nothing in the TEST phase, and is refused in training.

    There the fork adds the squared distance from the running mean to the running variance and divides by the batch's share
    of it, with the gradient of fixed statistics.
    """

    options = ("batch_norm_param",)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        if param.batch_norm_param.update_global_stats and self.training:
            raise self.error(
                "batch_norm_param.update_global_stats: true is not supported in training. PSPNet's Caffe divides by the batch's "
                "distance from the running mean there; leave it out, or give only use_global_stats: true"
            )

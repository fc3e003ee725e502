"""BN, as the Caffe that became that of temporal segment networks had it in 2015 (yjxiong/caffe, 99449d88, bn_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...layers.base import Shape
from ...layers.registry import register
from ..pspnet.bn import RunningBN


@register("BN", fork="tsn_v1")
class StartedRunningBN(RunningBN):
    """PSPNet's BN, with blobs of shape 1 x channels; the running variance starts at 1. ``eps`` is 1e-7.

    ``moving_average: false``, which leaves out the running statistics, is refused: versions of the fork test by the batch's
    statistics then, or by those that were computed last.
    """

    blob_axes = 2
    starts_at_one = True
    fork_options = frozenset()

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        if not param.bn_param.moving_average:
            raise self.error(
                "bn_param.moving_average: false is not supported: versions of the fork differ in what they test by then; use true"
            )

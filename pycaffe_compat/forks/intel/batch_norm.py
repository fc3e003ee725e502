"""BatchNorm over parts of a batch, and with a scale and a bias of its own, as Intel's Caffe has it.

Source: intel/caffe, batch_norm_layer.cpp and mkldnn_batch_norm_layer.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Shape
from ...layers.normalization import BatchNorm
from ...layers.registry import register
from ...proto import caffe_pb2
from .merging import SAYING


@register("BatchNorm", fork="intel")
class ScaledBatchNorm(BatchNorm):
    """BVLC's BatchNorm; ``use_weight_bias`` adds a scale, and ``bias_term`` a bias.

    It has them if any field says so and the engine is not CAFFE, which reads none of them. A Scale layer behind it takes
    their place, as the fork makes one layer of the two. ``stats_batch_size`` takes statistics over parts of that many images;
    each part is added to the running ones in turn. ``relu`` (in the TEST phase) limits the top to 0 and more.
    """

    options = ("batch_norm_param",)
    blobs_declared = ("running_mean", "running_var", "scale_factor", "scale", "bias")
    blobs_optional = frozenset({"scale", "bias"})

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.batch_norm_param
        own_engine = options.engine == caffe_pb2.BatchNormParameter.CAFFE or param.engine == "CAFFE"
        said = any(options.HasField(name) for name in (*SAYING, "bias_filler"))
        self.scaled = said and options.use_weight_bias and not own_engine
        self.biased = self.scaled and options.bias_term
        self.part = options.stats_batch_size
        self.relu = options.relu and not own_engine
        if self.relu and self.training:
            raise self.error(
                "batch_norm_param.relu: true has no gradient in Intel's Caffe; use a ReLU layer for training"
            )
        if len(bottom_shapes[0]) > 1:
            self._check_parts(bottom_shapes[0][0])
        if self.scaled:
            one = caffe_pb2.FillerParameter(value=1)
            self.add_blob("scale", (self.channels,), options.filler if options.HasField("filler") else one)
        if self.biased:
            self.add_blob("bias", (self.channels,), options.bias_filler)

    @classmethod
    def blob_names(cls, number: int) -> tuple[str, ...]:
        return cls.blobs_declared[:number]

    def _check_parts(self, images: int) -> None:
        if self.part and images % self.part and not self.uses_running_statistics:
            raise self.error(
                f"batch_norm_param.stats_batch_size: {self.part} must divide the number of images, which is {images}"
            )

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() > 1 and self.part and not self.uses_running_statistics:
            self._check_parts(x.shape[0])
            y = torch.cat([super(ScaledBatchNorm, self).forward(part) for part in x.split(self.part)])
        else:
            y = super().forward(x)
        if self.scaled:
            shape = (1, self.channels) + (1,) * (x.dim() - 2) if x.dim() > 1 else (1,)
            y = y * self.blob(3).reshape(shape)
            if self.biased:
                y = y + self.blob(4).reshape(shape)
        return F.relu(y) if self.relu else y

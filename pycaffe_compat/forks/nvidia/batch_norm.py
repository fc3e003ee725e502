"""BatchNorm with averages, and with a scale and a bias of its own, as NVIDIA's Caffe has it.

Source: NVIDIA/caffe 0.17, batch_norm_layer.cpp, cudnn_batch_norm_layer.cu and Net::CopyTrainedLayersFrom.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.normalization import by_batch
from ...layers.registry import register
from ...proto import caffe_pb2

log = logging.getLogger(__name__)
LEAST_EPS = 1e-5  # what cuDNN takes at least, and the fork everywhere
FIRST = {"CAFFE": 2, "CUDNN": 1}  # how many batches replace the averages instead of being mixed into them


@register("BatchNorm", fork=("nvidia", "xilinx"))
class AveragedBatchNorm(Layer):
    """Every channel minus its mean, divided by ``sqrt(variance + eps)``, and with ``scale_bias`` times a scale plus a bias.

    ``running_mean`` and ``running_var`` are averages, not BVLC's decaying sums: ``moving_average_fraction`` times what they
    were plus the rest times the batch's statistics; the first batch replaces them. ``scale_factor`` is 1. Where BVLC's sums
    are loaded, it is what they are to be divided by, and is 1 again after the first batch. Only the phase decides which
    statistics are used, for the fork reads no ``use_global_stats``. ``eps`` is at least 1e-5. ``scale_filler`` or
    ``bias_filler`` mean ``scale_bias`` too. Scale and bias learn with ``lr_mult`` and ``decay_mult`` 1, whatever the net says.

    The variance of the averages is corrected by m / (m - 1), as cuDNN's is, which the fork uses unless it is told
    ``engine: CAFFE``; that one corrects nothing, and lets two batches replace the averages.
    """

    options = ("batch_norm_param",)
    blobs_declared = ("running_mean", "running_var", "scale_factor", "scale", "bias")
    blobs_optional = frozenset({"scale", "bias"})
    running_mean: Tensor
    running_var: Tensor
    scale_factor: Tensor
    seen: Tensor

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options, shape = param.batch_norm_param, bottom_shapes[0]
        if len(shape) < 2:
            raise self.error(f"needs a bottom with at least 2 axes, not {len(shape)}")
        self.eps = max(options.eps, LEAST_EPS)
        self.fraction = options.moving_average_fraction
        if not 0 <= self.fraction <= 1:
            raise self.error(f"batch_norm_param.moving_average_fraction: {self.fraction:g} must be from 0 to 1")
        if options.HasField("use_global_stats") and options.use_global_stats == self.training:
            message = (
                'layer "%s" (BatchNorm): use_global_stats: %s has no effect in NVIDIA\'s Caffe, where the phase decides'
            )
            log.info(message, self.name, str(options.use_global_stats).lower())
        self.own_engine = options.engine == caffe_pb2.BatchNormParameter.CAFFE
        self.scaled = any(options.HasField(f) for f in ("scale_filler", "bias_filler")) or options.scale_bias
        channels = (shape[1],)
        self.add_blob("running_mean", channels, trainable=False)
        self.add_blob("running_var", channels, trainable=False)
        self.add_blob("scale_factor", (1,), torch.ones(1), trainable=False)
        if self.scaled:
            one = caffe_pb2.FillerParameter(value=1)
            self.add_blob("scale", channels, options.scale_filler if options.HasField("scale_filler") else one)
            self.add_blob("bias", channels, options.bias_filler)
            for rates in param.param[3:]:
                rates.lr_mult = rates.decay_mult = 1
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def prepare(self, bottom_shapes: Sequence[Shape], device: torch.device) -> None:
        self.seen = self.seen.to(device)

    def stored_order(self, shapes: Sequence[Shape | None]) -> Sequence[int]:
        """DIGITS' first models hold scale, bias, mean, variance and a number that is not used."""
        return (2, 3, 4, 0, 1) if len(shapes) == 5 and shapes[4] and math.prod(shapes[4]) == 1 else range(len(shapes))

    def takes_shape(self, index: int, shape: Shape) -> bool:
        """DIGITS' first models and Xilinx's have blobs of shape 1 x channels x 1 x 1."""
        mine = self.blob_specs[index].shape
        return tuple(shape) == (1, *mine, 1, 1)

    def state(self) -> dict[str, Any]:
        """How many batches have been seen, as far as it matters; nothing before the first."""
        seen = 0 if self.seen.is_meta else int(self.seen)
        return {"seen": seen} if seen else {}

    def seek(self, state: dict[str, Any]) -> None:
        self.seen.fill_(state["seen"])

    def forward(self, x: Tensor) -> Tensor:
        scale, bias = (self.blob(3), self.blob(4)) if self.scaled else (None, None)
        factor = torch.where(self.scale_factor == 0, 1, 1 / self.scale_factor)  # 0: of no batch, or not used
        if not self.training:
            return F.batch_norm(x, self.running_mean * factor, self.running_var * factor, scale, bias, eps=self.eps)
        if not x.numel():
            return x.clone()
        y, mean, variance = by_batch(x, scale, bias, self.eps)
        if not x.is_meta:
            places = x.numel() // x.shape[1]
            if self.own_engine:
                variance = variance * ((places - 1) / places)
            self._follow(mean, variance, factor)
        return y

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, factor: Tensor) -> None:
        """Let the averages follow the statistics of a batch."""
        most = FIRST["CAFFE" if self.own_engine else "CUDNN"]
        keep = torch.where(self.seen < most, 0.0, self.fraction)
        for running, now in ((self.running_mean, mean), (self.running_var, variance)):
            running.mul_(factor).mul_(keep).add_(now * (1 - keep))
        self.scale_factor.fill_(1)
        self.seen.add_(1).clamp_(max=most)

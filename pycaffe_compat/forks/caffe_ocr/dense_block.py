"""DenseBlock, as caffe_ocr has it from Tongcheng's Caffe (senlinuc/caffe_ocr, DenseBlock_layer.cpp and .cu)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.normalization import by_batch
from ...layers.registry import register
from ...tables import dims

EPS = 1e-5  # cuDNN's least, when the layer was written


@register("DenseBlock", fork="caffe_ocr")
class DenseBlock(Layer):
    """``numTransition`` steps that each append ``growthRate`` channels to those of all earlier steps (Huang et al., 2017).

    A step is batch normalisation with scale and bias, ReLU and a convolution 3 × 3 without bias; with ``use_BC`` a
    convolution 1 × 1 to four times ``growthRate`` channels, normalisation and ReLU come before the last convolution. As cuDNN's
    convolutions in the fork, filters are turned by half a turn. With ``use_dropout`` new channels are dropped in training.

    It computes what the fork does on a GPU, where published weights come from. Running statistics follow those of batches by
    ``moving_average_fraction``, and the last blob stays 0. Blobs are in groups of ``numTransition``: filters, scales, biases,
    means, variances, then with ``use_BC`` those of the convolutions 1 × 1. ``initChannel`` and the sizes of filters, strides
    and pads are read by nothing.
    """

    options = ("denseblock_param",)
    inert_options = frozenset(
        {
            "initChannel",
            "pad_h",
            "pad_w",
            "conv_verticalStride",
            "conv_horizentalStride",
            "filter_H",
            "filter_W",
            "gpuIdx",
            "BC_ultra_space_efficient",
            "workspace_MB",
        }
    )

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options, shape = param.denseblock_param, bottom_shapes[0]
        steps, growth = options.numTransition, options.growthRate
        if min(steps, growth) < 1:
            raise self.error("denseblock_param: numTransition and growthRate must be at least 1")
        if len(shape) != 4:
            raise self.error(f"needs a bottom (N, C, H, W), not of shape {dims(shape)}")
        self.ratio = options.dropout_amount if options.use_dropout else 0.0
        if not 0 <= self.ratio < 1:
            raise self.error(f"denseblock_param.dropout_amount: {self.ratio:g} must be at least 0 and below 1")
        self.random = self.ratio > 0  # type: ignore[misc]
        self.follows, self.steps, self.narrows = options.moving_average_fraction, steps, options.use_BC
        channels = [shape[1] + growth * step for step in range(steps)]
        inner = [4 * growth] * steps
        filters = [(growth, c, 3, 3) for c in (inner if self.narrows else channels)]
        self._add_group(filters, options.Filter_Filler)
        self._add_normalisation(channels, options)
        if self.narrows:
            self._add_group([(4 * growth, c, 1, 1) for c in channels], options.Filter_Filler)
            self._add_normalisation(inner, options)
        self._add_group([(1,)], None, trainable=False)

    @classmethod
    def blob_names(cls, number: int) -> tuple[str, ...]:
        """They are called by their index: only the options tell what each is."""
        return tuple(f"blob{i}" for i in range(number))

    def _add_group(self, shapes: Sequence[Shape], filler: Any, trainable: bool = True) -> None:
        for shape in shapes:
            values = torch.full(shape, filler) if isinstance(filler, float) else filler
            self.add_blob(f"blob{len(self.blob_specs)}", shape, values, trainable)

    def _add_normalisation(self, channels: Sequence[int], options: Any) -> None:
        shapes = [(1, c, 1, 1) for c in channels]
        self._add_group(shapes, options.BN_Scaler_Filler)
        self._add_group(shapes, options.BN_Bias_Filler)
        self._add_group(shapes, 0.0, trainable=False)
        self._add_group(shapes, 1.0, trainable=False)

    def _normalised(self, x: Tensor, group: int, step: int) -> Tensor:
        """Normalise ``x`` by the blobs of a step, in the four groups from ``group`` on, and apply ReLU."""
        scale, bias, mean, variance = (self.blob((group + i) * self.steps + step) for i in range(4))
        if not self.training:
            y = F.batch_norm(x, mean.flatten(), variance.flatten(), scale.flatten(), bias.flatten(), eps=EPS)
            return F.relu(y)
        if not x.numel():
            return x.clone()
        y, now_mean, now_variance = by_batch(x, scale.flatten(), bias.flatten(), EPS)
        with torch.no_grad():
            for running, now in ((mean, now_mean), (variance, now_variance)):
                running.mul_(1 - self.follows).add_(now.reshape(running.shape), alpha=self.follows)
        return F.relu(y)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C + numTransition * growthRate, H, W), the bottom's channels first."""
        for step in range(self.steps):
            y = self._normalised(x, 1, step)
            if self.narrows:
                y = F.conv2d(y, self.blob(5 * self.steps + step))
                y = self._normalised(y, 6, step)
            y = F.conv2d(y, self.blob(step).flip(2, 3), padding=1)
            x = torch.cat([x, F.dropout(y, self.ratio, self.training)], 1)
        return x

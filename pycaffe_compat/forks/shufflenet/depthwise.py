"""Depthwise convolutions: ConvolutionDepthwise, and DepthwiseConvolution of other forks.

Sources: farmingyard/ShuffleNet, conv_dw_layer.cpp; eric612/MobileNet-YOLO, depthwise_conv_layer.cpp.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...layers.base import Shape
from ...layers.convolution import CONVOLUTIONS, Convolution
from ...layers.registry import register

log = logging.getLogger(__name__)


@register("ConvolutionDepthwise", fork=("shufflenet", "openvino", "synopsys"))
class ConvolutionDepthwise(Convolution):
    """Convolves each channel with its own filter: weights (channels, 1, *kernel).

    Neither ``group`` nor ``num_output`` is read.
    """

    def grouping(self) -> tuple[int, int]:
        return self.channels, self.channels


@register("DepthwiseConvolution", fork=("yolo", "densenet"))
class DepthwiseConvolution(ConvolutionDepthwise):
    """Convolves each channel with its own filter: weights (channels, channels / group, *kernel).

    ``group`` should be the number of channels. With another one the first ``channels * kernel`` weights are the filters and
    the rest are not used, which is what the fork does on a GPU; on the CPU it computes a convolution in groups.
    """

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.spare = self.filters()[1] > 1  # more weights than are used
        if self.spare:
            log.warning(
                'layer "%s": convolution_param.group: %d is not the number of its bottom\'s channels, %d. Each channel is '
                "convolved with one filter, as the fork does on a GPU",
                self.name,
                param.convolution_param.group,
                self.channels,
            )

    def grouping(self) -> tuple[int, int]:
        options = self.param.convolution_param
        if options.num_output != self.channels:
            raise self.error(
                f"convolution_param.num_output: {options.num_output} must be the number of its bottom's channels, "
                f"{self.channels}"
            )
        if options.group < 1 or self.channels % options.group:
            raise self.error(f"group: {options.group} must divide the bottom's {self.channels} channels")
        return super().grouping()

    def filters(self) -> tuple[int, int]:
        return self.outputs, self.channels // self.param.convolution_param.group

    def function(self, x: Tensor) -> Tensor:
        if not self.spare:
            return super().function(x)
        filters = self.weight.flatten()[: self.channels * math.prod(self.kernel)]
        filters = filters.reshape(self.channels, 1, *self.kernel)
        conv = CONVOLUTIONS[self.spatial]
        return conv(x, filters, self.bias, self.stride, self.pad, self.dilation, self.channels)

"""Depthwise convolutions: ConvolutionDepthwise, and DepthwiseConvolution of other forks.

Sources: farmingyard/ShuffleNet, conv_dw_layer.cpp; eric612/MobileNet-YOLO, depthwise_conv_layer.cpp.
"""

from __future__ import annotations

from ...layers.base import register
from ...layers.convolution import Convolution


@register("ConvolutionDepthwise", fork=("shufflenet", "openvino", "synopsys"))
class ConvolutionDepthwise(Convolution):
    """Convolution of each channel with a filter of its own: weights (channels, 1, *kernel), whatever ``group`` says."""

    def grouping(self) -> tuple[int, int]:
        outputs = self.param.convolution_param.num_output
        if outputs != self.channels:
            raise self.error(
                f"convolution_param.num_output: {outputs} must be the number of its bottom's channels, {self.channels}"
            )
        return outputs, self.channels


@register("DepthwiseConvolution", fork=("yolo", "densenet"))
class DepthwiseConvolution(ConvolutionDepthwise):
    """Convolution of each channel with a filter of its own, for which ``group`` must be the number of channels.

    With another ``group`` the fork computes one thing on the CPU and another on a GPU, so that is an error here.
    """

    def grouping(self) -> tuple[int, int]:
        group = self.param.convolution_param.group
        if group != self.channels:
            raise self.error(
                f"convolution_param.group: {group} must be the number of its bottom's channels, {self.channels}"
            )
        return super().grouping()

"""BatchNorm and Scale as part of the convolution before them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from torch import Tensor

from ..forks.shufflenet.depthwise import ConvolutionDepthwise, DepthwiseConvolution
from ..forks.video_caffe.volumes import NdConvolution
from ..layers.convolution import Convolution
from ..layers.linear import InnerProduct
from ..wiring import Step
from .affine import channel_affine, has_relu

TAKERS = (Convolution, ConvolutionDepthwise, DepthwiseConvolution, InnerProduct, NdConvolution)


def folds(steps: Sequence[Step], ends: set[int]) -> tuple[dict[str, tuple[Tensor, Tensor]], set[str]]:
    """Return new weights and biases by layer, and the layers that they make superfluous.

    A Convolution or InnerProduct takes over a BatchNorm with global statistics, and a Scale with blobs of its own over the
    channels, where nothing else reads what lies between.

    Args:
        steps: the layers in order.
        ends: values that are outputs, which must stay.
    """
    uses = Counter(value for step in steps for value in step.bottom_values)
    reader = {value: step for step in steps for value in step.bottom_values}
    made: dict[str, tuple[Tensor, Tensor]] = {}
    gone: set[str] = set()
    shared = Counter(step.layer.blob(0).data_ptr() for step in steps if step.layer.blob_specs)
    for step in steps:
        layer = step.layer
        if type(layer) not in TAKERS or layer.axis != 1 or len(step.top_values) != 1:
            continue
        if isinstance(layer, DepthwiseConvolution) and layer.spare:
            continue
        if shared[layer.blob(0).data_ptr()] > 1 or (isinstance(layer, InnerProduct) and layer.transpose):
            continue
        weight = layer.blob(0).detach().double()
        bias = layer.blob(1).detach().double() if len(layer.blob_specs) > 1 else weight.new_zeros(weight.shape[0])
        value, taken = step.top_values[0], []
        while uses[value] == 1 and value not in ends:
            following = reader[value].layer
            pair = None if has_relu(following) else channel_affine(following)
            if pair is None:
                break
            factor, shift = pair
            weight = weight * factor.reshape(-1, *(1,) * (weight.dim() - 1))
            bias = bias * factor + shift
            taken.append(reader[value].name)
            value = reader[value].top_values[0]
        if taken:
            made[step.name] = weight.float(), bias.float()
            gone.update(taken)
    return made, gone

"""The memory layout in which a net trains: ``torch.channels_last`` where that was measured to be faster."""

from __future__ import annotations

import torch
from torch import Tensor

from ..layers import Layer
from ..net import Net
from ..proto import caffe_pb2

# What the measured nets consist of (benchmarks/layout.md), beside the layers that make batches.
_MEASURED = frozenset(
    (
        "Accuracy",
        "BatchNorm",
        "Convolution",
        "Dropout",
        "Eltwise",
        "EuclideanLoss",
        "InnerProduct",
        "LRN",
        "Pooling",
        "ReLU",
        "Scale",
        "Softmax",
        "SoftmaxWithLoss",
    )
)
_LEAST_BATCH = 16  # below that it costs as much to bring filters and gradients into the layout
_LARGEST_SIDE = 64  # of images; gains shrink as images grow, and at 227 the two are level


def prefers_channels_last(net: Net, amp: str | None) -> bool:
    """Whether a net is faster in ``torch.channels_last``: in mixed precision, and in float32 on the CPU where images are small.

    A test net follows the train net whose parameters it shares. Layers of forks and of users are left in the usual layout,
    which their code may rely on.
    """
    if amp is not None:
        return True
    if net.phase != caffe_pb2.TRAIN:
        return any(_is_channels_last(parameter) for parameter in net.parameters())
    shapes = [net.blob_shapes[top] for step in net.steps if step.is_source for top in step.tops]
    images = [shape for shape in shapes if len(shape) == 4 and max(shape[2:]) > 1]
    layers = [step.layer for step in net.steps if not step.is_source]
    return (
        net.device.type == "cpu"
        and bool(images)
        and all(shape[0] >= _LEAST_BATCH and max(shape[2:]) <= _LARGEST_SIDE for shape in images)
        and any(layer.type_name == "Convolution" for layer in layers)
        and all(_was_measured(layer) for layer in layers)
    )


def _was_measured(layer: Layer) -> bool:
    return layer.type_name in _MEASURED and type(layer).__module__.startswith(Layer.__module__.rpartition(".")[0])


def _is_channels_last(parameter: Tensor) -> bool:
    return (
        parameter.dim() == 4
        and parameter.is_contiguous(memory_format=torch.channels_last)
        and not parameter.is_contiguous()
    )

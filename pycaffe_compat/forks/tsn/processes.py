"""Layers that move items between the processes of a training, as the Caffe of temporal segment networks has them.

Their files are gather_layer.cpp and scatter_layer.cpp of yjxiong/caffe.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch import distributed as dist

from ...layers.base import Layer, Shape
from ...layers.registry import register


class _AcrossProcesses(Layer):
    bottoms = (1, None)
    tops = (1, None)
    options = ()
    shares_memory = True

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        if len(param.top) != len(bottom_shapes):
            raise self.error(
                f"has {len(bottom_shapes)} bottoms and {len(param.top)} tops; it needs a top for each bottom"
            )

    def forward(self, *xs: Tensor) -> tuple[Tensor, ...]:
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            raise self.error(
                f"moves items between processes, which is not supported; there are {dist.get_world_size()} of them. Train "
                "in one process, or take the layer out of the net"
            )
        return tuple(x.view_as(x) for x in xs)


@register("Gather", fork=("tsn", "person_search"))
class Gather(_AcrossProcesses):
    """The items of all processes, concatenated. With one process, the bottoms unchanged."""


@register("Scatter", fork=("tsn", "person_search"))
class Scatter(_AcrossProcesses):
    """This process's share of the items. With one process, the bottoms unchanged."""

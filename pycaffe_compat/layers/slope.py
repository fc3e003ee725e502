"""Functions with a derivative of one's choice, for layers whose gradient in Caffe is not that of what they compute."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..ops.functions import is_exporting


class TracedFunction(torch.autograd.Function):
    """A ``Function``, whose ``forward`` takes no ``ctx``, that a TorchScript trace holds as what ``forward`` computes."""

    @classmethod
    def apply(cls, *arguments: Any) -> Any:
        """Compute, with the derivative of one's choice unless a trace is made, which would hold a call into Python."""
        return cls.forward(*arguments) if torch.jit.is_tracing() else super().apply(*arguments)


class WithSlope(TracedFunction):
    """``WithSlope.apply(x, value, slope)`` is ``value``, with ``slope`` (1 for None) for its derivative by ``x``."""

    @staticmethod
    def forward(x: Tensor, value: Tensor, slope: Tensor | None) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[2])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (slope,) = ctx.saved_tensors
        return grad if slope is None else grad * slope, None, None


def rewritten(blob: Tensor, value: Tensor) -> Tensor:
    """Return ``blob`` after it took the values of ``value``; its gradient stays its own.

    Where a program is traced, ``value`` is returned, and ``blob`` stays: a program does not change what it consists of.
    """
    if torch.jit.is_tracing() or is_exporting():
        return value
    blob.data.copy_(value)
    return blob

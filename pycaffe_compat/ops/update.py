"""One step of an optimizer over a list of parameters, in one pass over parameters, gradients and history.

The compiled library brings an operator for each of Caffe's rules; without it the solver's rules run on the
``torch._foreach`` functions, whose results on the CPU are the same bits.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from . import backends
from .windows import OperatorError

DTYPES = (torch.float32, torch.float64)


@functools.cache
def _has_kernels(key: str) -> bool:
    name = "pycaffe_compat::sgd_update_"
    return torch._C._dispatch_has_kernel(name) and torch._C._dispatch_has_kernel_for_dispatch_key(name, key)


def can_update(param: Tensor) -> bool:
    """Whether the compiled operators serve parameters of this device and type."""
    device = param.device.type
    return param.dtype in DTYPES and backends.serving(device) == "extension" and _has_kernels(device.upper())


def update_(
    rule: str,
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    history: Sequence[Sequence[Tensor]],
    rate: float | Tensor,
    *,
    hyper: dict[str, float],
    scale: Tensor | None = None,
    share: float = 1.0,
    decay: float = 0.0,
    l1: bool = False,
    subtract: bool = True,
    keep_update: bool = True,
) -> None:
    """Update ``params`` and ``history`` in place.

    Args:
        rule: ``"sgd"``, ``"nesterov"``, ``"adagrad"``, ``"rmsprop"``, ``"adadelta"`` or ``"adam"``.
        params, grads: tensors of one device and type, float32 or float64; memory layouts may differ.
        history: the rule's one or two lists of buffers.
        rate: what the rule multiplies with; a tensor on the device of the parameters is read there.
        hyper: the rule's own numbers, by the names of its operator's schema.
        scale, share: what the gradients are multiplied with first, in this order.
        decay: strength of the regularisation, L2 or ``l1``.
        subtract: False only updates the history.
        keep_update: whether ``grads`` hold the update afterwards; False leaves them as they are.

    Raises:
        OperatorError: tensors that do not fit together; the message names the first and both values.
    """
    operator = getattr(torch.ops.pycaffe_compat, f"{rule}_update_")
    number = rate if isinstance(rate, Tensor) else torch.tensor(rate, dtype=torch.float64)
    try:
        operator(
            params,
            grads,
            *history,
            number,
            **hyper,
            scale=scale,
            share=share,
            decay=decay,
            l1=l1,
            subtract=subtract,
            keep_update=keep_update,
        )
    except ValueError as error:
        raise OperatorError(str(error)) from None

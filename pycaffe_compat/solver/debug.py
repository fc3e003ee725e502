"""Caffe's ``debug_info``: the mean magnitude of every blob and gradient, as log lines."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..layers import Layer
from ..net import Net
from ..wiring import Step
from . import log as lines
from .log import log


def magnitude(value: Tensor | None) -> float:
    """The mean of the absolute values; 0 where there are none."""
    return float(value.detach().abs().mean()) if value is not None and value.numel() else 0.0


def display_name(layer: Layer, index: int) -> str:
    """How Caffe's log calls blob ``index`` of a layer: by the name that its ``param`` gives it, or by its number."""
    given = layer.param.param
    return (given[index].name if index < len(given) else "") or str(index)


def log_forward(step: Step, tops: Sequence[Tensor]) -> None:
    """Log the tops and the blobs of a layer that ran forward."""
    for name, top in zip(step.tops, tops, strict=False):
        log(lines.DEBUG, "    [Forward] Layer %s, top blob %s data: %g", step.name, name, magnitude(top))
    for index, blob in enumerate(step.layer.blobs):
        shown = display_name(step.layer, index)
        log(lines.DEBUG, "    [Forward] Layer %s, param blob %s data: %g", step.name, shown, magnitude(blob))


def log_backward(step: Step, bottoms: Sequence[Tensor | None], blobs: Sequence[Tensor | None]) -> None:
    """Log the gradients of the bottoms and of the blobs of a layer that ran backward; None where there is no gradient."""
    for name, needs, grad in zip(step.bottoms, step.bottom_needs, bottoms, strict=False):
        if needs and grad is not None:
            log(lines.DEBUG, "    [Backward] Layer %s, bottom blob %s diff: %g", step.name, name, magnitude(grad))
    for index, grad in enumerate(blobs):
        if grad is not None:
            log(lines.DEBUG, "    [Backward] Layer %s, param blob %d diff: %g", step.name, index, magnitude(grad))


@contextlib.contextmanager
def blobs_logged(net: Net) -> Iterator[None]:
    """While entered, every pass through ``net`` logs tops and parameters forward, and gradients backward."""
    grads: dict[str, tuple[Tensor | None, ...]] = {}
    handles: list[Any] = []

    def forward(step: Step) -> Any:
        def hook(layer: Any, bottoms: Any, made: Any) -> None:
            log_forward(step, made if isinstance(made, tuple) else (made,))

        return hook

    def backward(step: Step) -> Any:
        def hook(layer: Any, bottom_grads: Any, top_grads: Any) -> None:
            grads[step.name] = bottom_grads

        return hook

    for step in net.steps:
        handles.append(step.layer.register_forward_hook(forward(step)))
        if any(step.bottom_needs):
            handles.append(step.layer.register_full_backward_hook(backward(step)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    if grads:
        _log_pass_backward(net, grads)


def _log_pass_backward(net: Net, grads: dict[str, tuple[Tensor | None, ...]]) -> None:
    for step in reversed(net.steps):
        log_backward(step, grads.get(step.name, ()), [blob.grad for blob in step.layer.blobs])
    data = [learnable.tensor.detach() for learnable in net.learnable]
    diff = [tensor.grad for learnable in net.learnable if (tensor := learnable.tensor).grad is not None]
    norms = [
        sum(float(torch.linalg.vector_norm(t, p)) ** p for t in ts) ** (1 / p) for p in (1, 2) for ts in (data, diff)
    ]
    message = "    [Backward] All net params (data, diff): L1 norm = (%g, %g); L2 norm = (%g, %g)"
    log(lines.DEBUG_NORMS, message, *norms, level=logging.ERROR)  # the level that Caffe gives this line


def log_updates(net: Net) -> None:
    """Log parameters and updates; call it when the gradients hold the updates and before they are cleared."""
    for learnable in net.learnable:
        data, diff = magnitude(learnable.tensor), magnitude(learnable.tensor.grad)
        where = f"Layer {learnable.layer.name}, param {display_name(learnable.layer, learnable.index)}"
        log(lines.DEBUG, "    [Update] %s data: %g; diff: %g", where, data, diff)

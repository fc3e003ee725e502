"""A net through ``torch.compile``, as far as that goes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

from ..layers import Layer, Source
from ..layers.neuron import Overwritten
from ..net import Net
from . import log as lines
from .log import log


class Compiled(nn.Module):
    """The objective of a net, compiled whole; where that fails, layer by layer; what cannot be compiled runs as it is.

    What happened is logged once. Code that the compiler leaves to Python by itself (a graph break) is no failure.

    Args:
        objective: the module that returns the objective and the outputs of ``net`` for a batch.
        net: the net whose layers it calls.
        backend: of ``torch.compile``.
    """

    def __init__(self, objective: nn.Module, net: Net, backend: str = "inductor") -> None:
        super().__init__()
        self.objective = objective
        self._net, self._backend = [net], backend  # in a list: it is a submodule of the objective already
        self._whole: Callable[..., Any] | None = torch.compile(objective, backend=backend)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        if self._whole is not None:
            try:
                return self._whole(batch)
            except TorchDynamoException as error:
                log(
                    lines.COMPILING,
                    "--compile: the net cannot be compiled whole, its layers are compiled one by one: %s",
                    _first_line(error),
                    level=logging.WARNING,
                )
                self._whole = None
                for layer in self._net[0].layers.values():
                    if isinstance(layer, Source):
                        continue  # it makes batches, which is nothing to compile
                    if isinstance(layer, Overwritten) and layer.rewritten:
                        continue  # it needs what later layers leave in memory, which compiled code does not keep
                    layer.forward = _Guarded(layer, self._backend)  # type: ignore[method-assign]
        return self.objective(batch)


class _Guarded:
    """The ``forward`` of a layer: compiled, or as it is once that has failed."""

    def __init__(self, layer: Layer, backend: str) -> None:
        self._name = f'layer "{layer.name}" ({layer.type_name})'
        self._plain = layer.forward
        self._run: Callable[..., Any] = torch.compile(layer.forward, backend=backend)

    def __call__(self, *bottoms: Tensor) -> Any:
        try:
            return self._run(*bottoms)
        except TorchDynamoException as error:
            if self._run is self._plain:
                raise
            log(
                lines.COMPILING,
                "--compile: %s runs as it is: %s",
                self._name,
                _first_line(error),
                level=logging.WARNING,
            )
            self._run = self._plain
            return self._plain(*bottoms)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)

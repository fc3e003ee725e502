"""Passes forward and backward as CUDA graphs: captured once, then replayed without Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import SolverError
from ..net import Net

WARM_UP = 3  # passes before a capture, for what libraries set up and measure when they are first used
Objective = Callable[[Mapping[str, Tensor]], tuple[Tensor, dict[str, Tensor]]]


class Captured(NamedTuple):
    """A graph and the tensors that it writes."""

    graph: torch.cuda.CUDAGraph
    objective: Tensor
    outputs: dict[str, Tensor]


def hold(batch: Mapping[str, Tensor], inputs: dict[str, Tensor]) -> None:
    """Copy a batch to where a graph reads it: into ``inputs``, which the first batch fills.

    Raises:
        SolverError: other shapes than those of the first batch; nothing is copied then.
    """
    if not inputs:
        inputs.update((name, value.clone()) for name, value in batch.items())
        return
    for name, value in batch.items():
        if value.shape != inputs[name].shape:
            raise SolverError(
                f"--cuda-graph: {name} has shape {tuple(value.shape)} in this batch and had {tuple(inputs[name].shape)} "
                "when the graph was captured; a net whose shapes change cannot be replayed; remove --cuda-graph"
            )
    for name, value in batch.items():
        inputs[name].copy_(value, non_blocking=True)


class Replay:
    """The passes of a net whose shapes never change.

    The first pass of an iteration writes the gradients, further ones (``iter_size``) add to them: a graph each, captured when
    first needed. Warming up leaves parameters, buffers and random numbers as they were. The update is no part of the graphs,
    for the learning rate changes between them; it is a launch for each group of parameters.

    Args:
        net: on a CUDA device.
        objective: runs the net forward; what it returns first is differentiated after ``scale``.
        scale: multiplies the objective (loss scaling).

    Raises:
        SolverError: the net is not on a CUDA device.
    """

    def __init__(self, net: Net, objective: Objective, scale: Callable[[Tensor], Tensor]) -> None:
        if net.device.type != "cuda":
            raise SolverError("--cuda-graph needs the net on a CUDA device, but it is on the CPU; remove the option")
        self._net, self._objective, self._scale = net, objective, scale
        self._inputs: dict[str, Tensor] = {}
        self._graphs: dict[bool, Captured] = {}

    def __call__(self, batch: Mapping[str, Tensor], first: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Run a batch; the results hold until the next call.

        Args:
            batch: the inputs, of the shapes of the first call.
            first: gradients are written; otherwise added to what is there.

        Raises:
            SolverError: other shapes than those of the first batch, or a net that cannot be captured.
        """
        hold(batch, self._inputs)
        if first not in self._graphs:
            self._graphs[first] = self._capture(first)
        captured = self._graphs[first]
        captured.graph.replay()
        return captured.objective, captured.outputs

    def _capture(self, first: bool) -> Captured:
        parameters = [learnable.tensor for learnable in self._net.learnable]
        kept = [None if first else p.grad for p in parameters]
        try:
            self._warm_up(parameters)
            for parameter, gradient in zip(parameters, kept, strict=True):
                parameter.grad = gradient
            graph = torch.cuda.CUDAGraph()
            pool = next((other.graph.pool() for other in self._graphs.values()), None)
            with torch.cuda.graph(graph, pool=pool):
                objective, outputs = self._pass()
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise SolverError(f"--cuda-graph: this net cannot be captured ({reason}); remove --cuda-graph") from error
        return Captured(graph, objective.detach(), {name: output.detach() for name, output in outputs.items()})

    def _warm_up(self, parameters: list[Tensor]) -> None:
        buffers = [(buffer, buffer.clone()) for buffer in self._net.buffers()]
        random = torch.cuda.get_rng_state(self._net.device)
        stream = torch.cuda.Stream(self._net.device)
        stream.wait_stream(torch.cuda.current_stream(self._net.device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                for parameter in parameters:
                    parameter.grad = None
                self._pass()
        torch.cuda.current_stream(self._net.device).wait_stream(stream)
        torch.cuda.set_rng_state(random, self._net.device)
        for buffer, before in buffers:
            buffer.copy_(before)

    def _pass(self) -> tuple[Tensor, dict[str, Tensor]]:
        objective, outputs = self._objective(self._inputs)
        if objective.requires_grad:
            self._scale(objective).backward()
        return objective, outputs

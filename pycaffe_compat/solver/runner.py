"""How one pass over a net is done: what the solver asks for, and the whole graph under autograd as the answer."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, SupportsFloat

import torch
from torch import Tensor, nn

from ..errors import SolverError
from ..net import Net
from ..proto import caffe_pb2
from .distributed import world
from .layout import prefers_channels_last
from .parts import Parts
from .replay import Replay

Pass = tuple[SupportsFloat, Mapping[str, Tensor]]  # the objective, and the outputs by name
AMP = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Runner:
    """One pass over ``net``. Gradients are added to ``.grad`` of the learnable tensors.

    Attributes:
        parts: where the time goes. A runner says when the batch is there, and when a pass forward or backward is done.
        precision: the type of most values between layers.
    """

    precision = torch.float32

    def __init__(self, net: Net) -> None:
        self.net = net
        self.parts = Parts(net.device)

    def clear_gradients(self) -> None:
        """Make every gradient zero (or None)."""
        for learnable in self.net.learnable:
            learnable.tensor.grad = None

    def forward_backward(self, last: bool = True) -> Pass:
        """Run the next batch forward and backward; ``last`` of the ``iter_size`` passes whose gradients add up."""
        raise NotImplementedError

    def forward(self) -> Pass:
        """Run the next batch forward."""
        raise NotImplementedError

    def update(self, optimizer: torch.optim.Optimizer) -> bool:
        """Let ``optimizer`` update the parameters; return False if the gradients overflowed and nothing was updated."""
        optimizer.step()
        return True

    def state(self) -> dict[str, Any]:
        """What the runner carries from iteration to iteration, as JSON-able values."""
        return {}

    def seek(self, state: Mapping[str, Any]) -> None:
        """Go on from where :meth:`state` was taken."""

    def first_nonfinite(self) -> str | None:
        """Name what holds the first number that is not finite, for the newest batch; None where nothing does."""
        return None

    def close(self) -> None:
        """Let go of what outlives a pass. The other processes need not do so at the same time."""


class GraphRunner(Runner):
    """The whole graph as one autograd graph.

    Where several processes train together, the gradients of a train net are averaged over them
    (``DistributedDataParallel``).

    Args:
        net: the net; its data layers are drawn from.
        amp: ``"bfloat16"`` or, on CUDA devices, ``"float16"`` computes in mixed precision; parameters and updates stay
            float32. With float16 the objective is scaled so that small gradients do not vanish
            (``torch.amp.GradScaler``); an iteration whose scaled gradients overflow is not an update.
        compile: run the net through ``torch.compile``; a string names its backend. What cannot be compiled runs as it is.
        channels_last: keep images and filters in the memory layout of ``torch.channels_last``. None: where it is faster
            (:func:`~.layout.prefers_channels_last`).
        cuda_graph: capture the passes of a train net as CUDA graphs and replay them. For nets whose shapes never change.

    Raises:
        SolverError: an unknown ``amp``; ``"float16"`` or ``cuda_graph`` without a CUDA device; ``cuda_graph`` together with
            ``compile`` or with several processes.
    """

    def __init__(
        self,
        net: Net,
        *,
        amp: str | None = None,
        compile: bool | str = False,
        channels_last: bool | None = None,
        cuda_graph: bool = False,
    ) -> None:
        super().__init__(net)
        if amp is not None and amp not in AMP:
            raise SolverError(f'amp: "{amp}" is not known; valid: {", ".join(AMP)}')
        on_cuda = net.device.type == "cuda"
        if amp == "float16" and not on_cuda:
            raise SolverError("amp: float16 is for CUDA devices, and the net is on the CPU; use bfloat16")
        self._amp = None if amp is None else AMP[amp]
        self.precision = self._amp or torch.float32
        trains = net.phase == caffe_pb2.TRAIN and any(p.requires_grad for p in net.parameters())
        self._scaler = torch.amp.GradScaler("cuda", enabled=amp == "float16" and trains)
        self._channels_last = prefers_channels_last(net, amp) if channels_last is None else channels_last
        if self._channels_last:
            net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._forward: Any = _Objective(net)
        if compile:
            from .compiled import Compiled  # it imports PyTorch's compiler, which takes a second and a half

            self._forward = Compiled(self._forward, net, compile if isinstance(compile, str) else "inductor")
        self._train: Any = self._forward
        if world() > 1 and trains:
            # Caffe's processes keep their own BatchNorm statistics, and a blob may go unused in one batch.
            self._train = nn.parallel.DistributedDataParallel(
                self._forward, broadcast_buffers=False, find_unused_parameters=True
            )
        self._replay: Replay | None = None
        if cuda_graph and trains:
            if compile or world() > 1:
                other = "--compile" if compile else "several processes"
                raise SolverError(f"--cuda-graph cannot be combined with {other}; remove one")
            self._replay = Replay(net, self._eager, self._scaler.scale)
        self._batch: dict[str, Tensor] = {}
        self._passes = 0  # of this iteration

    def batch(self) -> dict[str, Tensor]:
        """The inputs of the next pass: what the data layers draw."""
        return self.net.draw()

    def _next(self) -> dict[str, Tensor]:
        batch = self.batch()
        if self._channels_last:
            batch = {
                n: t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t for n, t in batch.items()
            }
        self._batch = batch
        return batch

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if self._amp is None:
            return contextlib.nullcontext()
        return torch.autocast(self.net.device.type, self._amp)

    def _eager(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        with self._precision():
            return self._train(batch)

    def clear_gradients(self) -> None:
        self._passes = 0
        if self._replay is None:  # a replay writes the gradients where the capture has put them
            super().clear_gradients()

    def forward_backward(self, last: bool = True) -> Pass:
        alone = contextlib.nullcontext() if last or self._train is self._forward else self._train.no_sync()
        self.parts.begin()
        batch = self._next()
        self.parts.end("data")
        self._passes += 1
        if self._replay is not None:
            objective, outputs = self._replay(batch, self._passes == 1)
            self.parts.end("forward")  # and backward: the host has enqueued both
            return HostScalar(objective), outputs
        with alone:
            objective, outputs = self._eager(batch)
            value = HostScalar(objective)
            self.parts.end("forward")
            if objective.requires_grad:
                self._scaler.scale(objective).backward()
            self.parts.end("backward")
        return value, {name: output.detach() for name, output in outputs.items()}

    def update(self, optimizer: torch.optim.Optimizer) -> bool:
        if not self._scaler.is_enabled():
            return super().update(optimizer)
        self._scaler.unscale_(optimizer)
        before = self._scaler.get_scale()
        self._scaler.step(optimizer)
        self._scaler.update()
        return self._scaler.get_scale() >= before

    def state(self) -> dict[str, Any]:
        return {"scaler": self._scaler.state_dict()} if self._scaler.is_enabled() else {}

    def seek(self, state: Mapping[str, Any]) -> None:
        if self._scaler.is_enabled() and "scaler" in state:
            self._scaler.load_state_dict(dict(state["scaler"]))

    @torch.no_grad()
    def forward(self) -> Pass:
        with self._precision():
            objective, outputs = self._forward(self._next())
        return HostScalar(objective), outputs

    def first_nonfinite(self) -> str | None:
        with self._precision():
            return self.net.first_nonfinite(self._batch)

    def close(self) -> None:
        # DistributedDataParallel must not be the last to hold the process group: it would free the group while it holds
        # Python's lock, and wait for a worker thread that waits for the lock to free the tensors of its newest work.
        self._train = self._forward


class _Objective(nn.Module):
    """The net with its objective as what it returns, for the wrappers that look at ``forward``."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        return self.net.objective(batch)


class HostScalar:
    """A scalar on its way to the host.

    Made between the forward and the backward pass, ``float(...)`` of it waits only for the forward pass: the device
    still has the backward pass to do while the host looks at the loss.
    """

    def __init__(self, value: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        value = value.detach()
        if value.device.type == "cuda":
            self._value = torch.empty(value.shape, dtype=value.dtype, pin_memory=True).copy_(value, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(value.device))
        else:
            self._value = value

    def __float__(self) -> float:
        if self._event is not None:
            self._event.synchronize()
        return float(self._value)

"""Caffe's LSTM and RNN."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def lstm_unit(c: Tensor, gates: Tensor, cont: Tensor) -> tuple[Tensor, Tensor]:
    """One step of an LSTM: the new c and h. Where cont is 0 the old c is forgotten."""
    i, f, o, g = gates.chunk(4, -1)
    c = cont * f.sigmoid() * c + i.sigmoid() * g.tanh()
    return c, o.sigmoid() * c.tanh()


class LSTM(nn.Module):
    """Caffe's LSTM of T steps: cont (T, N) is 0 where a sequence begins."""

    def __init__(self, inputs: int, size: int, static: int = 0) -> None:
        super().__init__()
        self.size = size
        self.input = nn.Linear(inputs, 4 * size)
        self.static = nn.Linear(static, 4 * size, bias=False) if static else None
        self.hidden = nn.Linear(size, 4 * size, bias=False)

    def forward(
        self,
        x: Tensor,
        cont: Tensor,
        static: Tensor | None = None,
        h: Tensor | None = None,
        c: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        gates = self.input(x.reshape(*x.shape[:2], -1))
        if self.static is not None and static is not None:
            gates = gates + self.static(static.reshape(x.shape[1], -1))
        zeros = x.new_zeros(x.shape[1], self.size)
        h = zeros if h is None else h.squeeze(0)
        c = zeros if c is None else c.squeeze(0)
        outputs = []
        for gate, keep in zip(gates.unbind(), cont.unsqueeze(-1).unbind(), strict=True):
            c, h = lstm_unit(c, gate + self.hidden(h * keep), keep)
            outputs.append(h)
        return torch.stack(outputs), h.unsqueeze(0), c.unsqueeze(0)


def run_packed(
    lstm: nn.Module,
    x: Tensor,
    streams: int,
    cont: Tensor | None = None,
) -> Tensor:
    """An LSTM over steps and streams that lie in one axis, (T * N, ...)."""
    steps = x.reshape(-1, streams, x[0].numel())
    if cont is None:
        return lstm(steps)[0].flatten(0, 1)
    return lstm(steps, (cont.reshape(-1, streams) != 0).to(x.dtype))[0].flatten(0, 1)


class RNN(nn.Module):
    """Caffe's RNN of T steps: cont (T, N) is 0 where a sequence begins."""

    def __init__(self, inputs: int, size: int, static: int = 0) -> None:
        super().__init__()
        self.size = size
        self.input = nn.Linear(inputs, size)
        self.static = nn.Linear(static, size, bias=False) if static else None
        self.hidden = nn.Linear(size, size, bias=False)
        self.output = nn.Linear(size, size)

    def forward(
        self,
        x: Tensor,
        cont: Tensor,
        static: Tensor | None = None,
        h: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        inputs = self.input(x.reshape(*x.shape[:2], -1))
        if self.static is not None and static is not None:
            inputs = inputs + self.static(static.reshape(x.shape[1], -1))
        h = x.new_zeros(x.shape[1], self.size) if h is None else h.squeeze(0)
        hidden = []
        for now, keep in zip(inputs.unbind(), cont.unsqueeze(-1).unbind(), strict=True):
            h = torch.tanh(now + self.hidden(h * keep))
            hidden.append(h)
        return torch.tanh(self.output(torch.stack(hidden))), h.unsqueeze(0)

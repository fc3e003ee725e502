"""Lstm: the recurrent layer of CTPN's Caffe and of junhyukoh/caffe-lstm, on which it is built (lstm_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Shape, count
from ...layers.recurrent import Carrying, lstm_unit
from ...layers.registry import register
from ...layers.slope import TracedFunction
from ...tables import dims


@register("Lstm", fork=("ctpn", "caffe_ocr"))
class Lstm(Carrying):
    """Long short-term memory over (T, N, …), or over (T * N, …) if ``batch_size`` is N; the top is (T, N, D) or (T * N, D).

    A second bottom, a number for each step and stream, is 0 where a sequence begins. With it the next pass begins with the
    state after the last step; without it every pass starts from zero. Further bottoms are not read. The rows of the blobs are in
    the order of the gates i, f, o, g. ``clipping_threshold`` limits the gradients of the gates before their nonlinearities. As
    in the fork, the gradient of ``W_h`` counts the step before also where a sequence begins, and of the carried state only the
    first stream.
    """

    options = ("lstm_param",)
    states = ("h", "c")
    bottoms = (1, None)
    differentiable = (True, False)
    blobs_declared = ("W_x", "W_h", "b")

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options, x = param.lstm_param, bottom_shapes[0]
        self.size, self.clip = options.num_output, options.clipping_threshold
        if not self.size:
            raise self.error("lstm_param.num_output must be given and positive")
        self.batch = options.batch_size if options.HasField("batch_size") or len(x) < 3 else 0
        if options.HasField("batch_size") and self.batch < 1:
            raise self.error(f"lstm_param.batch_size: {self.batch} must be at least 1")
        if len(x) < 2:
            raise self.error(f"its first bottom must be T×N×…, or (T * N)×… with batch_size, but has shape {dims(x)}")
        if len(bottom_shapes) > 1:
            self.carry(self.streams(x))
        self.add_blob("W_x", (4 * self.size, count(x, 1 if self.batch else 2)), options.weight_filler)
        self.add_blob("W_h", (4 * self.size, self.size), options.weight_filler)
        self.add_blob("b", (4 * self.size,), options.bias_filler)

    def streams(self, shape: Shape) -> int:
        return self.batch or shape[1]

    def flops(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        return self.multiply_adds(count(bottoms[0], 0, 1 if self.batch else 2))

    def forward(self, x: Tensor, cont: Tensor | None = None, *_: Tensor) -> Tensor:
        n = self.streams(x.shape)
        if self.batch and x.shape[0] % n:
            raise self.error(f"lstm_param.batch_size: {n} must divide the length of its first axis, {x.shape[0]}")
        steps = x.shape[0] // n if self.batch else x.shape[0]
        if x.is_meta:  # the steps, one by one, take long
            return x.new_empty((*x.shape[: 1 if self.batch else 2], self.size))
        gates = F.linear(x.reshape(steps, n, -1), self.blob(0), self.blob(2))
        if cont is None:
            keep = torch.ones((steps, n, 1), dtype=gates.dtype, device=gates.device)
            keep[:1] = 0
            h, c = (gates.new_zeros((n, self.size)) for _ in self.states)
        else:
            if cont.numel() != steps * n:
                raise self.error(f"takes {steps}×{n} numbers that say where sequences go on, not {dims(cont.shape)}")
            keep = (cont.detach().reshape(steps, n, 1) != 0).to(gates.dtype)
            h, c = self.carried_over(gates, n)
        outputs = []
        for step, (now, kept) in enumerate(zip(gates.unbind(), keep.unbind(), strict=True)):
            before = now + _Hidden.apply(h, self.blob(1), kept, 1 if step == 0 else n)
            if self.clip > 0:
                before = _Clipped.apply(before, self.clip)
            c, h = lstm_unit(c, before, kept)
            outputs.append(h)
        if cont is not None:
            for carried, last in zip(self.carried, (h, c), strict=True):
                carried.copy_(last.detach())
        y = torch.stack(outputs)
        return y.flatten(0, 1) if self.batch else y


class _Hidden(TracedFunction):
    """``keep * (h @ W.T)``; the gradient of W is that of the first ``streams`` streams, without ``keep``."""

    @staticmethod
    def forward(h: Tensor, weight: Tensor, keep: Tensor, streams: int) -> Tensor:
        return F.linear(h, weight) * keep

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        h, weight, keep, ctx.streams = inputs
        ctx.save_for_backward(h, weight, keep)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:  # type: ignore[override]
        h, weight, keep = ctx.saved_tensors
        n = ctx.streams
        return (grad @ weight) * keep, grad[:n].t() @ h[:n], None, None


class _Clipped(TracedFunction):
    """The identity, whose gradient is limited to ``most`` on both sides."""

    @staticmethod
    def forward(x: Tensor, most: float) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.most = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return grad.clamp(-ctx.most, ctx.most), None

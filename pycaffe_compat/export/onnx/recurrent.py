"""Recurrent layers, written out step by step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...forks.ctpn.lstm import Lstm
from ...forks.warpctc.sequences import ContinuationIndicator
from ...layers.recurrent import LSTM, RNN, LSTMUnit, Recurrent
from ..outline import Value
from ..registry import static
from .emitter import Emitter, emits


@emits(RNN, LSTM)
def recurrent(e: Emitter, layer: Recurrent, x: Value, cont: Value, *rest: Value) -> list[str]:
    """All steps. A state that Caffe carries from one pass to the next begins with zeros."""
    static(layer, x)
    static(layer, cont)
    steps, streams = x.shape[:2]
    flat = x if len(x.shape) == 3 else e.op("Reshape", x, e.ints(steps, streams, -1))
    inputs = _linear(e, layer, flat, 0, 1)
    if layer.static:
        inputs = e.op("Add", inputs, _linear(e, layer, e.op("Reshape", rest[0], e.ints(streams, -1)), 2, None))
    if layer.exposed:
        state = [e.op("Squeeze", h, e.ints(0)) for h in rest[int(layer.static) :]]
    else:
        zeros = e.constant([[0.0] * layer.size] * streams)
        state = [zeros for _ in layer.states]
    keep = e.op("Unsqueeze", cont, e.ints(2))
    every = [_step(e, inputs, t) for t in range(steps)]
    keeps = [_step(e, keep, t) for t in range(steps)]
    outputs = []
    last = len(layer.blob_specs) - 1
    for now, kept in zip(every, keeps, strict=True):
        if isinstance(layer, LSTM):
            h, c = state
            gates = e.op("Add", now, _linear(e, layer, e.op("Mul", h, kept), last, None))
            c, h = _unit(e, c, gates, kept, layer.size)
            state = [h, c]
        else:
            hidden = _linear(e, layer, e.op("Mul", state[0], kept), last - 2, None)
            h = e.op("Tanh", e.op("Add", now, hidden))
            state = [h]
        outputs.append(e.op("Unsqueeze", h, e.ints(0)))
    y = e.op("Concat", *outputs, axis=0)
    if isinstance(layer, RNN):
        y = e.op("Tanh", _linear(e, layer, y, last - 1, last))
    return [y, *(e.op("Unsqueeze", h, e.ints(0)) for h in state)][: len(e.tops)]


def _linear(e: Emitter, layer: Recurrent, x: object, weight: int, bias: int | None) -> Any:
    y = e.op("MatMul", x, e.op("Transpose", e.blob(layer, weight), perm=[1, 0]))
    return y if bias is None else e.op("Add", y, e.blob(layer, bias))


def _step(e: Emitter, x: str, t: int) -> Any:
    return e.op("Squeeze", e.op("Slice", x, e.ints(t), e.ints(t + 1), e.ints(0)), e.ints(0))


def _unit(e: Emitter, c: object, gates: object, keep: object, size: int) -> tuple[Any, Any]:
    i, f, o, g = e.op("Split", gates, e.ints(size, size, size, size), outputs=4, axis=-1)
    forget = e.op("Mul", keep, e.op("Sigmoid", f))
    new = e.op("Add", e.op("Mul", forget, c), e.op("Mul", e.op("Sigmoid", i), e.op("Tanh", g)))
    return new, e.op("Mul", e.op("Sigmoid", o), e.op("Tanh", new))


@emits(LSTMUnit)
def lstm_unit(e: Emitter, layer: LSTMUnit, c: Value, gates: Value, cont: Value) -> list[str]:
    return list(_unit(e, c, gates, e.op("Unsqueeze", cont, e.ints(2)), c.shape[2]))


@emits(Lstm)
def lstm_of_ctpn(e: Emitter, layer: Lstm, x: Value, cont: Value | None = None) -> str:
    """ONNX's own LSTM, whose gates are in another order; step by step where sequences may begin within the bottom."""
    streams = layer.streams(x.shape)
    if cont is not None or layer.batch:
        static(layer, x, 0)
    elif x.moving - {0, 1}:
        static(layer, x)
    steps = x.shape[0] // streams if layer.batch else x.shape[0]
    features = layer.blob(0).shape[1]
    y: object = x
    if layer.batch:
        y = e.op("Reshape", x, e.ints(steps, streams, features))
    elif len(x.shape) != 3:
        y = e.op("Reshape", x, e.ints(0, 0, features))
    if cont is None:
        w, r, b = (e.array(layer, name, _for_onnx(layer.blob(i))) for i, name in enumerate(layer.blobs_declared))
        y = e.op("Squeeze", e.op("LSTM", y, w, r, b, outputs=1, hidden_size=layer.size), e.ints(1))
    else:
        y = _by_steps(e, layer, y, cont, steps, streams)
    return str(e.reshape(layer, y, x) if layer.batch else y)


def _for_onnx(blob: Tensor) -> Tensor:
    """A blob by the gates i, f, o, g as ONNX has it: of one direction, by i, o, f, g; a bias of x and one of h."""
    i, f, o, g = blob.detach().chunk(4)
    value = torch.cat((i, o, f, g))
    return torch.cat((value, torch.zeros_like(value)))[None] if value.dim() == 1 else value[None]


def _by_steps(e: Emitter, layer: Lstm, x: object, cont: Value, steps: int, streams: int) -> Any:
    given = e.op("MatMul", x, e.op("Transpose", e.blob(layer, 0), perm=[1, 0]))
    given = e.op("Add", given, e.blob(layer, 2))
    hidden = e.op("Transpose", e.blob(layer, 1), perm=[1, 0])
    keep = e.op("Reshape", cont, e.ints(steps, streams, 1))
    keep = e.op("Where", e.op("Equal", keep, e.number(0)), e.number(0), e.number(1))
    h = c = e.constant([[0.0] * layer.size] * streams)
    outputs = []
    for t in range(steps):
        kept = _step(e, keep, t)
        gates = e.op("Add", _step(e, given, t), e.op("Mul", e.op("MatMul", h, hidden), kept))
        c, h = _unit(e, c, gates, kept, layer.size)
        outputs.append(e.op("Unsqueeze", h, e.ints(0)))
    return e.op("Concat", *outputs, axis=0)


@emits(ContinuationIndicator)
def continuation(e: Emitter, layer: ContinuationIndicator) -> str:
    return str(e.op("Identity", e.array(layer, "cont", layer.cont)))

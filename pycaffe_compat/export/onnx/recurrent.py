"""Recurrent layers, written out step by step."""

from __future__ import annotations

from typing import Any

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

"""Recurrent layers."""

from __future__ import annotations

import math

from ...layers.recurrent import LSTM, RNN, LSTMUnit, Recurrent
from ..outline import Value
from . import helpers
from .layout import call
from .writer import Several, Writer, writes


@writes(RNN, LSTM)
def recurrent(w: Writer, layer: Recurrent, x: Value, cont: Value, *rest: Value) -> str | Several:
    """A state that Caffe carries from one pass to the next begins with zeros."""
    lstm = isinstance(layer, LSTM)
    sizes = [math.prod(x.shape[2:]), layer.size]
    if layer.static:
        sizes.append(math.prod(rest[0].shape[1:]))
    module = w.module(layer, helpers.LSTM if lstm else helpers.RNN, *sizes)
    places = ["input.weight", "input.bias"] + ["static.weight"] * layer.static + ["hidden.weight"]
    places += [] if lstm else ["output.weight", "output.bias"]
    for index, place in enumerate(places):
        w.blob(f"{module}.{place}", layer, index)
    names = ([] if layer.static else ["h", "c"]) if layer.exposed else []
    given = list(rest) if layer.static or not rest else []
    options = dict(zip(names, rest, strict=False)) if names else {}
    y = call(module, x, cont, *given, **options)
    return Several(y) if layer.exposed else f"{y}[0]"


@writes(LSTMUnit)
def lstm_unit(w: Writer, layer: LSTMUnit, c: Value, gates: Value, cont: Value) -> Several:
    return Several(f"{w.helper(helpers.lstm_unit)}({c}, {gates}, {cont}.unsqueeze(-1))")

"""Recurrent layers."""

from __future__ import annotations

import math

import torch

from ...forks.ctpn.lstm import Lstm
from ...forks.warpctc.sequences import ContinuationIndicator
from ...layers.recurrent import LSTM, RNN, LSTMUnit, Recurrent
from ..outline import Value
from .helpers import recurrent as helpers
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


@writes(Lstm)
def lstm_of_ctpn(w: Writer, layer: Lstm, x: Value, cont: Value | None = None) -> str:
    """``nn.LSTM``, whose gates are in another order; step by step where sequences may begin within the bottom."""
    features = layer.blob(0).shape[1]
    if cont is None:
        module = w.module(layer, "nn.LSTM", features, layer.size)
        for name, blob in (("weight_ih", 0), ("weight_hh", 1), ("bias_ih", 2)):
            i, f, o, g = layer.blob(blob).detach().chunk(4)
            w.weight(f"{module}.{name}_l0", torch.cat([i, f, g, o]))
        w.weight(f"{module}.bias_hh_l0", torch.zeros(4 * layer.size))
    else:
        module = w.module(layer, helpers.LSTM, features, layer.size)
        for index, place in enumerate(("input.weight", "hidden.weight", "input.bias")):
            w.blob(f"{module}.{place}", layer, index)
    if layer.batch:
        return call(w.helper(helpers.run_packed), module, x, layer.batch, cont)
    source = str(x) if len(x.shape) == 3 else f"{x}.flatten(2)"
    if cont is None:
        return f"{module}({source})[0]"
    where = str(cont) if len(cont.shape) == 2 else f"{cont}.reshape({x}.shape[:2])"
    return f"{module}({source}, ({where} != 0).float())[0]"


@writes(ContinuationIndicator)
def continuation(w: Writer, layer: ContinuationIndicator) -> str:
    return w.parameter(layer, layer.cont, learns=False)

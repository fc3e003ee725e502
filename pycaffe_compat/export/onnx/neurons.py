"""Layers that treat every element alike."""

from __future__ import annotations

import math

from ...forks.deconvnet.relu import MaskedReLU
from ...forks.fast_rcnn.dropout import LateDropout
from ...forks.happynear.neuron import Arccos, Cosine, Insanity, Noise, RootDropout, SoftTruncation, Truncation
from ...forks.synopsys.neuron import HardSwish, Mish
from ...forks.synopsys.relu import LimitedReLU
from ...forks.xilinx.fixed_neuron import FixedNeuron
from ...forks.yolo.relu6 import ReLU6
from ...layers.neuron import (
    BNLL,
    ELU,
    AbsVal,
    Clip,
    Exp,
    Log,
    Power,
    PReLU,
    ReLU,
    Sigmoid,
    Swish,
    TanH,
    Threshold,
)
from ..outline import Value
from .emitter import FLOAT, Emitter, emits


def affine(e: Emitter, x: object, scale: float, shift: float) -> object:
    """``scale * x + shift``, without nodes that would change nothing."""
    if scale != 1:
        x = e.op("Mul", x, e.number(scale))
    return e.op("Add", x, e.number(shift)) if shift else x


def rectified(e: Emitter, x: object, slope: float) -> str:
    """A ReLU with a slope below 0."""
    return str(e.op("LeakyRelu", x, alpha=float(slope)) if slope else e.op("Relu", x))


@emits(Cosine)
def cosine(e: Emitter, layer: Cosine, x: Value) -> str:
    return str(e.op("Cos", x))


@emits(Arccos)
def arccos(e: Emitter, layer: Arccos, x: Value) -> str:
    return str(e.op("Acos", x))


@emits(FixedNeuron)
def fixed_neuron(e: Emitter, layer: FixedNeuron, x: Value) -> str:
    if not layer.enabled:
        return str(e.op("Identity", x))
    step = e.number(layer.step)
    place = e.op("Div", x, step)
    if layer.truncates:
        return str(e.op("Mul", e.op("Mul", e.op("Sign", place), e.op("Floor", e.op("Abs", place))), step))
    whole = e.op("Floor", place)
    up = e.op("Cast", e.op("GreaterOrEqual", e.op("Sub", place, whole), e.number(0.5)), to=FLOAT)
    rounded = e.op("Mul", e.op("Add", whole, up), step)
    most = 2.0 ** (layer.bits - 1)
    return str(e.op("Clip", rounded, e.number(-most * layer.step), e.number((most - 1) * layer.step)))


@emits(Truncation)
def truncation(e: Emitter, layer: Truncation, x: Value) -> str:
    return str(e.op("Clip", x, e.number(layer.lower), e.number(layer.upper)))


@emits(SoftTruncation)
def soft_truncation(e: Emitter, layer: SoftTruncation, x: Value) -> str:
    return str(e.op("Sub", e.number(1), e.op("Exp", affine(e, x, -1 / layer.c, 0))))


@emits(Insanity)
def insanity(e: Emitter, layer: Insanity, x: Value) -> str:
    return str(e.op("LeakyRelu", x, alpha=1 / layer.mean))


@emits(Noise, RootDropout)
def of_training(e: Emitter, layer: Noise | RootDropout, x: Value) -> str:
    return str(e.op("Identity", x))


@emits(AbsVal)
def absolute(e: Emitter, layer: AbsVal, x: Value) -> str:
    return str(e.op("Abs", x))


@emits(BNLL)
def bnll(e: Emitter, layer: BNLL, x: Value) -> str:
    """``max(x, 0) + log(1 + exp(-|x|))``: the runtime's Softplus may overflow."""
    rest = e.op("Log", e.op("Add", e.op("Exp", e.op("Neg", e.op("Abs", x))), e.number(1)))
    return str(e.op("Add", e.op("Relu", x), rest))


@emits(Clip)
def clip(e: Emitter, layer: Clip, x: Value) -> str:
    return str(e.op("Clip", x, e.number(layer.min), e.number(layer.max)))


@emits(ELU)
def elu(e: Emitter, layer: ELU, x: Value) -> str:
    return str(e.op("Elu", x, alpha=float(layer.alpha)))


@emits(Exp)
def exponential(e: Emitter, layer: Exp, x: Value) -> str:
    y = e.op("Exp", affine(e, x, layer.inner, 0))
    return str(affine(e, y, layer.outer, 0))


@emits(Log)
def logarithm(e: Emitter, layer: Log, x: Value) -> str:
    y = e.op("Log", affine(e, x, layer.scale, layer.shift))
    return str(affine(e, y, 1 / layer.log_base, 0))


@emits(LateDropout)
def late_dropout(e: Emitter, layer: LateDropout, x: Value) -> str:
    return str(e.op("Mul", x, e.number(1 - layer.ratio)))


@emits(Power)
def power(e: Emitter, layer: Power, x: Value) -> str:
    if layer.constant is not None:
        return str(e.op("Add", e.op("Mul", x, e.number(0)), e.number(layer.constant)))
    y = affine(e, x, layer.scale, layer.shift)
    if layer.power == 1:
        return str(y if y is not x else e.op("Identity", x))
    if layer.power == 2:
        return str(e.op("Mul", y, y))
    if layer.power == 0.5:
        return str(e.op("Sqrt", y))
    return str(e.op("Pow", y, e.number(layer.power)))


@emits(PReLU)
def prelu(e: Emitter, layer: PReLU, x: Value) -> str:
    if layer.weight.dim():
        slope = e.array(layer, "slope", layer.weight.reshape(-1, *(1,) * (len(x.shape) - 2)))
    else:
        slope = e.blob(layer, 0)
    return str(e.op("PRelu", x, slope))


@emits(ReLU)
def relu(e: Emitter, layer: ReLU, x: Value) -> str:
    if layer.negative_slope:
        return str(e.op("LeakyRelu", x, alpha=float(layer.negative_slope)))
    return str(e.op("Relu", x))


@emits(MaskedReLU)
def masked_relu(e: Emitter, layer: MaskedReLU, x: Value) -> list[str]:
    return [rectified(e, x, layer.negative_slope), str(e.op("Cast", e.op("Greater", x, e.number(0)), to=FLOAT))]


@emits(ReLU6)
def relu6(e: Emitter, layer: ReLU6, x: Value) -> str:
    slope = layer.negative_slope
    if not slope:
        return str(e.op("Clip", x, e.number(0), e.number(6)))
    return str(e.op("Min", e.op("LeakyRelu", x, alpha=float(slope)), e.number(6)))


@emits(LimitedReLU)
def limited_relu(e: Emitter, layer: LimitedReLU, x: Value) -> str:
    slope = layer.negative_slope
    y: object = rectified(e, x, slope)
    if layer.most < math.inf:
        y = e.op("Min", y, e.number(layer.most))
    if layer.least > -math.inf:
        y = e.op("Max", y, e.number(layer.least))
    return str(y)


@emits(Sigmoid)
def sigmoid(e: Emitter, layer: Sigmoid, x: Value) -> str:
    return str(e.op("Sigmoid", x))


@emits(Swish)
def swish(e: Emitter, layer: Swish, x: Value) -> str:
    return str(e.op("Mul", x, e.op("Sigmoid", affine(e, x, layer.beta, 0))))


@emits(TanH)
def tanh(e: Emitter, layer: TanH, x: Value) -> str:
    return str(e.op("Tanh", x))


@emits(Threshold)
def threshold(e: Emitter, layer: Threshold, x: Value) -> str:
    return str(e.op("Cast", e.op("Greater", x, e.number(layer.threshold)), to=FLOAT))


@emits(Mish)
def mish(e: Emitter, layer: Mish, x: Value) -> str:
    return str(e.op("Mish", x))


@emits(HardSwish)
def hard_swish(e: Emitter, layer: HardSwish, x: Value) -> str:
    return str(e.op("HardSwish", x))

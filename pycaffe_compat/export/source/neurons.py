"""Layers that treat every element alike."""

from __future__ import annotations

import math

from ...forks.deconvnet.relu import MaskedReLU
from ...forks.fast_rcnn.dropout import LateDropout
from ...forks.happynear.neuron import Arccos, Cosine, Insanity, Noise, RootDropout, SoftTruncation, Truncation
from ...forks.intel.fused import FusedConvolution, FusedInnerProduct
from ...forks.synopsys.neuron import HardSwish, Mish
from ...forks.synopsys.relu import LimitedReLU
from ...forks.xilinx.fixed_neuron import FixedNeuron
from ...forks.yolo.relu6 import ReLU6
from ...layers.neuron import (
    BNLL,
    ELU,
    AbsVal,
    Clip,
    Dropout,
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
from ..registry import unsaid
from .helpers import neurons as helpers
from .layout import call, literal
from .writer import Writer, writes


def affine(x: object, scale: float, shift: float) -> str:
    """``scale * x + shift``, without what would change nothing."""
    text = str(x) if scale == 1 else f"{literal(scale)} * {x}"
    if not shift:
        return text
    return f"{text} + {literal(shift)}" if shift > 0 else f"{text} - {literal(-shift)}"


@writes(Arccos)
def arccos(w: Writer, layer: Arccos, x: Value) -> str:
    return f"{x}.acos()"


@writes(Cosine)
def cosine(w: Writer, layer: Cosine, x: Value) -> str:
    return f"{x}.cos()"


@writes(FixedNeuron)
def fixed_neuron(w: Writer, layer: FixedNeuron, x: Value) -> str:
    if not layer.enabled:
        return str(x)
    if layer.truncates:
        return f"({x} / {literal(layer.step)}).trunc() * {literal(layer.step)}"
    return call(w.helper(helpers.fixed_point), x, layer.step, layer.bits)


@writes(Insanity)
def insanity(w: Writer, layer: Insanity, x: Value) -> str:
    return f"{w.module(layer, 'nn.LeakyReLU', 1 / layer.mean)}({x})"


@writes(Noise, RootDropout)
def of_training(w: Writer, layer: Noise | RootDropout, x: Value) -> str:
    return str(x)


@writes(SoftTruncation)
def soft_truncation(w: Writer, layer: SoftTruncation, x: Value) -> str:
    return f"1 - torch.exp({affine(x, -1 / layer.c, 0)})"


@writes(Truncation)
def truncation(w: Writer, layer: Truncation, x: Value) -> str:
    return f"{x}.clamp({literal(layer.lower)}, {literal(layer.upper)})"


@writes(AbsVal)
def absolute(w: Writer, layer: AbsVal, x: Value) -> str:
    return f"{x}.abs()"


@writes(BNLL)
def bnll(w: Writer, layer: BNLL, x: Value) -> str:
    return f"{w.module(layer, 'nn.Softplus', threshold=50)}({x})"


@writes(Clip)
def clip(w: Writer, layer: Clip, x: Value) -> str:
    return f"{x}.clamp({literal(layer.min)}, {literal(layer.max)})"


@writes(Dropout)
def dropout(w: Writer, layer: Dropout, x: Value) -> str:
    if layer.always:
        raise unsaid(layer, "sample_weights_test draws random numbers")
    return f"{w.module(layer, 'nn.Dropout', float(layer.ratio))}({x})"


@writes(LateDropout)
def late_dropout(w: Writer, layer: LateDropout, x: Value) -> str:
    return f"{w.module(layer, 'nn.Dropout', float(layer.ratio))}({x}) * {literal(1 - layer.ratio)}"


@writes(ELU)
def elu(w: Writer, layer: ELU, x: Value) -> str:
    return f"{w.module(layer, 'nn.ELU', *([] if layer.alpha == 1 else [float(layer.alpha)]))}({x})"


@writes(Exp)
def exponential(w: Writer, layer: Exp, x: Value) -> str:
    y = f"torch.exp({affine(x, layer.inner, 0)})"
    return y if layer.outer == 1 else f"{literal(layer.outer)} * {y}"


@writes(Log)
def logarithm(w: Writer, layer: Log, x: Value) -> str:
    y = f"torch.log({affine(x, layer.scale, layer.shift)})"
    return y if layer.log_base == 1 else f"{y} / {literal(layer.log_base)}"


@writes(Power)
def power(w: Writer, layer: Power, x: Value) -> str:
    if layer.constant is not None:
        return f"torch.full_like({x}, {literal(float(layer.constant))})"
    y = affine(x, layer.scale, layer.shift)
    if layer.power == 1:
        return y
    return f"{x}**{literal(layer.power)}" if y == str(x) else f"({y}) ** {literal(layer.power)}"


@writes(PReLU)
def prelu(w: Writer, layer: PReLU, x: Value) -> str:
    shared = not layer.weight.dim()
    module = w.module(layer, "nn.PReLU", *([] if shared else [layer.weight.numel()]))
    if shared:
        w.weight(f"{module}.weight", layer.weight.reshape(1))
    else:
        w.filters(module, layer)
    return f"{module}({x})"


@writes(MaskedReLU)
def masked_relu(w: Writer, layer: MaskedReLU, x: Value) -> list[str]:
    return [relu(w, layer, x), f"({x} > 0).float()"]


@writes(ReLU)
def relu(w: Writer, layer: ReLU | MaskedReLU, x: Value) -> str:
    if layer.negative_slope:
        return f"{w.module(layer, 'nn.LeakyReLU', float(layer.negative_slope))}({x})"
    return f"{w.module(layer, 'nn.ReLU')}({x})"


@writes(ReLU6)
def relu6(w: Writer, layer: ReLU6, x: Value) -> str:
    if layer.negative_slope:
        return f"{w.module(layer, 'nn.LeakyReLU', float(layer.negative_slope))}({x}).clamp(max=6)"
    return f"{w.module(layer, 'nn.ReLU6')}({x})"


@writes(LimitedReLU)
def limited_relu(w: Writer, layer: LimitedReLU, x: Value) -> str:
    slope = layer.negative_slope
    if not slope and layer.most == 6 and layer.least == -math.inf:
        return f"{w.module(layer, 'nn.ReLU6')}({x})"
    module = w.module(layer, "nn.LeakyReLU", float(slope)) if slope else w.module(layer, "nn.ReLU")
    limits = []
    if layer.least > -math.inf:
        limits.append(f"min={literal(float(layer.least))}")
    if layer.most < math.inf:
        limits.append(f"max={literal(float(layer.most))}")
    return f"{module}({x}).clamp({', '.join(limits)})" if limits else f"{module}({x})"


@writes(Sigmoid)
def sigmoid(w: Writer, layer: Sigmoid, x: Value) -> str:
    return f"{w.module(layer, 'nn.Sigmoid')}({x})"


@writes(Swish)
def swish(w: Writer, layer: Swish, x: Value) -> str:
    if layer.beta == 1:
        return f"{w.module(layer, 'nn.SiLU')}({x})"
    return f"{x} * torch.sigmoid({affine(x, layer.beta, 0)})"


@writes(TanH)
def tanh(w: Writer, layer: TanH, x: Value) -> str:
    return f"{w.module(layer, 'nn.Tanh')}({x})"


@writes(Threshold)
def threshold(w: Writer, layer: Threshold, x: Value) -> str:
    return f"({x} > {literal(float(layer.threshold))}).float()"


def rectified(layer: FusedConvolution | FusedInnerProduct, y: str) -> str:
    """What a ReLU within a layer makes of its product."""
    if not layer.relu:
        return y
    return f"F.leaky_relu({y}, {literal(layer.negative_slope)})" if layer.negative_slope else f"F.relu({y})"


@writes(Mish, HardSwish)
def smooth(w: Writer, layer: Mish | HardSwish, x: Value) -> str:
    return f"{w.module(layer, 'nn.Mish' if isinstance(layer, Mish) else 'nn.Hardswish')}({x})"

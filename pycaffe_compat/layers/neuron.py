"""Layers that work element by element: activations, elementary functions, dropout.

Source: Caffe's layers of these names.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..proto import caffe_pb2
from ..tables import dims
from .base import Layer, Shape
from .registry import register
from .slope import TracedFunction


class _Overwritten(TracedFunction):
    """The identity with the derivative ``slope``; with ``lost`` the slope replaces the top's gradient as well."""

    @staticmethod
    def forward(x: Tensor, y: Tensor, slope: Tensor, lost: bool) -> Tensor:
        return y.view_as(y)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[2])
        ctx.lost = inputs[3]

    @staticmethod
    def backward(ctx: Any, *diffs: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return slope * (slope if ctx.lost else diffs[0]), None, None, None


class Memory:
    """The numbers in a blob's memory after every layer that writes there has run."""

    value: Tensor


class _Rewritten(TracedFunction):
    """The identity with the derivative of ``layer``, computed from ``memory``, which later layers fill."""

    @staticmethod
    def forward(x: Tensor, y: Tensor, layer: Overwritten, memory: Memory) -> Tensor:
        return y.view_as(y)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, _, layer, memory = inputs
        ctx.save_for_backward(None if layer.in_place else x)
        ctx.layer, ctx.memory = layer, memory

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *diffs: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        layer, held = ctx.layer, ctx.memory.value
        slope = layer.slope(held if x is None else x, held)
        return slope * (slope if layer.in_place and layer.loses_diff else diffs[0]), None, None, None


class Overwritten(Layer):
    """A layer whose derivative Caffe computes from memory that may have been overwritten.

    Caffe's gradient is then wrong, and it is the same here: training resumed from Caffe's files must go on as it did.
    When the layer works in place, its top has overwritten the bottom before the backward pass, and later layers in place
    have overwritten the top. Some of these layers also build the slope in the memory that still holds the gradient of
    the top (``loses_diff``).

    Attributes:
        reads_top: Caffe's derivative reads the top even where the top has its own memory.
        spoils: the derivative changes when the top overwrites the bottom.
        rewritten: a layer that this one does not withstand works in place on its top. The net sets it.
        memory: what lies in the top's memory after the newest forward pass, if ``rewritten``. Whoever runs the layers
            fills it before the backward pass.
    """

    passes_places = True
    loses_diff: ClassVar[bool] = False
    reads_top: ClassVar[bool] = False
    spoils = True
    rewritten = False
    memory: Memory

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.in_place = bool(param.top) and param.top[:1] == param.bottom[:1]

    def __getstate__(self) -> dict[str, Any]:
        """Everything but ``memory``: it belongs to one pass, and holds a whole blob."""
        return {name: value for name, value in super().__getstate__().items() if name != "memory"}

    def forward(self, x: Tensor) -> Tensor:
        y = self.function(x)
        if self.rewritten and not torch.compiler.is_compiling():
            self.memory = Memory()
            return _Rewritten.apply(x, y.detach(), self, self.memory) if y.requires_grad else y
        if self.in_place and self.spoils:
            y = y.detach()
            return _Overwritten.apply(x, y, self.slope(y, y), self.loses_diff)
        return y

    def withstands(self, later: Layer) -> bool:
        """Whether ``later`` may work in place on the top without changing this layer's derivative."""
        return False

    def function(self, x: Tensor) -> Tensor:
        """What the layer computes."""
        raise NotImplementedError

    def slope(self, bottom: Tensor, top: Tensor) -> Tensor:
        """Caffe's derivative, computed from what now lies in the memory of the bottom and of the top."""
        raise NotImplementedError


@register("AbsVal")
class AbsVal(Layer):
    """``|x|``; its gradient at 0 is 0."""

    def forward(self, x: Tensor) -> Tensor:
        return x.abs()


@register("BNLL")
class BNLL(Overwritten):
    """``log(1 + exp(x))``, the binomial normal log likelihood."""

    def function(self, x: Tensor) -> Tensor:
        return F.softplus(x, threshold=50)

    def slope(self, bottom: Tensor, top: Tensor) -> Tensor:
        return bottom.sigmoid()


@register("Clip")
class Clip(Overwritten):
    """``x`` limited to ``min`` … ``max``; the gradient passes inside and at the limits."""

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.clip_param
        if not (options.HasField("min") and options.HasField("max")):
            raise self.error("clip_param needs both min and max")
        self.min, self.max = options.min, options.max
        if self.min > self.max:
            raise self.error(f"clip_param.min: {self.min:g} is above max: {self.max:g}")

    def function(self, x: Tensor) -> Tensor:
        return x.clamp(self.min, self.max)

    def slope(self, bottom: Tensor, top: Tensor) -> Tensor:
        return ((bottom >= self.min) & (bottom <= self.max)).to(bottom.dtype)


def dropout_ratio(layer: Layer, param: Any) -> float:
    """Return the ``dropout_ratio`` of a Dropout layer; raise a ``LayerError`` if it is no share.

    A ratio of 1, with which Caffe's training gives NaN, passes in the TEST phase, where Caffe does not use it.
    """
    ratio: float = param.dropout_param.dropout_ratio
    idle = layer.phase == caffe_pb2.TEST and not param.dropout_param.sample_weights_test
    if not (0 <= ratio < 1 or (ratio == 1 and idle)):
        raise layer.error(f"dropout_param.dropout_ratio: {ratio:g} must be at least 0 and below 1")
    return ratio


@register("Dropout")
class Dropout(Layer):
    """In training, each element is 0 with probability ``dropout_ratio``, otherwise ``x / (1 - dropout_ratio)``.

    With SegNet's ``sample_weights_test`` in the TEST phase too, to sample a Bayesian net's outputs.
    """

    random = True
    fork_options = frozenset({"dropout_param.sample_weights_test"})
    keeps_positive = True
    passes_places = True

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.ratio = dropout_ratio(self, param)
        self.always: bool = param.dropout_param.sample_weights_test

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.ratio) if self.training or self.always else x


@register("ELU")
class ELU(Overwritten):
    """``x`` above 0, else ``alpha * (exp(x) - 1)``."""

    reads_top = True

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.alpha = param.elu_param.alpha
        self.spoils = self.alpha < 0

    def function(self, x: Tensor) -> Tensor:
        return F.elu(x, self.alpha)

    def slope(self, bottom: Tensor, top: Tensor) -> Tensor:
        return torch.where(bottom > 0, 1, self.alpha + top)


def _natural_log(layer: Layer, base: float, field: str) -> float:
    """The natural logarithm of the option ``base``; 1 for the default -1, which means e."""
    if base == -1:
        return 1.0
    if not 0 < base < math.inf:
        raise layer.error(f"{field}.base: {base:g} must be above 0, or -1 for e")
    return math.log(base)


@register("Exp")
class Exp(Overwritten):
    """``base ** (shift + scale * x)``."""

    reads_top = True
    spoils = False

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.exp_param
        log_base = _natural_log(self, options.base, "exp_param")
        self.inner = log_base * options.scale
        try:
            self.outer = math.exp(log_base * options.shift)
        except OverflowError:
            raise self.error(f"exp_param.shift: base ** {options.shift:g} is not a finite number") from None

    def function(self, x: Tensor) -> Tensor:
        y = torch.exp(x if self.inner == 1 else x * self.inner)
        return y if self.outer == 1 else y * self.outer

    def slope(self, bottom: Tensor, top: Tensor) -> Tensor:
        return self.inner * top


@register("Log")
class Log(Overwritten):
    """The logarithm to ``base`` of ``shift + scale * x``."""

    loses_diff = True

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.log_param
        self.log_base = _natural_log(self, options.base, "log_param")
        if self.log_base == 0:
            raise self.error("log_param.base: there is no logarithm to base 1")
        self.scale, self.shift = options.scale, options.shift

    def function(self, x: Tensor) -> Tensor:
        y = torch.log(_affine(x, self.scale, self.shift))
        return y if self.log_base == 1 else y * (1 / self.log_base)

    def slope(self, bottom: Tensor, top: Tensor) -> Tensor:
        return self.scale / self.log_base / _affine(bottom, self.scale, self.shift)


def _affine(x: Tensor, scale: float, shift: float) -> Tensor:
    """``scale * x + shift``, without an operation that would change nothing."""
    if scale != 1:
        x = x * scale
    return x + shift if shift else x


@register("Power")
class Power(Overwritten):
    """``(shift + scale * x) ** power``; a constant if ``power`` or ``scale`` is 0."""

    loses_diff = True

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.power_param
        self.power, self.scale, self.shift = options.power, options.scale, options.shift
        self.constant: float | None = None
        if self.power == 0:
            self.constant = 1.0
        elif self.scale == 0:
            try:
                self.constant = math.pow(self.shift, self.power)
            except (ValueError, OverflowError):
                raise self.error(f"power_param: {self.shift:g} ** {self.power:g} is not a real number") from None

    def function(self, x: Tensor) -> Tensor:
        if self.constant is not None:
            return torch.full_like(x, self.constant)
        y = _affine(x, self.scale, self.shift)
        return y if self.power == 1 else y.pow(self.power)

    def slope(self, bottom: Tensor, top: Tensor) -> Tensor:
        outer = self.power * self.scale
        if outer == 0 or self.power == 1:
            return torch.full_like(bottom, outer)
        base = _affine(bottom, self.scale, self.shift)
        if self.power == 2:
            return outer * base
        return outer * (top / base)


@register("PReLU")
class PReLU(Layer):
    """``x`` above 0, else ``weight * x``, with one slope per channel (axis 1), or one for all with ``channel_shared``."""

    blobs_declared = ("weight",)
    weight: Tensor

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        shape = bottom_shapes[0]
        if len(shape) < 2:
            raise self.error(f"needs a bottom with at least 2 axes (num, channels, …), not {dims(shape)}")
        options = param.prelu_param
        filler = options.filler if options.HasField("filler") else caffe_pb2.FillerParameter(value=0.25)
        self.add_blob("weight", () if options.channel_shared else (shape[1],), filler)

    def forward(self, x: Tensor) -> Tensor:
        return F.prelu(x, self.weight)


@register("ReLU")
class ReLU(Overwritten):
    """``x`` above 0, else ``negative_slope * x``; the gradient at 0 is ``negative_slope``."""

    inert_options = frozenset({"engine"})

    @classmethod
    def fits(cls, param: Any) -> bool:
        return len(param.top) != 2  # a second top is DeconvNet's

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.negative_slope = param.relu_param.negative_slope
        self.spoils = self.negative_slope < 0
        self.keeps_positive = self.negative_slope >= 0

    def withstands(self, later: Layer) -> bool:
        return later.keeps_positive

    def function(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, self.negative_slope) if self.negative_slope else F.relu(x)

    def slope(self, bottom: Tensor, top: Tensor) -> Tensor:
        return torch.where(bottom > 0, 1, self.negative_slope).to(bottom.dtype)


@register("Sigmoid")
class Sigmoid(Overwritten):
    """``1 / (1 + exp(-x))``."""

    inert_options = frozenset({"engine"})
    reads_top = True
    spoils = False

    def function(self, x: Tensor) -> Tensor:
        return x.sigmoid()

    def slope(self, bottom: Tensor, top: Tensor) -> Tensor:
        return top * (1 - top)


@register("Swish")
class Swish(Layer):
    """``x * sigmoid(beta * x)``."""

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.beta = param.swish_param.beta

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x) if self.beta == 1 else x * torch.sigmoid(x * self.beta)


@register("TanH")
class TanH(Overwritten):
    """The hyperbolic tangent."""

    inert_options = frozenset({"engine"})
    reads_top = True
    spoils = False

    def function(self, x: Tensor) -> Tensor:
        return x.tanh()

    def slope(self, bottom: Tensor, top: Tensor) -> Tensor:
        return 1 - top * top


@register("Threshold")
class Threshold(Layer):
    """1 where ``x`` is above ``threshold``, else 0; it has no gradient."""

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.threshold = param.threshold_param.threshold

    def forward(self, x: Tensor) -> Tensor:
        return (x > self.threshold).to(x.dtype)

"""Functions of single values, as happynear's Caffe has them (happynear/caffe-windows, the layers of these names)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.neuron import dropout_ratio
from ...layers.registry import register
from ...layers.slope import WithSlope

ARCCOS_MOST = 0.99  # what the fork takes for larger values in the gradient


@register("Cosine", fork="happynear")
class Cosine(Layer):
    """``cos(x)``."""

    options = ()

    def forward(self, x: Tensor) -> Tensor:
        return torch.cos(x)


@register("Arccos", fork="happynear")
class Arccos(Layer):
    """``arccos(x)``; for values above 0.99 the gradient is the one at 0.99."""

    options = ()

    def forward(self, x: Tensor) -> Tensor:
        near = x.detach().clamp(max=ARCCOS_MOST)
        return WithSlope.apply(x, torch.acos(x.detach()), -1 / (1 - near * near).sqrt())


@register("Truncation", fork="happynear")
class Truncation(Layer):
    """``x`` between ``lower_bound`` and ``upper_bound``; the gradient at the bounds is 0."""

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.truncation_param
        self.lower, self.upper = options.lower_bound, options.upper_bound

    def forward(self, x: Tensor) -> Tensor:
        inside = (x > self.lower) & (x < self.upper)
        return torch.where(inside, x, x.detach().clamp(min=self.lower).clamp(max=self.upper))


@register("SoftTruncation", fork="happynear")
class SoftTruncation(Layer):
    """``1 - exp(-x / c)``."""

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.c = param.soft_truncation_param.c
        if not self.c:
            raise self.error("soft_truncation_param.c: 0 cannot be divided by")

    def forward(self, x: Tensor) -> Tensor:
        return 1 - torch.exp(x / -self.c)


@register("Dropout", fork="happynear")
class RootDropout(Layer):
    """With ``sqrt_scale``: in training, 0 with probability ``dropout_ratio``, otherwise ``x / sqrt(1 - dropout_ratio)``."""

    random = True
    keeps_positive = True
    passes_places = True

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.ratio = dropout_ratio(self, param)

    @classmethod
    def fits(cls, param: Any) -> bool:
        return bool(param.dropout_param.sqrt_scale)

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.ratio) * math.sqrt(1 - self.ratio) if self.training else x.clone()


@register("Insanity", fork="happynear")
class Insanity(Layer):
    """A ReLU that divides values not above 0 by a number between ``lb`` and ``ub``, random for each value in training.

    Outside training it is ``(ub - lb) / (log(ub) - log(lb))``.
    """

    random = True

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.insanity_param
        self.lower, self.upper = options.lb, options.ub
        if not -math.inf < self.lower < self.upper < math.inf or not self.lower * self.upper:
            raise self.error(
                f"insanity_param: ub: {self.upper:g} must be above lb: {self.lower:g}, both finite and neither 0"
            )
        spread = math.log(abs(self.upper)) - math.log(abs(self.lower))
        self.mean = (self.upper - self.lower) / spread if spread else math.inf

    def forward(self, x: Tensor) -> Tensor:
        divisor: Tensor | float = self.mean
        if self.training:
            divisor = torch.empty_like(x).uniform_(self.lower, self.upper)
        return torch.where(x > 0, x, x / divisor)


@register("Noise", fork="happynear")
class Noise(Layer):
    """``x`` plus noise in training, otherwise ``x``.

    With ``gaussian_std`` it is normal around ``bias``, its deviation that share of the root mean square of ``x``; with
    ``uniform_range`` it is even, so far around ``bias``.
    """

    random = True

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.noise_param
        self.bias, self.range = options.bias, options.uniform_range
        self.share = options.gaussian_std if options.HasField("gaussian_std") else None
        if self.share is None and not options.HasField("uniform_range"):
            raise self.error("noise_param needs gaussian_std or uniform_range")
        if not math.isfinite(self.bias) or not 0 <= self.range < math.inf:
            raise self.error(
                f"noise_param: bias: {self.bias:g} must be finite, and uniform_range: {self.range:g} finite and not below 0"
            )

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x.clone()
        fixed = x.detach()
        if self.share is not None:
            return x + (torch.randn_like(fixed) * (fixed.square().mean().sqrt() * self.share) + self.bias)
        return x + torch.empty_like(fixed).uniform_(self.bias - self.range, self.bias + self.range)

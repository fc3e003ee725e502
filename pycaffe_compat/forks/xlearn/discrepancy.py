"""MMDLoss and JMMDLoss: how far the features of two domains are apart (thuml/Xlearn, mmd_layer.cu and jmmd_layer.cu)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from ...layers.base import Shape, count
from ...layers.loss import LossLayer
from ...layers.registry import register
from ...tables import dims


class Term(NamedTuple):
    """One of four terms of an estimate: its sign, and the domain (0 source, 1 target) and index of two items."""

    sign: int
    domain: int
    item: Tensor
    other_domain: int
    other: Tensor

    def squared(self, domains: Sequence[Tensor]) -> Tensor:
        """The squared distances of the two items."""
        return (domains[self.domain][self.item] - domains[self.other_domain][self.other]).square().sum(1)


def draw_two(number: int, many: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Two different indices below ``number``, ``many`` times, as the fork draws them: of two equal ones the second is raised."""
    first = torch.randint(number, (many,), device=device)
    second = torch.randint(number, (many,), device=device)
    return first, torch.where(first == second, (second + 1) % number, second)


class Discrepancy(LossLayer):
    """What both losses share: kernels of a bandwidth that the batch has, and pairs that are drawn at random."""

    random = True
    differentiable: ClassVar[tuple[bool, ...]] = (True,)
    gamma: Tensor

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        (field,) = self.option_fields()
        options = getattr(param, field)
        self.kernels, self.ratio, self.fixed = options.kernel_num, options.kernel_mul, options.fix_gamma
        if self.kernels < 1 or self.ratio <= 0:
            raise self.error(
                f"{field}: kernel_num: {self.kernels} must be at least 1, and kernel_mul: {self.ratio:g} above 0"
            )
        self.check_domains(bottom_shapes[0], bottom_shapes[1])
        self.register_buffer("gamma", torch.tensor(-1.0, dtype=torch.float64), persistent=False)

    def check_domains(self, source: Shape, target: Shape) -> None:
        """Check that the items of both domains have as many values.

        Raises:
            LayerError: they have not.
        """
        if not source or not target or count(source, 1) != count(target, 1):
            raise self.error(
                f"takes features (N, …) of two domains with as many values each, not {dims(source)} and {dims(target)}"
            )

    def prepare(self, bottom_shapes: Sequence[Shape], device: torch.device) -> None:
        self.gamma = self.gamma.to(device)

    def state(self) -> dict[str, Any]:
        """The bandwidth of the first pass, which ``fix_gamma`` keeps."""
        return {"gamma": float(self.gamma)}

    def seek(self, state: dict[str, Any]) -> None:
        self.gamma.fill_(state["gamma"])

    def measure(self, domains: Sequence[Tensor]) -> Tensor:
        """One by the mean squared distance of two items of the batch.

        Raises:
            LayerError: a domain has no items.
        """
        if not all(map(len, domains)):
            raise self.error(f"takes items of two domains, not {' and '.join(str(len(each)) for each in domains)}")
        items = torch.cat([each.detach() for each in domains])
        number = len(items)
        # the sum of the squared distances of all ordered pairs
        spread = 2 * number * (items - items.mean(0)).square().sum()
        gamma = (number * number - number) / spread
        if self.fixed:
            kept = self.gamma.to(gamma.dtype)
            gamma = torch.where(kept < 0, gamma, kept)
        self.gamma.copy_(gamma)
        return gamma

    def kernel(self, gamma: Tensor, squared: Tensor) -> Tensor:
        """The sum of the kernels at squared distances."""
        first = self.ratio ** -(self.kernels // 2)
        return sum(
            ((-gamma * first * self.ratio**index * squared).exp() for index in range(self.kernels)),
            start=torch.zeros_like(squared),
        )

    def draw(self, domains: Sequence[Tensor]) -> tuple[Term, ...]:
        """The four terms for as many pairs of either domain as the larger one has items."""
        numbers = [len(each) for each in domains]
        (s1, s2), (t1, t2) = (draw_two(number, max(numbers), domains[0].device) for number in numbers)
        return Term(1, 0, s1, 0, s2), Term(1, 1, t1, 1, t2), Term(-1, 0, s1, 1, t2), Term(-1, 0, s2, 1, t1)


def _rows(x: Tensor) -> Tensor:
    """Features (N, …) as a row an item; those without further axes have one value each."""
    return x[:, None] if x.dim() == 1 else x.flatten(1)


@register("MMDLoss", fork="xlearn")
class MMDLoss(Discrepancy):
    """The squared maximum mean discrepancy of features (N, …) and (M, …) of two domains, estimated from random pairs.

    A term is ``k(s1, s2) + k(t1, t2) - k(s1, t2) - k(s2, t1)`` of two items of either domain, for max(N, M) terms. ``k(a, b)``
    is the sum of ``kernel_num`` kernels ``exp(-g |a - b|^2)``, whose g are ``kernel_mul`` times each other around one by the
    mean squared distance in the batch (with ``fix_gamma`` that of the first batch). The loss is the sum of the terms; its
    gradient is that of their mean, g being constant. The fork draws other pairs for the gradient than for the loss. Further
    bottoms are not read.
    """

    bottoms = (2, 4)
    options = ("mmd_param",)
    differentiable = (True, True, False)

    def forward(self, source: Tensor, target: Tensor, *others: Tensor) -> Tensor:
        """Return the loss as a tensor without axes."""
        if source.is_meta:
            return source.new_empty(())
        domains = _rows(source), _rows(target)
        gamma = self.measure(domains)
        total = sum(
            (term.sign * self.kernel(gamma, term.squared(domains)).sum() for term in self.draw(domains)),
            start=source.new_zeros(()),
        )
        value = total.detach()
        if min(map(len, domains)) < 2:  # the fork has no gradient then
            return value
        mean = total / max(map(len, domains))
        return mean + (value - mean.detach())


@register("JMMDLoss", fork="xlearn")
class JMMDLoss(Discrepancy):
    """The gradient of the joint maximum mean discrepancy of features and classes in two domains; the loss is shown as 0.

    Bottoms: features of source and target, then their class probabilities. As MMDLoss, but ``k`` is the product of the
    kernel of the features and one of the probabilities: ``label_kernel_num`` kernels ``exp(-d / s)`` of the squared distance
    d, whose s are ``label_kernel_mul`` times each other around ``sigma``; with ``auto_sigma`` that is the mean d of random
    pairs. The gradient of the probabilities is that of a single kernel of width ``sigma``, times the sum of all, as in the
    fork.
    """

    bottoms = (4, 4)
    options = ("jmmd_param",)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.jmmd_param
        self.sigma, self.automatic = options.sigma, options.auto_sigma
        self.label_kernels, self.label_ratio = options.label_kernel_num, options.label_kernel_mul
        if not self.automatic and self.sigma <= 0:
            raise self.error(
                f"jmmd_param.sigma: {self.sigma:g} must be above 0, or auto_sigma: true take it from the batch"
            )
        if self.label_kernels < 1 or self.label_ratio <= 0:
            raise self.error(
                f"jmmd_param: label_kernel_num: {self.label_kernels} must be at least 1, and label_kernel_mul: "
                f"{self.label_ratio:g} above 0"
            )
        self.check_domains(bottom_shapes[2], bottom_shapes[3])
        for features, classes in zip(bottom_shapes[:2], bottom_shapes[2:], strict=True):
            if features[0] != classes[0]:
                raise self.error(
                    f"takes probabilities for each item, not {dims(classes)} for features {dims(features)}"
                )

    def forward(self, source: Tensor, target: Tensor, source_classes: Tensor, target_classes: Tensor) -> Tensor:
        """Return 0 as a tensor without axes, which has the gradient."""
        if source.is_meta:
            return source.new_empty(())
        features = _rows(source), _rows(target)
        classes = _rows(source_classes), _rows(target_classes)
        gamma = self.measure(features)
        width = self._width(classes)
        if min(map(len, features)) < 2:
            return source.new_zeros(())
        total = source.new_zeros(())
        for term in self.draw(features):
            near, between = self.kernel(gamma, term.squared(features)), term.squared(classes)
            alike = self._alike(width, between.detach())
            total = total + term.sign * (alike * (near - near.detach() * between / width)).sum()
        mean = total / max(map(len, features))
        return mean - mean.detach()

    def _alike(self, width: Tensor, squared: Tensor) -> Tensor:
        """The sum of the kernels of probabilities at squared distances."""
        widths = (width * self.label_ratio ** (index - self.label_kernels // 2) for index in range(self.label_kernels))
        return sum(((-squared / each).exp() for each in widths), start=torch.zeros_like(squared))

    def _width(self, classes: Sequence[Tensor]) -> Tensor:
        """``sigma``, or the mean squared distance of pairs that are drawn."""
        items = torch.cat([each.detach() for each in classes])
        if not self.automatic:
            return items.new_tensor(self.sigma)
        first, second = draw_two(len(items), len(items), items.device)
        return (items[first] - items[second]).square().sum(1).mean()

"""Caffe's update rules as ``torch.optim.Optimizer`` classes, with Caffe's arithmetic and Caffe's order of operations.

One ``step``: the gradients (summed over ``iter_size`` backward passes) are clipped by their global L2 norm, divided by
``iter_size``, given the weight decay, turned into the update by the rule, and the update is subtracted. The learning
rate is *inside* the momentum buffer (``v = momentum * v + lr * lr_mult * g``), which is why these are not
``torch.optim``'s rules.

A parameter without a gradient has a gradient of zero, as in Caffe: decay and momentum still act on it. After ``step``
the gradients hold the update that was subtracted, as Caffe's ``diff`` does, so clear them before the next backward
pass.

Where the compiled library serves, a step is one pass over parameters, gradients and history (:mod:`..ops.update`).
Otherwise it is a series of ``torch._foreach`` functions: the definition of the rules here. Both give the same bits on
the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..errors import SolverError, nearest
from ..ops.update import can_update, update_
from .courses import LocalRate

RULES: dict[str, type[CaffeOptimizer]] = {}
REGULARIZATIONS = ("L2", "L1")
Tensors = list[Tensor]


def rule(cls: type[CaffeOptimizer]) -> type[CaffeOptimizer]:
    """Class decorator: make an optimizer the one that runs ``type: "ClassName"`` of a solver file."""
    RULES[cls.__name__] = cls
    return cls


class CaffeOptimizer(torch.optim.Optimizer):
    """The base class of the rules. A subclass names its buffers and options, and turns gradients into updates.

    Args:
        params: tensors or parameter groups. A group may hold ``lr_mult`` and ``decay_mult`` (1), which multiply
            ``lr`` and ``weight_decay``. Tensors that need no gradient may be among them (BatchNorm's statistics):
            they stay as they are.
        lr: the learning rate, a float or a 0-dim tensor (for CUDA graphs).
        weight_decay: strength of the regularisation; ``regularization_type`` is ``"L2"`` (``+ decay * w``) or ``"L1"``
            (``+ decay * sign(w)``).
        clip_gradients: the maximum L2 norm of all gradients together; negative for no clipping.
        iter_size: the number of backward passes that the gradients are the sum of.
        keep_update: whether the gradients hold the update after a step, as Caffe's ``diff`` does. Without it a step
            writes less memory; what the gradients hold then is not specified.
        hyper: the rule's own hyper-parameters.

    Attributes:
        history_names: the rule's buffers per parameter, in the order of Caffe's solver state.
        fused: the rule's compiled operator and the hyper-parameters that it takes. A subclass with an ``update`` of
            its own has none unless it names one.
        gradient_norm: with clipping, the norm before the last step, on the device.
        local_rate: gives each blob a rate of its own, as forks do; for rules with a momentum buffer.
    """

    history_names: ClassVar[tuple[str, ...]]
    rate_in_history: ClassVar[bool] = False  # whether lr_mult 0 keeps the history at zero
    fused: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "update" in cls.__dict__ and "fused" not in cls.__dict__:
            cls.fused = ()

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor,
        *,
        weight_decay: float = 0.0,
        regularization_type: str = "L2",
        clip_gradients: float = -1.0,
        iter_size: int = 1,
        keep_update: bool = True,
        **hyper: float,
    ) -> None:
        if regularization_type not in REGULARIZATIONS:
            raise SolverError(
                f'unknown regularization_type "{regularization_type}"; valid: {", ".join(REGULARIZATIONS)}'
                f"{nearest(regularization_type, REGULARIZATIONS)}"
            )
        if iter_size < 1:
            raise SolverError(f"iter_size: {iter_size} must be at least 1")
        self.regularization_type = regularization_type
        self.clip_gradients = clip_gradients
        self.iter_size = iter_size
        self.keep_update = keep_update
        self.gradient_norm: Tensor | None = None
        self.local_rate: LocalRate | None = None
        super().__init__(
            params, {"lr": lr, "lr_mult": 1.0, "decay_mult": 1.0, "weight_decay": weight_decay, "iter": 0, **hyper}
        )

    @classmethod
    def options(cls, param: Any) -> dict[str, float]:
        """Return the rule's own hyper-parameters as a ``SolverParameter`` gives them.

        Raises:
            SolverError: a value that the rule cannot work with.
        """
        raise NotImplementedError

    def update(self, group: Mapping[str, Any], rate: float | Tensor, grads: Tensors, *history: Tensors) -> None:
        """Turn ``grads`` into the values to subtract, in place, and bring the lists of ``history`` up to date."""
        raise NotImplementedError

    def correction(self, group: Mapping[str, Any]) -> float:
        """Return what the rule multiplies the rate with in this step."""
        return 1.0

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Clip, normalise, decay, and apply the rule; ``group["iter"]`` counts the steps."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        scale = self._clip()
        for group in self.param_groups:
            decay = group["weight_decay"] * group["decay_mult"]
            active = [p for p in group["params"] if not self._idle(p, group, decay)]
            if len(active) < len(group["params"]):
                busy = set(active)
                self._scale([p.grad for p in group["params"] if p not in busy and p.grad is not None], scale)
            adapts = self.local_rate is not None and group["lr_mult"] > 0
            for params in ([p] for p in active) if adapts else _by_kind(active):
                self._update(group, decay, params, scale)
            group["iter"] += 1
        return loss

    def _clip(self) -> Tensor | None:
        """Return what clipping multiplies the gradients with; None without clipping."""
        grads = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        if self.clip_gradients < 0 or not grads:
            return None
        norm = self.gradient_norm = torch.nn.utils.get_total_norm(grads)
        return torch.where(norm > self.clip_gradients, self.clip_gradients / norm, 1.0)

    def _scale(self, grads: Tensors, scale: Tensor | None) -> None:
        for same in _by_kind(grads):
            if scale is not None:
                torch._foreach_mul_(same, scale.to(same[0].device))
            if self.iter_size > 1:
                torch._foreach_mul_(same, 1.0 / self.iter_size)

    def _update(self, group: Mapping[str, Any], decay: float, params: Tensors, scale: Tensor | None) -> None:
        """One step of parameters of one device and type."""
        rate: float | Tensor = group["lr"] * group["lr_mult"]
        share = 1.0 / self.iter_size
        l1 = self.regularization_type == "L1"
        subtract = bool(group["lr_mult"]) or self.rate_in_history
        grads = [self._gradient(p) for p in params]
        history = [[self._buffer(p, name) for p in params] for name in self.history_names]
        if self.local_rate is not None and group["lr_mult"] > 0:
            self._scale(grads, scale)
            scale, share = None, 1.0
            rate = self.local_rate.rate(group, self.state[params[0]], params[0], grads[0], history[0][0])
        if self.fused and can_update(params[0]):
            rule, *hyper = self.fused
            update_(
                rule,
                params,
                grads,
                history,
                rate * self.correction(group),
                hyper={name: group[name] for name in hyper},
                scale=None if scale is None else scale.to(params[0].device),
                share=share,
                decay=decay,
                l1=l1,
                subtract=subtract,
                keep_update=self.keep_update,
            )
            return
        if share != 1.0 or scale is not None:
            self._scale(grads, scale)
        if decay:
            torch._foreach_add_(grads, torch._foreach_sign(params) if l1 else params, alpha=decay)
        self.update(group, rate, grads, *history)
        if subtract:
            torch._foreach_sub_(params, grads)

    def _idle(self, p: Tensor, group: Mapping[str, Any], decay: float) -> bool:
        """Whether a step changes neither the parameter nor its history: frozen, and the history has stayed zero."""
        if group["lr_mult"] or self.state.get(p):
            return False
        return self.rate_in_history or (p.grad is None and not decay)

    @staticmethod
    def _gradient(p: Tensor) -> Tensor:
        if p.grad is not None:
            return p.grad
        zero = torch.zeros_like(p)
        if p.requires_grad:
            p.grad = zero
        return zero

    def _buffer(self, p: Tensor, name: str) -> Tensor:
        state = self.state[p]
        if name not in state:
            state[name] = torch.zeros_like(p, requires_grad=False)
        return state[name]

    def history(self, params: Sequence[Tensor] | None = None) -> Iterator[Tensor]:
        """Yield the buffers in the order of Caffe's solver state: the first of every parameter, then the second.

        ``params`` gives the order of the parameters; by default that of the groups.
        """
        for name in self.history_names:
            for p in self._parameters(params):
                buffer = self.state[p].get(name) if p in self.state else None
                yield torch.zeros_like(p, requires_grad=False) if buffer is None else buffer

    def load_history(self, tensors: Sequence[Any], params: Sequence[Tensor] | None = None) -> None:
        """Take over what :meth:`history` yielded, as tensors or arrays; shapes must agree."""
        ordered = self._parameters(params)
        frozen = {p for group in self.param_groups if not group["lr_mult"] for p in group["params"]}
        self.state.clear()
        for i, name in enumerate(self.history_names):
            for p, value in zip(ordered, tensors[i * len(ordered) : (i + 1) * len(ordered)], strict=True):
                if p not in frozen or value.any():
                    self._buffer(p, name).copy_(torch.as_tensor(value))

    def _parameters(self, params: Sequence[Tensor] | None) -> Sequence[Tensor]:
        return [p for group in self.param_groups for p in group["params"]] if params is None else params


def _by_kind(tensors: Iterable[Tensor]) -> Iterator[Tensors]:
    """Split into lists that one foreach kernel can take: same device, same dtype."""
    kinds: dict[tuple[torch.device, torch.dtype], Tensors] = {}
    for tensor in tensors:
        kinds.setdefault((tensor.device, tensor.dtype), []).append(tensor)
    yield from kinds.values()


@rule
class SGD(CaffeOptimizer):
    """``v = momentum * v + lr * g; w -= v`` (Caffe ``SGDSolver``)."""

    history_names = ("momentum_buffer",)
    fused = ("sgd", "momentum")
    rate_in_history = True

    def __init__(
        self, params: Iterable[Any], lr: float | Tensor = 0.01, *, momentum: float = 0.0, **common: Any
    ) -> None:
        super().__init__(params, lr, momentum=momentum, **common)

    @classmethod
    def options(cls, param: Any) -> dict[str, float]:
        return {"momentum": param.momentum}

    def update(self, group: Mapping[str, Any], rate: float | Tensor, grads: Tensors, *history: Tensors) -> None:
        (v,) = history
        torch._foreach_mul_(grads, rate)
        torch._foreach_add_(grads, v, alpha=group["momentum"])
        torch._foreach_copy_(v, grads)


@rule
class Nesterov(SGD):
    """``v' = momentum * v + lr * g; w -= (1 + momentum) * v' - momentum * v`` (Caffe ``NesterovSolver``)."""

    fused = ("nesterov", "momentum")

    def update(self, group: Mapping[str, Any], rate: float | Tensor, grads: Tensors, *history: Tensors) -> None:
        (v,) = history
        torch._foreach_mul_(grads, rate)
        torch._foreach_mul_(v, group["momentum"])
        torch._foreach_add_(v, grads)
        torch._foreach_add_(grads, v, alpha=group["momentum"])  # the same step without a copy of the old v


@rule
class AdaGrad(CaffeOptimizer):
    """``h += g²; w -= lr * g / (sqrt(h) + delta)`` (Caffe ``AdaGradSolver``)."""

    history_names = ("sum",)
    fused = ("adagrad", "delta")

    def __init__(self, params: Iterable[Any], lr: float | Tensor = 0.01, *, delta: float = 1e-8, **common: Any) -> None:
        super().__init__(params, lr, delta=delta, **common)

    @classmethod
    def options(cls, param: Any) -> dict[str, float]:
        _no_momentum(cls, param)
        return {"delta": param.delta}

    def update(self, group: Mapping[str, Any], rate: float | Tensor, grads: Tensors, *history: Tensors) -> None:
        (h,) = history
        torch._foreach_addcmul_(h, grads, grads)
        _divide_by_root(grads, h, group["delta"])
        torch._foreach_mul_(grads, rate)


@rule
class RMSProp(CaffeOptimizer):
    """``h = rms_decay * h + (1 - rms_decay) * g²; w -= lr * g / (sqrt(h) + delta)`` (Caffe ``RMSPropSolver``)."""

    history_names = ("square_avg",)
    fused = ("rmsprop", "rms_decay", "delta")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 0.01,
        *,
        rms_decay: float = 0.99,
        delta: float = 1e-8,
        **common: Any,
    ) -> None:
        super().__init__(params, lr, rms_decay=rms_decay, delta=delta, **common)

    @classmethod
    def options(cls, param: Any) -> dict[str, float]:
        _no_momentum(cls, param)
        if not 0 <= param.rms_decay < 1:
            raise SolverError(f"rms_decay: {param.rms_decay:g} must be at least 0 and less than 1")
        return {"rms_decay": param.rms_decay, "delta": param.delta}

    def update(self, group: Mapping[str, Any], rate: float | Tensor, grads: Tensors, *history: Tensors) -> None:
        (h,) = history
        _running_square(h, grads, group["rms_decay"])
        _divide_by_root(grads, h, group["delta"])
        torch._foreach_mul_(grads, rate)


@rule
class AdaDelta(CaffeOptimizer):
    """``h = m * h + (1 - m) * g²; u = g * sqrt((d + delta) / (h + delta)); d = m * d + (1 - m) * u²; w -= lr * u``

    with ``m`` the momentum (Caffe ``AdaDeltaSolver``).
    """

    history_names = ("square_avg", "acc_delta")
    fused = ("adadelta", "momentum", "delta")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1.0,
        *,
        momentum: float = 0.95,
        delta: float = 1e-6,
        **common: Any,
    ) -> None:
        super().__init__(params, lr, momentum=momentum, delta=delta, **common)

    @classmethod
    def options(cls, param: Any) -> dict[str, float]:
        return {"momentum": param.momentum, "delta": param.delta}

    def update(self, group: Mapping[str, Any], rate: float | Tensor, grads: Tensors, *history: Tensors) -> None:
        h, d = history
        _running_square(h, grads, group["momentum"])
        ratio = torch._foreach_add(d, group["delta"])
        torch._foreach_div_(ratio, torch._foreach_add(h, group["delta"]))
        torch._foreach_sqrt_(ratio)
        torch._foreach_mul_(grads, ratio)
        _running_square(d, grads, group["momentum"])
        torch._foreach_mul_(grads, rate)


@rule
class Adam(CaffeOptimizer):
    """``m = b1 * m + (1 - b1) * g; v = b2 * v + (1 - b2) * g²; w -= lr * c * m / (sqrt(v) + delta)``

    with ``c = sqrt(1 - b2^t) / (1 - b1^t)``, ``b1`` the momentum, ``b2`` momentum2 and ``t`` the iteration, counted
    from one (Caffe ``AdamSolver``).
    """

    history_names = ("exp_avg", "exp_avg_sq")
    fused = ("adam", "momentum", "momentum2", "delta")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 0.001,
        *,
        momentum: float = 0.9,
        momentum2: float = 0.999,
        delta: float = 1e-8,
        **common: Any,
    ) -> None:
        super().__init__(params, lr, momentum=momentum, momentum2=momentum2, delta=delta, **common)

    @classmethod
    def options(cls, param: Any) -> dict[str, float]:
        for name in ("momentum", "momentum2"):
            if not 0 <= getattr(param, name) < 1:
                raise SolverError(f"{name}: {getattr(param, name):g} must be at least 0 and less than 1 for Adam")
        return {"momentum": param.momentum, "momentum2": param.momentum2, "delta": param.delta}

    def update(self, group: Mapping[str, Any], rate: float | Tensor, grads: Tensors, *history: Tensors) -> None:
        m, v = history
        b1, b2 = group["momentum"], group["momentum2"]
        torch._foreach_mul_(m, b1)
        torch._foreach_add_(m, grads, alpha=1 - b1)
        _running_square(v, grads, b2)
        torch._foreach_copy_(grads, m)
        _divide_by_root(grads, v, group["delta"])
        torch._foreach_mul_(grads, rate * self.correction(group))

    def correction(self, group: Mapping[str, Any]) -> float:
        t = group["iter"] + 1
        return (1 - group["momentum2"] ** t) ** 0.5 / (1 - group["momentum"] ** t)


def _running_square(h: Tensors, grads: Tensors, keep: float) -> None:
    torch._foreach_mul_(h, keep)
    torch._foreach_addcmul_(h, grads, grads, value=1 - keep)


def _divide_by_root(grads: Tensors, h: Tensors, delta: float) -> None:
    root = torch._foreach_sqrt(h)
    torch._foreach_add_(root, delta)
    torch._foreach_div_(grads, root)


def _no_momentum(cls: type[CaffeOptimizer], param: Any) -> None:
    if param.momentum:
        raise SolverError(f"momentum: {param.momentum:g} cannot be used with {cls.__name__}; remove it")


def make_optimizer(param: Any, groups: Sequence[Mapping[str, Any]]) -> CaffeOptimizer:
    """Return the optimizer that an (upgraded) ``SolverParameter`` describes.

    ``groups`` are parameter groups with their ``lr_mult`` and ``decay_mult``.

    Raises:
        SolverError: an unknown ``type`` or ``regularization_type``, or a value that the rule cannot work with.
    """
    cls = RULES.get(param.type)
    if cls is None:
        lowered = {name.lower(): name for name in RULES}
        hint = nearest(lowered.get(param.type.lower(), param.type), RULES)
        raise SolverError(f'unknown solver type "{param.type}"{hint}; valid types: {", ".join(sorted(RULES))}')
    if not math.isfinite(param.weight_decay):
        raise SolverError(f"weight_decay: {param.weight_decay} must be a finite number")
    hyper: dict[str, Any] = dict(cls.options(param))
    optimizer = cls(
        [dict(group) for group in groups] or [{"params": []}],
        param.base_lr,
        weight_decay=param.weight_decay,
        regularization_type=param.regularization_type,
        clip_gradients=param.clip_gradients,
        iter_size=param.iter_size,
        **hyper,
    )
    optimizer.local_rate = LocalRate.from_solver(param)
    return optimizer

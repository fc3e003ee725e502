"""What forks of Caffe let change during training besides the rate: momentum, weight decay, the rates of layers.

Source: NVIDIA/caffe 0.17 and intel/caffe, sgd_solver.cpp.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import SolverError
from .log import logger
from .policies import FORKS_FIELDS, FORKS_LISTS, Policy

MOMENTUM_POLICIES = ("fixed", "poly", "opt")
DECAY_POLICIES = ("fixed", "poly")
LARC_POLICIES = ("scale", "clip")
_MOMENTUM = ("momentum_policy", "max_momentum", "momentum_power")
_LARC = ("larc", "larc_policy", "larc_eta", "larc_turbo")
_LARS = ("local_lr_auto", "local_gw_ratio")
_DECAY = ("weight_decay_policy", "max_weight_decay", "weight_decay_power")
SUPPORTED = frozenset({*FORKS_FIELDS, *FORKS_LISTS, *_MOMENTUM, *_LARC, *_LARS, *_DECAY, "test_offset"})
"""The fields of forks that a solver supports."""
_NUMBERS = (*_MOMENTUM[1:], "larc_eta", "local_gw_ratio", *_DECAY[1:])
_KEPT = 0.95  # how much of the mean correlation larc_turbo keeps in a step
_SHARE = 0.9  # how much of it larc_turbo takes off the rate


class Course:
    """The momentum and the weight decay at an iteration.

    Momentum: ``poly`` goes from ``momentum`` to ``max_momentum`` at ``max_iter``; ``opt`` is ``(1 - sqrt(lr) / 2) ** 2``, at
    most ``max_momentum`` if that is given. While Intel's ``warmup_iter`` lets the rate rise, it is multiplied by how much the
    rate rises, as the rate lies in the momentum buffer. Both work with SGD only, as in the forks. Weight decay: ``poly`` goes
    from ``weight_decay`` to ``max_weight_decay``.

    Raises:
        SolverError: an unknown policy, or a value that it cannot work with.
    """

    def __init__(self, param: Any, policy: Policy) -> None:
        self._param, self._policy = param, policy
        for field, valid in (
            ("momentum_policy", MOMENTUM_POLICIES),
            ("weight_decay_policy", DECAY_POLICIES),
            ("larc_policy", LARC_POLICIES),
        ):
            if getattr(param, field) not in valid:
                raise SolverError(f'{field}: "{getattr(param, field)}" is not one of {", ".join(valid)}')
        for field in _NUMBERS:
            value = getattr(param, field)
            if not (math.isfinite(value) and value >= 0):
                raise SolverError(f"{field}: {value:g} must be a finite number that is not negative")
        moving = param.momentum_policy == "poly" or param.weight_decay_policy == "poly"
        if moving and param.max_iter <= 0:
            raise SolverError(f"max_iter: {param.max_iter} must be positive for a poly momentum or weight decay")
        if param.larc and param.local_lr_auto:
            raise SolverError("larc of NVIDIA's Caffe and local_lr_auto of Intel's both adapt rates; give one")
        changing = (
            ("momentum_policy", param.momentum_policy != "fixed"),
            ("larc", param.larc),
            ("local_lr_auto", param.local_lr_auto),
        )
        if param.type != "SGD":
            for field in (name for name, given in changing if given):
                logger.log(
                    logging.WARNING,
                    '%s has no effect with type: "%s"; in its fork it works only with SGD',
                    field,
                    param.type,
                )

    def set(self, group: dict[str, Any], iteration: int, rate: float) -> None:
        """Set ``momentum`` and ``weight_decay`` of a parameter group, where they change."""
        if self._param.weight_decay_policy == "poly":
            group["weight_decay"] = self._between(
                self._param.weight_decay, self._param.max_weight_decay, self._param.weight_decay_power, iteration
            )
        if self._param.type == "SGD" and (self._param.momentum_policy != "fixed" or self._policy.warmup_iter):
            group["momentum"] = self.momentum(iteration, rate)

    def momentum(self, iteration: int, rate: float) -> float:
        """SGD's momentum at an iteration with this rate."""
        param = self._param
        value: float = param.momentum
        if param.momentum_policy == "poly":
            value = self._between(param.momentum, param.max_momentum, param.momentum_power, iteration)
        elif param.momentum_policy == "opt":
            value = (1 - 0.5 * max(rate, 0.0) ** 0.5) ** 2
            value = min(value, param.max_momentum) if param.HasField("max_momentum") else value
        return value * self._policy.warmup_ratio(param.base_lr, iteration)

    def _between(self, first: float, last: float, power: float, iteration: int) -> float:
        return first + (last - first) * (iteration / self._param.max_iter) ** power


@dataclass(frozen=True)
class LocalRate:
    """A rate for each blob by the norms of it and of its gradient: NVIDIA's LARC, Intel's LARS (``local_lr_auto``).

    It takes the place of ``lr_mult``, unless that is 0. LARC: ``(1 - momentum) * eta * |w| / |g|``, with ``turbo`` less 0.9
    times the running mean of the cosine between gradient and momentum; ``clip`` takes the smaller of that and the solver's rate,
    ``scale`` the product. LARS: ``eta * |w| / (|g| + decay * |w|)`` times the solver's rate. Without any norm it is 1.
    """

    eta: float
    decay: float | None = None  # LARS's; None for LARC
    clip: bool = False
    turbo: bool = False

    @classmethod
    def from_solver(cls, param: Any) -> LocalRate | None:
        """What a ``SolverParameter`` asks for; None if for nothing."""
        if param.type != "SGD":
            return None
        if param.local_lr_auto:
            return cls(param.local_gw_ratio, decay=param.weight_decay)
        if param.larc:
            return cls(param.larc_eta, clip=param.larc_policy == "clip", turbo=param.larc_turbo)
        return None

    def rate(
        self, group: Mapping[str, Any], state: dict[str, Any], weight: Tensor, grad: Tensor, momentum: Tensor
    ) -> Tensor:
        """Return the rate of a blob, on its device.

        Args:
            group: its parameter group.
            state: where what is carried from step to step is kept.
            weight, grad: the blob and its gradient, before decay.
            momentum: its momentum buffer.
        """
        w, g = torch.linalg.vector_norm(weight), torch.linalg.vector_norm(grad)
        if self.decay is not None:
            local = self.eta * w / (g + self.decay * w)
        else:
            local = (1 - group["momentum"]) * self.eta * w / g
        local = torch.where((w > 0) & (g > 0), local, 1.0)
        if self.turbo:
            local = local - _SHARE * self._correlation(state, grad, g, momentum)
        return local.clamp(max=group["lr"]) if self.clip else local * group["lr"]

    @staticmethod
    def _correlation(state: dict[str, Any], grad: Tensor, norm: Tensor, momentum: Tensor) -> Tensor:
        m = torch.linalg.vector_norm(momentum)
        now = torch.where((norm > 0) & (m > 0), (grad * momentum).sum() / (norm * m), 0.0)
        mean = _KEPT * state.get("larc_correlation", torch.zeros_like(now)) + (1 - _KEPT) * now
        state["larc_correlation"] = mean
        return mean

"""Caffe's learning-rate policies: the rate as a function of the iteration, and the same as a PyTorch scheduler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..errors import SolverError, nearest


@dataclass
class Policy:
    """What multiplies ``base_lr`` at an iteration.

    ``step`` and ``multistep`` keep the number of steps taken so far in ``current_step``, which Caffe stores in its
    solver state. ``multistep`` takes at most one step a call, so call it once an iteration, in order.

    Raises:
        SolverError: an unknown name, or a field that the policy needs and that is not given.
    """

    name: str
    gamma: float | None = None
    power: float | None = None
    stepsize: int | None = None
    stepvalue: Sequence[int] = ()
    max_iter: int | None = None
    current_step: int = 0

    def __post_init__(self) -> None:
        if self.name not in POLICIES:
            known = ", ".join(f"{name} ({', '.join(needs) or 'no fields'})" for name, (_, needs) in POLICIES.items())
            what = (
                f'unknown lr_policy "{self.name}"{nearest(self.name, POLICIES)}'
                if self.name
                else "lr_policy is not set"
            )
            raise SolverError(f"{what}; valid policies and the fields they need: {known}")
        self._factor, needs = POLICIES[self.name]
        missing = [field for field in needs if getattr(self, field) is None]
        if missing:
            raise SolverError(
                f'lr_policy "{self.name}" needs {", ".join(needs)}; not given: {", ".join(missing)} '
                f'(add "{missing[0]}: …")'
            )
        for field in ("stepsize", "max_iter"):
            value = getattr(self, field)
            if field in needs and value <= 0 and self.name != "sigmoid":
                raise SolverError(f'{field}: {value} must be positive for lr_policy "{self.name}"')
        if self.gamma is not None and self.gamma < 0 and self.name in ("step", "exp", "multistep"):
            raise SolverError(f'gamma: {self.gamma:g} must not be negative for lr_policy "{self.name}"')

    @classmethod
    def from_solver(cls, param: Any) -> Policy:
        """Return the policy of a ``SolverParameter``."""
        fields = {f: getattr(param, f) for f in ("gamma", "power", "stepsize", "max_iter") if param.HasField(f)}
        return cls(param.lr_policy, stepvalue=tuple(param.stepvalue), **fields)

    def factor(self, iteration: int) -> float:
        """Return the rate at ``iteration`` as a multiple of the base rate, and bring ``current_step`` up to date."""
        with np.errstate(all="ignore"):
            value = float(self._factor(self, np.float64(iteration)))
        if np.isnan(value):
            raise SolverError(
                f'lr_policy "{self.name}" has no value at iteration {iteration} (max_iter: {self.max_iter})'
            )
        return value

    def rate(self, base_lr: float, iteration: int) -> float:
        """Return the learning rate at ``iteration``, rounded to float32 as Caffe keeps it."""
        return float(np.float32(base_lr * self.factor(iteration)))


def _fixed(p: Any, iteration: np.float64) -> np.float64:
    return np.float64(1)


def _step(p: Any, iteration: np.float64) -> np.float64:
    p.current_step = int(iteration // p.stepsize)
    return np.float64(p.gamma) ** p.current_step


def _exp(p: Any, iteration: np.float64) -> np.float64:
    return p.gamma**iteration


def _inv(p: Any, iteration: np.float64) -> np.float64:
    return (1 + p.gamma * iteration) ** -p.power


def _multistep(p: Any, iteration: np.float64) -> np.float64:
    if p.current_step < len(p.stepvalue) and iteration >= p.stepvalue[p.current_step]:
        p.current_step += 1
    return np.float64(p.gamma) ** p.current_step


def _poly(p: Any, iteration: np.float64) -> np.float64:
    return (1 - iteration / p.max_iter) ** p.power


def _sigmoid(p: Any, iteration: np.float64) -> np.float64:
    return 1 / (1 + np.exp(-p.gamma * (iteration - p.stepsize)))


POLICIES: dict[str, tuple[Callable[[Any, np.float64], np.float64], tuple[str, ...]]] = {
    "fixed": (_fixed, ()),
    "step": (_step, ("gamma", "stepsize")),
    "exp": (_exp, ("gamma",)),
    "inv": (_inv, ("gamma", "power")),
    "multistep": (_multistep, ("gamma",)),
    "poly": (_poly, ("power", "max_iter")),
    "sigmoid": (_sigmoid, ("gamma", "stepsize")),
}


class CaffeLR(torch.optim.lr_scheduler.LRScheduler):
    """A policy as a PyTorch scheduler: ``CaffeLR(optimizer, "inv", gamma=1e-4, power=0.75)``, stepped every iteration.

    Each group's ``lr`` at construction is its ``base_lr``.

    Raises:
        SolverError: as :class:`Policy`.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, policy: str, last_epoch: int = -1, **fields: Any) -> None:
        self.options = {"name": policy, **fields}
        self.current_step = 0
        Policy(**self.options)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """The rate of each group at iteration ``last_epoch``."""
        policy = Policy(**self.options, current_step=self.current_step)
        factor = policy.factor(self.last_epoch)
        self.current_step = policy.current_step
        return [float(base) * factor for base in self.base_lrs]

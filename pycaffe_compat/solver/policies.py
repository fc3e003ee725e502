"""Caffe's learning-rate policies: the rate as a function of the iteration, and the same as a PyTorch scheduler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..errors import SolverError, nearest
from .log import logger


@dataclass
class Policy:
    """What multiplies ``base_lr`` at an iteration.

    ``step`` and ``multistep`` keep the number of steps taken so far in ``current_step``, which Caffe stores in its
    solver state. ``multistep`` takes at most one step a call, so call it once an iteration, in order.

    Fields that are not given are 0, as in Caffe; :meth:`assumed` says what the rate is then.

    Raises:
        SolverError: an unknown name, or a value that the policy cannot work with.
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
            known = ", ".join(f"{name} ({', '.join(uses) or 'no fields'})" for name, (_, uses) in POLICIES.items())
            what = (
                f'unknown lr_policy "{self.name}"{nearest(self.name, POLICIES)}'
                if self.name
                else "lr_policy is not set"
            )
            raise SolverError(f"{what}; valid policies and the fields they use: {known}")
        self._factor, uses = POLICIES[self.name]
        self._absent = [field for field in uses if getattr(self, field) is None]
        for field in uses:
            if field in DIVISORS.get(self.name, ()):
                self._check_divisor(field)
            elif getattr(self, field) is None:
                setattr(self, field, 0)
        if self.gamma is not None and self.gamma < 0 and self.name in ("step", "exp", "multistep"):
            raise SolverError(f'gamma: {self.gamma:g} must not be negative for lr_policy "{self.name}"')

    def _check_divisor(self, field: str) -> None:
        """Refuse a divisor that is not positive; Caffe crashes on it, or trains with NaN."""
        value = getattr(self, field)
        if value is None:
            raise SolverError(f'lr_policy "{self.name}" divides by {field}, which is not set (add "{field}: …")')
        if value <= 0:
            raise SolverError(f'{field}: {value} must be positive for lr_policy "{self.name}"')

    def assumed(self) -> str:
        """Say which fields are not set and what the rate is then; ``""`` where every field is set."""
        if not self._absent:
            return ""
        fields = f"{' and '.join(self._absent)} {'is' if len(self._absent) == 1 else 'are'} not set"
        return f'lr_policy "{self.name}": {fields}, and so 0, as in Caffe: {self._course()}'

    def _course(self) -> str:
        """The course of the rate with a field that is 0."""
        if self.name == "exp":
            return "the rate is base_lr in iteration 0, and 0 after it"
        if self.name == "step":
            return f"the rate is base_lr before iteration {self.stepsize}, and 0 from there on"
        if self.name == "multistep" and self.stepvalue:
            return (
                f"the rate is base_lr before iteration {self.stepvalue[0]} (the first stepvalue), and 0 from there on"
            )
        if self.name == "sigmoid":
            if not self.gamma:
                return "the rate is half of base_lr throughout"
            return "the rate is half of base_lr at iteration 0"
        return "the rate is base_lr throughout"

    @classmethod
    def from_solver(cls, param: Any, file: str = "") -> Policy:
        """Return the policy of a ``SolverParameter``; errors begin with ``file``."""
        fields = {f: getattr(param, f) for f in ("gamma", "power", "stepsize", "max_iter") if param.HasField(f)}
        try:
            return cls(param.lr_policy, stepvalue=tuple(param.stepvalue), **fields)
        except SolverError as error:
            raise SolverError(f"{file}: {error}" if file else str(error)) from None

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
DIVISORS = {"step": ("stepsize",), "poly": ("max_iter",)}


class CaffeLR(torch.optim.lr_scheduler.LRScheduler):
    """A policy as a PyTorch scheduler: ``CaffeLR(optimizer, "inv", gamma=1e-4, power=0.75)``, stepped every iteration.

    Each group's ``lr`` at construction is its ``base_lr``.

    Raises:
        SolverError: as :class:`Policy`.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, policy: str, last_epoch: int = -1, **fields: Any) -> None:
        self.options = {"name": policy, **fields}
        self.current_step = 0
        assumed = Policy(**self.options).assumed()
        if assumed:
            logger.warning("%s", assumed)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """The rate of each group at iteration ``last_epoch``."""
        policy = Policy(**self.options, current_step=self.current_step)
        factor = policy.factor(self.last_epoch)
        self.current_step = policy.current_step
        return [float(base) * factor for base in self.base_lrs]

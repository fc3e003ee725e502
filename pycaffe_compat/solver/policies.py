"""Caffe's learning-rate policies: the rate as a function of the iteration, and the same as a PyTorch scheduler."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..errors import SolverError, nearest
from .log import logger


@dataclass
class Policy:
    """The factor of ``base_lr`` at an iteration.

    ``step``, ``multistep`` and ``plateau`` keep the number of steps taken so far in ``current_step``, which Caffe stores in
    its solver state. ``multistep`` and ``plateau`` take at most one step a call, so call it once an iteration, in order.

    Forks bring ``plateau``, a step where the loss has not become smaller for ``plateau_winsize`` iterations (SSD's and
    Intel's Caffe), and ``multifixed``, the rate ``stagelr`` up to the iteration ``stageiter`` of each stage (Intel's). With
    ``warmup_iter`` the rate begins at ``warmup_start_lr`` and rises in a straight line (Intel's); with ``rampup_interval``
    it rises from ``rampup_lr`` as a parabola (NVIDIA's), and is never below ``min_lr``, where ``poly`` ends then.

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
    plateau_winsize: Sequence[int] = ()
    stagelr: Sequence[float] = ()
    stageiter: Sequence[int] = ()
    warmup_iter: int = 0
    warmup_start_lr: float = 0.0
    rampup_interval: int = 0
    rampup_lr: float = 0.0
    min_lr: float = 0.0
    least_loss: float = math.inf
    last_event: int = 0

    def __post_init__(self) -> None:
        if self.name not in POLICIES:
            fields = {name: (*uses, *LISTS.get(name, ())) for name, (_, uses) in POLICIES.items()}
            known = ", ".join(f"{name} ({', '.join(uses) or 'no fields'})" for name, uses in fields.items())
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
        if self.gamma is not None and self.gamma < 0 and self.name in ("step", "exp", "multistep", "plateau"):
            raise SolverError(f'gamma: {self.gamma:g} must not be negative for lr_policy "{self.name}"')

        self._check_forks_fields()

    def _check_forks_fields(self) -> None:
        for field in ("warmup_iter", "rampup_interval", "warmup_start_lr", "rampup_lr", "min_lr"):
            _check_not_negative(field, getattr(self, field))
        if self.warmup_iter and self.rampup_interval:
            raise SolverError(
                f"warmup_iter: {self.warmup_iter} of Intel's Caffe and rampup_interval: {self.rampup_interval} of NVIDIA's "
                "are two kinds of warm-up; give one of them"
            )
        if self.name == "plateau" and not self.plateau_winsize:
            raise SolverError(
                'lr_policy "plateau" never steps without plateau_winsize (add "plateau_winsize: …" for each)'
            )
        if any(size < 1 for size in self.plateau_winsize):
            raise SolverError(f"plateau_winsize: {', '.join(map(str, self.plateau_winsize))}; each must be at least 1")
        for rate in self.stagelr:
            _check_not_negative("stagelr", rate)
        if self.name == "multifixed" and (not self.stagelr or len(self.stagelr) != len(self.stageiter)):
            raise SolverError(
                f'lr_policy "multifixed" needs as many stagelr as stageiter, and at least one, but has '
                f"{len(self.stagelr)} and {len(self.stageiter)}"
            )

    def _check_divisor(self, field: str) -> None:
        """Refuse a divisor that is not positive; Caffe crashes on it, or trains with NaN."""
        value = getattr(self, field)
        if value is None:
            raise SolverError(f'lr_policy "{self.name}" divides by {field}, which is not set (add "{field}: …")')
        if value < 0 or (value == 0 and field != "max_iter"):  # with max_iter: 0 a solver only tests
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
        if self.name == "plateau":
            return "the rate is base_lr up to the first step, and 0 from there on"
        if self.name == "sigmoid":
            if not self.gamma:
                return "the rate is half of base_lr throughout"
            return "the rate is half of base_lr at iteration 0"
        return "the rate is base_lr throughout"

    @classmethod
    def from_solver(cls, param: Any, file: str = "") -> Policy:
        """Return the policy of a ``SolverParameter``; errors begin with ``file``."""
        fields: dict[str, Any] = {f: getattr(param, f) for f in SINGLE if param.HasField(f)}
        fields.update({f: tuple(getattr(param, f)) for f in REPEATED})
        try:
            return cls(param.lr_policy, **fields)
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

    def rate(self, base_lr: float, iteration: int, loss: float = math.nan) -> float:
        """Return the learning rate at ``iteration``, rounded to float32 as Caffe keeps it; ``plateau`` looks at ``loss``."""
        if self.rising(iteration):
            return float(np.float32(self._risen(base_lr, iteration)))
        if self.name == "multifixed":
            stage = sum(iteration > end for end in self.stageiter[:-1])
            return self._least(self.stagelr[stage])
        if self.name == "plateau":
            self._watch(loss, iteration)
        factor = self.factor(iteration)
        if self.name == "poly":
            return float(np.float32((base_lr - self.min_lr) * factor + self.min_lr))
        return self._least(base_lr * factor)

    def _least(self, rate: float) -> float:
        """``rate``, or ``min_lr`` if that is given and more; a ``base_lr`` below 0 stays, as in BVLC's Caffe."""
        return max(float(np.float32(rate)), self.min_lr) if self.min_lr else float(np.float32(rate))

    def rising(self, iteration: int) -> bool:
        """Whether the rate still rises to where the policy begins."""
        return iteration < max(self.warmup_iter, self.rampup_interval)

    def warmup_ratio(self, base_lr: float, iteration: int) -> float:
        """What Intel's Caffe multiplies SGD's momentum with while the rate rises: this rate by the one before."""
        if not iteration < self.warmup_iter:
            return 1.0
        before = self._risen(base_lr, max(iteration - 1, 0))
        return self._risen(base_lr, iteration) / before if before else 1.0  # before is 0: there is no momentum yet

    def _risen(self, base_lr: float, iteration: int) -> float:
        if self.warmup_iter:
            rest = self.warmup_iter - iteration
            return (iteration * base_lr + rest * self.warmup_start_lr) / self.warmup_iter
        return self.rampup_lr + (base_lr - self.rampup_lr) * (iteration / self.rampup_interval) ** 2

    def _watch(self, loss: float, iteration: int) -> None:
        """Take a step if neither the least loss nor the rate has changed for long."""
        if loss < self.least_loss:
            self.least_loss, self.last_event = loss, iteration
        step = self.current_step
        if step < len(self.plateau_winsize) and iteration >= self.last_event + self.plateau_winsize[step]:
            self.current_step, self.last_event = step + 1, iteration

    def state(self) -> dict[str, Any]:
        """What ``plateau`` remembers besides ``current_step``, as values that JSON can hold."""
        return {"least_loss": self.least_loss, "last_event": self.last_event} if self.name == "plateau" else {}

    def seek(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` returned."""
        self.least_loss = state.get("least_loss", self.least_loss)
        self.last_event = state.get("last_event", self.last_event)


def _check_not_negative(field: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise SolverError(f"{field}: {value:g} must be a finite number that is not negative")


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
    return (1 - iteration / np.float64(p.max_iter or math.nan)) ** p.power


def _sigmoid(p: Any, iteration: np.float64) -> np.float64:
    return 1 / (1 + np.exp(-p.gamma * (iteration - p.stepsize)))


def _plateau(p: Any, iteration: np.float64) -> np.float64:
    return np.float64(p.gamma) ** p.current_step


POLICIES: dict[str, tuple[Callable[[Any, np.float64], np.float64], tuple[str, ...]]] = {
    "fixed": (_fixed, ()),
    "step": (_step, ("gamma", "stepsize")),
    "exp": (_exp, ("gamma",)),
    "inv": (_inv, ("gamma", "power")),
    "multistep": (_multistep, ("gamma",)),
    "poly": (_poly, ("power", "max_iter")),
    "sigmoid": (_sigmoid, ("gamma", "stepsize")),
    "plateau": (_plateau, ("gamma",)),
    "multifixed": (_fixed, ()),
}
FORKS_FIELDS = ("warmup_iter", "warmup_start_lr", "rampup_interval", "rampup_lr", "min_lr")
FORKS_LISTS = ("plateau_winsize", "stagelr", "stageiter")
SINGLE = ("gamma", "power", "stepsize", "max_iter", *FORKS_FIELDS)
REPEATED = ("stepvalue", *FORKS_LISTS)
LISTS = {"multistep": ("stepvalue",), "plateau": ("plateau_winsize",), "multifixed": ("stagelr", "stageiter")}
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
        made = Policy(**self.options)
        if made.name in ("plateau", "multifixed") or made.warmup_iter or made.rampup_interval or made.min_lr:
            raise SolverError(
                f'lr_policy "{policy}" and the fields {", ".join((*FORKS_FIELDS, *FORKS_LISTS))} of forks work only in solvers: '
                "the rate is not a multiple of base_lr, or depends on the loss"
            )
        assumed = made.assumed()
        if assumed:
            logger.warning("%s", assumed)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """The rate of each group at iteration ``last_epoch``."""
        policy = Policy(**self.options, current_step=self.current_step)
        factor = policy.factor(self.last_epoch)
        self.current_step = policy.current_step
        return [float(base) * factor for base in self.base_lrs]

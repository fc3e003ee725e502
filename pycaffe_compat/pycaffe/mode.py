"""Caffe's settings for the whole process: CPU or GPU, the random seed, and the rank among several solvers."""

from __future__ import annotations

import operator
from typing import Any

import torch

from ..errors import CaffeError

_mode = "cpu"
_device_id = 0
_solver_count = 1
_solver_rank = 0


def _whole(value: Any, function: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise CaffeError(f"{function}({value!r}): an integer is expected") from None


def set_mode_cpu() -> None:
    """Create nets and solvers on the CPU from now on."""
    global _mode
    _mode = "cpu"


def set_mode_gpu() -> None:
    """Create nets and solvers on the GPU that :func:`set_device` chose (0 by default) from now on.

    Raises:
        CaffeError: this machine has no GPU that torch can use.
    """
    global _mode
    if not torch.cuda.is_available():
        raise CaffeError("set_mode_gpu: torch finds no CUDA device here; use set_mode_cpu()")
    _mode = "gpu"


def set_device(device_id: int) -> None:
    """Choose the GPU for GPU mode, by its number.

    Raises:
        CaffeError: not a whole number, 0 or more; or GPU mode is available, and there is no such device.
    """
    global _device_id
    device_id = _whole(device_id, "set_device")
    if device_id < 0:
        raise CaffeError(f"set_device({device_id}): devices are numbered from 0")
    if torch.cuda.is_available() and not 0 <= device_id < torch.cuda.device_count():
        raise CaffeError(f"set_device({device_id}): there are {torch.cuda.device_count()} devices, numbered from 0")
    _device_id = device_id


def current_device() -> torch.device:
    """The device that the mode stands for."""
    return torch.device("cpu") if _mode == "cpu" else torch.device("cuda", _device_id)


def set_random_seed(seed: int) -> None:
    """Seed every random choice: fillers, dropout, crops and mirrors."""
    torch.manual_seed(_whole(seed, "set_random_seed"))


def solver_count() -> int:
    """How many processes train together."""
    return _solver_count


def set_solver_count(count: int) -> None:
    """Say how many processes train together, before the solver is made.

    Raises:
        CaffeError: it is below 1.
    """
    global _solver_count
    count = _whole(count, "set_solver_count")
    if count < 1:
        raise CaffeError(f"set_solver_count({count}): the number of solvers must be at least 1")
    _solver_count = count


def solver_rank() -> int:
    """The number of this process, from 0."""
    return _solver_rank


def set_solver_rank(rank: int) -> None:
    """Say which of the processes this is, before the solver is made. The first one, 0, logs, tests and writes snapshots.

    Raises:
        CaffeError: it is below 0.
    """
    global _solver_rank
    rank = _whole(rank, "set_solver_rank")
    if rank < 0:
        raise CaffeError(f"set_solver_rank({rank}): ranks are counted from 0")
    _solver_rank = rank


def set_multiprocess(yes: bool) -> None:
    """Does nothing: several solvers are always several processes here. Scripts that train in parallel call it."""

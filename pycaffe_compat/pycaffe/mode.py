"""Where new nets live: Caffe's process-wide CPU or GPU mode."""

from __future__ import annotations

import torch

from ..errors import CaffeError

_mode = "cpu"
_device_id = 0


def set_mode_cpu() -> None:
    """Let nets and solvers made from now on live on the CPU."""
    global _mode
    _mode = "cpu"


def set_mode_gpu() -> None:
    """Let nets and solvers made from now on live on the GPU that :func:`set_device` chose (0 at first).

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
        CaffeError: GPU mode can be used, and there is no such device.
    """
    global _device_id
    if torch.cuda.is_available() and not 0 <= device_id < torch.cuda.device_count():
        raise CaffeError(f"set_device({device_id}): there are {torch.cuda.device_count()} devices, numbered from 0")
    _device_id = device_id


def current_device() -> torch.device:
    """The device that the mode stands for."""
    return torch.device("cpu") if _mode == "cpu" else torch.device("cuda", _device_id)


def set_random_seed(seed: int) -> None:
    """Seed every random choice: fillers, dropout, crops and mirrors."""
    torch.manual_seed(seed)

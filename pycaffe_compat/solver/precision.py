"""What mixed precision is worth on a CPU: not all processors have instructions for bfloat16."""

from __future__ import annotations

import time

import torch

SIZE = 512  # a product of some milliseconds that no cache makes faster than it is
TURNS = 3


def product_rate(dtype: torch.dtype) -> float:
    """Return the rate of matrix products in ``dtype`` on the CPU, in FLOP/s: the best of a few, warmed up."""
    a, b = (torch.full((SIZE, SIZE), 0.5, dtype=dtype) for _ in range(2))
    times = []
    for _ in range(1 + TURNS):
        began = time.perf_counter()
        torch.mm(a, b)
        times.append(time.perf_counter() - began)
    return 2 * SIZE**3 / min(times[1:])


def slow_precision(dtype: torch.dtype) -> str:
    """Return a warning where the CPU multiplies matrices more slowly in ``dtype`` than in float32; else ``""``."""
    low, full = product_rate(dtype), product_rate(torch.float32)
    if low >= full:
        return ""
    name = str(dtype).removeprefix("torch.")
    return (
        f"this CPU multiplies matrices at {low / 1e9:,.0f} GFLOP/s in {name} and at {full / 1e9:,.0f} in float32: "
        f"--amp {name} is slower here"
    )

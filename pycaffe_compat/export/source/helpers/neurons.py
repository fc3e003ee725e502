"""Values one by one."""

from __future__ import annotations

from torch import Tensor


def fixed_point(x: Tensor, step: float, bits: int) -> Tensor:
    """Multiples of ``step`` within ``bits`` bits, halves rounded up."""
    place = x / step
    whole = place.floor()
    whole = whole + (place - whole >= 0.5).to(x.dtype)
    return (whole * step).clamp(-(2 ** (bits - 1)) * step, (2 ** (bits - 1) - 1) * step)

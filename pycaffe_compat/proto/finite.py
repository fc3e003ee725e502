"""Options that are no numbers: NaN in any of them, infinity where it bounds nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

_BOUNDS = {"min", "max", "threshold", "clip", "limit", "margin", "value"}  # in names of fields that may be infinite


def not_numbers(message: Any, path: str = "") -> Iterator[str]:
    """Yield the fields of a message and of its messages that hold NaN, or infinity where it makes no sense.

    Infinity makes sense in a bound (``clip_param.max``) and as the value of a filler, and nowhere else. Weights are not
    looked at.

    Args:
        message: a ``LayerParameter`` or ``SolverParameter``, for example.
        path: what leads to it.

    Yields:
        ``pooling_param.spatial_scale: nan must be a finite number``, or ``param[1].lr_mult: inf …``.
    """
    for field, value in message.ListFields():
        here = f"{path}.{field.name}" if path else field.name
        repeated = hasattr(value, "append") or hasattr(value, "add")
        if field.message_type is not None:
            if field.name != "blobs":
                for index, each in enumerate(value if repeated else (value,)):
                    yield from not_numbers(each, f"{here}[{index}]" if repeated else here)
        elif field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
            for index, number in enumerate(value if repeated else (value,)):
                bound = not math.isnan(number) and not _BOUNDS.isdisjoint(field.name.split("_"))
                if not math.isfinite(number) and not bound:
                    yield f"{here}{f'[{index}]' if repeated else ''}: {number} must be a finite number"

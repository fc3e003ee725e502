"""Whether a type of lower precision is worth it on this CPU."""

import re

import torch

from pycaffe_compat.solver.precision import slow_precision


def test_a_slower_type_is_named_with_both_rates() -> None:
    said = slow_precision(torch.float64)  # slower than float32 on every CPU
    rates = re.fullmatch(
        r"this CPU multiplies matrices at ([\d,]+) GFLOP/s in float64 and at ([\d,]+) in float32: "
        r"--amp float64 is slower here",
        said,
    )
    assert rates
    slow, fast = (int(rate.replace(",", "")) for rate in rates.groups())
    assert slow <= fast

"""How many threads an operator uses on the CPU."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch

from ..errors import SolverError
from ..memory.groups import control_groups, numbers

VARIABLE = "OMP_NUM_THREADS"

_MOST = 1024  # OpenMP crashes where the system refuses it a thread


def container_cores() -> int | None:
    """The cores that a container's quota allows, rounded up; None where there is no quota."""
    found = []
    for version, folder in control_groups("cpu"):
        if version == 2:
            given = numbers(folder / "cpu.max")  # "max", no quota, is no number
        else:
            given = [n for name in ("quota", "period") for n in numbers(folder / f"cpu.cfs_{name}_us") or ()]
        if given and len(given) == 2 and min(given) > 0:
            found.append(max(1, -(-given[0] // given[1])))
    return min(found, default=None)


@contextlib.contextmanager
def operator_threads(wanted: int | None = None) -> Iterator[str]:
    """Let operators use ``wanted`` threads while the block lasts; yield how many there are, and why, in words.

    None leaves PyTorch's own choice, one per core, which was faster than one thread except for the smallest nets
    (benchmarks/threads.md); only not more than a container's quota, which PyTorch does not look at: threads that have no
    core wait for each other.
    ``OMP_NUM_THREADS`` is left alone.

    Raises:
        SolverError: ``wanted`` is not 1 to 1024.
    """
    before = torch.get_num_threads()
    quota = container_cores()
    if wanted is not None:
        if wanted < 1:
            raise SolverError(f"--threads: {wanted} must be at least 1")
        if wanted > _MOST:
            raise SolverError(f"--threads: {wanted} must be at most {_MOST}")
        torch.set_num_threads(wanted)
        why = "as asked"
    elif VARIABLE in os.environ:
        why = VARIABLE
    elif quota is not None and quota < before:
        torch.set_num_threads(quota)
        why = f"the container's quota of {quota} core{'s' * (quota != 1)}"
    else:
        why = "one a core"
    try:
        yield f"{torch.get_num_threads()} ({why})"
    finally:
        torch.set_num_threads(before)

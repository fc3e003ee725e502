"""What a training says where a limit of the system leaves too little memory, as JSON: ``little_memory.py FOLDER``."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path

from small_solver import solver_param

from pycaffe_compat.errors import OutOfMemoryError
from pycaffe_compat.memory import release
from pycaffe_compat.solver import Solver
from pycaffe_compat.solver.resume import newest_sound

MORE = 10 << 20  # bytes that can still be had


def attempt(do: Callable[[], object]) -> str:
    """The error of ``do`` under the limit."""
    release()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MORE, before[1]))
    try:
        do()
    except OutOfMemoryError as error:
        return str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    return "no error"


def run(folder: Path) -> dict[str, str]:
    """Try what a solver with 60 MB of weights does, each without the memory for it."""
    param = solver_param(folder, "snapshot: 1")
    next(layer for layer in param.net_param.layer if layer.name == "ip").inner_product_param.num_output = 150_000
    solver = Solver(param)
    solver.step(1)
    state = folder / "small_iter_1.solverstate"
    said = {
        "build": attempt(lambda: Solver(param)),
        "restore": attempt(lambda: solver.restore(state)),
        "snapshot": attempt(solver.snapshot),
        "look": attempt(lambda: newest_sound(param)),
    }
    return {**said, "newest": newest_sound(param)}


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]))))

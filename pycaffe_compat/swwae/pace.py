"""How fast a training goes, as a file beside its curve, through interruptions."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from ..errors import SolverError
from ..files import atomic_path
from ..solver import Hook

PACE = "pace.json"
EVERY = 5.0  # seconds between two writes of a running step


class PaceFile(Hook):
    """Writes how many iterations have been run and how long they took, tests and snapshots included.

    A run that resumes adds to what was run before, so that the pace is that of all sittings.

    Args:
        path: a JSON of ``iteration``, where the training is; ``ran``, iterations that were run, those run twice counted twice;
            ``seconds``.
    """

    reads_update = False

    def __init__(self, path: str) -> None:
        self._path = path

    def before_training(self, solver: Any) -> None:
        before = read_pace(self._path)
        self._ran, self._seconds = before["ran"], before["seconds"]
        self._since = self._written = time.monotonic()

    def after_update(self, solver: Any) -> None:
        self._ran += 1
        if time.monotonic() - self._written > EVERY:
            self._write(solver.iter)

    def after_training(self, solver: Any) -> None:
        self._write(solver.iter)

    def _write(self, iteration: int) -> None:
        self._written = time.monotonic()
        seconds = self._seconds + self._written - self._since
        with atomic_path(self._path) as temporary, open(temporary, "w") as file:
            json.dump({"iteration": iteration, "ran": self._ran, "seconds": seconds}, file)


def read_pace(path: str) -> dict[str, Any]:
    """Return what :class:`PaceFile` wrote; zeros where there is no file.

    Raises:
        SolverError: it is another file.
    """
    names = ("iteration", "ran", "seconds")
    if not os.path.exists(path):
        return dict.fromkeys(names, 0)
    try:
        with open(path) as file:
            found = json.load(file)
        return {"iteration": int(found["iteration"]), "ran": int(found["ran"]), "seconds": float(found["seconds"])}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SolverError(f"{path}: not a file of training times; delete it") from error

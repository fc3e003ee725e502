"""Training curves as a table: what a solver displays and tests, a number a row, through interruptions."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..files import atomic_path
from ..solver import Hook
from ..solver.hooks import Scores

HEADER = ("iteration", "phase", "output", "value")
LOSS = "total loss"


@dataclass(frozen=True)
class Point:
    """A number of a curve: which output of the TRAIN or TEST net had which value after so many iterations."""

    iteration: int
    phase: str
    output: str
    value: float


def read_points(path: str) -> list[Point]:
    """Return the points of a table; none if there is no table. A line that a killed run left unfinished is left out."""
    if not os.path.exists(path):
        return []
    with open(path, newline="") as file:
        text = file.read()
    whole = text[: text.rfind("\n") + 1].splitlines()
    rows = list(csv.reader(whole))[1:]
    return [Point(int(row[0]), row[1], row[2], float(row[3])) for row in rows if len(row) == len(HEADER)]


class CurveFile(Hook):
    """Writes the losses and outputs that the solver displays, and the scores of its tests, as they come.

    A run that resumes at an iteration rewrites the rows from there on.

    Args:
        path: the table, a CSV of iteration, phase, output and value.
    """

    reads_update = False

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: Any = None

    def before_training(self, solver: Any) -> None:
        kept = [point for point in read_points(self._path) if point.iteration < solver.iter]
        with atomic_path(self._path) as temporary, open(temporary, "w", newline="") as file:
            rows = [(each.iteration, each.phase, each.output, f"{each.value:.8g}") for each in kept]
            csv.writer(file, lineterminator="\n").writerows([HEADER, *rows])
        self._file = open(self._path, "a", newline="")  # noqa: SIM115

    def after_backward(self, solver: Any) -> None:
        if solver.displaying:
            outputs = {name: value.float().cpu().numpy() for name, value in solver.outputs.items()}
            self._write(solver.iter, "TRAIN", {LOSS: solver.loss, **outputs})

    def after_test(self, solver: Any, index: int, scores: Scores) -> None:
        self._write(solver.iter, "TEST", scores)

    def after_training(self, solver: Any) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, iteration: int, phase: str, outputs: Mapping[str, Any]) -> None:
        if self._file is None:
            return
        rows = [(iteration, phase, name, f"{number:.8g}") for name, number in _numbers(outputs)]
        csv.writer(self._file, lineterminator="\n").writerows(rows)
        self._file.flush()


def _numbers(outputs: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Each output's numbers, with an index where there are several."""
    for name, values in outputs.items():
        numbers = np.asarray(values).reshape(-1).tolist()
        for index, number in enumerate(numbers):
            yield (name if len(numbers) == 1 else f"{name}[{index}]"), number

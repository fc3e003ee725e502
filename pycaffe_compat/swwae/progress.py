"""How far the steps of a run folder are, how fast they go, and what the rest will take."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from glob import escape, glob

from ..errors import SolverError, require_file
from ..tables import format_table
from .pace import PACE, read_pace
from .run_folder import MANIFEST, read_manifest, step_folders


@dataclass(frozen=True)
class Progress:
    """A step of a run.

    Attributes:
        name: its folder's.
        iterations: how many it has.
        iteration: how many are done.
        snapshot: where the newest snapshot is, 0 without one.
        pace: seconds an iteration, None where none was run.
    """

    name: str
    iterations: int
    iteration: int
    snapshot: int
    pace: float | None

    @property
    def left(self) -> int:
        """How many iterations are not done."""
        return self.iterations - self.iteration


def read_progress(folder: str) -> list[Progress]:
    """Return how far each step of a run folder is, in the order of the steps' numbers.

    Raises:
        MissingFileError: it is no run folder. SolverError: a file of it cannot be read.
    """
    manifest = os.path.join(folder, MANIFEST)
    require_file(manifest, "description of a run")
    configuration = read_manifest(manifest)["configuration"]
    try:
        lengths = {name: int(configuration[name]["max_iter"]) for name in ("solver", "decoder_solver")}
        names = step_folders(configuration["variants"], configuration["until"])
    except (KeyError, TypeError, ValueError) as error:
        raise SolverError(f"{manifest}: not the description of a run: {error!r}") from error
    return [_progress(os.path.join(folder, name), lengths) for name in names]


def _progress(folder: str, lengths: dict[str, int]) -> Progress:
    name = os.path.basename(folder)
    length = lengths["solver" if name.startswith("step4") else "decoder_solver"]
    pace = read_pace(os.path.join(folder, PACE))
    states = [
        int(match[1])
        for path in glob(f"{escape(folder)}/snapshot_iter_*.solverstate*")
        if (match := re.search(r"_iter_(\d+)\.solverstate(\.h5)?$", path))
    ]
    snapshot = max(states, default=0)
    done = bool(glob(f"{escape(folder)}/snapshot_iter_{length}.caffemodel*"))
    iteration = length if done else min(pace["iteration"] or snapshot, length)
    return Progress(name, length, iteration, snapshot, pace["seconds"] / pace["ran"] if pace["ran"] else None)


def expected_pace(step: Progress, steps: Sequence[Progress]) -> float | None:
    """Seconds an iteration of a step: its own, else the mean of the steps of its number, else of all; None if none was run."""
    if step.pace is not None:
        return step.pace
    paces = [(each.name[:5] == step.name[:5], each.pace) for each in steps if each.pace is not None]
    alike = [pace for same, pace in paces if same] or [pace for _, pace in paces]
    return sum(alike) / len(alike) if alike else None


def progress_text(folder: str) -> str:
    """Return a table of the steps of a run folder and a line that says what the rest will take.

    Errors are those of :func:`read_progress`.
    """
    steps = read_progress(folder)
    rows, total, known = [], 0.0, True
    for step in steps:
        pace = expected_pace(step, steps)
        if step.left and pace is None:
            known = False
        rest = step.left * pace if pace is not None else 0.0
        total += rest
        guess = "~" if step.pace is None else ""
        rows.append(
            [
                step.name,
                f"{step.iteration:,} of {step.iterations:,}",
                f"{step.snapshot:,}" if step.snapshot else "none",
                f"{guess}{pace:.3g} s" if pace is not None and (step.left or step.pace is not None) else "?",
                ("done" if not step.left else "?" if pace is None else duration(rest)),
            ]
        )
    table = format_table(["step", "iterations", "newest snapshot", "an iteration", "left"], rows, right=(1, 2, 3, 4))
    finished = not any(step.left for step in steps)
    if finished:
        last = "all steps are done"
    elif known:
        last = f"left: about {duration(total)}, at the pace of what has been run (~: of other steps)"
    else:
        last = "left: not known, because no step has noted its pace yet"
    return f"{table}\n{last}"


def duration(seconds: float) -> str:
    """Return ``3 d 4 h``, ``2 h 5 min``, ``4 min 10 s`` or ``12 s``."""
    whole = round(seconds)
    for size, name, smaller, lesser in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {name} {whole % size // smaller} {lesser}"
    return f"{whole} s"

"""The paper's training procedure, step by step, over the solver files in ``prototxt/``.

1. The classification net takes its pretrained weights.
2. The decoder is trained stage by stage (``layerwise``), the encoder fixed: a deep decoder is hard to train directly.
3. For ``first`` and ``all`` the top-down decoder starts from step 2 and is trained, the encoder still fixed.
4. The whole net is fine-tuned, classification and reconstruction together.

The paper gives the order; learning rates, batch sizes and lengths are this project's own choices (see the solver files).
"""

from __future__ import annotations

import glob
import os
import re
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import SolverError, require_file
from ..proto import read_solver
from .decoder import Decoder
from .prototxt import FOLDER

TRAINER = (sys.executable, str(Path(__file__).resolve().parents[2] / "tools" / "train_net.py"))
PROGRESS = re.compile(r"Iteration (?P<iteration>\d+).*?\bloss = (?P<loss>\S+)")
SCORE = re.compile(r"Test net output #\d+: (?P<name>\S+) = (?P<value>\S+)")


@dataclass(frozen=True)
class Stage:
    """One run of the trainer.

    Attributes:
        step: its number in the paper.
        title: what is trained.
        solver: the path of the solver file.
    """

    step: int
    title: str
    solver: str

    def weights(self) -> str:
        """The caffemodel that a finished run leaves."""
        param = read_solver(self.solver)
        return f"{param.snapshot_prefix}_iter_{param.max_iter}.caffemodel"

    def newest_state(self) -> str:
        """The newest solver state that an unfinished run left, or ``""``."""
        prefix = read_solver(self.solver).snapshot_prefix
        states = {
            int(found[1]): path
            for path in glob.glob(f"{glob.escape(prefix)}_iter_*.solverstate")
            if (found := re.search(r"_iter_(\d+)\.solverstate$", path))
        }
        return states[max(states)] if states else ""


def stages(decoder: Decoder) -> list[Stage]:
    """Return steps 2 to 4 for a variant: two runs for ``layerwise``, three for the others."""
    layerwise = f"{decoder.kind}_layerwise"
    steps = [Stage(2, f"{layerwise} decoder, encoder fixed", f"{FOLDER}/decoder/{layerwise}_solver.prototxt")]
    if decoder.objective != "layerwise":
        steps.append(
            Stage(3, f"{decoder.name} decoder, encoder fixed", f"{FOLDER}/decoder/{decoder.name}_solver.prototxt")
        )
    return [*steps, Stage(4, f"{decoder.name}, the whole net", f"{FOLDER}/{decoder.name}_solver.prototxt")]


def train_in_stages(decoder: Decoder, weights: str, options: Sequence[str] = ()) -> str:
    """Train a variant from the pretrained classifier ``weights`` to the end; return the path of the final weights.

    What an earlier call finished is not done again, and what it left unfinished goes on from its newest snapshot.

    Args:
        decoder: the variant.
        weights: the classification net's caffemodel (step 1).
        options: further arguments for ``tools/train_net.py`` (``--gpu all``, say).

    Raises:
        MissingFileError: ``weights`` is not there.
        SolverError: a run failed, or was stopped before its end.
    """
    require_file(weights, "the weights of the classification net")
    decoded = ""
    for stage in stages(decoder):
        final = stage.weights()
        if os.path.exists(final):
            print(f"step {stage.step}: {stage.title}: done before, {final}")
        else:
            state = stage.newest_state()
            start = f"{weights},{decoded}" if decoded else weights
            begin = ["--snapshot", state] if state else ["--weights", start]
            print(f"step {stage.step}: {stage.title}, from {state or start}", flush=True)
            command = [*TRAINER, "--solver", stage.solver, *begin, *options]
            if _run(command) or not os.path.exists(final):
                raise SolverError(
                    f"step {stage.step} did not end ({final} is not there); the same command goes on with it"
                )
        decoded = final
    return decoded


def _run(command: Sequence[str]) -> int:
    """Run the trainer and return its exit status; when this process is asked to stop, wait for the trainer's snapshot."""
    with subprocess.Popen(command) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:  # the trainer, in the same terminal, was interrupted too
            process.wait()
            raise
        except SystemExit:
            process.send_signal(signal.SIGINT)
            process.wait()
            raise


@dataclass
class Report:
    """What a run of the trainer said: ``iteration`` and ``loss`` as it went, ``scores`` of its newest test."""

    iteration: int
    loss: float
    scores: dict[str, float]


def run_trainer(
    solver: str, weights: str = "", log: str = "", options: Sequence[str] = (), threads: int | None = None
) -> Iterator[Report]:
    """Run ``tools/train_net.py`` and yield a report whenever it logs an iteration or a test score.

    Args:
        solver: path of the solver file.
        weights: caffemodels to start from, with commas.
        log: where the trainer's log goes.
        options: further arguments.
        threads: how many threads an operator may use on the CPU; None leaves it to torch and ``OMP_NUM_THREADS``.

    Raises:
        SolverError: it failed; with the last lines of its log.
    """
    command = [*TRAINER, "--solver", solver, "--no-progress", *options]
    if weights:
        command += ["--weights", weights]
    environment = dict(os.environ)
    if threads is not None:
        environment.setdefault("OMP_NUM_THREADS", str(threads))
    report = Report(0, float("nan"), {})
    tail: deque[str] = deque(maxlen=12)
    with (
        open(log or os.devnull, "w") as file,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            file.write(line)
            tail.append(line)
            if found := PROGRESS.search(line):
                report = Report(int(found["iteration"]), float(found["loss"]), report.scores)
                yield report
            elif found := SCORE.search(line):
                report.scores[found["name"]] = float(found["value"])
                yield report
    if process.returncode:
        raise SolverError(f"{' '.join(command)} failed:\n{''.join(tail).rstrip()}" + (f"\nsee {log}" if log else ""))

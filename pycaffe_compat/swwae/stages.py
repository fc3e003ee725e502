"""The paper's training procedure, step by step, each with a solver file: those in ``prototxt/``, or of a run folder.

1. The classification net takes its pretrained weights.
2. The decoder is trained stage by stage (``layerwise``), the encoder fixed: a deep decoder is hard to train directly.
3. For ``first`` and ``all`` the top-down decoder starts from step 2 and is trained, the encoder still fixed.
4. The whole net is fine-tuned, classification and reconstruction together.

The paper gives the order; learning rates, batch sizes and lengths are this project's own choices (see the solver files).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import CaffeError, SolverError, require_file
from ..proto import caffe_pb2, read_solver
from ..solver import Hook, distributed, run
from ..solver.resume import newest_sound
from ..solver.snapshot import filename
from .curves import CurveFile
from .decoder import Decoder
from .pace import PACE, PaceFile
from .prototxt import FOLDER

CPU = caffe_pb2.SolverParameter.CPU


@dataclass(frozen=True)
class Stage:
    """One training run, with a solver file of its own.

    Attributes:
        step: its number in the paper.
        title: what is trained.
        solver: the path of the solver file.
        curve: where losses and test scores are written as a table, and beside it the pace; ``""`` for nowhere.
    """

    step: int
    title: str
    solver: str
    curve: str = ""

    def param(self) -> Any:
        """The ``SolverParameter`` of the file."""
        return read_solver(self.solver)

    def weights(self) -> str:
        """The caffemodel that a finished run leaves."""
        param = self.param()
        return filename(param, param.max_iter, ".caffemodel")

    def newest_state(self) -> str:
        """The newest sound solver state that an unfinished run left, or ``""``."""
        return newest_sound(self.param())


def stages(decoder: Decoder) -> list[Stage]:
    """Return steps 2 to 4 for a variant: two runs for ``layerwise``, three for the others."""
    layerwise = f"{decoder.kind}_layerwise"
    steps = [Stage(2, f"{layerwise} decoder, encoder fixed", f"{FOLDER}/decoder/{layerwise}_solver.prototxt")]
    if decoder.objective != "layerwise":
        steps.append(
            Stage(3, f"{decoder.name} decoder, encoder fixed", f"{FOLDER}/decoder/{decoder.name}_solver.prototxt")
        )
    return [*steps, Stage(4, f"{decoder.name}, the whole net", f"{FOLDER}/{decoder.name}_solver.prototxt")]


def train_in_stages(decoder: Decoder, weights: str, **options: Any) -> str:
    """Train a variant from the pretrained classifier ``weights`` to the end; return the path of the final weights.

    A step that an earlier call finished is skipped; one that it left unfinished resumes from its newest snapshot. SIGINT and
    SIGTERM stop a run with a snapshot. Under ``torchrun`` all processes call this, and the first one decides.

    Args:
        decoder: the variant.
        weights: the classification net's caffemodel (step 1).
        options: for :func:`~pycaffe_compat.solver.run.train`: ``gpu="all"``, say.

    Raises:
        MissingFileError: ``weights`` is not there.
        SolverError: a run failed, or ended before its last iteration.
        KeyboardInterrupt, SystemExit: a signal stopped a run.
    """
    return train_stages(stages(decoder), weights, **options)


def train_stages(steps: Sequence[Stage], weights: str, **options: Any) -> str:
    """Train stages in order, each from ``weights`` and those of the stage before it; return the path of the last weights.

    Arguments, what is skipped or resumed, and errors are those of :func:`train_in_stages`.
    """
    require_file(weights, "the weights of the classification net")
    run.launch_if_several(options.get("gpu", ""), options.get("cpu", False))
    decoded = ""
    on_cpu = options.get("cpu", False) or any(stage.param().solver_mode == CPU for stage in steps)
    with distributed.group(use_gpu=not on_cpu):
        for stage in steps:
            _train_stage(stage, f"{weights},{decoded}" if decoded else weights, options)
            decoded = stage.weights()
    return decoded


def _train_stage(stage: Stage, start: str, options: Mapping[str, Any]) -> None:
    """Train one stage to its end, unless that is done."""
    final = stage.weights()
    first = distributed.rank() == 0
    done, state = distributed.from_first((os.path.exists(final), stage.newest_state()) if first else None)
    if done:
        if first:
            print(f"step {stage.step}: {stage.title}: done before, {final}")
        return
    if first:
        print(f"step {stage.step}: {stage.title}, from {state or start}", flush=True)
    begin = {"snapshot": state} if state else {"weights": start}
    hooks: list[Hook] = []
    if stage.curve and first:
        hooks = [CurveFile(stage.curve), PaceFile(os.path.join(os.path.dirname(stage.curve), PACE))]
    again = "the same command goes on with it"
    try:
        solver = run.train(stage.solver, **begin, sigterm_effect="stop", hooks=hooks, **options)
    except CaffeError as error:
        raise SolverError(f"step {stage.step} did not finish: {error}; {again}") from error
    run.end_if_stopped(solver)
    if not distributed.from_first(os.path.exists(final)):
        raise SolverError(f"step {stage.step} did not finish ({final} does not exist); {again}")

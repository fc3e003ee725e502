"""Training and testing as the command lines ``train`` and ``test`` do, as functions."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, TextIO

import numpy as np
import torch

from ..errors import SolverError, require_file
from ..net import Net
from ..proto import caffe_pb2, read_solver
from . import denormals, distributed
from . import log as lines
from .hooks import Hook, Progress, TensorBoard
from .layout import prefers_channels_last
from .log import init_log, log, log_to, on_terminal
from .loop import Solver, choose_device
from .nets import warn_of_missing
from .precision import slow_precision
from .resume import newest_sound
from .runner import AMP, GraphRunner
from .scores import Means, Precision, evaluates_detections
from .threads import operator_threads

ALL = "all"


def parse_gpus(text: str) -> list[int]:
    """Return the GPU numbers of ``"0,2"`` or ``"all"``; an empty list for ``""``.

    Raises:
        SolverError: no numbers, or GPUs that are not here.
    """
    if not text:
        return []
    have = torch.cuda.device_count()
    if text == ALL:
        if not have:
            raise SolverError("--gpu all: torch finds no GPU on this machine; remove --gpu to train on the CPU")
        return list(range(have))
    try:
        ids = [int(part) for part in text.split(",")]
    except ValueError:
        raise SolverError(f'--gpu: "{text}" is not a number, a comma-separated list of numbers, or "{ALL}"') from None
    missing = [i for i in ids if not 0 <= i < have]
    if missing:
        there = f"this machine has {have}, numbered from 0" if have else "torch finds none on this machine"
        raise SolverError(f"--gpu: there is no GPU {missing[0]}; {there}")
    return ids


def one_device(gpu: str, cpu: bool, what: str = "this") -> torch.device:
    """Return the device of the flags ``--gpu`` and ``--cpu`` for work that uses one; by default the first GPU, if there is one.

    Raises:
        SolverError: several GPUs, or one that is not here.
    """
    gpus = parse_gpus(gpu)
    if len(gpus) > 1:
        raise SolverError(f"--gpu: {what} uses one GPU, not {len(gpus)}")
    auto = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device("cpu" if cpu else f"cuda:{gpus[0]}" if gpus else auto)


def launch(gpus: Sequence[int]) -> None:
    """Start this program again, once for each GPU, through ``torchrun``. Does not return."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus))}
    module = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={len(gpus)}"]
    os.execve(sys.executable, [sys.executable, *module, *sys.argv], environment)


def train(
    solver: str,
    *,
    weights: str = "",
    snapshot: str = "",
    resume: bool = False,
    gpu: str = "",
    cpu: bool = False,
    iterations: int | None = None,
    level: int | None = None,
    stages: Sequence[str] = (),
    sigint_effect: str = "stop",
    sighup_effect: str = "snapshot",
    sigterm_effect: str = "none",
    progress: bool | None = None,
    tensorboard: str = "",
    amp: str | None = None,
    compile: bool = False,
    channels_last: bool | None = None,
    cuda_graph: bool = False,
    threads: int | None = None,
    device_transform: bool = False,
    hooks: Iterable[Hook] = (),
    log_file: TextIO | None = None,
) -> Solver:
    """Train as ``caffe train`` does; return the solver when it is done.

    Args:
        solver: path of the solver's prototxt.
        weights: caffemodels to start from, with commas.
        snapshot: a solver state to go on from; not together with ``weights``.
        resume: go on from the newest sound snapshot of the solver's ``snapshot_prefix``. Where there is none, start from
            ``weights``, or from the beginning. Not together with ``snapshot``.
        gpu: GPU numbers with commas, or ``"all"``; several start a process each. ``""``: what :func:`choose_device`
            says.
        cpu: use no GPU.
        iterations: instead of the solver's ``max_iter``.
        level, stages: added to the train net's state.
        sigint_effect, sighup_effect, sigterm_effect: as for :class:`Solver`.
        progress: show a progress bar; None: where standard error is a terminal.
        tensorboard: folder for TensorBoard's events.
        amp, compile, channels_last, cuda_graph: as for :class:`GraphRunner`.
        threads: how many threads an operator uses on the CPU; None: what :func:`.threads.operator_threads` picks.
        device_transform: as for :class:`Solver`.
        hooks: further hooks.
        log_file: where the log goes instead of standard error.

    Raises:
        SolverError: what is asked for cannot be done, or another of several processes has ended.
        OutOfMemoryError: the net needs more memory than there is; says what to reduce.
    """
    param = _to_train(solver, weights, snapshot, resume, iterations, level, stages)
    joined = distributed.joined()
    device = _device(param, gpu, cpu)
    if log_file is None:
        init_log(None if distributed.rank() == 0 else logging.WARNING)
    runner = partial(GraphRunner, amp=amp, compile=compile, channels_last=channels_last, cuda_graph=cuda_graph)
    try:
        with contextlib.nullcontext() if log_file is None else log_to(log_file), operator_threads(threads) as picked:
            own = _own_hooks(progress, tensorboard)
            _say_device(device, None if cpu else param, solver, picked)
            if resume:
                snapshot = _newest(param, weights)
            it = Solver(
                param,
                file=solver,
                weights="" if snapshot else weights,
                device=device,
                runner=runner,
                hooks=[*own, *hooks],
                device_transform=device_transform,
                sigint_effect=sigint_effect,
                sighup_effect=sighup_effect,
                sigterm_effect=sigterm_effect,
            )
            with contextlib.closing(it):
                _say_layout(it.net, amp, channels_last)
                _solve(it, snapshot)
        return it
    except BaseException as error:
        if (instead := distributed.lost(error)) is not None:
            raise instead from error
        raise
    finally:
        if not joined:
            distributed.stop()


def _to_train(
    solver: str,
    weights: str,
    snapshot: str,
    resume: bool,
    iterations: int | None,
    level: int | None,
    stages: Sequence[str],
) -> Any:
    """What the solver's file and the arguments of :func:`train` ask for, as a ``SolverParameter``."""
    if resume and snapshot:
        raise SolverError("give a snapshot to resume from, or resume, which finds the newest one, not both")
    if weights and snapshot:
        raise SolverError(
            "give weights to start from or a snapshot to go on from, not both: the snapshot has its weights"
        )
    if snapshot:
        require_file(snapshot, "solver state")
    param = read_solver(solver)
    if iterations is None and not param.HasField("max_iter"):
        raise SolverError(f"{solver}: max_iter is not set; set it, or pass --iterations N")
    if iterations is not None:
        param.max_iter = iterations
    if level is not None:
        param.train_state.level = level
    param.train_state.stage.extend(stages)
    return param


def _own_hooks(progress: bool | None, tensorboard: str) -> list[Hook]:
    """The hooks that :func:`train` itself adds, in the process that logs."""
    own: list[Hook] = []
    if distributed.rank() == 0:
        if on_terminal() if progress is None else progress:
            own.append(Progress())
        if tensorboard:
            own.append(TensorBoard(tensorboard))
    return own


def _say_device(device: torch.device, wanting: Any | None, solver: str, threads: str) -> None:
    """Log where the net computes.

    Args:
        device: where that is.
        wanting: the ``SolverParameter``, whose wish for a GPU is answered by a warning; None where the user asked for the CPU.
        solver: its file.
        threads: how many an operator uses on the CPU, and why.
    """
    if device.type != "cpu":
        log(lines.DEVICE, "Using GPUs %s", device.index)
        log(lines.DEVICE, "GPU %d: %s", device.index, torch.cuda.get_device_name(device))
        return
    log(lines.DEVICE, "Use CPU.")
    if wanting is not None and distributed.rank() == 0 and _asks_for_gpu(wanting):
        no_gpu = "%s: solver_mode: GPU, but PyTorch finds no GPU here: training on the CPU"
        log(lines.DEVICE, no_gpu, os.fspath(solver), level=logging.WARNING)
    log(lines.DEVICE, "Threads: %s; --threads overrides", threads)


def _asks_for_gpu(param: Any) -> bool:
    """Whether the solver file says ``solver_mode: GPU``; Caffe's default, which is the same, asks for nothing."""
    return param.HasField("solver_mode") and param.solver_mode == caffe_pb2.SolverParameter.GPU


def _solve(solver: Solver, snapshot: str) -> None:
    """Train to the end, from a snapshot if one is named."""
    if snapshot:
        log(lines.RESUMING, "Resuming from %s", snapshot)
    log(lines.STARTING, "Starting Optimization")
    solver.solve(snapshot or None)
    log(lines.ENDED, "Optimization Done.")


def _newest(param: Any, weights: str) -> str:
    """The snapshot that ``resume`` goes on from, the same in all processes; ``""`` where there is none."""
    found = distributed.from_first(newest_sound(param) if distributed.rank() == 0 else None)
    if not found:
        start = f"the weights {weights}" if weights else "the beginning"
        log(lines.RESTORING, "No sound snapshot of %s to resume from: starting from %s", param.snapshot_prefix, start)
    return found


def _say_layout(net: Net, amp: str | None, wanted: bool | None) -> None:
    """Log in which type and memory layout the net computes, and why; warn of a type that is slow here."""
    channels_last = prefers_channels_last(net, amp) if wanted is None else wanted
    faster = (
        "faster in mixed precision" if amp else "faster for images of this size" if channels_last else "the usual one"
    )
    why = "as asked" if wanted is not None else faster
    layout, other = ("channels_last", "--no-channels-last") if channels_last else ("NCHW", "--channels-last")
    log(lines.LAYOUT, "Computing in %s, memory layout %s (%s; %s overrides)", amp or "float32", layout, why, other)
    if amp and net.device.type == "cpu" and (slow := slow_precision(AMP[amp])):
        log(lines.LAYOUT, "%s", slow, level=logging.WARNING)


def end_if_stopped(solver: Solver) -> None:
    """Where a signal has stopped ``solver``, do to the program what the signal does without a solver.

    Of several processes all end, whichever the signal came to.

    Raises:
        KeyboardInterrupt: it was SIGINT. SystemExit: it was another one.
    """
    number = solver.stopped_by
    _, (stopped,) = distributed.agree(0.0, [number is not None], solver.device)
    if stopped and number in (None, signal.SIGINT):
        raise KeyboardInterrupt
    if number is not None:
        raise SystemExit(128 + number)


def launch_if_several(gpu: str, cpu: bool) -> list[int]:
    """Return the GPUs that ``gpu`` asks for; where they are several, start this program again with a process for each."""
    gpus = [] if cpu or distributed.launched() else parse_gpus(gpu)
    if len(gpus) > 1:
        launch(gpus)
    return gpus


def _device(param: Any, gpu: str, cpu: bool) -> torch.device:
    """The device of this process; where several GPUs are asked for, a process for each is started instead."""
    gpus = launch_if_several(gpu, cpu)
    if distributed.launched():
        return distributed.start(not cpu and param.solver_mode != caffe_pb2.SolverParameter.CPU)
    if cpu:
        return torch.device("cpu")
    return torch.device("cuda", gpus[0]) if gpus else choose_device(param)


def test(
    model: str,
    weights: str,
    *,
    iterations: int = 50,
    gpu: str = "",
    cpu: bool = False,
    level: int | None = None,
    stages: Sequence[str] = (),
    amp: str | None = None,
    ap_version: str = "Integral",
) -> dict[str, np.ndarray]:
    """Score a net as ``caffe test`` does: log the outputs of every batch, then their means; return the means by name.

    Of a net whose every output is one of a DetectionEvaluate layer, log and return the mean average precision instead.

    Args:
        model: path of the net's prototxt.
        weights: caffemodels, with commas.
        iterations: the number of batches.
        gpu, cpu, level, stages, amp: as for :func:`train`.
        ap_version: how precision is averaged, as a solver's field of that name says.
    """
    init_log()
    if iterations < 1:
        raise SolverError(f"iterations: {iterations} must be at least 1")
    device = one_device(gpu, cpu, "testing")
    log(lines.TEST_DEVICE, "Use %s.", "CPU" if device.type == "cpu" else f"GPU with device ID {device.index or 0}")
    paths = [path.strip() for path in weights.split(",") if path.strip()]
    net = Net(model, "TEST", level=level, stages=stages, weights=paths, device=device)
    try:
        if net.inputs:
            raise SolverError(
                f"{model}: the net has Input layers ({', '.join(net.inputs)}), so there is nothing to test it on"
            )
        warn_of_missing(net.load_report)
        if not net.load_report.loaded and any(layer.blob_specs for layer in net.layers.values()):
            raise SolverError(f"{weights} has no weights for any layer of {model}: is it from another net?")
        return _score(GraphRunner(net, amp=amp), iterations, ap_version)
    finally:
        net.close()


test.__test__ = False  # type: ignore[attr-defined]


@denormals.flushed()
def _score(runner: GraphRunner, iterations: int, ap_version: str) -> dict[str, np.ndarray]:
    log(lines.TEST_RUN, "Running for %d iterations.", iterations)
    loss = 0.0
    detects = evaluates_detections(runner.net)
    gathered = Precision(ap_version, shows_labels=True) if detects else Means()
    for index in range(iterations):
        objective, outputs = runner.forward()
        loss += float(objective)
        gathered.add(outputs)
        if not detects:
            for name, output in outputs.items():
                for value in output.double().reshape(-1).tolist():
                    log(lines.TEST_BATCH, "Batch %d, %s = %g", index, name, value)
    log(lines.TEST_TOTAL, "Loss: %g", loss / iterations)
    scores = gathered.scores()
    for name, values in scores.items():
        weight = runner.net.loss_weights.get(name, 0.0)
        for value in values.reshape(-1).tolist():
            note = f" (* {weight:g} = {weight * value:g} loss)" if weight else ""
            log(lines.TEST_MEAN, "%s = %g%s", name, value, note)
    return scores

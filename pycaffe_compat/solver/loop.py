"""The training loop: Caffe's ``Solver``."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import memory
from ..errors import CaffeError, DivergedError, SolverError, prefixed
from ..layers.data_layers import BatchSource
from ..loading import open_weights
from ..net import Net
from ..proto import caffe_pb2, format_text, read_solver, upgrade_solver, use_proto
from ..proto.additions import unsupported
from ..proto.finite import not_numbers
from . import debug, denormals, distributed
from . import log as lines
from .courses import SUPPORTED, Course
from .exhausted import explained, snapshots_named, warn_of_shortage
from .hooks import Callbacks, Display, Hook, Snapshot, Test
from .log import log
from .nets import tell_of_records, test_net_params, train_net_param, warn_of_missing, warn_of_untrained
from .policies import Policy
from .rules import CaffeOptimizer, make_optimizer
from .runner import GraphRunner, Runner
from .scores import FIELDS, check_kind, check_outputs, gathering
from .signals import SNAPSHOT, STOP, Signals
from .snapshot import EARLIER, Snapshots, nonfinite_parameter
from .waiting import Waiting

PathLike = str | os.PathLike[str]


def choose_device(param: Any) -> torch.device:
    """The device for a ``SolverParameter``: a GPU if there is one, unless the solver says ``solver_mode: CPU``."""
    if param.solver_mode == caffe_pb2.SolverParameter.CPU or not torch.cuda.is_available():
        return torch.device("cpu")
    if param.device_id >= torch.cuda.device_count():
        raise SolverError(
            f"device_id: {param.device_id} does not exist; this machine has {torch.cuda.device_count()} GPUs"
        )
    return torch.device("cuda", param.device_id)


class Solver:
    """Trains the net of a solver file.

    Args:
        param: the path of a solver prototxt, or a ``SolverParameter``.
        file: where a ``SolverParameter`` came from: for messages, and to find nets beside it.
        weights: caffemodels to start from, in addition to those that the solver names; a string may list several with commas.
        device: the nets' device; None chooses one (:func:`choose_device`).
        runner: makes the :class:`~pycaffe_compat.solver.runner.Runner` of the train net and of each test net.
        hooks: called after Caffe's own (test, display, snapshot).
        device_transform: let data layers send bytes, which the device of the nets turns into floats
            (:meth:`Net.transform_on_device`).
        sigint_effect, sighup_effect, sigterm_effect: ``"stop"``, ``"snapshot"`` or ``"none"``: what the signals do
            during :meth:`solve`.
        fork, proto: the fork of Caffe that the nets are for, and the user's own ``caffe.proto``, as for :class:`.CaffeModule`.

    Attributes:
        net, test_nets: the nets; those under test use the parameters of ``net``.
        iter: the number of updates done.
        loss: the newest loss, averaged over ``average_loss`` iterations.
        rate: the learning rate of the newest update.
        outputs: the outputs of the newest training pass, by name.
        waiting: how much time goes into waiting for data.
        optimizer, policy, runner, hooks: the parts that do the work.

    Raises:
        SolverError: a solver that cannot run; MissingFileError, ParseError, NetError for its files.
    """

    def __init__(
        self,
        param: Any,
        *,
        file: PathLike = "",
        weights: str | Sequence[PathLike] = (),
        device: torch.device | str | None = None,
        runner: Callable[[Net], Runner] = GraphRunner,
        hooks: Iterable[Hook] = (),
        device_transform: bool = False,
        sigint_effect: str = STOP,
        sighup_effect: str = SNAPSHOT,
        sigterm_effect: str = "none",
        fork: str = "",
        proto: PathLike = "",
    ) -> None:
        if proto:
            name = use_proto(proto)
            fork = fork or name
        self._read(param, file, fork)
        self._check()
        self._plan_course()
        self._signals = Signals(sigint_effect, sighup_effect, sigterm_effect)
        self.device = torch.device(device) if device is not None else choose_device(self.param)
        if self.device.type == "cpu":
            log(lines.MEMORY, "Recycling the memory of large tensors: %s", memory.recycle())
            log(lines.MEMORY, "Denormal numbers: %s", "kept" if denormals.kept() else "taken as 0")
        self.iter = 0
        self.rate = 0.0
        self.outputs: Mapping[str, Tensor] = {}
        self._stopping = self._solving = False
        self._losses: deque[float] = deque(maxlen=max(self.param.average_loss, 1))
        seed = self._seed()
        self.test_nets: list[Net] = []
        with explained(self.param, None, "building the nets"):
            self._build_nets(_paths(self.param.weights) + _paths([weights] if isinstance(weights, str) else weights))
        for source in self.net.sources.values():
            if isinstance(source, BatchSource):
                source.seed, source.rank, source.world = seed, distributed.rank(), distributed.world()
        if device_transform:
            self._transform_on_device()
        with prefixed(self.file) if self.file else contextlib.nullcontext():
            self.optimizer: CaffeOptimizer = make_optimizer(self.param, _groups(self.net))
        self.runner = runner(self.net)
        warn_of_shortage(self.param, self.net, self.runner.precision)
        self._snapshots = Snapshots(self.param, self.runner, self.test_nets, self.optimizer, self.policy, seed)
        self.test_runners = [runner(net) for net in self.test_nets]
        self.waiting = Waiting()
        self.hooks: list[Hook] = [Test(), Display(), Snapshot(), self.waiting, *hooks]

    def _read(self, param: Any, file: PathLike, fork: str) -> None:
        """Set ``param``, from a file or a message, and where it came from."""
        is_path = isinstance(param, (str, os.PathLike))
        if not is_path and getattr(getattr(param, "DESCRIPTOR", None), "name", "") != "SolverParameter":
            raise SolverError(
                f"a solver must be the path of a prototxt or a SolverParameter, not {param!r} ({type(param).__name__})"
            )
        self.file = os.fspath(param if is_path else file)
        self.param = read_solver(self.file, fork) if is_path else _own_copy(param)
        if fork:
            self.param.fork = fork

    def _plan_course(self) -> None:
        """Set how the learning rate, and what else forks let change, go on with the iterations."""
        self.policy = Policy.from_solver(self.param, self.file)
        try:
            self._course = Course(self.param, self.policy)
        except SolverError as error:
            raise SolverError(f"{self.file}: {error}" if self.file else str(error)) from None
        if assumed := self.policy.assumed():
            log(lines.POLICY, "%s", assumed, level=logging.WARNING)

    def _seed(self) -> int:
        """Seed this process's random numbers; return the seed that all processes share for their data."""
        if self.param.random_seed >= 0:
            torch.manual_seed(self.param.random_seed)
        seed = distributed.shared_seed()
        if distributed.rank():
            torch.manual_seed(seed + distributed.rank())
        return seed

    def _check(self) -> None:
        param, where = self.param, f"{self.file}: " if self.file else ""
        if wrong := next(not_numbers(param), ""):
            raise SolverError(f"{where}{wrong}")
        if not param.HasField("base_lr") and param.lr_policy != "multifixed":
            raise SolverError(f"{where}base_lr is not set; set the learning rate, for example base_lr: 0.01")
        for field, least in (("average_loss", 1), ("iter_size", 1), ("max_iter", 0), ("display", 0), ("snapshot", 0)):
            if getattr(param, field) < least:
                raise SolverError(f"{where}{field}: {getattr(param, field)} must be at least {least}")
        if any(n < 0 for n in param.test_iter):
            raise SolverError(f"{where}test_iter: {min(param.test_iter)} must not be negative")
        try:
            check_kind(param)
        except SolverError as error:
            raise SolverError(f"{where}{error}") from None
        supported = {"fork", *SUPPORTED, *(FIELDS if param.eval_type == "detection" else ())}
        if refused := unsupported(param, supported, set()):
            raise SolverError(f"{where}not supported: {'; '.join(refused)}")

    def _build_nets(self, paths: list[str]) -> None:
        log(lines.INITIALIZING, "Initializing solver from parameters: \n%s", format_text(self.param))
        net, file, source = train_net_param(self.param, self.file)
        tests = test_net_params(self.param, self.file)
        joint = "from" if "file: " in source else "specified in"
        log(lines.CREATING, "Creating training net %s %s", joint, source)
        weights = open_weights(paths)
        self.net = Net(net, file=file, weights=weights, device=self.device)
        try:
            for path in paths:
                log(lines.FINETUNING, "Finetuning from %s", path)
            for name in self.net.load_report.ignored:
                log(lines.IGNORING, "Ignoring source layer %s", name)
            if weights:
                warn_of_missing(self.net.load_report)
            for index, (net, file, source) in enumerate(tests):
                log(lines.CREATING_TEST, "Creating test net (#%d) specified by %s", index, source)
                self.test_nets.append(Net(net, file=file, weights=weights, device=self.device, share=self.net))
                if self.param.eval_type == "detection":
                    check_outputs(self.test_nets[index], file or self.file or "the solver's parameters")
                warn_of_untrained(index, self.test_nets[-1].load_report)
                tell_of_records(index, self.test_nets[-1], self.param.test_iter[index])
            log(lines.SCAFFOLDED, "Solver scaffolding done.")
        except BaseException:
            self._close_nets()
            raise

    def _transform_on_device(self) -> None:
        able = [name for net in (self.net, *self.test_nets) for name in net.transform_on_device()]
        if able:
            names = ", ".join(dict.fromkeys(able))
            log(lines.DATA, "Subtracting means, scaling and mirroring on the device: layers %s", names)
        else:
            log(lines.DATA, "--device-transform changes nothing: no Data or ImageData layer", level=logging.WARNING)

    # ---- what hooks look at

    @property
    def loss(self) -> float:
        """The mean of the newest ``average_loss`` losses; NaN before the first."""
        return sum(self._losses) / len(self._losses) if self._losses else math.nan

    @property
    def displaying(self) -> bool:
        """Whether this iteration is one that ``display`` asks for (and this process is the one that logs)."""
        return bool(self.param.display) and self.iter % self.param.display == 0 and distributed.rank() == 0

    @property
    def tests_now(self) -> bool:
        """Whether this iteration is one that ``test_interval`` asks for, counted from Intel's ``test_offset`` on."""
        interval: int = self.param.test_interval
        return bool(interval) and (self.iter - self.param.test_offset) % interval == 0

    @property
    def stopped_by(self) -> signal.Signals | None:
        """The signal that asked the newest :meth:`solve` to stop; None for none."""
        return self._signals.stopped_by

    def add_callback(self, on_start: Callable[[], None], on_gradients_ready: Callable[[], None]) -> None:
        """Call two functions in every iteration, as pycaffe does: a :class:`~.hooks.Callbacks` hook."""
        self.hooks.append(Callbacks(on_start, on_gradients_ready))

    # ---- training

    def solve(self, resume_file: PathLike | None = None) -> None:
        """Train to ``max_iter``, from a solver state if given, as Caffe's command line does.

        Raises:
            CaffeError: snapshots cannot be written, or another training writes those of the same prefix (found before
                anything is trained).
            DivergedError: the loss is no longer a finite number.
        """
        self._snapshots.check_folder()
        with self._snapshots.claimed():
            self._solve(resume_file)

    def _solve(self, resume_file: PathLike | None) -> None:
        log(lines.SOLVING, "Solving %s", self.net.caffe_name)
        log(lines.POLICY, "Learning Rate Policy: %s", self.param.lr_policy)
        if resume_file is not None:
            log(lines.RESTORING, "Restoring previous solver status from %s", os.fspath(resume_file))
            self.restore(resume_file)
            if self.iter >= self.param.max_iter:
                message = "Iteration %d is not before max_iter %d: nothing is left to train"
                log(lines.RESTORING, message, self.iter, self.param.max_iter, level=logging.WARNING)
        with self._signals:
            self._solving = True
            try:
                self._each("before_training")
                self.step(self.param.max_iter - self.iter)
                interval = self.param.snapshot
                if self.param.snapshot_after_train and not (interval and self.iter % interval == 0):
                    self.snapshot()
                if self._stopping:
                    log(lines.STOPPED, "Optimization stopped early.")
                    return
                self._last_look()
            finally:
                self._solving = False
                self._each("after_training")
        log(lines.DONE, "Optimization Done.")

    def _last_look(self) -> None:
        """Loss and test scores of the final parameters, where ``display`` and ``test_interval`` fall on the end."""
        if self.displaying:
            objective, self.outputs = self.runner.forward()
            self._losses.append(float(objective))
            log(lines.FINAL_LOSS, "Iteration %d, loss = %g", self.iter, self.loss)
        if self.tests_now:
            self.test_all()

    @denormals.flushed()
    def step(self, iterations: int) -> None:
        """Do ``iterations`` updates, with tests, display and snapshots where they fall.

        Raises:
            DivergedError: the loss is no longer a finite number; the parameters are those before this iteration.
            OutOfMemoryError: the memory does not suffice for an iteration.
        """
        end = self.iter + iterations
        if self.param.snapshot and self.iter // self.param.snapshot < end // self.param.snapshot:
            self._snapshots.check_folder()
        self._stopping = False
        while self.iter < end and not self._stopping:
            for hook in self.hooks:
                hook.before_iteration(self)
                if self._stopping:  # by a signal during a test
                    return
            with explained(self.param, self.net, f"iteration {self.iter}"):
                requested = self._accumulate()
                self._each("after_backward")
                self.optimizer.keep_update = self._update_is_read(last=self.iter + 1 == end)
                try:
                    self.apply_update()
                finally:
                    self.optimizer.keep_update = True
            self.iter += 1
            if requested:
                self._each("snapshot_requested")
            self._each("after_update")

    def _update_is_read(self, last: bool) -> bool:
        """Whether somebody may look for the update in the gradients: outside ``solve`` anybody, in it only the hooks."""
        asked = self.param.debug_info or self.param.snapshot_diff or any(hook.reads_update for hook in self.hooks)
        return not self._solving or last or self._stopping or bool(asked)

    def _accumulate(self) -> bool:
        """Run the ``iter_size`` passes of an iteration; return whether a signal asked for a snapshot meanwhile.

        The loss is looked at before anything is updated.
        """
        for layer in self.net.layers.values():
            layer.at_iteration(self.iter)
        self.runner.clear_gradients()
        loss, passes = 0.0, self.param.iter_size
        for index in range(passes):
            if self.displaying and self.param.debug_info:
                with debug.blobs_logged(self.net):
                    objective, self.outputs = self.runner.forward_backward(index == passes - 1)
            else:
                objective, self.outputs = self.runner.forward_backward(index == passes - 1)
            loss += float(objective) / passes
        asked = self._signals.take()
        loss, (stop, save) = distributed.agree(loss, [asked == STOP, asked == SNAPSHOT], self.device)
        self._stopping = stop
        if not math.isfinite(loss):
            raise self._diverged(loss)
        self._losses.append(loss)
        return save

    def apply_update(self) -> None:
        """Update the parameters from the gradients, which hold the update afterwards, at the rate of this iteration."""
        before = self.policy.current_step
        self.rate = self.policy.rate(self.param.base_lr, self.iter, self.loss)
        stepping = {"multistep": "MultiStep", "plateau": "Plateau"}.get(self.param.lr_policy)
        if stepping and self.policy.current_step != before:
            log(lines.MULTISTEP, "%s Status: Iteration %d, step = %d", stepping, self.iter, self.policy.current_step)
        if self.displaying:
            log(lines.RATE, "Iteration %d, lr = %g", self.iter, self.rate)
        for group in self.optimizer.param_groups:
            group["lr"], group["iter"] = self.rate, self.iter
            self._course.set(group, self.iter, self.rate)
        self.runner.parts.begin()
        if not self.runner.update(self.optimizer):
            log(lines.OVERFLOW, "Iteration %d: the scaled gradients overflowed; no update, a smaller scale", self.iter)
        self.runner.parts.end("update")
        if self.displaying:
            self._log_update()

    def _log_update(self) -> None:
        norm, most = self.optimizer.gradient_norm, self.param.clip_gradients
        if norm is not None and float(norm) > most:
            log(
                lines.CLIPPING,
                "Gradient clipping: scaling down gradients (L2 norm %g > %g) by scale factor %g",
                *(float(norm), most, most / float(norm)),
            )
        if self.param.debug_info:
            debug.log_updates(self.net)

    def _each(self, method: str, *args: Any) -> None:
        for hook in self.hooks:
            getattr(hook, method)(self, *args)

    # ---- testing

    def test_all(self) -> None:
        """Run every test net, unless a signal stops it."""
        for index in range(len(self.test_nets)):
            if not self._stopping:
                self.test(index)

    @denormals.flushed()
    def test(self, index: int = 0) -> dict[str, np.ndarray]:
        """Run test net ``index`` for its ``test_iter`` batches; return the mean of every output, by name.

        With ``eval_type: "detection"`` it is the mean average precision. Only the first of several processes tests. Where a
        signal stops the test, nothing is returned.
        """
        if distributed.rank():
            return {}
        log(lines.TESTING, "Iteration %d, Testing net (#%d)", self.iter, index)
        runner, iterations = self.test_runners[index], self.param.test_iter[index]
        gathered = gathering(self.param, self.test_nets[index])
        loss: float | Tensor = 0.0
        for _ in range(iterations):
            self._answer_signals()
            if self._stopping:
                log(lines.TESTING, "Test interrupted.")
                return {}
            net, when = self.test_nets[index], f"iteration {self.iter}, test net {index}"
            shown = debug.blobs_logged(net) if self.param.debug_info else contextlib.nullcontext()
            with explained(self.param, net, when), shown:
                objective, outputs = runner.forward()
            if self.param.test_compute_loss:
                loss += float(objective)
            gathered.add(outputs)
        if self.param.test_compute_loss and iterations:
            log(lines.TEST_LOSS, "Test loss: %g", loss / iterations)
        scores = gathered.scores()
        self._each("after_test", index, scores)
        return scores

    def _answer_signals(self) -> None:
        """Between the batches of a test; several processes answer at the next iteration, all together."""
        if distributed.world() == 1:
            asked = self._signals.take()
            if asked == SNAPSHOT:
                self.snapshot()
            self._stopping = self._stopping or asked == STOP

    # ---- snapshots

    def snapshot_filename(self, extension: str) -> str:
        """Caffe's name for a file of this iteration: ``PREFIX_iter_N`` and the extension, with ``.h5`` for HDF5."""
        return self._snapshots.filename(self.iter, extension)

    def snapshot(self) -> tuple[str, str]:
        """Write model and solver state; return their paths. Of several processes the first one writes.

        Raises:
            SolverError: the folder cannot be written to, or the disk is full; earlier snapshots are as they were, and
                the newest is named.
            OutOfMemoryError: the memory does not suffice to write it.
            DivergedError: a parameter holds a number that is not finite; nothing is written.
        """
        with explained(self.param, self.net, f"iteration {self.iter}, snapshot"), snapshots_named(self.param):
            return self._snapshots.write(self.iter, self._losses)

    def restore(self, path: PathLike) -> None:
        """Go on from a solver state: ours continues bit for bit; Caffe's own where its iteration count says.

        Raises:
            SolverError: it is no solver state, or not of this net and solver type.
            OutOfMemoryError: the memory does not suffice to read it.
        """
        with explained(self.param, self.net, f"restoring {os.fspath(path)}"):
            self.iter, losses = self._snapshots.restore(path)
        self._losses.clear()
        self._losses.extend(losses)

    # ---- trouble

    def _diverged(self, loss: float) -> DivergedError:
        """The error for a loss that is not finite, after the parameters of before are saved, if they are sound."""
        where = (
            self.runner.first_nonfinite()
            or "no layer, when the same batch is run again: the sum of the losses overflowed"
        )
        message = f"iteration {self.iter}: the loss is {loss}; the first number that is not finite is in {where}. "
        spoilt = nonfinite_parameter(self.net)
        if spoilt:
            return DivergedError(f"{message}The parameters are spoilt too ({spoilt}): {EARLIER}")
        state = self.snapshot_filename(".solverstate")
        try:
            self._snapshots.check_folder()
            if not os.path.exists(state) and self.param.snapshot_prefix:
                self.snapshot()
        except CaffeError as error:
            return DivergedError(f"{message}No snapshot could be written: {error}")
        return DivergedError(f"{message}The parameters before this iteration are in {state}; try a smaller base_lr")

    def close(self) -> None:
        """Stop the data layers of all nets; let go of the other processes. Nothing can be trained afterwards."""
        self.runner.close()
        self._close_nets()
        memory.release()

    def _close_nets(self) -> None:
        for net in (self.net, *self.test_nets):
            net.close()


def _own_copy(param: Any) -> Any:
    copy = caffe_pb2.SolverParameter.FromString(param.SerializeToString())
    upgrade_solver(copy)
    return copy


def _paths(weights: Sequence[PathLike]) -> list[str]:
    """The single paths of a list whose strings may hold several with commas."""
    return [path.strip() for given in weights for path in os.fspath(given).split(",") if path.strip()]


def _groups(net: Net) -> list[dict[str, Any]]:
    """The parameter groups of an optimizer: the learnable blobs with the same multipliers together."""
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for learnable in net.learnable:
        rate = learnable.lr_mult if isinstance(learnable.tensor, torch.nn.Parameter) else 0.0
        groups.setdefault((rate, learnable.decay_mult), []).append(learnable.tensor)
    return [{"params": tensors, "lr_mult": lr, "decay_mult": decay} for (lr, decay), tensors in groups.items()]

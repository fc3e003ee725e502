"""Caffe's solvers for numpy: ``SGDSolver(file)`` with ``net``, ``test_nets``, ``step`` and ``solve``."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch

from ..errors import SolverError, nearest
from ..files import text_path
from ..layers.data_layers import BatchSource
from ..net import CaffeModule
from ..proto import caffe_pb2, current, read_solver, use_proto
from ..solver import Solver as TorchSolver
from ..solver import distributed
from ..solver.runner import Pass, Runner
from .mode import current_device, solver_count, solver_rank
from .net import Net

PathLike = str | bytes | os.PathLike[str]
Callback = Callable[[], None]


@runtime_checkable
class SolverCallback(Protocol):
    """What ``solver.add_callback`` takes as one object, such as an :class:`~.parallel.NCCL`."""

    def on_start(self) -> None:
        """Called before the first pass of an iteration."""

    def on_gradients_ready(self) -> None:
        """Called before its update."""


class NumpyRunner(Runner):
    """A pass through the pycaffe interface, layer by layer, which leaves every blob's ``data`` and ``diff`` to look at."""

    def __init__(self, face: Net) -> None:
        super().__init__(face.module)
        self.face = face

    def clear_gradients(self) -> None:
        self.face.clear_param_diffs()

    def forward_backward(self, last: bool = True) -> Pass:
        self.parts.begin()
        objective = self.forward()
        self.parts.end("forward")  # the batch included: data layers are run as the others are
        self.face._backward(len(self.face.layers) - 1, 0)
        self.parts.end("backward")
        return objective

    def forward(self) -> Pass:
        objective = self.face._forward(0, len(self.face.layers) - 1)
        return objective, {name: self.face.blobs[name].synced_data.tensor() for name in self.face.outputs}

    def first_nonfinite(self) -> str | None:
        face = self.face
        given = {
            top: face.blobs[top].synced_data.tensor()
            for step in face.module.steps
            if not step.bottoms
            for top in step.tops
        }
        return face.module.first_nonfinite(given)


class SGDSolver:
    """Trains the net of a solver file, or of a ``SolverParameter``, by this class's rule, whatever ``type`` it names.

    ``solver`` is the :class:`pycaffe_compat.solver.Solver` behind it, which shares nets and parameters.

    Input blobs of its nets are filled by the caller before each step.
    """

    type_name = "SGD"

    def __init__(self, solver_file: PathLike | Any, fork: str = "", proto: PathLike = "") -> None:
        if proto:
            name = use_proto(os.fsdecode(proto))
            fork = fork or name
        is_message = getattr(getattr(solver_file, "DESCRIPTOR", None), "name", "") == "SolverParameter"
        if not is_message and not isinstance(solver_file, (str, bytes, os.PathLike)):
            raise _no_solver(solver_file)
        file = "" if is_message else os.fsdecode(solver_file)
        param = caffe_pb2.SolverParameter()
        param.CopyFrom(read_solver(file, fork) if file else current(solver_file))
        param.type = self.type_name
        faces: list[Net] = []

        def runner(module: CaffeModule) -> NumpyRunner:
            faces.append(Net.of(module))
            return NumpyRunner(faces[-1])

        self.solver = TorchSolver(param, file=file, device=current_device(), runner=runner, fork=fork)
        if solver_count() > 1 and distributed.world() == 1:  # the processes meet later, in NCCL
            for source in self.solver.net.sources.values():
                if isinstance(source, BatchSource):
                    source.rank, source.world = solver_rank(), solver_count()
            torch.manual_seed(torch.initial_seed() + solver_rank())
        self._faces = faces

    @property
    def net(self) -> Net:
        """The net that is trained."""
        return self._faces[0]

    @property
    def test_nets(self) -> list[Net]:
        """The nets that are tested, with the parameters of the trained one."""
        return self._faces[1:]

    @property
    def iter(self) -> int:
        """The number of updates done."""
        return self.solver.iter

    @property
    def param(self) -> Any:
        """The ``SolverParameter``."""
        return self.solver.param

    @property
    def lr(self) -> float:
        """The learning rate of the newest update."""
        return self.solver.rate

    def step(self, iterations: int) -> None:
        """Do ``iterations`` updates, with tests, display and snapshots where they fall.

        Raises:
            SolverError: it is no whole number from 0 on.
        """
        try:
            count = operator.index(iterations)
        except TypeError:
            count = -1
        if count < 0:
            raise SolverError(f"step({iterations!r}): the number of updates must be an integer of at least 0")
        self.solver.step(count)

    def solve(self, resume_file: PathLike | None = None) -> None:
        """Train to ``max_iter``, from a solver state if given."""
        self.net.sync_params()
        self.solver.solve(text_path(resume_file))

    def restore(self, state_file: PathLike) -> None:
        """Go on from a ``.solverstate`` (and the model that it names).

        Raises:
            TypeError: ``state_file`` is no path.
        """
        if not isinstance(state_file, (str, bytes, os.PathLike)):
            raise TypeError(
                f"restore takes the path of a solver state, not {state_file!r} ({type(state_file).__name__})"
            )
        self.net.sync_params()
        self.solver.restore(text_path(state_file))

    def snapshot(self) -> None:
        """Write model and solver state under ``snapshot_prefix``."""
        self.net.sync_params()
        self.solver.snapshot()

    def apply_update(self) -> None:
        """Update the parameters from their ``diff``, which holds the update afterwards."""
        self.net.sync_params()
        self.solver.apply_update()

    def increment_iter(self) -> None:
        """Count an iteration that a program ran by itself, with passes and ``apply_update``. An addition of Intel's Caffe."""
        self.solver.iter += 1

    def add_callback(self, on_start: Callback | SolverCallback, on_gradients_ready: Callback | None = None) -> None:
        """Call two functions in every iteration, one before its first pass and one before its update.

        They are given as two arguments, or as the methods of one object: an ``NCCL``.

        Raises:
            TypeError: they are no functions.
        """
        if on_gradients_ready is None and isinstance(on_start, SolverCallback):
            self.solver.add_callback(on_start.on_start, on_start.on_gradients_ready)
        elif callable(on_start) and callable(on_gradients_ready):
            self.solver.add_callback(on_start, on_gradients_ready)
        else:
            raise TypeError("add_callback takes two functions, on_start and on_gradients_ready, or an NCCL")

    def share_weights(self, net: Net) -> None:
        """Let ``net`` use the parameters of the train net, for the layers of the same names.

        Raises:
            TypeError: ``net`` is no Net.
        """
        if not isinstance(net, Net):
            raise TypeError(f"share_weights takes a Net, not {net!r} ({type(net).__name__})")
        net.share_with(self.net)


class NesterovSolver(SGDSolver):
    """``SGDSolver`` with the rule ``type: "Nesterov"``."""

    type_name = "Nesterov"


class AdaGradSolver(SGDSolver):
    """``SGDSolver`` with the rule ``type: "AdaGrad"``."""

    type_name = "AdaGrad"


class RMSPropSolver(SGDSolver):
    """``SGDSolver`` with the rule ``type: "RMSProp"``."""

    type_name = "RMSProp"


class AdaDeltaSolver(SGDSolver):
    """``SGDSolver`` with the rule ``type: "AdaDelta"``."""

    type_name = "AdaDelta"


class AdamSolver(SGDSolver):
    """``SGDSolver`` with the rule ``type: "Adam"``."""

    type_name = "Adam"


_SOLVERS: dict[str, type[SGDSolver]] = {
    cls.type_name: cls for cls in (SGDSolver, NesterovSolver, AdaGradSolver, RMSPropSolver, AdaDeltaSolver, AdamSolver)
}


def _no_solver(given: Any) -> TypeError:
    return TypeError(f"a solver is made from the path of a solver file, not from {given!r} ({type(given).__name__})")


def get_solver(solver_file: PathLike, fork: str = "", proto: PathLike = "") -> SGDSolver:
    """Return the solver of a file, by the ``type`` that it names.

    ``fork`` is the fork of Caffe that its nets are of, and ``proto`` the user's own ``caffe.proto``.

    Raises:
        SolverError: an unknown type.
    """
    if not isinstance(solver_file, (str, bytes, os.PathLike)):
        raise _no_solver(solver_file)
    file = os.fsdecode(solver_file)
    if proto:
        name = use_proto(os.fsdecode(proto))
        fork = fork or name
    param = read_solver(file, fork)
    cls = _SOLVERS.get(param.type)
    if cls is None:
        raise SolverError(
            f'{file}: unknown solver type "{param.type}"{nearest(param.type, _SOLVERS)}; valid: {", ".join(_SOLVERS)}'
        )
    return cls(file, fork)

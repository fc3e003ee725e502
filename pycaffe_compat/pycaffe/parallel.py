"""``caffe.NCCL``: several processes that train one net together, on ``torch.distributed``."""

from __future__ import annotations

import os
import tempfile
import uuid
import weakref

import torch.distributed as dist

from ..errors import CaffeError
from ..solver import distributed
from .mode import current_device, solver_count, solver_rank
from .solver import SGDSolver

_MPI_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")  # Open MPI, MPICH and Intel's, MVAPICH2


def has_nccl() -> bool:
    """Whether processes can train together here: NCCL between GPUs, gloo between CPUs."""
    return dist.is_available()


def mpi_init() -> None:
    """Does nothing: what the scripts of the Caffes that train by MPI call first. One process trains by itself.

    Raises:
        CaffeError: MPI has started several processes, which would each train by itself.
    """
    count = next((os.environ[name] for name in _MPI_SIZES if name in os.environ), "1")
    if count != "1":
        raise CaffeError(
            f"mpi_init: MPI has started {count} processes, which cannot train together here. Start one process, or several with "
            "torchrun (docs/training.md), or use caffe.NCCL"
        )


def mpi_finalize() -> None:
    """Does nothing, as :func:`mpi_init`."""


mpi_fin = mpi_finalize  # what the Caffe of the temporal segment networks calls it


class NCCL:
    """Averages the gradients of a solver over all processes.

    Every process calls :func:`set_solver_count` and :func:`set_solver_rank`, makes its solver, then ``NCCL(solver, uid)``
    with the same ``uid``; ``bcast`` and ``solver.add_callback(nccl)`` do the rest. A single process needs no others. Under
    ``torchrun`` the processes know each other already, and ``uid`` does not matter.

    Raises:
        CaffeError: ``torch.distributed`` is missing, or the other processes do not join.
    """

    def __init__(self, solver: SGDSolver, uid: bytes | str) -> None:
        self._solver = solver
        if solver_count() == 1 or (has_nccl() and dist.is_initialized()):
            return
        if not has_nccl():
            raise CaffeError(
                "NCCL: this build of torch has no torch.distributed, so several processes cannot train together"
            )
        if solver_rank() >= solver_count():
            raise CaffeError(f"NCCL: solver_rank {solver_rank()} of {solver_count()} solvers: ranks are counted from 0")
        backend = "nccl" if current_device().type == "cuda" and dist.is_nccl_available() else "gloo"
        place = uid.decode() if isinstance(uid, bytes) else uid
        try:
            distributed.init_group(backend, f"file://{place}", rank=solver_rank(), world_size=solver_count())
        except (RuntimeError, ValueError) as error:
            raise CaffeError(f"NCCL: the {solver_count()} processes did not meet at {place}: {error}") from error
        weakref.finalize(self, distributed.stop)

    @staticmethod
    def new_uid() -> bytes:
        """A name by which the processes of one machine find each other; pass it to all of them."""
        return os.path.join(tempfile.gettempdir(), f"pycaffe_compat-{uuid.uuid4().hex}").encode()

    def bcast(self) -> None:
        """Give every process the parameters of the first one."""
        self._solver.net.sync_params()
        if distributed.world() > 1:
            for learnable in self._solver.net.module.learnable:
                dist.broadcast(learnable.tensor.detach(), 0)

    def on_start(self) -> None:
        """Called before an iteration; does nothing."""

    def on_gradients_ready(self) -> None:
        """Average the gradients over all processes."""
        world = distributed.world()
        if world == 1:
            return
        self._solver.net.sync_params()
        for learnable in self._solver.net.module.learnable:
            gradient = learnable.tensor.grad
            if gradient is not None:
                dist.all_reduce(gradient)
                gradient.div_(world)

    def __call__(self, layer: int) -> None:
        """As a callback after each layer's backward pass (``layer_wise_reduce``): gradients wait until all are ready.

        They are averaged once an iteration, whatever ``iter_size`` is and whichever layers share parameters.
        """

"""Training by several processes, started by ``torchrun``: who this one is, and what all of them agree on."""

from __future__ import annotations

import contextlib
import datetime
import importlib
import os
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist

from ..errors import CaffeError, SolverError
from . import meeting, peers

_peers: peers.Peers | None = None


def launched() -> bool:
    """Whether ``torchrun`` started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def init_group(backend: str, *arguments: Any, **options: Any) -> None:
    """As ``torch.distributed.init_process_group``, after the modules that would keep the group for ever.

    Functions of PyTorch have the group that exists when they are imported as the default of an argument. The compiler
    imports them, and optimizers import the compiler.
    """
    importlib.import_module("torch._dynamo")
    dist.init_process_group(backend, *arguments, **options)


def joined() -> bool:
    """Whether this process is in a group already."""
    return dist.is_available() and dist.is_initialized()


def device(use_gpu: bool) -> torch.device:
    """The device of this process: the GPU of its number, or the CPU."""
    if use_gpu and torch.cuda.is_available():
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return torch.device("cpu")


def start(use_gpu: bool) -> torch.device:
    """Join the processes that ``torchrun`` started, unless that is done; return the device of this one.

    Raises:
        SolverError: the others do not come, or one of them ends meanwhile.
    """
    place = device(use_gpu)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    if not joined():
        _join("nccl" if place.type == "cuda" else "gloo")
    return place


def _join(backend: str) -> None:
    global _peers
    # the others wait while the first one tests: not a timeout but Peers finds out that a process is gone
    patience = datetime.timedelta(days=2)
    try:
        store, number, count = next(
            iter(dist.rendezvous("env://", timeout=datetime.timedelta(seconds=meeting.PATIENCE)))
        )
        store, everyone = meeting.meet(store, number, count, peers.me())
    except (RuntimeError, ValueError) as error:
        if isinstance(error, CaffeError):
            raise
        place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        why = (str(error).splitlines() or [""])[0]
        raise SolverError(
            f"the processes of this training cannot meet at {place} (MASTER_ADDR and MASTER_PORT): {why} Start as many as "
            f"WORLD_SIZE says (now {os.environ.get('WORLD_SIZE')}), each with its own RANK"
        ) from error
    store.set_timeout(patience)
    _peers = peers.Peers(dist.PrefixStore("pycaffe_compat", store), number, everyone)
    _peers.watch()  # from here on: connecting to a process that has just ended waits, too
    try:
        init_group(backend, store=store, rank=number, world_size=count, timeout=patience)
    except BaseException as error:
        instead = lost(error)
        stop()
        if instead is not None:
            raise instead from error
        raise


def stop() -> None:
    """Leave the group, if this process is in one."""
    global _peers
    if _peers is not None:
        _peers.leave()
        _peers = None
    if joined():
        dist.destroy_process_group()


def lost(error: BaseException) -> SolverError | None:
    """Return what to raise instead of ``error`` where it came because another process has ended; None where it did not."""
    return None if _peers is None else _peers.lost(error)


@contextlib.contextmanager
def group(use_gpu: bool) -> Iterator[None]:
    """Be in the group of the processes that ``torchrun`` started, if it did, for all that the block trains."""
    if not launched() or joined():
        yield
        return
    start(use_gpu)
    try:
        yield
    except BaseException as error:
        if (instead := lost(error)) is not None:
            raise instead from error
        raise
    finally:
        stop()


def rank() -> int:
    """The number of this process: 0 logs, tests and writes snapshots."""
    return dist.get_rank() if joined() else 0


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if joined() else 1


def shared_seed() -> int:
    """The seed of the first process, for what all must draw alike."""
    return from_first(torch.initial_seed())


def from_first(value: Any) -> Any:
    """Return the ``value`` of the first process in all of them."""
    values = [value]
    if world() > 1:
        dist.broadcast_object_list(values)
    return values[0]


def agree(loss: float, requests: list[bool], device: torch.device) -> tuple[float, list[bool]]:
    """Return the mean loss of all processes, and for each request whether any process makes it.

    A loss that is not finite anywhere is not finite everywhere afterwards.
    """
    if world() == 1:
        return loss, requests
    shared = torch.tensor([loss, *map(float, requests)], dtype=torch.float64, device=device)
    dist.all_reduce(shared)
    total, *asked = shared.tolist()
    return total / world(), [a > 0 for a in asked]

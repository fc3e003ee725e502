"""Training by several processes, started by ``torchrun``: who this one is, and what all of them agree on."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist

from ..errors import SolverError
from .peers import Peers

_peers: Peers | None = None


def launched() -> bool:
    """Whether ``torchrun`` started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def joined() -> bool:
    """Whether this process is in a group already."""
    return dist.is_available() and dist.is_initialized()


def device(use_gpu: bool) -> torch.device:
    """The device of this process: the GPU of its number, or the CPU."""
    if use_gpu and torch.cuda.is_available():
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return torch.device("cpu")


def start(use_gpu: bool) -> torch.device:
    """Join the processes that ``torchrun`` started, unless that is done; return the device of this one."""
    global _peers
    place = device(use_gpu)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    if not joined():
        # the others wait while the first one tests: not a timeout but Peers finds out that a process is gone
        backend, patience = "nccl" if place.type == "cuda" else "gloo", datetime.timedelta(days=2)
        store, number, count = next(iter(dist.rendezvous("env://")))
        store.set_timeout(patience)
        dist.init_process_group(backend, store=store, rank=number, world_size=count, timeout=patience)
        _peers = Peers(dist.PrefixStore("pycaffe_compat", store), number, count)
        _peers.watch()
    return place


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

"""Training by several processes, started by ``torchrun``: who this one is, and what all of them agree on."""

from __future__ import annotations

import datetime
import os

import torch
import torch.distributed as dist


def launched() -> bool:
    """Whether ``torchrun`` started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def start(use_gpu: bool) -> torch.device:
    """Join the processes that ``torchrun`` started; return the device of this one."""
    device = torch.device("cpu")
    if use_gpu and torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    # the others wait while the first one tests
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=datetime.timedelta(days=2))
    return device


def stop() -> None:
    """Leave the group, if this process is in one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """The number of this process: 0 logs, tests and writes snapshots."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def shared_seed() -> int:
    """The seed of the first process, for what all must draw alike."""
    seeds = [torch.initial_seed()]
    if world() > 1:
        dist.broadcast_object_list(seeds)
    return seeds[0]


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

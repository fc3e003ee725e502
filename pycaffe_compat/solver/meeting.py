"""How the processes of a training find each other, also where the store still holds what an earlier start wrote into it."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

import torch.distributed as dist

from ..errors import SolverError

PATIENCE = 600.0  # seconds until all have to be there: our choice
POLL = 0.02


def meet(store: Any, rank: int, world: int, about: str, patience: float | None = None) -> tuple[Any, list[str]]:
    """Wait until all processes of this start are there; return a store that only they share, and what each says about itself.

    ``torchrun`` keeps one store through its restarts. Without a part of its own, a new process reads where a dead one
    listened, and waits for it. The number of restarts does not tell starts apart: on several machines each counts its own.
    So every process announces itself under a new name, the first one publishes the names that it sees, and each answers
    once its own is among them. What earlier processes announced gets no answer.

    Args:
        store: a key-value store (``torch.distributed.Store``) that all share.
        rank, world: the number of this process, and how many there are.
        about: what the others get to know about this process.
        patience: how many seconds the others may take; None: ``PATIENCE``.

    Raises:
        SolverError: they took longer.
        RuntimeError: the store has ended.
    """
    patience = PATIENCE if patience is None else patience
    until = time.monotonic() + patience
    name = uuid.uuid4().hex
    store.set(f"here/{rank}", json.dumps([name, about]))
    while True:
        met = _lead(store, world, name) if rank == 0 else _follow(store, rank, name)
        if isinstance(met, list):
            return dist.PrefixStore(met[0][0], store), [said for _, said in met]
        if time.monotonic() > until:
            raise SolverError(
                f"rank {rank} has waited {patience:g} s for {met} of this training. Start as many processes as WORLD_SIZE "
                f"says (now {world}), each with its own RANK and the same MASTER_ADDR and MASTER_PORT"
            )
        time.sleep(POLL)


def _lead(store: Any, world: int, name: str) -> list[Any] | str:
    """Publish who is here; return all once they have answered, and else who is missing."""
    here = [_read(store, f"here/{rank}") for rank in range(world)]
    if None not in here and _read(store, "list") != here:
        store.set("list", json.dumps(here))
    answers = [f"answer/{name}/{process[0]}" if process else "" for process in here]
    missing = [f"rank {rank}" for rank in range(1, world) if not answers[rank] or not store.check([answers[rank]])]
    if missing:
        return ", ".join(missing)
    store.set(f"complete/{name}", json.dumps(here))
    return here


def _follow(store: Any, rank: int, name: str) -> list[Any] | str:
    """Answer where this process is in the list; return all once the first one has, and else who is missing."""
    listed = _read(store, "list")
    if listed is None or len(listed) <= rank or listed[rank][0] != name:
        return "rank 0"
    first = listed[0][0]
    store.set(f"answer/{first}/{name}", "1")
    complete = _read(store, f"complete/{first}")
    return "the other processes" if complete is None else complete


def _read(store: Any, key: str) -> Any:
    return json.loads(store.get(key)) if store.check([key]) else None

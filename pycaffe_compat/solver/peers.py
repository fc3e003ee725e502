"""Whether the other processes of a training still live, so that one that is killed does not leave the rest waiting."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from ..errors import CaffeError, SolverError

POLL = 0.5  # seconds between two looks at the others
GRACE = 10.0  # seconds in which a process that waits for a dead one may notice it by itself
_BROKEN = re.compile(r"gloo|nccl|connection|socket|peer|process ?group|store|broken pipe", re.IGNORECASE)


class Peers:
    """The processes that train together, and which of those on this machine have ended without being done.

    Args:
        store: a key-value store (``torch.distributed.Store``) that these processes share, and no earlier ones.
        rank: the number of this process.
        everyone: what :func:`me` says in each process.
    """

    def __init__(self, store: Any, rank: int, everyone: Sequence[str]) -> None:
        self._store, self._rank = store, rank
        self._host = socket.gethostname()
        self._others: dict[int, tuple[int, str]] = {}  # those on this machine: number and time of start
        for other, about in enumerate(everyone):
            number, started, host = about.split(" ", 2)
            if other != rank and host == self._host:
                self._others[other] = int(number), started
        self._over = threading.Event()
        self._failed = False
        atexit.register(self.leave)

    def watch(self) -> None:
        """Look at the others in the background until :meth:`leave`; end this process if it stays behind a dead one.

        Where the others are reached by sockets (gloo), waiting for a dead one fails at once. On GPUs of one machine (NCCL)
        nothing fails: the kernels wait for ever.
        """
        threading.Thread(target=self._watch, name="peers", daemon=True).start()

    def _watch(self) -> None:
        since = None
        while not self._over.wait(POLL):
            gone = self.gone()
            since = (since or time.monotonic()) if gone else None
            if since is not None and time.monotonic() - since > GRACE:
                if self._first_to_say():
                    print(self._words(gone), file=sys.stderr, flush=True)
                os._exit(1)

    def gone(self) -> list[int]:
        """The processes on this machine that have ended without :meth:`leave`."""
        dead = [other for other, (number, started) in self._others.items() if _started(number) != started]
        return [other for other in dead if not self._has_left(other)]

    def _has_left(self, other: int) -> bool:
        try:
            return bool(self._store.check([f"left/{other}"]))
        except RuntimeError:  # the store has ended with the process that kept it
            return False

    def leave(self) -> None:
        """Say that this process ends and that the others need not worry."""
        if self._over.is_set():
            return
        self._over.set()
        if not self._failed:  # else the others are to learn from its end that it has
            self._say_left()

    def _say_left(self) -> None:
        with contextlib.suppress(RuntimeError):
            self._store.set(f"left/{self._rank}", "1")

    def _first_to_say(self) -> bool:
        """Whether no other process has said yet that one is gone: one message is enough."""
        try:
            return self._store.add("said", 1) == 1
        except RuntimeError:
            return True

    def lost(self, error: BaseException) -> SolverError | None:
        """Return what to raise instead of ``error`` where it came because another process has ended, or None.

        Raises:
            SystemExit: it did, and another process has said so already.
        """
        failed = isinstance(error, RuntimeError) and not isinstance(error, CaffeError) and _BROKEN.search(str(error))
        if not failed and not isinstance(error, SystemExit):
            self._failed = not isinstance(error, KeyboardInterrupt)
            return None
        until = time.monotonic() + (3.0 if failed else 0.0)
        while not (gone := self.gone()) and time.monotonic() < until:
            time.sleep(0.05)
        if not gone and not failed:
            return None
        self._say_left()
        if not self._first_to_say():
            raise SystemExit(1) from error
        return SolverError(self._words(gone) if gone else f"{_ANOTHER}{_REST} The error here: {error}")

    def _words(self, gone: list[int]) -> str:
        names = ", ".join(f"rank {rank} (process {self._others[rank][0]} on {self._host})" for rank in gone)
        return f"{names} has ended, so rank {self._rank} stops too. {_REST}"


_ANOTHER = "another process of this training has ended. "
_REST = (
    "Its own message says why; if it has none, it was killed, perhaps for lack of memory (see dmesg). "
    "Start all of them again with --resume to go on from the newest snapshot"
)


def me() -> str:
    """This process in words for the others: its number, when it was started, and its machine."""
    return f"{os.getpid()} {_started(os.getpid())} {socket.gethostname()}"


def _started(number: int) -> str:
    """When process ``number`` was started, in the system's ticks; ``""`` where it has ended.

    Where there is no ``/proc``, ``"?"`` for one that lives.
    """
    try:
        with open(f"/proc/{number}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    except FileNotFoundError:
        if os.path.isdir("/proc/self"):
            return ""
    except (OSError, IndexError):
        pass
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        pass
    return "?"

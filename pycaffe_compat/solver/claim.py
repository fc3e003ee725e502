"""Only one training at a time writes the snapshots of a prefix.

A training holds a lock of the system on a hidden file beside its snapshots. The lock ends with the process, however that
ends, so a training that was killed holds up nobody. It is a POSIX record lock: it also holds between machines on NFS, and
processes that a training has forked, and that outlive it, do not have it.
"""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Iterator

from ..errors import SolverError
from . import log as lines
from .log import log

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_MOST = 200  # bytes of what a holder says of itself
_held: dict[str, int] = {}  # which process holds a file: a fork inherits this table, but no lock


@contextlib.contextmanager
def claimed(prefix: str) -> Iterator[None]:
    """Hold the snapshots of ``prefix`` for this training while the block lasts.

    Where the file cannot be locked, nothing is held, and the log says so.

    Raises:
        SolverError: another training holds them.
    """
    path = _path(prefix)
    try:
        if holds(prefix):
            raise BlockingIOError
        handle = _lock(path, os.O_CREAT)
    except BlockingIOError:
        raise SolverError(
            f"snapshot_prefix: {prefix}: another training writes its snapshots there ({holder(prefix)}); wait for it to end, or "
            "use another snapshot_prefix"
        ) from None
    except OSError as error:
        unnoticed = "Another training with this snapshot_prefix would go unnoticed: cannot lock %s: %s"
        log(lines.SNAPSHOT_NET, unnoticed, path, error.strerror)
        yield
        return
    with contextlib.suppress(OSError):  # a disk that is full takes the lock, if not the words
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {platform.node()} since {time.strftime('%F %T')}".encode())
    _held[path] = os.getpid()
    try:
        yield
    finally:
        if _held.pop(path) == os.getpid():
            with contextlib.suppress(OSError):
                os.unlink(path)  # while it is locked: see _lock
        os.close(handle)


def holds(prefix: str) -> bool:
    """Whether a training of this process holds the snapshots of ``prefix``."""
    return _held.get(_path(prefix)) == os.getpid()


def holder(prefix: str) -> str:
    """Say which training holds the snapshots of ``prefix``; ``""`` where none is known to."""
    path = _path(prefix)
    if holds(prefix):
        return "this process"  # to open and close the file would end its lock
    try:
        os.close(_lock(path))
    except BlockingIOError:
        with open(path, errors="replace") as file:
            return file.read(_MOST) or "which has just begun"
    except OSError:
        pass
    return ""


def _path(prefix: str) -> str:
    folder, name = os.path.split(os.path.abspath(prefix) if not prefix.endswith("/") else prefix)
    return os.path.join(os.path.realpath(folder), f".{name}.training")


def _lock(path: str, flags: int = 0) -> int:
    """Open and lock the file at ``path``; return its handle.

    Raises:
        BlockingIOError: another process has locked it.
        OSError: it cannot be opened, or there are no locks here.
    """
    if fcntl is None:
        raise OSError(0, "this system has no locks")
    while True:
        handle = os.open(path, os.O_RDWR | flags, 0o666)
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.exists(path) and os.path.samestat(os.fstat(handle), os.stat(path)):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its holder has just ended, and removed it

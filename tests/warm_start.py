"""New processes of Python without the seconds that PyTorch takes to import: forks of one that has imported and done nothing else.

For programs that compute with the package and end, or are killed. What is about a process itself (its signals, ``atexit``,
what it imports, another installation) needs :mod:`subprocess`.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PRELOADED = [
    "pycaffe_compat.commands.train_net",
    "pycaffe_compat.commands.train_stages",
    # What these, and experiments, import once they need it: torch._dynamo comes with the first optimizer.
    *("torch._dynamo", "matplotlib.figure", "scipy.ndimage", "scipy.stats"),
]


class Started:
    """A process that :func:`start` began, with what the tests use of ``subprocess.Popen``.

    Attributes:
        stdout, stderr: what it writes, as text.
    """

    def __init__(self, process: Any, *ends: Any) -> None:
        self._process = process
        self.pid: int = process.pid
        self.stdout, self.stderr = (os.fdopen(os.dup(each.fileno()), errors="replace") for each in ends)

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def wait(self, timeout: float = 300) -> int:
        """Return its exit status, which it must have within ``timeout`` seconds."""
        self._process.join(timeout)
        assert self.returncode is not None, f"process {self.pid} has not ended within {timeout} s"
        return self.returncode

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """Return all that it writes until it ends; it is killed after ``timeout`` seconds."""
        watchdog = threading.Timer(timeout, self.kill)
        watchdog.start()
        errors: list[str] = []
        reading = threading.Thread(target=lambda: errors.append(self.stderr.read()))
        reading.start()
        said = self.stdout.read()
        reading.join()
        self._process.join()
        watchdog.cancel()
        return said, errors[0]

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *_: object) -> None:
        self.stdout.close()
        self.stderr.close()
        self._process.join()


def start(
    *arguments: str | Path,
    cwd: str | Path = ".",
    env: Mapping[str, str] | None = None,
    merged: bool = False,
    session: bool = False,
) -> Started:
    """Run ``python SCRIPT …``, ``python -m MODULE …`` or ``python -c PROGRAM …``.

    Args:
        env: variables besides those of this process.
        merged: what it writes to either stream is in ``stdout``.
        session: it leads a session of its own, and a group of processes.
    """
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    (out, child_out), (err, child_err) = context.Pipe(duplex=False), context.Pipe(duplex=False)
    words = [str(each) for each in arguments]
    writes = (child_out, child_out if merged else child_err)
    environment = {**os.environ, **(env or {})}
    process = context.Process(target=_run, args=(words, str(Path(cwd).resolve()), environment, session, *writes))
    process.start()
    child_out.close()
    child_err.close()
    return Started(process, out, err)


def start_ranks(*arguments: str | Path, cwd: str | Path = ".") -> list[Started]:
    """Start a program twice, as the two processes of a training, without torchrun, whose agent would be a third."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        place = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    return [start(*arguments, cwd=cwd, env={**place, "RANK": str(each), "LOCAL_RANK": str(each)}) for each in range(2)]


def run(*arguments: str | Path, timeout: float = 300, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run to the end what :func:`start` would start; as ``subprocess.run`` with ``capture_output`` and ``text``."""
    with start(*arguments, **options) as process:
        said = process.communicate(timeout)
    return subprocess.CompletedProcess(arguments, process.returncode or 0, *said)


def _run(words: list[str], cwd: str, environment: dict[str, str], session: bool, out: Any, err: Any) -> None:
    """What the process does."""
    if session:
        os.setsid()
    for descriptor, end in ((1, out), (2, err)):
        os.dup2(end.fileno(), descriptor)
    out.close()
    err.close()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    if words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        sys.path.insert(0, "")
        exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
    elif words[0] == "-m":
        sys.argv = words[1:]
        sys.path.insert(0, "")
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        sys.path.insert(0, str(Path(words[0]).parent))
        runpy.run_path(words[0], run_name="__main__")

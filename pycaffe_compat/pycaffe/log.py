"""Caffe's log from Python: ``init_log`` shows it on standard error, ``log`` writes a line."""

from __future__ import annotations

from ..solver.log import LEVELS
from ..solver.log import init_log as _init_log
from ..solver.log import log as _log


def init_log(level: int = 0, stderr: bool = True) -> None:
    """Show log lines from ``level`` on: 0 information, 1 warnings, 2 errors, 3 fatal errors.

    They go to standard error, also without ``stderr``, where Caffe's go to files.
    """
    _init_log(LEVELS[min(max(level, 0), 3)])


def log(message: str) -> None:
    """Write a line of information to the log."""
    _log("_caffe.cpp:80", "%s", message)


def set_logging_disabled() -> None:
    """Show no log line from now on but those of fatal errors, as in FlowNet's and the temporal segment networks' Caffe."""
    init_log(3)

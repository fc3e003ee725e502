"""Log lines in the form of Caffe's logger, so that the log parsers people have keep working.

``I1122 09:13:00.123456 4242 solver.cpp:218] Iteration 0 (…), loss = 2.3``: level and date, time, process, source,
message. The source is the place in Caffe that writes the same line: parsers look for it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from io import TextIOWrapper
from typing import Any, TextIO

from tqdm import tqdm

logger = logging.getLogger("pycaffe_compat")

VARIABLE = "GLOG_minloglevel"
LEVELS = (logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)  # by Caffe's numbers, 0 to 3

ITERATION = "solver.cpp:218"
TRAIN_OUTPUT = "solver.cpp:237"
RATE = "sgd_solver.cpp:105"
TESTING = "solver.cpp:330"
TEST_LOSS = "solver.cpp:375"
TEST_OUTPUT = "solver.cpp:397"
SNAPSHOT_NET = "solver.cpp:447"
SNAPSHOT_STATE = "sgd_solver.cpp:273"
SOLVING = "solver.cpp:272"
POLICY = "solver.cpp:273"
RESTORING = "solver.cpp:278"
STOPPED = "solver.cpp:295"
FINAL_LOSS = "solver.cpp:310"
DONE = "solver.cpp:315"
INITIALIZING = "solver.cpp:45"
SCAFFOLDED = "solver.cpp:57"
CREATING = "solver.cpp:87"
MEMORY = "solver.cpp:43"
COMPILING = "net.cpp:255"
LAYOUT = "caffe.cpp:216"
DATA = "base_data_layer.cpp:73"
OVERFLOW = "sgd_solver.cpp:119"
CREATING_TEST = "solver.cpp:172"
MULTISTEP = "sgd_solver.cpp:44"
CLIPPING = "sgd_solver.cpp:96"
STATE_READ = "sgd_solver.cpp:356"
DEBUG = "net.cpp:593"
DEBUG_NORMS = "net.cpp:721"
FINETUNING = "caffe.cpp:155"
DEVICE = "caffe.cpp:217"
RESUMING = "caffe.cpp:235"
STARTING = "caffe.cpp:248"
ENDED = "caffe.cpp:259"
TEST_DEVICE = "caffe.cpp:275"
TEST_RUN = "caffe.cpp:288"
TEST_BATCH = "caffe.cpp:311"
TEST_TOTAL = "caffe.cpp:316"
TEST_MEAN = "caffe.cpp:328"
IGNORING = "net.cpp:744"


def on_terminal() -> bool:
    """Whether standard error is a terminal; it is nothing at all where the shell has closed it (``2>&-``)."""
    return sys.stderr is not None and sys.stderr.isatty()


def log(source: str, message: str, *values: Any, level: int = logging.INFO) -> None:
    """Log ``message % values`` as the line that Caffe writes at ``source``."""
    logger.log(level, message, *values, extra={"source": source})


class GlogFormatter(logging.Formatter):
    """Formats records as Caffe's logger does; those from elsewhere name their Python file and line."""

    def format(self, record: logging.LogRecord) -> str:
        letter = {logging.DEBUG: "I", logging.INFO: "I", logging.WARNING: "W", logging.CRITICAL: "F"}.get(
            record.levelno, "E"
        )
        when = time.localtime(record.created)
        micro = int(record.created % 1 * 1e6)
        source = getattr(record, "source", f"{record.filename}:{record.lineno}")
        stamp = f"{time.strftime('%m%d %H:%M:%S', when)}.{micro:06d}"
        return f"{letter}{stamp} {record.process:>5} {source}] {super().format(record)}"


class _GoesOn(logging.StreamHandler):
    """Loses lines that cannot be written, on a full disk say, and says so once on standard error."""

    _loses = False

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._loses and sys.stderr is not None:
            self._loses = True
            name = getattr(self.stream, "name", "")
            with contextlib.suppress(OSError):
                print(f"cannot write the log {name}: {error.strerror}; its lines are lost", file=sys.stderr, flush=True)


class LogFile(_GoesOn, logging.FileHandler):
    """A file that takes the log in Caffe's form, below the three lines that Caffe's logger heads a file with.

    It is made with its first line.
    """

    def __init__(self, path: str) -> None:
        logging.FileHandler.__init__(self, path, delay=True)
        self.setFormatter(GlogFormatter())

    def _open(self) -> TextIOWrapper:
        file = super()._open()
        with contextlib.suppress(OSError):  # the first line of the log reports it
            file.write(
                f"Log file created at: {time.strftime('%Y/%m/%d %H:%M:%S')}\n"
                f"Running on machine: {socket.gethostname()}\n"
                "Log line format: [IWEF]mmdd hh:mm:ss.uuuuuu threadid file:line] msg\n"
            )
        return file


class _BesideBar(_GoesOn):
    """Writes lines above a progress bar instead of through it; ``level`` None: from the level that the environment says."""

    def __init__(self, stream: TextIO, level: int | None) -> None:
        super().__init__(stream)
        self._asks = level is None

    def emit(self, record: logging.LogRecord) -> None:
        # looked up for each line, since scripts set it when this handler is there already
        if self._asks and record.levelno < environment_level():
            return
        with tqdm.external_write_mode(file=self.stream):
            super().emit(record)


@contextlib.contextmanager
def log_to(stream: TextIO) -> Iterator[None]:
    """Show the package's log only on ``stream`` while the block lasts; afterwards it goes where it went before."""
    before = logger.handlers[:], logger.level, logger.propagate
    init_log(stream=stream)
    try:
        yield
    finally:
        handlers, level, logger.propagate = before
        logger.handlers[:] = handlers
        logger.setLevel(level)


def environment_level() -> int:
    """The level from which on lines are shown, by the variable ``GLOG_minloglevel``: 0 (all), 1, 2 or 3."""
    number = os.environ.get(VARIABLE, "")
    return LEVELS[min(int(number), 3)] if number.isdecimal() else logging.INFO


def init_log(level: int | None = None, stream: TextIO | None = None) -> None:
    """Show the package's log on ``stream`` (standard error), in Caffe's form; a second call replaces the first.

    ``level`` is one of :mod:`logging`'s; None leaves it to the variable ``GLOG_minloglevel``, as in Caffe.
    """
    handler = _BesideBar(stream or sys.stderr, level)
    handler.setFormatter(GlogFormatter())
    logger.handlers[:] = [h for h in logger.handlers if not isinstance(h, _BesideBar)] + [handler]
    logger.setLevel(logging.INFO if level is None else level)
    logger.propagate = False

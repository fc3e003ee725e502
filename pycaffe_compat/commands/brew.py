"""Train, test and time nets with Caffe's own command line: `caffe-compat train --solver=solver.prototxt`."""

from __future__ import annotations

import contextlib
import getpass
import logging
import os
import socket
import time
from collections.abc import Iterable

from ..errors import CaffeError
from ..pycaffe import __version__
from ..solver.log import VARIABLE, LogFile, init_log, log, logger
from . import device_query, test_net, time_net, train_net
from .options import FLAG, Parser, command

BREWS = {
    "train": (train_net, "train or fine-tune a net"),
    "test": (test_net, "score a net"),
    "time": (time_net, "time each layer, forward and backward"),
    "device_query": (device_query, "show the GPUs"),
}
# All commands of Caffe share one set of flags, so scripts give a command flags that only another one uses.
UNUSED = {
    "train": {"model", "phase"},
    "test": {"solver", "snapshot", "phase", "sigint_effect", "sighup_effect"},
    "time": {"solver", "snapshot", "weights", "sigint_effect", "sighup_effect"},
    "device_query": {
        *("solver", "model", "snapshot", "weights", "iterations", "phase", "level", "stage"),
        *("sigint_effect", "sighup_effect"),
    },
}
# Flags of Caffe's logger: the log goes to standard error anyway, and the other flags have no counterpart here.
LOG_SWITCHES = ("logtostderr", "alsologtostderr", "colorlogtostderr", "log_prefix")
LOG_VALUES = ("v", "vmodule", "stderrthreshold", "logbufsecs", "logbuflevel")

EPILOG = """
commands:
{commands}
`%(prog)s COMMAND --help` shows the flags of a command. They can be written as in Caffe: -solver X, --solver=X. Flags that
only other commands use are ignored with a warning. -log_dir DIR also writes the log to a file in that folder, as in Caffe;
-minloglevel N (or GLOG_minloglevel=N in the environment) shows only warnings and errors (1) or only errors (2).

examples:
  %(prog)s train -solver solver.prototxt -weights bvlc_reference_caffenet.caffemodel -gpu 0
  %(prog)s test -model train_val.prototxt -weights net_iter_10000.caffemodel -iterations 100
  %(prog)s time -model deploy.prototxt -iterations 10
  %(prog)s device_query -gpu all
"""


def run(argv: list[str]) -> int | None:
    """Run the command that ``argv`` names; it may stand anywhere among the flags."""
    listed = "".join(f"  {name:14}{what}\n" for name, (_, what) in BREWS.items())
    parser = Parser(__doc__, EPILOG.format(commands=listed))
    parser.add_argument(
        "--version", action="version", version=f"caffe version {__version__}", help="print Caffe's version and exit"
    )
    parser.add_argument("command", choices=BREWS)
    if not argv:  # Caffe prints its usage too, with status 0
        parser.print_help()
        return 0
    _, argv = _take(argv, LOG_SWITCHES, valued=False)
    _, argv = _take(argv, LOG_VALUES)
    folders, argv = _take(argv, ["log_dir"])
    levels, argv = _take(argv, ["minloglevel"])
    name = next(
        (word for before, word in zip(["", *argv], argv, strict=False) if word in BREWS and not _asks(before)), ""
    )
    if not name:
        parser.parse_args(argv[:1])
    argv.remove(name)
    if levels:
        _log_from(levels[-1][1])
    init_log()
    if folders:
        _log_to(folders[-1][1])
    unused, argv = _take(argv, UNUSED[name])
    for flag, _ in unused:
        log("caffe.cpp:402", "-%s is not for %s: left out", flag, name, level=logging.WARNING)
    return BREWS[name][0].run(argv, f"{parser.prog} {name}")


def _asks(word: str) -> bool:
    """Whether the word after this one is the value of a flag."""
    match = FLAG.fullmatch(word)
    return match is not None and match[2] is None


def _take(argv: list[str], flags: Iterable[str], valued: bool = True) -> tuple[list[tuple[str, str]], list[str]]:
    """Split ``argv`` into the given flags, with their values, and the rest."""
    found, rest, words = [], [], iter(argv)
    for word in words:
        match = FLAG.fullmatch(word)
        if match is None or match[1] not in flags:
            rest.append(word)
        elif match[2] is not None or not valued:
            found.append((match[1], match[2] or ""))
        else:
            found.append((match[1], next(words, "")))
    return found, rest


def _log_from(level: str) -> None:
    """Show only log lines of this level and above, in this process and its children."""
    if level not in ("0", "1", "2", "3"):
        raise CaffeError(
            f'-minloglevel: "{level}" is not a level; valid: 0 (all), 1 (warnings), 2 (errors), 3 (fatal errors)'
        )
    os.environ[VARIABLE] = level


def _log_to(folder: str) -> None:
    """Also write the log to a file in ``folder``, named as by Caffe's logger, and link it as ``caffe.INFO``.

    Of several processes only the first does.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    if not os.path.isdir(folder):
        raise CaffeError(f"-log_dir: there is no folder {folder}; make it with: mkdir -p {folder}")
    if not os.access(folder, os.W_OK):
        raise CaffeError(f"-log_dir: cannot write to the folder {folder}; name another one, or or omit -log_dir")
    when = time.strftime("%Y%m%d-%H%M%S")
    name = f"caffe.{socket.gethostname()}.{getpass.getuser()}.log.INFO.{when}.{os.getpid()}"
    logger.addHandler(LogFile(os.path.join(folder, name)))
    newest = os.path.join(folder, "caffe.INFO")
    with contextlib.suppress(OSError):  # a file system without links
        if os.path.islink(newest):
            os.unlink(newest)
        os.symlink(name, newest)


main = command("caffe", run)
